"""What is on disk: recognise the catalogue's data sets below some roots, in whatever folder they stand.

A data set is recognised by its published layout, not by the name of the folder it was unpacked into. A file
belongs to the most specific data set whose exact label rule matches its path; everything else is listed,
never guessed.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.datasets import catalogue, source_groups
from violence_detection.datasets.catalogue import EXCLUDE, Dataset
from violence_detection.errors import UserError
from violence_detection.video.decode import VIDEO_SUFFIXES

#: Folders that hold what this suite makes, or what archivers leave behind.
SKIPPED_FOLDERS = frozenset(
    {"combined_all", "features", "models_ultimate", "models_ensemble", "reports", "__MACOSX", "lost+found"}
)
#: Where clips cut from untrimmed videos stand below the data root, and the file that tells it is ours.
WINDOWS_FOLDER, WINDOWS_JOURNAL = "windows", ".cut.jsonl"
_DEEPEST_LAYOUT = 4  # path parts of the longest label rule


@dataclass(frozen=True)
class ClipFile:
    """One labelled clip. `rel` is below the data set's own root; `official_split` is train, val or empty.

    `clip_id`: that of a clip cut out of a longer video; empty where it is the hash of the file's content.
    """

    path: Path
    rel: str
    dataset: str
    label: str
    source_group: str
    official_split: str
    clip_id: str = ""


@dataclass(frozen=True)
class FoundDataset:
    """One tree of a data set. Paths are sorted.

    unlabelled: videos below the root that no published rule explains. excluded: videos whose class is known
    and neither. needs_cutting: the labelled videos of an untrimmed data set, which are no clips yet.
    """

    dataset: str
    root: Path
    clips: tuple[ClipFile, ...]
    unlabelled: tuple[Path, ...]
    excluded: tuple[Path, ...]
    needs_cutting: tuple[ClipFile, ...]

    def counts(self) -> dict[str, int]:
        """Clips a class."""
        counter = Counter(c.label for c in self.clips)
        return {label: counter[label] for label in ("fight", "nonfight")}


@dataclass(frozen=True)
class Inventory:
    """Everything found below the roots.

    duplicate_trees: (copy, kept) roots of trees that hold nothing but what another tree holds. unknown:
    folders with videos that belong to no data set of the catalogue, and how many.
    """

    roots: tuple[Path, ...]
    datasets: tuple[FoundDataset, ...]
    duplicate_trees: tuple[tuple[Path, Path], ...]
    unknown: Mapping[Path, int]
    warnings: tuple[str, ...]

    @property
    def clips(self) -> list[ClipFile]:
        return [clip for found in self.datasets for clip in found.clips]

    @property
    def unlabelled(self) -> list[Path]:
        return [path for found in self.datasets for path in found.unlabelled]


@dataclass(frozen=True)
class _Tree:
    """A recognised root and the paths relative to it that belong to it."""

    dataset: Dataset
    root: Path
    labels: Mapping[str, str]
    unexplained: tuple[str, ...]

    def identity(self) -> set[tuple[str, int]]:
        return {(rel, (self.root / rel).stat().st_size) for rel in self.labels}


def source_path(path: Path, data_root: Path) -> str:
    """The POSIX path below the data root; a file elsewhere keeps its absolute path, which joins the same."""
    if path.is_relative_to(data_root):
        return path.relative_to(data_root).as_posix()
    return path.absolute().as_posix()


def search_roots(data_root: Path, more: Sequence[Path] = ()) -> list[Path]:
    """Where to look: `<data_root>/raw` (the data root itself where there is none) and `more`.

    A data root that does not exist is left out if there are further folders, else kept, to be complained about.
    """
    if more and not data_root.is_dir():
        return list(more)
    raw = data_root / "raw"
    return [raw if raw.is_dir() else data_root, *more]


def discover(roots: Sequence[Path], caches: Sequence[Path] = ()) -> Inventory:
    """Recognise the data sets below `roots` and `caches`. The result does not depend on the order of either.

    Caches belong to other programs: what is recognised in them counts, of the rest nothing is said; and of a data set
    that also stands below a root, the one below the root is used. Raises UserError when a root is no folder, or when
    there is not one video below them all.
    """
    warnings: list[str] = []
    files = _videos(roots, caches, warnings)
    if not files:
        raise UserError(
            f"no video below {', '.join(str(r) for r in roots)}. Download data sets "
            "with download_all_violence_datasets.py, or name their folder with --data-root or --roots"
        )
    trees, unknown = _recognise(files)
    trees, copies = _without_copies(trees, caches)
    return Inventory(
        roots=tuple(sorted({*roots, *caches})),
        datasets=_with_groups(trees, warnings),
        duplicate_trees=copies,
        unknown={f: n for f, n in unknown.items() if not _below(f, caches)},
        warnings=tuple(warnings),
    )


def _below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _videos(roots: Sequence[Path], caches: Sequence[Path], warnings: list[str]) -> list[Path]:
    """All video files below the roots, sorted, each once, links to folders followed (each folder once)."""
    found: set[Path] = set()
    seen: set[str] = set()
    for root in [*sorted(roots), *sorted(caches)]:  # a link below a root to a cache is found below the root
        if not root.is_dir():
            raise UserError(
                f"{root} is no folder. Give the folder with the data sets: --data-root or --roots PATH"
            )
        walk = os.walk(
            root, followlinks=True, onerror=lambda e: warnings.append(f"cannot list {e.filename}: {e}")
        )
        for folder, subfolders, names in walk:
            real = os.path.realpath(folder)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = sorted(s for s in subfolders if not _skipped(Path(folder, s)))
            found.update(
                Path(folder, name)
                for name in names
                if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")
            )
    return sorted(found)


def _skipped(folder: Path) -> bool:
    """Hidden folders, and what this suite makes; `windows` is a name that others use as well."""
    if folder.name == WINDOWS_FOLDER:
        return (folder / WINDOWS_JOURNAL).is_file()
    return folder.name.startswith(".") or folder.name in SKIPPED_FOLDERS


def _recognise(files: Sequence[Path]) -> tuple[list[_Tree], dict[Path, int]]:
    """Trees of data sets, and the folders of videos that belong to none, with their number."""
    claims = _valid_claims(files)
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
    for file in orphans:
        root_of = next((p for p in file.parents if p in roots), None)
        if root_of is None:
            unknown[file.parent] += 1
            continue
        key, rel = roots[root_of], file.relative_to(root_of).as_posix()
        if not catalogue.get(key).ignored(rel):
            unexplained[key, root_of].append(rel)
    trees = [
        _Tree(catalogue.get(key), root, labels[key, root], tuple(unexplained[key, root]))
        for key, root in sorted(labels, key=lambda kr: (kr[0], len(kr[1].parts), kr[1]))
    ]
    return trees, dict(sorted(unknown.items()))


Claim = tuple[Dataset, Path, str]


def _valid_claims(files: Iterable[Path]) -> dict[Path, list[Claim]]:
    """For each file every data set whose rule matches the end of its path, where the layout stands at that
    root."""
    datasets = catalogue.load().values()
    standing: dict[tuple[str, Path], bool] = {}
    claims: dict[Path, list[Claim]] = defaultdict(list)
    for file in files:
        for depth in range(1, min(_DEEPEST_LAYOUT, len(file.parts) - 1) + 1):
            rel, root = "/".join(file.parts[-depth:]), file.parents[depth - 1]
            for dataset in datasets:
                if (label := dataset.label(rel)) is None:
                    continue
                if (dataset.key, root) not in standing:
                    standing[dataset.key, root] = all((root / entry).exists() for entry in dataset.layout)
                if standing[dataset.key, root]:
                    claims[file].append((dataset, root, label))
    return claims


def _claim_order(claim: Claim) -> tuple[Any, ...]:
    """Most specific first: the longest layout, then the most literal label rule, then the root nearest the
    top."""
    dataset, root, _ = claim
    literal = min(len(re.sub(r"\[[^]]*\]|[^A-Za-z]", "", rule.pattern.pattern)) for rule in dataset.labels)
    return -len(dataset.layout), -literal, len(root.parts), dataset.key


def _without_copies(
    trees: Sequence[_Tree], caches: Sequence[Path]
) -> tuple[list[_Tree], tuple[tuple[Path, Path], ...]]:
    """Drop trees that hold only files (same path and size) which another tree of the data set holds too."""
    kept: list[tuple[_Tree, set[tuple[str, int]]]] = []
    copies: list[tuple[Path, Path]] = []
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
            copies.append((tree.root, original.root))
        else:
            kept.append((tree, identity))
    return sorted((t for t, _ in kept), key=lambda t: (t.dataset.key, t.root)), tuple(sorted(copies))


def _with_groups(trees: Sequence[_Tree], warnings: list[str]) -> tuple[FoundDataset, ...]:
    """Name the source groups over all trees at once: an id means the same video in every data set."""
    clips = [[rel for rel, label in sorted(tree.labels.items()) if label != EXCLUDE] for tree in trees]
    keys: list[tuple[str, ...]] = []
    for tree, rels in zip(trees, clips, strict=True):
        reader = source_groups.SourceReader(tree.dataset, tree.root)
        keys += reader.keys(rels, [tree.labels[rel] for rel in rels])
        warnings += reader.warnings
    names = iter(source_groups.group_names(keys))
    return tuple(
        _found(tree, rels, [next(names) for _ in rels]) for tree, rels in zip(trees, clips, strict=True)
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
    )
