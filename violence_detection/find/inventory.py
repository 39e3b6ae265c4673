"""Take the inventory of the disk: recognise the catalogue's data sets below some roots, in folders of any name.

A data set is recognised by its published layout, not by the name of the folder it was unpacked into. If the layout
consists only of class folders, the files must also have their published names, or the record of step 1 or the path of
a Kaggle cache must identify the data set. A file belongs to the most specific data set whose label rule matches its
path exactly; every other video is listed, and its label is never guessed. Own clips are those that --own names; their
files never count as part of a published data set.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.datasets import catalogue, own_clips, source_groups
from violence_detection.datasets.catalogue import EXCLUDE, Dataset
from violence_detection.datasets.own_clips import OwnSet
from violence_detection.datasets.own_table import Stretch
from violence_detection.errors import UserError
from violence_detection.system import storage
from violence_detection.video.video_files import VideoSearch

log = logging.getLogger(__name__)
_WHERE_FROM = (
    "Download data sets with download_all_violence_datasets.py, or name their folder with --data-root or --roots; "
    "archives must be unpacked first. Name your own clips with --own NAME=FOLDER"
)

#: The share of the files of each class that must have published names, if the catalogue has a pattern for these.
_NAMED_SHARE = 0.5
#: How many folders above a tree's root are searched for the record of step 1.
_RECORD_PARENTS = 3


@dataclass(frozen=True)
class ClipFile:
    """One labelled clip.

    `rel`: the path below the data set's root. `official_split`: train, val, or empty without a published split.
    `stretch`: the part of the file that is the clip, None for the whole file. `clip_id`: the id of a clip cut from a
    longer video; empty if the id is the hash of the file's content.
    """

    path: Path
    rel: str
    dataset: str
    label: str
    source_group: str
    official_split: str
    stretch: Stretch | None = None
    clip_id: str = ""


@dataclass(frozen=True)
class FoundDataset:
    """One tree of a data set, or one set of own clips. Paths are sorted.

    `unlabelled`: videos below the root whose label is unknown. `excluded`: videos that are known to be in neither
    class. `needs_cutting`: the labelled videos of an untrimmed data set, which have yet to be cut into clips, and the
    stretches of own videos. Either `entry` is the catalogue's entry, or `own` is the own set.
    """

    dataset: str
    root: Path
    clips: tuple[ClipFile, ...]
    unlabelled: tuple[Path, ...]
    excluded: tuple[Path, ...]
    needs_cutting: tuple[ClipFile, ...]
    entry: Dataset | None = None
    own: OwnSet | None = None

    def counts(self) -> dict[str, int]:
        """The number of clips of each class."""
        counter = Counter(c.label for c in self.clips)
        return {label: counter[label] for label in ("fight", "nonfight")}


@dataclass(frozen=True)
class Inventory:
    """Everything found below the roots.

    `duplicate_trees`: (copy, kept), the roots of a tree whose labelled videos are all in another tree too, and of that
    tree. `unknown`: the number of videos in each folder that belong to no data set. `failures`: {path, reason} of rows
    and files of own sets that cannot be used; `refused`: the files that only those name. `unlisted`:
    {path, reason} of folders that cannot be listed. `ignored`: published second copies; `copied`: the videos of
    duplicate trees. `unknown`, `ignored` and `copied` do not include files in caches.
    """

    roots: tuple[Path, ...]
    datasets: tuple[FoundDataset, ...]
    duplicate_trees: tuple[tuple[Path, Path], ...]
    unknown: Mapping[Path, int]
    warnings: tuple[str, ...]
    catalogue: Mapping[str, Dataset]
    failures: tuple[dict[str, str], ...] = ()
    unlisted: tuple[dict[str, str], ...] = ()
    ignored: tuple[Path, ...] = ()
    copied: tuple[Path, ...] = ()
    refused: tuple[Path, ...] = ()

    @property
    def clips(self) -> list[ClipFile]:
        return [clip for found in self.datasets for clip in found.clips]

    @property
    def unlabelled(self) -> list[Path]:
        return [path for found in self.datasets for path in found.unlabelled]


@dataclass(frozen=True)
class _Tree:
    """A recognised data set: its root, the labels of the paths relative to it, and paths that no label rule matches."""

    dataset: Dataset
    root: Path
    labels: Mapping[str, str]
    unexplained: tuple[str, ...]

    def identity(self) -> set[tuple[str, int]]:
        return {(rel, _size_bytes(self.root / rel)) for rel in self.labels}


def _size_bytes(path: Path) -> int:
    """The size of a file; -1 if the system does not tell it, as for a broken link."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def source_path(path: Path, data_root: Path) -> str:
    """The POSIX path relative to the data root; absolute for a file elsewhere, so that joining the two still works."""
    if path.is_relative_to(data_root):
        return path.relative_to(data_root).as_posix()
    whole, root = path.absolute(), data_root.absolute()
    return (whole.relative_to(root) if whole.is_relative_to(root) else whole).as_posix()


def search_roots(data_root: Path, more: Sequence[Path] = (), own: Sequence[OwnSet] = ()) -> list[Path]:
    """The folders to search: `<data_root>/raw`, or the data root itself if it has no raw/, and `more`.

    A data root that does not exist is left out if there are further folders or own clips; otherwise it stays, so that
    `discover` reports it.
    """
    if (more or own) and not data_root.is_dir():
        return list(more)
    raw = data_root / "raw"
    return [raw if raw.is_dir() else data_root, *more]


def discover(
    roots: Sequence[Path],
    caches: Sequence[Path] = (),
    datasets: Mapping[str, Dataset] | None = None,
    own: Sequence[OwnSet] = (),
) -> Inventory:
    """Recognise the data sets below `roots` and `caches`. The result does not depend on the order of either.

    `datasets`: the catalogue, by default the shipped one. Caches belong to other programs, so videos in them that are
    not recognised are not reported, and if a data set is both below a root and in a cache, the one below the root is
    used. Files of `own` sets belong to no other data set. Raises UserError if a root is not a folder, or if there is
    neither a video nor an own set.
    """
    datasets = catalogue.load() if datasets is None else datasets
    warnings: list[str] = []
    unlisted = {f["path"]: f for s in own for f in s.unlisted}
    everything = _videos(roots, caches, unlisted)
    if not everything and not own:
        refused = "".join(f" {f['path']}: {f['reason']}." for f in unlisted.values())
        raise UserError(f"no video below {', '.join(str(r) for r in roots)}.{refused} {_WHERE_FROM}")
    files = [f for f in everything if not any(s.holds(f) for s in own)] if own else everything
    trees, unknown, ignored = _recognise(files, datasets)
    trees, copies = _without_copies(trees, caches)
    copied, single = _copied(copies)
    unknown = dict(sorted((Counter(unknown) + Counter(p.parent for p in single)).items()))
    return Inventory(
        roots=tuple(sorted({*roots, *caches})),
        datasets=_with_groups(trees, own, warnings),
        duplicate_trees=tuple((tree.root, original) for tree, original in copies),
        unknown={f: n for f, n in unknown.items() if not _below(f, caches)},
        warnings=(*warnings, *(w for s in own for w in s.warnings)),
        catalogue=datasets,
        failures=tuple(f for s in own for f in s.failures),
        unlisted=tuple(unlisted[path] for path in sorted(unlisted)),
        ignored=tuple(p for p in ignored if not _below(p, caches)),
        copied=tuple(p for p in copied if not _below(p, caches)),
        refused=tuple(sorted({p for s in own for p in s.refused})),
    )


def _below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _videos(roots: Sequence[Path], caches: Sequence[Path], unlisted: dict[str, dict[str, str]]) -> list[Path]:
    """All video files below the roots, sorted and each once. Links to folders are followed, each real folder once.

    Folders that cannot be listed are added to `unlisted`, by their path.
    """
    found: set[Path] = set()
    search = VideoSearch()
    # roots first: a link below a root to a cache counts as below the root
    for root in [*sorted(roots), *sorted(caches)]:
        if not root.is_dir():
            raise UserError(f"{root} is not a folder. {_WHERE_FROM}")
        search.skipped.clear()
        found.update(search.below(root))
        if skipped := search.skipped_text():
            log.info("skipped below %s: %s (no videos)", root, skipped)
    unlisted |= {failure["path"]: failure for failure in search.unlisted}
    return sorted(found)


def _recognise(
    files: Sequence[Path], datasets: Mapping[str, Dataset]
) -> tuple[list[_Tree], dict[Path, int], list[Path]]:
    """The trees of data sets, the number of other videos in each folder, and the published second copies."""
    claims = _valid_claims(files, datasets)
    labels: dict[tuple[str, Path], dict[str, str]] = defaultdict(dict)
    roots: dict[Path, str] = {}
    orphans: list[Path] = []
    for file in files:
        if not claims.get(file):
            orphans.append(file)
            continue
        dataset, root, label = min(claims[file], key=_claim_order)
        labels[dataset.key, root][file.relative_to(root).as_posix()] = label
        roots[root] = dataset.key
    unexplained: dict[tuple[str, Path], list[str]] = defaultdict(list)
    unknown: Counter[Path] = Counter()
    ignored: list[Path] = []
    for file in orphans:
        root_of = next((p for p in file.parents if p in roots), None)
        if root_of is None:
            unknown[file.parent] += 1
            continue
        key, rel = roots[root_of], file.relative_to(root_of).as_posix()
        if datasets[key].ignored(rel):
            ignored.append(file)
        else:
            unexplained[key, root_of].append(rel)
    trees = [
        _Tree(datasets[key], root, labels[key, root], tuple(unexplained[key, root]))
        for key, root in sorted(labels, key=lambda kr: (kr[0], len(kr[1].parts), kr[1]))
    ]
    return trees, dict(sorted(unknown.items())), ignored


Claim = tuple[Dataset, Path, str]


def _valid_claims(files: Iterable[Path], datasets: Mapping[str, Dataset]) -> dict[Path, list[Claim]]:
    """The claims to each file: of data sets with a label rule for the end of its path, whose tree is really there."""
    standing: dict[tuple[str, Path], bool] = {}
    labelled: dict[tuple[str, Path], list[tuple[str, str]]] = defaultdict(list)
    claims: list[tuple[Path, Claim]] = []
    deepest = max((dataset.deepest for dataset in datasets.values()), default=0)
    for file in files:
        for depth in range(1, min(deepest, len(file.parents)) + 1):
            rel, root = "/".join(file.parts[-depth:]), file.parents[depth - 1]
            for dataset in datasets.values():
                if (label := dataset.label(rel)) is None:
                    continue
                if (dataset.key, root) not in standing:
                    standing[dataset.key, root] = all((root / entry).exists() for entry in dataset.layout)
                if standing[dataset.key, root]:
                    claims.append((file, (dataset, root, label)))
                    labelled[dataset.key, root].append((rel, label))
    named = {(k, root) for (k, root), of in labelled.items() if _is_published(datasets[k], root, of)}
    valid: dict[Path, list[Claim]] = defaultdict(list)
    for file, claim in claims:
        if (claim[0].key, claim[1]) in named:
            valid[file].append(claim)
    return valid


def _is_published(dataset: Dataset, root: Path, labelled: Sequence[tuple[str, str]]) -> bool:
    """Whether a tree is the published data set and not somebody's own clips. `labelled`: its (path, label) pairs."""
    total = Counter(label for _, label in labelled)
    named = Counter(label for rel, label in labelled if dataset.named(rel))
    by_name = all(named[label] >= _NAMED_SHARE * n for label, n in total.items())
    return by_name or _is_recorded(dataset, root)


def _is_recorded(dataset: Dataset, root: Path) -> bool:
    """Whether step 1's record at or just above the root, or a Kaggle slug in the root's path, names the data set."""
    if any(f"/{s.slug}/" in f"{root.as_posix()}/" for s in dataset.sources if s.slug):
        return True
    for folder in (root, *root.parents)[: _RECORD_PARENTS + 1]:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if storage.read_json(folder / catalogue.COMPLETION_RECORD).get("dataset") == dataset.key:
                return True
    return False


def _claim_order(claim: Claim) -> tuple[Any, ...]:
    """The sort key of claims, most specific first.

    That is: the most entries in the layout, then the most letters in the least literal label rule, then the root
    nearest the top.
    """
    dataset, root, _ = claim
    literal = min(len(re.sub(r"\[[^]]*\]|[^A-Za-z]", "", rule.pattern.pattern)) for rule in dataset.labels)
    return -len(dataset.layout), -literal, len(root.parts), dataset.key


def _without_copies(
    trees: Sequence[_Tree], caches: Sequence[Path]
) -> tuple[list[_Tree], list[tuple[_Tree, Path]]]:
    """Drop trees whose labelled files are all in another tree of the data set too, by relative path and size.

    Returns the trees that are kept, and each dropped tree with the root of the tree that is kept instead.
    """
    kept: list[tuple[_Tree, set[tuple[str, int]]]] = []
    copies: list[tuple[_Tree, Path]] = []
    in_order = sorted(
        trees,
        key=lambda t: (t.dataset.key, -len(t.labels), _below(t.root, caches), len(t.root.parts), t.root),
    )
    for tree in in_order:
        identity = tree.identity()
        same = (
            other for other, theirs in kept if other.dataset.key == tree.dataset.key and identity <= theirs
        )
        if (original := next(same, None)) is not None:
            copies.append((tree, original.root))
        else:
            kept.append((tree, identity))
    return sorted((t for t, _ in kept), key=lambda t: (t.dataset.key, t.root)), sorted(
        copies, key=lambda c: c[0].root
    )


def _copied(copies: Sequence[tuple[_Tree, Path]]) -> tuple[list[Path], list[Path]]:
    """The videos of the dropped trees, and those of their unlabelled videos that the kept tree does not contain."""
    copied: list[Path] = []
    single: list[Path] = []
    for tree, original in copies:
        copied += [tree.root / rel for rel in sorted(tree.labels)]
        for rel in sorted(tree.unexplained):
            same = _size_bytes(tree.root / rel) == _size_bytes(original / rel)
            (copied if same else single).append(tree.root / rel)
    return copied, single


def _with_groups(
    trees: Sequence[_Tree], own: Sequence[OwnSet], warnings: list[str]
) -> tuple[FoundDataset, ...]:
    """Assign source groups over all trees and own sets at once: an id may mean the same video in every data set."""
    clips = [[rel for rel, label in sorted(tree.labels.items()) if label != EXCLUDE] for tree in trees]
    keys: list[tuple[str, ...]] = []
    for tree, rels in zip(trees, clips, strict=True):
        reader = source_groups.SourceReader(tree.dataset, tree.root)
        keys += reader.keys(rels, [tree.labels[rel] for rel in rels])
        warnings += reader.warnings
    keys += own_clips.source_keys(own)
    names = iter(source_groups.group_names(keys))
    return (
        *(_found(tree, rels, [next(names) for _ in rels]) for tree, rels in zip(trees, clips, strict=True)),
        *(_found_own(s, [next(names) for _ in s.clips]) for s in own),
    )


def _found(tree: _Tree, rels: Sequence[str], groups: Sequence[str]) -> FoundDataset:
    dataset, root = tree.dataset, tree.root
    clips = tuple(
        ClipFile(root / rel, rel, dataset.key, tree.labels[rel], group, dataset.official_split(rel))
        for rel, group in zip(rels, groups, strict=True)
    )
    return FoundDataset(
        dataset=dataset.key,
        root=root,
        clips=() if dataset.untrimmed else clips,
        unlabelled=tuple(root / rel for rel in sorted(tree.unexplained)),
        excluded=tuple(root / rel for rel in sorted(tree.labels) if tree.labels[rel] == EXCLUDE),
        needs_cutting=clips if dataset.untrimmed else (),
        entry=dataset,
    )


def _found_own(own: OwnSet, groups: Sequence[str]) -> FoundDataset:
    clips = [
        ClipFile(clip.path, clip.rel, own.name, clip.label, group, clip.split, clip.stretch)
        for clip, group in zip(own.clips, groups, strict=True)
    ]
    return FoundDataset(
        dataset=own.name,
        root=own.origin,
        clips=tuple(c for c in clips if c.stretch is None),
        unlabelled=own.unlabelled,
        excluded=(),
        needs_cutting=tuple(c for c in clips if c.stretch is not None),
        own=own,
    )
