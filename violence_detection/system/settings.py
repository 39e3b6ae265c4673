"""How settings are declared: frozen dataclasses whose fields say what they mean, the one source of every flag."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import numbers
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from violence_detection.errors import UserError

#: What no number of a setting is beyond, whatever its unit: a slip of the keyboard.
_MOST = 10**9
#: The seeds that TensorFlow and NumPy take.
MOST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Limits:
    """The numbers of a setting: finite ones from `least` to `most`, and of them those above `above`, below `below`."""

    least: float = 0
    most: float = _MOST
    above: float = -math.inf
    below: float = math.inf

    def check(self, name: str, value: float) -> None:
        """Raises UserError, which names the setting, for a number that it does not take; NaN is none."""
        if not self.takes(value):
            raise UserError(f"{name} must be {self}. Received: {value}")

    def takes(self, value: float) -> bool:
        """Whether it is such a number."""
        finite = isinstance(value, int) or math.isfinite(value)
        return finite and self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        """As people read it: "from 1 to 1,000", "above 0 and at most 1"."""
        low, high = self.above >= self.least, self.below <= self.most
        if not low and not high:
            return f"from {self.least:,} to {self.most:,}"
        first = f"above {self.above:,}" if low else f"at least {self.least:,}"
        return f"{first} and {f'below {self.below:,}' if high else f'at most {self.most:,}'}"


#: Of a seed that is only hashed.
ANY_NUMBER = Limits(least=-math.inf, most=math.inf)


def option(
    default: Any,
    help: str,
    *,
    choices: Sequence[str] | None = None,
    bare: str | None = None,
    many: str | None = None,
    shown_as: str | None = None,
    limits: Limits | None = None,
) -> Any:
    """A dataclass field that can be a command-line flag too (`data_root` becomes `--data-root`).

    `bare`: the value of the flag given without one. `many`: how a tuple is given, where its values may hold commas:
    "append", the flag once a value; "words", any number of values behind the flag; None: separated by commas.
    `shown_as`: what stands for a value in the help, where its type says too little. `limits`: which numbers it takes.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "bare": bare,
        "many": many,
        "shown_as": shown_as,
        "limits": limits or Limits(),
    }
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


#: What a field is declared to hold, as an error calls it.
_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", Path: "a path"}


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """Base of every config: it holds whatever made it, a script or a caller, to what its fields say.

    HEADING: below what the help of scripts has the flags of the fields that a class declares.
    """

    HEADING: typing.ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Paths given as text become paths, `~` in them the home folder, NumPy's numbers Python's, and lists tuples.

        Raises UserError for a value that is not among its field's choices, for one of another kind than is meant, and
        for a number beyond its limits.
        """
        hints = _type_hints(typing.cast("typing.Hashable", type(self)))
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata.get("choices")
            kind = plain_type(hints[field.name])
            if choices and value not in (*choices, field.default):
                raise UserError(f"{field.name} is {value!r}; it can be {', '.join(choices)}")
            if value is None and kind != hints[field.name]:
                continue
            name = f"{field.name} ({flag_of(field)})"
            if typing.get_origin(kind) is tuple:
                value = _several(name, value, typing.get_args(kind)[0])
            elif kind in _KINDS:
                value = _one(name, value, kind)
            if kind in (int, float) and field.metadata:
                field.metadata["limits"].check(name, value)
            object.__setattr__(self, field.name, value)


def plain_type(hint: Any) -> Any:
    """What a field holds besides None."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(a for a in typing.get_args(hint) if a is not type(None))
    return hint


def _several(name: str, value: Any, kind: type) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        example = f", {(value,)}" if isinstance(value, str | os.PathLike) else ""
        raise UserError(f"{name} takes several values: give a tuple{example}. Received: {value!r}")
    return tuple(_one(name, item, kind) for item in value)


def _one(name: str, value: Any, kind: type) -> Any:
    taken = _taken(value, kind)
    if taken is None:
        raise UserError(f"{name} must be {_KINDS[kind]}. Received: {value!r}")
    return taken


def _taken(value: Any, kind: type) -> Any:
    """The value as one of _KINDS, None where it is none of it. A whole number stays one where any number is meant."""
    if kind is Path:
        return expanded(value) if isinstance(value, str | os.PathLike) else None
    if kind in (bool, str):
        return value if isinstance(value, kind) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if kind is float and isinstance(value, numbers.Real) else None


@functools.cache
def _type_hints(config: Any) -> Mapping[str, Any]:
    return typing.get_type_hints(config)


def check_keywords(call: str, config: Any, given: Iterable[str], own: Mapping[str, str]) -> None:
    """Raise TypeError for a keyword that a public call does not take, with those that it does and the nearest of them.

    call: as people write it, "violence_detection.load". config: the dataclass whose fields it takes besides `own`, its
    own parameters: name -> the field that each stands for, which is then no keyword itself.
    """
    fields = [field.name for field in dataclasses.fields(config) if field.name not in own.values()]
    known = [*own, *(name for name in fields if name not in own)]
    by_field = {field: name for name, field in own.items()}
    for name in given:
        if name not in known:
            near = [by_field[name]] if name in by_field else difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean {near[0]}?" if near else "."
            raise TypeError(f"{call}() takes no keyword {name!r}{meant} It takes {', '.join(known)}")


def flag_of(field: dataclasses.Field[Any]) -> str:
    """The field's command-line flag."""
    return "--" + field.name.replace("_", "-")


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The field's default value."""
    return field.default_factory() if callable(field.default_factory) else field.default


def as_flags(config: Any, always: Sequence[str] = ()) -> list[str]:
    """The words of a command line that gives this config again: what differs from the defaults, and `always`."""
    words: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if "help" in field.metadata and (field.name in always or value != default_of(field)):
            words += _flag_words(flag_of(field), value, field.metadata["many"])
    return words


def _flag_words(flag: str, value: Any, many: str | None) -> list[str]:
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    if not isinstance(value, tuple):
        return [flag, str(value)]
    if many == "append":
        return [word for item in value for word in (flag, str(item))]
    if many == "words":
        return [flag, *map(str, value)]
    return [flag, ",".join(map(str, value))]


def expanded(path: os.PathLike[str] | str) -> Path:
    """The path; `~` at its beginning is the home folder, which a shell leaves as it is in `--output=~/x`."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # the home folder of a user whom there is not
        return Path(path)


def folder_of(variable: str, otherwise: Path | str) -> Path:
    """The folder that an environment variable names, else `otherwise`; of either, `~` as in `expanded`."""
    return expanded(os.environ.get(variable) or otherwise)


def kaggle_json() -> Path:
    """Where the Kaggle client keeps its settings, and looks for its older credentials."""
    home = expanded("~/.kaggle")
    xdg = folder_of("XDG_CONFIG_HOME", "~/.config") / "kaggle"
    return folder_of("KAGGLE_CONFIG_DIR", home if home.exists() else xdg) / "kaggle.json"


def default_data_root() -> Path:
    """`$VIOLENCE_DATA`, else `/workspace/data` where a pod's volume is mounted, else `./data`."""
    return folder_of("VIOLENCE_DATA", "/workspace/data" if Path("/workspace").is_dir() else "data")
