"""Suggest complete commands, ready to paste, that include the clips which are left out.

Videos that belong to no published data set may be somebody's own clips, and so may folders of an own set that name no
class. If a folder's name suggests a class, the command contains that class; if not, it contains the placeholder WHICH.
"""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.constants import CLASS_NAMES
from violence_detection.datasets import own_clips, own_labels
from violence_detection.datasets.config import OwnClipsConfig
from violence_detection.datasets.own_clips import OwnSet
from violence_detection.datasets.own_labels import WHICH
from violence_detection.find.inventory import Inventory
from violence_detection.system.figures import plural
from violence_detection.system.settings import as_flags

#: Names of folders with clips that are already divided into a split, which is worth keeping.
_SPLIT_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
#: How many folders or rows a message names.
_SHOWN = 12
#: Returns the command line with the given values of --own and --labels.
Command = Callable[[Sequence[str], Sequence[str]], str]


@dataclass(frozen=True)
class Offer:
    """A folder that may contain own clips, and the number of videos in each of its sub-folders."""

    folder: Path
    counts: Mapping[str, int]


def command(script: str, config: Any, *more: Any) -> Command:
    """Return a function that builds the script's command line with these settings.

    `config`: the config that has the fields `own` and `labels`, which the function's arguments replace. `more`: further
    configs. `--data-root` is always written out, other settings only if they are not the default.
    """

    def line(own: Sequence[str], labels: Sequence[str]) -> str:
        always = [f.name for f in dataclasses.fields(config) if f.name == "data_root"]
        words = as_flags(dataclasses.replace(config, own=(), labels=()), always)
        for others in (*more, OwnClipsConfig(tuple(own), tuple(labels))):
            words += as_flags(others)
        return shlex.join(["python", script, *words])

    return line


def offers(found: Inventory) -> list[Offer]:
    """The unknown folders of an inventory that may be class folders, grouped by their parent folder."""
    homes: dict[Path, Counter[str]] = defaultdict(Counter)
    rest: dict[Path, int] = {}
    for folder, count in found.unknown.items():
        if place := _telling_folder(folder, found.roots):
            homes[place.parent][place.name] += count
        else:
            rest[folder] = count
    for folder, count in list(rest.items()):
        if home := next((p for p in folder.parents if p in homes), None):
            homes[home][folder.relative_to(home).parts[0]] += count
            del rest[folder]
    for home, counts in _siblings(rest, found).items():
        homes[home] += counts
    return [Offer(home, dict(sorted(counts.items()))) for home, counts in sorted(homes.items())]


def _telling_folder(folder: Path, roots: Sequence[Path]) -> Path | None:
    """The nearest folder whose name suggests a class: `folder` or one above it, but below a root. None without one."""
    for place in (folder, *folder.parents):
        if place in roots:
            return None
        if own_labels.telling([place.name]):
            return place
    return None


def _siblings(folders: Mapping[Path, int], found: Inventory) -> dict[Path, Counter[str]]:
    """Group folders that may be class folders only because they are siblings, by their common parent."""
    known = [d.root for d in found.datasets]
    groups: dict[Path, list[Path]] = defaultdict(list)
    for folder in folders:
        root = max(
            (r for r in found.roots if folder.is_relative_to(r)), key=lambda r: len(r.parts), default=folder
        )
        if folder != root and any(k.is_relative_to(root) for k in known):
            root = root / folder.relative_to(root).parts[0]
        groups[root].append(folder)
    homes: dict[Path, Counter[str]] = {}
    for top, below in groups.items():
        while top not in below:
            names = {f.relative_to(top).parts[0] for f in below}
            if len(names) > 1:
                homes[top] = Counter()
                for folder in below:
                    homes[top][folder.relative_to(top).parts[0]] += folders[folder]
                break
            top = top / names.pop()
    return homes


def texts(found: Inventory, own: Sequence[str], labels: Sequence[str], line: Command) -> Iterable[str]:
    """The messages on unknown folders and on the own sets' folders of unknown class, with the commands to use them."""
    made = offers(found)
    named = {offer.folder / name for offer in made for name in offer.counts}
    for offer in made:
        yield (
            f"{offer.folder} ({_counted(offer.counts)}) does not look like a published data set, judging by its file "
            f"names. If these are your own clips: {_offered(offer, own, labels, line, found)}"
        )
    for folder, count in found.unknown.items():
        if named.isdisjoint((folder, *folder.parents)):
            yield (
                f"{folder}: {count} videos in no known layout, left out. Put your own clips into class folders, or "
                f"list them in a CSV file: see {own_clips.GUIDE}"
            )
    for own_set in (d.own for d in found.datasets if d.own):
        yield from own_texts(own_set, own, labels, line)


def _offered(offer: Offer, own: Sequence[str], labels: Sequence[str], line: Command, found: Inventory) -> str:
    taken = {*found.catalogue, *(d.dataset for d in found.datasets)}
    plain = own_clips.set_name(offer.folder.absolute().name)
    names = itertools.chain([plain, f"own_{plain}"], (f"own_{plain}_{k}" for k in itertools.count(2)))
    name = next(n for n in names if n not in taken)
    meaning = own_labels.telling(offer.counts)
    words = own_labels.as_words(meaning) if not all(map(own_labels.is_accepted, meaning)) else ()
    untold = [f"{label}={WHICH}" for label in reversed(CLASS_NAMES) if label not in meaning.values()]
    return line([*own, f"{name}={offer.folder}"], [*labels, *words, *untold])


def own_texts(own_set: OwnSet, own: Sequence[str], labels: Sequence[str], line: Command) -> Iterable[str]:
    """The messages on an own set's folders or labels of unknown class, with the commands to use them."""
    nested = {name: own_set.unknown[name] for name in own_set.nested}
    others = {name: count for name, count in own_set.unknown.items() if name not in nested}
    if nested:
        given = f"{own_set.name}={own_set.origin}"
        kept = [o for o in own if own_set.clips or not _is_of(o, own_set)]
        sets = [f"{own_clips.set_name(f'{own_set.name}_{name}')}={own_set.origin / name}" for name in nested]
        is_split = bool(_SPLIT_NAMES & {n.casefold() for n in nested})
        columns = "split keeps train and val apart, and a column source keeps" if is_split else "source keeps"
        yield (
            f"{own_set.name}: {_counted(nested)} are not in a class folder of {given}; the class folders are "
            f"further down. A CSV file with a column {columns} the clips of one camera together. Or take them as "
            "separate sets, where a sub-folder of the same name counts as another source in each: "
            f"{line([*kept, *sets], labels)}"
        )
    if others:
        told = own_labels.telling(others)
        words = [*own_labels.as_words(told)]
        words += [w for name in others if name not in told for w in own_labels.as_words({name: WHICH})]
        which = f" (replace {WHICH} with fight or nonfight)" if len(told) < len(others) else ""
        what, unit = ("label", "rows") if own_set.listed is not None else ("folder", "videos")
        yield (
            f"{own_set.name}: left out because of an unknown class, by {what}: {_counted(others, what, unit)}. "
            f"To include them{which}: {line(own, [*labels, *words])}"
        )


def nothing_usable(own_set: OwnSet, own: Sequence[str], labels: Sequence[str], line: Command) -> str:
    """The message on an own set of which nothing can be used, with the reasons and remedies."""
    reasons = [*own_texts(own_set, own, labels, line)]
    wrong = [f"{f['path']}: {f['reason']}" for f in (*own_set.unlisted, *own_set.failures)]
    reasons += wrong[:_SHOWN] + ([f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else [])
    if own_set.listed is None and not own_set.unknown and not own_set.failures:
        reasons.append(
            f"it has no folder with videos. Put your clips into {own_set.origin}/fight and {own_set.origin}/nonfight"
        )
    return "\n  ".join([f"nothing in {own_set.origin} can be used as {own_set.name}:", *reasons])


def _is_of(value: str, own_set: OwnSet) -> bool:
    return value.partition("=")[0].strip().lower() == own_set.name


def _counted(counts: Mapping[str, int], what: str = "folder", unit: str = "videos") -> str:
    """List the first names with their counts, and sum up the rest."""
    shown = ", ".join(f"{name}: {count}" for name, count in itertools.islice(counts.items(), _SHOWN))
    rest = list(counts.values())[_SHOWN:]
    more = f" and {sum(rest)} in {plural(len(rest), f'more {what}')}" if rest else ""
    return f"{shown} {unit}{more}"
