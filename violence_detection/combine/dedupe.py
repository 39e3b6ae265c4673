"""Keep one of each clip: exact copies by content hash, altered ones by fingerprint; join what shares footage.

Of two copies the one in an official val set stays (the train copy goes), then the one in an official train set (one
without a side might come to stand in val), then the one that decodes to its end, then the one with more pixels, then
the first by path. What goes is named together with what stays.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from violence_detection.combine import duplicates
from violence_detection.combine.duplicates import Pair
from violence_detection.combine.scan import Scan
from violence_detection.datasets.source_groups import preferred_name
from violence_detection.find.inventory import ClipFile

if TYPE_CHECKING:
    from scipy.cluster.hierarchy import DisjointSet

#: A source group that pictures, not published ids, joined may hold this share of a data set's class, or this
#: many clips. Data sets that publish no sources are grouped in blocks of numbers; a few chance pairs would
#: otherwise chain all blocks into one group that no split can divide.
MAX_JOINED_SHARE = 0.4
MAX_JOINED_CLIPS = 50


@dataclass(frozen=True)
class ScannedClip:
    """A readable, labelled clip on its way into the manifest. `source_path` is below the data root."""

    source_path: str
    label: str
    dataset: str
    source_group: str
    official_split: str
    scan: Scan
    #: Of a clip cut out of a longer video; empty where it is the hash of the file's content.
    cut_id: str = ""

    @property
    def clip_id(self) -> str:
        return self.cut_id or self.scan.sha256[:16]

    def preference(self) -> tuple[int, bool, int, str]:
        """Sorts the copy to keep first."""
        pixels = self.scan.width * self.scan.height
        side = ("val", "train", "").index(self.official_split)  # one without may come to stand on the other
        return side, bool(self.scan.shortfall), -pixels, self.source_path


@dataclass(frozen=True, order=True)
class Dropped:
    """A clip that was left out, and the one that stays in its stead.

    kind: exact; near (an altered copy); source (a train clip of an official val clip's source); footage (a train
    clip that shares footage with a val clip of a source too large to be joined).
    """

    dropped: str
    kept: str
    kind: str


@dataclass(frozen=True)
class Deduplicated:
    """What stays and what goes.

    conflicts: copies of the same content under both labels, all left out. n_near_groups: clusters of two or more
    found by fingerprint. bridges: source paths of kept clips that share footage though their source groups were
    too large to join; if they come to stand on different sides, the train clip has to go.
    """

    kept: list[ScannedClip]
    dropped: list[Dropped]
    conflicts: list[tuple[ScannedClip, ScannedClip]]
    n_near_groups: int
    bridges: list[tuple[str, str]]

    def failures(self) -> list[dict[str, str]]:
        """The conflicts as a failures file names them."""
        return [
            {
                "path": clip.source_path,
                "reason": f"is {clip.label}, its content is also {other.label} as {other.source_path}; both left out",
            }
            for clip, other in self.conflicts
        ]


def scanned(source_path: str, clip: ClipFile, found: Scan) -> ScannedClip:
    """What the inventory knows of a clip, and what a look at it has found."""
    return ScannedClip(
        source_path, clip.label, clip.dataset, clip.source_group, clip.official_split, found, clip.clip_id
    )


#: Which of some pairs of near duplicates are altered copies, and no other scenes before the same camera.
Confirm = Callable[[Sequence[tuple[ScannedClip, ScannedClip]]], Sequence[bool]]


def deduplicate(
    candidates: Iterable[ScannedClip],
    altered: bool = True,
    confirm: Confirm | None = None,
    one_source: Iterable[tuple[str, str]] = (),
) -> Deduplicated:
    """One of each clip, with source groups joined over everything that is the same or shares footage.

    Altered copies under different labels both stay, in one source group: a fingerprint is not proof enough to
    say that one of the labels is wrong; and so do those that `confirm` takes for none. Without `altered` all of them
    stay. `one_source`: pairs of source groups that are known to be one. The result does not depend on the order of the
    candidates.
    """
    from scipy.cluster.hierarchy import DisjointSet

    candidates = list(candidates)
    one_source = list(one_source)
    groups = DisjointSet(sorted({c.source_group for c in candidates}.union(*one_source)))
    for pair in one_source:
        groups.merge(*pair)
    unique, dropped, conflicts = _exact(candidates, groups)
    unique.sort(key=lambda c: c.clip_id)
    pairs = duplicates.find_pairs([c.scan.fingerprint for c in unique])
    bridges = _join(unique, pairs, groups)
    copies = [p for p in pairs if altered and p.same_clip and unique[p.i].label == unique[p.j].label]
    stays = _stays(unique, copies, confirm)
    near = [Dropped(unique[i].source_path, unique[k].source_path, "near") for i, k in stays.items() if i != k]
    ends = ((stays[p.i], stays[p.j]) for p in bridges)  # a dropped copy's footage is its original's
    sizes = Counter(duplicates.clusters(len(unique), pairs))
    return Deduplicated(
        kept=_renamed((unique[i] for i, k in stays.items() if i == k), groups),
        dropped=sorted(dropped + near),
        conflicts=conflicts,
        n_near_groups=sum(size > 1 for size in sizes.values()),
        bridges=[(unique[i].source_path, unique[j].source_path) for i, j in ends if i != j],
    )


def _join(unique: Sequence[ScannedClip], pairs: Sequence[Pair], groups: DisjointSet) -> list[Pair]:
    """Join source groups over pairs, the nearest first; returns the pairs whose groups would grow too large."""
    strata = Counter((c.dataset, c.label) for c in unique)
    most = {s: max(MAX_JOINED_CLIPS, MAX_JOINED_SHARE * n) for s, n in strata.items()}
    sizes: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for clip in unique:
        sizes[groups[clip.source_group]][clip.dataset, clip.label] += 1
    bridges = []
    for pair in sorted(pairs, key=lambda p: (not p.same_clip, p.distance, p.i, p.j)):
        a, b = (groups[unique[k].source_group] for k in (pair.i, pair.j))
        if a == b:
            continue
        joined = sizes[a] + sizes[b]
        if any(n > most[stratum] for stratum, n in joined.items()):
            bridges.append(pair)
            continue
        groups.merge(a, b)
        sizes[groups[a]] = joined
    return bridges


def _stays(unique: Sequence[ScannedClip], pairs: Sequence[Pair], confirm: Confirm | None) -> dict[int, int]:
    """For each clip, by position, the clip that stays: itself, or the one it is an altered copy of.

    Of many copies each is paired with some of the others only. So where a chain of copies leads to several clips that
    stay, the best of them is compared with the others, and then the next, until all have been.
    """
    prints = [clip.scan.fingerprint for clip in unique]
    copies: list[Pair] = []
    asked: set[tuple[int, int]] = set()
    ends = [(p.i, p.j) for p in pairs]
    stays = _originals(unique, copies)
    while ends:
        asked.update(ends)
        sure = (
            confirm([(unique[p.i], unique[p.j]) for p in pairs]) if confirm and pairs else [True] * len(pairs)
        )
        copies += itertools.compress(pairs, sure)
        stays = _originals(unique, copies)
        ends = _not_compared(unique, copies, stays, asked)
        pairs = [p for p in duplicates.compare_pairs(prints, ends) if p.same_clip]
    return stays


def _not_compared(
    unique: Sequence[ScannedClip],
    copies: Sequence[Pair],
    stays: Mapping[int, int],
    asked: Collection[tuple[int, int]],
) -> list[tuple[int, int]]:
    """Of each chain of copies the best clip that stays and was not compared with all others that do, with these."""
    chains: dict[int, list[int]] = defaultdict(list)
    for position, chain in enumerate(duplicates.clusters(len(unique), copies)):
        if stays[position] == position:
            chains[chain].append(position)
    found: list[tuple[int, int]] = []
    for staying in chains.values():
        staying.sort(key=lambda i: unique[i].preference())
        for k, best in enumerate(staying):
            ends = ((min(best, other), max(best, other)) for other in staying[k + 1 :])
            if new := [pair for pair in ends if pair not in asked]:
                found += new
                break
    return sorted(found)


def _originals(unique: Sequence[ScannedClip], pairs: Sequence[Pair]) -> dict[int, int]:
    """For each clip, by position, the clip that stays: itself, or the one it is an altered copy of."""
    copies: dict[int, list[int]] = defaultdict(list)
    for pair in pairs:
        copies[pair.i].append(pair.j)
        copies[pair.j].append(pair.i)
    stays: dict[int, int] = {}
    for position in sorted(range(len(unique)), key=lambda i: unique[i].preference()):
        originals = [i for i in copies[position] if stays.get(i) == i]
        stays[position] = min(originals, key=lambda i: unique[i].preference(), default=position)
    return stays


def _exact(
    candidates: Iterable[ScannedClip], groups: DisjointSet
) -> tuple[list[ScannedClip], list[Dropped], list[tuple[ScannedClip, ScannedClip]]]:
    same: dict[str, list[ScannedClip]] = defaultdict(list)
    for candidate in candidates:
        same[candidate.clip_id].append(candidate)
    unique: list[ScannedClip] = []
    dropped: list[Dropped] = []
    conflicts: list[tuple[ScannedClip, ScannedClip]] = []
    for _, copies in sorted(same.items()):
        first, *others = sorted(copies, key=ScannedClip.preference)
        for other in others:
            groups.merge(first.source_group, other.source_group)
        if opposite := next((o for o in others if o.label != first.label), None):
            conflicts += [(c, opposite if c.label == first.label else first) for c in (first, *others)]
            continue
        unique.append(first)
        dropped += [Dropped(o.source_path, first.source_path, "exact") for o in others]
    return unique, dropped, sorted(conflicts, key=lambda pair: pair[0].source_path)


def _renamed(kept: Iterable[ScannedClip], groups: DisjointSet) -> list[ScannedClip]:
    """The kept clips, sorted by path, under the common name of their joined source group."""
    clips: Sequence[ScannedClip] = sorted(kept, key=lambda c: c.source_path)
    members: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        members[groups[clip.source_group]].add(clip.source_group)
    names = {root: preferred_name(group) for root, group in members.items()}
    return [replace(c, source_group=names[groups[c.source_group]]) for c in clips]
