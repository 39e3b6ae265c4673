"""Which class a name means in one's own clips, where names are those of folders or labels in a CSV file.

Names are compared as a whole and without regard to case. Only a few are accepted by themselves; what any other name
means, the user says with --labels.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import UserError

#: Placeholder in a suggested command, for a class or a name that the user has to fill in.
WHICH = "WHICH"
#: Names that are accepted without --labels.
ACCEPTED = {
    **dict.fromkeys(("fight", "fights"), "fight"),
    **dict.fromkeys(("nonfight", "nonfights", "non_fight", "no_fight", "nofight"), "nonfight"),
}
#: Names that are clear enough to suggest a command with; whoever runs it confirms what they mean.
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
    """The names that are accepted by themselves, and those that --labels explains.

    `explained`: comparable name -> class.
    """

    explained: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> str | None:
        """The class of a name: fight, nonfight, or None if it is neither accepted nor explained."""
        return ACCEPTED.get(_plain(name)) or self.explained.get(_plain(name))

    def unused(self, names: Iterable[str]) -> list[str]:
        """The names that --labels explains but that are not among `names`."""
        return sorted(set(self.explained) - {_plain(name) for name in names})


def parse(words: Sequence[str]) -> Labels:
    """Read the words of --labels: `fight=Violence,brawl nonfight=normal`; a comma in a name is written `\\,`.

    Raises UserError for a word of another form, and for a name that would mean both classes.
    """
    explained: dict[str, str] = {}
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
            raise UserError(f"--labels {word!r} contains no name, or an empty one. Write {label}=NAME")
        for item in items:
            if item == WHICH.casefold():
                raise UserError(f"--labels: put the name of a folder in place of {WHICH}. Received: {word!r}")
            if (before := ACCEPTED.get(item) or explained.get(item, label)) != label:
                raise UserError(
                    f"--labels calls {item!r} {label}, but it means {before}. A name can mean only one class: "
                    "rename the folder or label, or leave that name out"
                )
            explained[item] = label
    return Labels(explained)


def telling(names: Iterable[str]) -> dict[str, str]:
    """The names whose class is clear to a reader, with that class; for suggested commands."""
    explained = {name: _TELLING.get(_plain(name).replace(" ", "_")) for name in names}
    return {name: label for name, label in explained.items() if label}


def as_words(meaning: Mapping[str, str]) -> tuple[str, ...]:
    """The words of --labels that express `meaning`, name -> class; the class may be WHICH."""
    order = (*reversed(CLASS_NAMES), WHICH)
    classes = sorted(set(meaning.values()), key=order.index)
    return tuple(
        f"{label}=" + ",".join(re.sub(r"([\\,])", r"\\\1", name) for name, c in meaning.items() if c == label)
        for label in classes
    )


def is_accepted(name: str) -> bool:
    """Whether the name is accepted without --labels."""
    return _plain(name) in ACCEPTED


def one_spelling(name: str) -> str:
    """The name in Unicode's form NFC: a letter and its accent are one character. Some systems store them as two."""
    return unicodedata.normalize("NFC", name)


def _plain(name: str) -> str:
    """The comparable form of a name: case, surrounding spaces and the storage of accents make no difference."""
    return one_spelling(name).strip().casefold()
