"""Keep one copy of each clip, and join the source groups of clips that share footage.

Exact copies are found by content hash, near duplicates by fingerprint. Of several copies, the one to keep is chosen by
these criteria, in this order: it is in an official val set; it is in an official train set (a copy without an official
side might be put into val); it decodes completely; it has the most pixels; its path sorts first. Each dropped clip is
reported together with the clip kept instead.
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

#: Two source groups are not joined by fingerprint if the joined group would have more than this share of the clips of
#: any data set and class, and more than MAX_JOINED_CLIPS of them. In data sets without published sources, clips are
#: grouped by blocks of numbers, and a few chance pairs could chain all blocks into one group that no split divides.
MAX_JOINED_SHARE = 0.4
#: Clips of one data set and class that a joined group may always have.
MAX_JOINED_CLIPS = 50


@dataclass(frozen=True)
class ScannedClip:
    """A readable, labelled clip that may enter the manifest. `source_path` is relative to the data root."""

    source_path: str
    label: str
    dataset: str
    source_group: str
    official_split: str
    scan: Scan
    #: The id of a clip that was cut from a longer video; empty if the id comes from the hash of the file's content.
    cut_id: str = ""

    @property
    def clip_id(self) -> str:
        return self.cut_id or self.scan.sha256[:16]

    def preference(self) -> tuple[int, bool, int, str]:
        """Sort key that puts the copy to keep first."""
        pixels = self.scan.width * self.scan.height
        # a copy without an official side may be put into val
        side = ("val", "train", "").index(self.official_split)
        return side, bool(self.scan.shortfall), -pixels, self.source_path


@dataclass(frozen=True, order=True)
class Dropped:
    """The source paths of a clip that was left out and of the clip that it was left out for.

    kind: exact; near (an altered copy); source (an official train clip from the source of an official val clip);
    footage (a train clip that shares footage with a val clip, where the joined source would have been too large).
    """

    dropped: str
    kept: str
    kind: str


@dataclass(frozen=True)
class Deduplicated:
    """The kept and the dropped clips.

    conflicts: clips whose content occurs under both labels, each with a clip of the other label; all are left out.
    n_near_groups: clusters of two or more clips found by fingerprint. bridges: pairs of source paths of kept clips that
    share footage, but whose source groups would be too large if joined. If a split puts the two clips of a bridge on
    different sides, the train clip has to be dropped.
    """

    kept: list[ScannedClip]
    dropped: list[Dropped]
    conflicts: list[tuple[ScannedClip, ScannedClip]]
    n_near_groups: int
    bridges: list[tuple[str, str]]

    def failures(self) -> list[dict[str, str]]:
        """Return the conflicts as rows of a failures file: {path, reason}."""
        return [
            {
                "path": clip.source_path,
                "reason": f"labelled {clip.label}, but {other.label} as {other.source_path} with the same content; "
                "both left out",
            }
            for clip, other in self.conflicts
        ]


def scanned(source_path: str, clip: ClipFile, found: Scan) -> ScannedClip:
    """Combine what the inventory knows about a clip with what the scan found."""
    return ScannedClip(
        source_path, clip.label, clip.dataset, clip.source_group, clip.official_split, found, clip.clip_id
    )


#: Tells for each pair of near duplicates whether they are altered copies, rather than different scenes of one camera.
Confirm = Callable[[Sequence[tuple[ScannedClip, ScannedClip]]], Sequence[bool]]


def deduplicate(
    candidates: Iterable[ScannedClip],
    altered: bool = True,
    confirm: Confirm | None = None,
    one_source: Iterable[tuple[str, str]] = (),
) -> Deduplicated:
    """Keep one of each clip; join the source groups of clips that are copies or share footage.

    Near duplicates stay, in one source group as far as groups may be joined, if their labels differ (a fingerprint is
    not proof enough that one label is wrong) or if `confirm` says that they are not copies; all of them stay if
    `altered` is False. `one_source`: pairs of source groups known to be the same source. The result does not depend on
    the order of the candidates.
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
    representatives = _representatives(unique, copies, confirm)
    near = [
        Dropped(unique[i].source_path, unique[k].source_path, "near")
        for i, k in representatives.items()
        if i != k
    ]
    # a dropped copy is represented by the clip kept instead
    ends = ((representatives[p.i], representatives[p.j]) for p in bridges)
    sizes = Counter(duplicates.clusters(len(unique), pairs))
    return Deduplicated(
        kept=_renamed((unique[i] for i, k in representatives.items() if i == k), groups),
        dropped=sorted(dropped + near),
        conflicts=conflicts,
        n_near_groups=sum(size > 1 for size in sizes.values()),
        bridges=[(unique[i].source_path, unique[j].source_path) for i, j in ends if i != j],
    )


def _join(unique: Sequence[ScannedClip], pairs: Sequence[Pair], groups: DisjointSet) -> list[Pair]:
    """Join the source groups of paired clips: copies first, then by distance.

    Returns the pairs whose source groups were not joined because the result would be too large.
    """
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


def _representatives(
    unique: Sequence[ScannedClip], pairs: Sequence[Pair], confirm: Confirm | None
) -> dict[int, int]:
    """Map each clip's position to that of the clip to keep: itself, or the clip that it is an altered copy of.

    In a large set of copies, each clip is paired with only some of the others, so several clips of one chain may remain
    as originals. The best of these is then compared with the others, then the next best, until all pairs that may
    matter have been compared.
    """
    prints = [clip.scan.fingerprint for clip in unique]
    copies: list[Pair] = []
    compared: set[tuple[int, int]] = set()
    ends = [(p.i, p.j) for p in pairs]
    representatives = _originals(unique, copies)
    while ends:
        compared.update(ends)
        sure = (
            confirm([(unique[p.i], unique[p.j]) for p in pairs]) if confirm and pairs else [True] * len(pairs)
        )
        copies += itertools.compress(pairs, sure)
        representatives = _originals(unique, copies)
        ends = _not_compared(unique, copies, representatives, compared)
        pairs = [p for p in duplicates.compare_pairs(prints, ends) if p.same_clip]
    return representatives


def _not_compared(
    unique: Sequence[ScannedClip],
    copies: Sequence[Pair],
    representatives: Mapping[int, int],
    compared: Collection[tuple[int, int]],
) -> list[tuple[int, int]]:
    """For each chain of copies, pair its best kept clip that has uncompared partners with these partners.

    Partners are the kept clips of the chain that rank below it; the pairs are sorted (smaller, larger) positions.
    """
    chains: dict[int, list[int]] = defaultdict(list)
    for position, chain in enumerate(duplicates.clusters(len(unique), copies)):
        if representatives[position] == position:
            chains[chain].append(position)
    found: list[tuple[int, int]] = []
    for staying in chains.values():
        staying.sort(key=lambda i: unique[i].preference())
        for k, best in enumerate(staying):
            ends = ((min(best, other), max(best, other)) for other in staying[k + 1 :])
            if new := [pair for pair in ends if pair not in compared]:
                found += new
                break
    return sorted(found)


def _originals(unique: Sequence[ScannedClip], pairs: Sequence[Pair]) -> dict[int, int]:
    """Map each clip's position to that of the clip to keep, given the pairs of altered copies.

    A clip is dropped only in favour of a kept clip that it is itself paired with.
    """
    copies: dict[int, list[int]] = defaultdict(list)
    for pair in pairs:
        copies[pair.i].append(pair.j)
        copies[pair.j].append(pair.i)
    representatives: dict[int, int] = {}
    for position in sorted(range(len(unique)), key=lambda i: unique[i].preference()):
        originals = [i for i in copies[position] if representatives.get(i) == i]
        representatives[position] = min(originals, key=lambda i: unique[i].preference(), default=position)
    return representatives


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
    """Return the kept clips, sorted by path, with `source_group` set to the name of their joined group."""
    clips: Sequence[ScannedClip] = sorted(kept, key=lambda c: c.source_path)
    members: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        members[groups[clip.source_group]].add(clip.source_group)
    names = {root: preferred_name(group) for root, group in members.items()}
    return [replace(c, source_group=names[groups[c.source_group]]) for c in clips]
