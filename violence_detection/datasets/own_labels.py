"""Which names mean which class in one's own clips: those of folders, and labels in a CSV file.

A name counts as a whole, whatever the case of its letters. Only a few are accepted without being told; what others
mean in somebody's folder, that person says with --labels.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import UserError

#: What stands in an offered command where a person has to put a name.
WHICH = "WHICH"
ACCEPTED = {
    **dict.fromkeys(("fight", "fights"), "fight"),
    **dict.fromkeys(("nonfight", "nonfights", "non_fight", "no_fight", "nofight"), "nonfight"),
}
#: Names that say enough for a command to be offered, which the person who types it answers for.
_TELLING = {
    **ACCEPTED,
    **dict.fromkeys(("fighting", "violence", "violent"), "fight"),
    **dict.fromkeys(
        ("nofights", "no_fights", "no-fight", "no-fights", "non_fights", "non-fight", "non-fights", "nonviolence",
         "non_violence", "non-violence", "noviolence", "no_violence", "no-violence", "nonviolent", "non_violent",
         "non-violent", "normal", "peaceful"),
        "nonfight",
    ),
}  # fmt: skip
_ITEM = re.compile(r"(?:\\.|[^,\\])+")


@dataclass(frozen=True)
class Labels:
    """What is accepted by default and what --labels adds."""

    told: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str | None:
        """fight, nonfight, or None for a name that nobody has explained."""
        return ACCEPTED.get(_plain(name)) or self.told.get(_plain(name))

    def unused(self, names: Iterable[str]) -> list[str]:
        """Names of --labels that are none of those which occur."""
        return sorted(set(self.told) - {_plain(name) for name in names})


def parse(words: Sequence[str]) -> Labels:
    """Read the words of --labels: `fight=Violence,brawl nonfight=normal`; a comma in a name is written `\\,`.

    Raises UserError for what is no such word, and for names that would mean both classes.
    """
    told: dict[str, str] = {}
    for word in words:
        label, equals, names = word.partition("=")
        if label == WHICH:
            raise UserError(f"--labels: put fight or nonfight in place of {WHICH}. Received: {word!r}")
        if not equals or label not in CLASS_NAMES:
            raise UserError(
                f"--labels takes fight=NAME[,NAME] and nonfight=NAME[,NAME], and nothing else. Received: {word!r}"
            )
        items = [_plain(re.sub(r"\\(.)", r"\1", item)) for item in _ITEM.findall(names)]
        if not all(items) or not items:
            raise UserError(f"--labels {word!r} holds no name, or an empty one. Write {label}=NAME")
        for item in items:
            if item == WHICH.casefold():
                raise UserError(f"--labels: put the name of a folder in place of {WHICH}. Received: {word!r}")
            if (before := ACCEPTED.get(item) or told.get(item, label)) != label:
                raise UserError(
                    f"--labels calls {item!r} {label}, but it means {before}. A name means one class; "
                    "rename the folder or label, or leave the word out"
                )
            told[item] = label
    return Labels(told)


def telling(names: Iterable[str]) -> dict[str, str]:
    """Those names that tell a class to a person who reads them, for commands that are offered."""
    told = {name: _TELLING.get(_plain(name).replace(" ", "_")) for name in names}
    return {name: label for name, label in told.items() if label}


def as_words(meaning: Mapping[str, str]) -> tuple[str, ...]:
    """The words of --labels that say so: name -> class."""
    order = (*reversed(CLASS_NAMES), WHICH)
    classes = sorted(set(meaning.values()), key=order.index)
    return tuple(
        f"{label}=" + ",".join(re.sub(r"([\\,])", r"\\\1", name) for name, c in meaning.items() if c == label)
        for label in classes
    )


def is_accepted(name: str) -> bool:
    """Whether the name needs no --labels."""
    return _plain(name) in ACCEPTED


def one_spelling(name: str) -> str:
    """The name as it is with accents and letters stored as one sign; some systems store them as two."""
    return unicodedata.normalize("NFC", name)


def _plain(name: str) -> str:
    """Names are compared without regard to case, spaces around them and how accents are stored."""
    return one_spelling(name).strip().casefold()
