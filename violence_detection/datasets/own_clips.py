"""One's own clips: read what --own and --labels name into labelled clips with their sources.

A folder contains class folders, and these contain the clips, at any depth. Each sub-folder directly in a class folder
is a source; sub-folders of the same name in both class folders are the same source. A CSV file lists clips: see
own_table. Folders and labels that mean no class are reported and left out, never guessed.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from violence_detection.datasets import own_labels, own_table
from violence_detection.datasets.config import OwnClipsConfig
from violence_detection.datasets.own_labels import Labels
from violence_detection.datasets.own_table import OwnClip
from violence_detection.errors import UserError
from violence_detection.system import settings
from violence_detection.video.video_files import VideoSearch

log = logging.getLogger(__name__)

GUIDE = "docs/guides/own_clips.md"
_NAME = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class OwnSet:
    """One set of own clips.

    `origin`: the folder or CSV file as it was given; `root`: that folder, or the folder of the CSV file. `unknown`:
    names of folders or labels that mean no class, with their number of videos or rows; `nested`: those of these folders
    that contain class folders themselves. `unlabelled`: videos in no class folder. `failures`: {path, reason} of rows
    and files that cannot be used; `refused`: real paths of files that the set names but none of whose clips is used.
    `unlisted`: {path, reason} of folders that cannot be listed.
    """

    name: str
    origin: Path
    root: Path
    clips: tuple[OwnClip, ...]
    unknown: Mapping[str, int]
    nested: tuple[str, ...]
    unlabelled: tuple[Path, ...]
    failures: tuple[dict[str, str], ...]
    warnings: tuple[str, ...]
    #: Real paths of the files that a CSV file lists. None for a folder: its set has every file below it.
    listed: frozenset[str] | None = None
    refused: tuple[Path, ...] = ()
    unlisted: tuple[dict[str, str], ...] = ()

    def holds(self, path: Path) -> bool:
        """Whether a file belongs to this set, so that no published data set may claim it."""
        if self.listed is not None:
            return _real(path) in self.listed
        return Path(_real(path.parent)).is_relative_to(_real(self.root))


def read_all(
    config: OwnClipsConfig,
    published: Collection[str],
    flag_of: Callable[[str], str] = lambda _: "--own",
    by_side: bool = True,
) -> list[OwnSet]:
    """Read the sets that --own names, in that order.

    `published`: the catalogue's keys, which no set may have as its name. `flag_of`: the flag that a value was given
    with, for messages.

    A file, or a stretch of one, that is listed more than once is used once: the first time it is listed, or with
    `by_side` (for clips that are yet to be divided) where it is val, else where it is train, else the first time.
    Footage that is labelled with both classes is not used at all. Both are failures of the set.

    Raises UserError for a value that names no set, for a name that is published or given twice, and for --labels
    without a set.
    """
    labels = own_labels.parse(config.labels)
    if config.labels and not config.own:
        raise UserError(
            f"--labels {' '.join(config.labels)} would do nothing: it says what folders or labels of your own clips "
            "mean, and no such clips are named. Add --own NAME=PATH"
        )
    sets: list[OwnSet] = []
    met: set[str] = set()
    for name, origin in _named(config.own, published, flag_of):
        found, names = (
            _read_folder(name, origin, labels) if origin.is_dir() else _read_table(name, origin, labels)
        )
        sets.append(found)
        met |= names
    if sets and (unused := labels.unused(met)):
        warning = (
            f"--labels explains {', '.join(unused)}, but your clips have no folder or label of that name"
        )
        sets[-1] = replace(sets[-1], warnings=(*sets[-1].warnings, warning))
    return _settled([_without_those_of_others(s, sets) for s in sets], by_side)


def source_keys(sets: Sequence[OwnSet]) -> list[tuple[str, ...]]:
    """The source keys of all clips, in order. Clips of one file share a key, whichever set or spelling names it."""
    keys: list[tuple[str, ...]] = []
    first_of: dict[str, tuple[str, ...]] = {}
    for own_set in sets:
        for clip in own_set.clips:
            names = tuple(f"{own_set.name}:{source}" for source in clip.sources)
            # a source that a person has named is the same in upper and lower case; a clip that is its own source is
            # known by its path, in which case counts
            told = tuple(f"{own_set.name}:{s.casefold()}" for s in clip.sources if s != clip.rel)
            keys.append((*names, *told, *first_of.setdefault(_real(clip.path), names)))
    return keys


def set_name(text: str) -> str:
    """A valid name for a set, made from any text."""
    return re.sub(r"[^a-z0-9_]+", "_", text.casefold()).strip("_") or "own"


def _named(
    values: Iterable[str], published: Collection[str], flag_of: Callable[[str], str]
) -> Iterable[tuple[str, Path]]:
    taken: dict[str, str] = {}
    for value in values:
        flag = flag_of(value)
        given, equals, place = value.partition("=")
        name, origin = given.strip().lower(), settings.expanded(place)
        if not equals or not place or not _NAME.fullmatch(name):
            raise UserError(
                f"{flag} takes NAME=FOLDER or NAME=FILE.csv, where NAME consists of letters, digits and _. "
                f"Received: {value!r}. Write for example {flag} {set_name(given if place else Path(value).stem)}="
                f"{place or value}"
            )
        if name in published:
            raise UserError(f"{flag} {value}: {name} is a published data set. Choose another name")
        if name in taken:
            raise UserError(
                f"{flag} {value}: {name} is already the name of {taken[name]}. Choose another name"
            )
        if not os.path.exists(origin):  # noqa: PTH110 - raises nothing, however long the name
            raise UserError(
                f"{flag} {value}: there is no {origin}. Name a folder with class folders, or a CSV file"
            )
        taken[name] = place
        yield name, origin


def _read_folder(name: str, root: Path, labels: Labels) -> tuple[OwnSet, set[str]]:
    """The set in a folder, and the names of its sub-folders."""
    search = VideoSearch()
    clips, unlabelled = [], []
    unknown: Counter[str] = Counter()
    for path in sorted(search.below(root)):
        folder, *inner = path.relative_to(root).parts
        label = labels.of(folder) if inner else None
        if label is None:
            unlabelled.append(path)
            if inner:
                unknown[folder] += 1
            continue
        rel = path.relative_to(root).as_posix()
        source = own_labels.one_spelling(inner[0]) if len(inner) > 1 else rel
        clips.append(OwnClip(path, rel, label, str(path), (source,)))
    if skipped := search.skipped_text():
        log.info("skipped below %s: %s (no videos)", root, skipped)
    without = sum(clip.sources == (clip.rel,) for clip in clips)
    nested = tuple(f for f in sorted(unknown) if any(labels.of(name) for name in _folders_in(root / f)))
    found = OwnSet(
        name=name,
        origin=root,
        root=root,
        clips=tuple(clips),
        unknown=dict(sorted(unknown.items())),
        nested=nested,
        unlabelled=tuple(unlabelled),
        failures=(),
        warnings=tuple(_on_sources(name, without, len(clips))),
        unlisted=tuple(search.unlisted),
    )
    return found, _folders_in(root)


def _folders_in(folder: Path) -> set[str]:
    """The names of the folders in a folder; empty if it cannot be listed."""
    try:
        return {p.name for p in folder.iterdir() if p.is_dir()}
    except OSError:
        return set()


def _read_table(name: str, path: Path, labels: Labels) -> tuple[OwnSet, set[str]]:
    """The set that a CSV file lists, and the labels in it."""
    table = own_table.read_table(path, labels)
    found = OwnSet(
        name=name,
        origin=path,
        root=path.parent,
        clips=tuple(_with_all_sources(table.clips)),
        unknown=dict(sorted(table.unknown.items())),
        nested=(),
        unlabelled=(),
        failures=tuple(table.failures),
        warnings=(*table.warnings, *_on_sources(name, table.without_source, len(table.clips))),
        listed=frozenset(_real(file) for file in table.files),
    )
    return found, table.names


def _with_all_sources(clips: Sequence[OwnClip]) -> Iterable[OwnClip]:
    """Give all rows of a video the same sources: those that any of them names, or else the video itself."""
    named: dict[str, set[str]] = {}
    for clip in clips:
        named.setdefault(_real(clip.path), set()).update(s for s in clip.sources if s != clip.rel)
    for clip in clips:
        sources = named[_real(clip.path)] or set(clip.sources)
        yield replace(clip, sources=tuple(sorted(sources)))


def _on_sources(name: str, without: int, of: int) -> list[str]:
    if not without:
        return []
    return [
        f"{name}: {without} of {of} clips do not name their source, so each counts as a source of its own. If several "
        "come from one recording, intervals are too narrow, and if some of these are in train and some in val, figures "
        "are too good. Put the clips of each source into a sub-folder of its class folder, or list them in a CSV file "
        f"with a column source. See {GUIDE}"
    ]


def _without_those_of_others(own_set: OwnSet, sets: Sequence[OwnSet]) -> OwnSet:
    """The set without the unlabelled videos that belong to another set: one from a table, or from a folder below."""
    if own_set.listed is not None:
        return own_set
    root = Path(_real(own_set.root))
    inside = [
        s for s in sets
        if s.listed is not None or (s.root != own_set.root and Path(_real(s.root)).is_relative_to(root))
    ]  # fmt: skip
    left = tuple(path for path in own_set.unlabelled if not any(s.holds(path) for s in inside))
    folders = [path.relative_to(own_set.root).parts[0] for path in left if path.parent != own_set.root]
    return replace(
        own_set,
        unlabelled=left,
        unknown=dict(sorted(Counter(folders).items())),
        nested=tuple(name for name in own_set.nested if name in folders),
    )


def _settled(sets: Sequence[OwnSet], by_side: bool) -> list[OwnSet]:
    """The sets without clips that are listed twice and footage that has both labels, which become failures."""
    of_file: dict[str, list[OwnClip]] = {}
    name_of = {id(clip): s.name for s in sets for clip in s.clips}
    for clip in (c for s in sets for c in s.clips):
        of_file.setdefault(_real(clip.path), []).append(clip)
    wrong: dict[int, str] = {}
    for clips in (c for c in of_file.values() if len(c) > 1):
        if by_side:  # the first is kept, and one without a side could end up on the wrong side
            clips.sort(key=lambda c: ("val", "train", "").index(c.split))
        for a, b in _overlapping(clips):
            if a.label != b.label:
                for one, other in ((a, b), (b, a)):
                    wrong[id(one)] = f"is {one.label}, but {other.where} calls the same footage {other.label}"
            elif a.span_s == b.span_s:
                wrong.setdefault(id(b), f"is in the set {name_of[id(a)]} already, as {a.where}")
    used = {_real(c.path) for s in sets for c in s.clips if id(c) not in wrong}
    return [
        replace(
            s,
            clips=tuple(c for c in s.clips if id(c) not in wrong),
            failures=(
                *s.failures,
                *(
                    {"path": c.where, "reason": f"{wrong[id(c)]}. Keep one"}
                    for c in s.clips
                    if id(c) in wrong
                ),
            ),
            refused=tuple(
                Path(real)
                for real in sorted({*(s.listed or ()), *(_real(c.path) for c in s.clips)} - used)
                if os.path.isfile(real)  # noqa: PTH113 - raises nothing, however long the name
            ),
        )
        for s in sets
    ]


def _overlapping(clips: Sequence[OwnClip]) -> list[tuple[OwnClip, OwnClip]]:
    """The pairs of clips of one file that share footage, in the order of `clips`."""
    order = sorted(range(len(clips)), key=lambda i: clips[i].span_s[0])
    pairs = []
    for k, i in enumerate(order):
        end_s = clips[i].span_s[1]
        for j in itertools.islice(order, k + 1, None):
            if clips[j].span_s[0] >= end_s:
                break
            pairs.append((min(i, j), max(i, j)))
    return [(clips[i], clips[j]) for i, j in sorted(pairs)]


@functools.lru_cache(maxsize=100_000)
def _real(path: Path) -> str:
    return os.path.realpath(path)
