"""Settings are declared as frozen dataclasses whose fields carry their help text; all flags are made from them."""

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

#: Default upper limit of every number, whatever its unit: a larger one is a typing error.
_MOST = 10**9
#: The largest seed that TensorFlow and NumPy accept.
MOST_SEED = 2**32 - 1


@dataclasses.dataclass(frozen=True)
class Limits:
    """The range of a number: finite, from `least` to `most` inclusive, and greater than `above`, less than `below`."""

    least: float = 0
    most: float = _MOST
    above: float = -math.inf
    below: float = math.inf

    def check(self, name: str, value: float) -> None:
        """Raise UserError, naming the setting, if the value is out of range, infinite or NaN."""
        if not self.takes(value):
            raise UserError(f"{name} must be {self}. Received: {value}")

    def takes(self, value: float) -> bool:
        """Whether the value is finite and in range."""
        finite = isinstance(value, int) or math.isfinite(value)
        return finite and self.least <= value <= self.most and self.above < value < self.below

    def __str__(self) -> str:
        """The range for messages: "from 1 to 1,000", "above 0 and at most 1"."""
        low, high = self.above >= self.least, self.below <= self.most
        if not low and not high:
            return f"from {self.least:,} to {self.most:,}"
        first = f"above {self.above:,}" if low else f"at least {self.least:,}"
        return f"{first} and {f'below {self.below:,}' if high else f'at most {self.most:,}'}"


#: The limits of a seed that is only hashed, so that any number will do.
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
    """A dataclass field that can also be a command-line flag (`data_root` becomes `--data-root`).

    `default`: the value, or a callable that makes it. `bare`: the value of the flag when it is given without one.
    `many`: how the flag takes the values of a tuple: None, separated by commas; "append", the flag is repeated for each
    value; "words", any number of values after the flag. The latter two are for values that may contain commas.
    `shown_as`: the placeholder for the value in the help, if the type's name says too little. `limits`: the range of a
    number.
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


#: The types that fields are checked for, as error messages name them.
_KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", Path: "a path"}


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """Base of every config: checks all values against the fields' types, choices and limits, however it is created.

    HEADING: the heading in a script's help above the flags of this class.
    """

    HEADING: typing.ClassVar[str] = ""

    def __post_init__(self) -> None:
        """Convert text to paths (with `~` as the home folder), NumPy numbers to Python's, and lists to tuples.

        Raises UserError for a value that is not one of its field's choices, is of the wrong type, or is a number out of
        its limits.
        """
        hints = _type_hints(typing.cast("typing.Hashable", type(self)))
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata.get("choices")
            kind = plain_type(hints[field.name])
            if choices and value not in (*choices, field.default):
                raise UserError(f"{field.name} is {value!r}; it must be one of {', '.join(choices)}")
            if value is None and kind != hints[field.name]:
                continue
            name = f"{field.name} ({flag_of(field)})"
            if typing.get_origin(kind) is tuple:
                value = _checked_tuple(name, value, typing.get_args(kind)[0])
            elif kind in _KINDS:
                value = _checked(name, value, kind)
            if kind in (int, float) and field.metadata:
                field.metadata["limits"].check(name, value)
            object.__setattr__(self, field.name, value)


def plain_type(hint: Any) -> Any:
    """The type of a field without None: `int` for `int | None`."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(a for a in typing.get_args(hint) if a is not type(None))
    return hint


def _checked_tuple(name: str, value: Any, kind: type) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        example = f", {(value,)}" if isinstance(value, str | os.PathLike) else ""
        raise UserError(f"{name} takes several values: pass a tuple{example}. Received: {value!r}")
    return tuple(_checked(name, item, kind) for item in value)


def _checked(name: str, value: Any, kind: type) -> Any:
    converted = _converted(value, kind)
    if converted is None:
        raise UserError(f"{name} must be {_KINDS[kind]}. Received: {value!r}")
    return converted


def _converted(value: Any, kind: type) -> Any:
    """The value converted to `kind`, one of _KINDS, or None if its type does not fit. Integers stay int for float."""
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
    """Raise TypeError for a keyword that a public function does not accept; the message suggests and lists valid ones.

    call: the function as users write it, "violence_detection.load". config: the dataclass whose fields it accepts as
    keywords. own: its own parameters, name -> the field that each one sets, which is then not a keyword itself.
    """
    fields = [field.name for field in dataclasses.fields(config) if field.name not in own.values()]
    known = [*own, *(name for name in fields if name not in own)]
    by_field = {field: name for name, field in own.items()}
    for name in given:
        if name not in known:
            near = [by_field[name]] if name in by_field else difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean {near[0]}?" if near else "."
            raise TypeError(f"{call}() has no keyword {name!r}{meant} It takes {', '.join(known)}")


def flag_of(field: dataclasses.Field[Any]) -> str:
    """The field's command-line flag."""
    return "--" + field.name.replace("_", "-")


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The field's default value."""
    return field.default_factory() if callable(field.default_factory) else field.default


def as_flags(config: Any, always: Sequence[str] = ()) -> list[str]:
    """Command-line words that recreate this config: fields that differ from their defaults, and those in `always`."""
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
    """The path with `~` at its beginning replaced by the home folder; shells do not do so in `--output=~/x`."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # the home folder of an unknown user
        return Path(path)


def folder_of(variable: str, otherwise: Path | str) -> Path:
    """The folder in the environment variable, or `otherwise` if it is unset or empty; `~` is expanded in both."""
    return expanded(os.environ.get(variable) or otherwise)


def kaggle_json() -> Path:
    """The path of kaggle.json, the Kaggle client's settings and legacy credentials; it need not exist."""
    home = expanded("~/.kaggle")
    xdg = folder_of("XDG_CONFIG_HOME", "~/.config") / "kaggle"
    return folder_of("KAGGLE_CONFIG_DIR", home if home.exists() else xdg) / "kaggle.json"


def default_data_root() -> Path:
    """`$VIOLENCE_DATA`, else `/workspace/data` if /workspace exists, as on a pod with a volume, else `./data`."""
    return folder_of("VIOLENCE_DATA", "/workspace/data" if Path("/workspace").is_dir() else "data")
