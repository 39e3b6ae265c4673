"""Keep one of each clip: exact copies by content hash, altered ones by fingerprint; join what shares footage.

Of two copies the one in an official val set stays (the train copy goes), then the one with more pixels, then
the first by path. What goes is named together with what stays.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from violence_detection import duplicates
from violence_detection.scan import Scan
from violence_detection.sources import Union, preferred_name


@dataclass(frozen=True)
class Candidate:
    """A readable, labelled clip on its way into the manifest. `source_path` is below the data root."""

    source_path: str
    label: str
    dataset: str
    source_group: str
    official_split: str
    scan: Scan

    @property
    def clip_id(self) -> str:
        return self.scan.sha256[:16]

    def preference(self) -> tuple[bool, int, str]:
        """Sorts the copy to keep first."""
        return self.official_split != "val", -self.scan.width * self.scan.height, self.source_path


@dataclass(frozen=True, order=True)
class Dropped:
    """A clip that was left out. kind: exact, near, or source (a train clip of an official val clip's
    source)."""

    dropped: str
    kept: str
    kind: str


@dataclass(frozen=True)
class Deduplicated:
    """`conflicts`: copies of the same content under both labels, all left out. `n_near_groups`: clusters
    found."""

    kept: list[Candidate]
    dropped: list[Dropped]
    conflicts: list[tuple[Candidate, Candidate]]
    n_near_groups: int


def deduplicate(candidates: Iterable[Candidate]) -> Deduplicated:
    """One of each clip, with source groups joined over everything that is the same or shares footage.

    Altered copies under different labels both stay, in one source group: a fingerprint is not proof enough to
    say that one of the labels is wrong. The result does not depend on the order of the candidates.
    """
    union: Union[str] = Union()
    unique, dropped, conflicts = _exact(candidates, union)
    unique.sort(key=lambda c: c.clip_id)
    pairs = duplicates.find_pairs([c.scan.fingerprint for c in unique])
    copies: dict[int, list[int]] = defaultdict(list)
    for pair in pairs:
        union.join(unique[pair.i].source_group, unique[pair.j].source_group)
        if pair.same_clip and unique[pair.i].label == unique[pair.j].label:
            copies[pair.i].append(pair.j)
            copies[pair.j].append(pair.i)
    kept: dict[int, Candidate] = {}
    for position in sorted(range(len(unique)), key=lambda i: unique[i].preference()):
        originals = [kept[i] for i in copies[position] if i in kept]
        if originals:
            original = min(originals, key=Candidate.preference)
            dropped.append(Dropped(unique[position].source_path, original.source_path, "near"))
        else:
            kept[position] = unique[position]
    clusters = duplicates.clusters(len(unique), pairs)
    sizes: dict[int, int] = defaultdict(int)
    for cluster in clusters:
        sizes[cluster] += 1
    return Deduplicated(
        kept=_renamed(kept.values(), union),
        dropped=sorted(dropped),
        conflicts=conflicts,
        n_near_groups=sum(size > 1 for size in sizes.values()),
    )


def _exact(
    candidates: Iterable[Candidate], union: Union[str]
) -> tuple[list[Candidate], list[Dropped], list[tuple[Candidate, Candidate]]]:
    same: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        same[candidate.scan.sha256].append(candidate)
    unique: list[Candidate] = []
    dropped: list[Dropped] = []
    conflicts: list[tuple[Candidate, Candidate]] = []
    for _, copies in sorted(same.items()):
        first, *others = sorted(copies, key=Candidate.preference)
        for other in others:
            union.join(first.source_group, other.source_group)
        if opposite := next((o for o in others if o.label != first.label), None):
            conflicts += [(c, opposite if c.label == first.label else first) for c in (first, *others)]
            continue
        unique.append(first)
        dropped += [Dropped(o.source_path, first.source_path, "exact") for o in others]
    return unique, dropped, sorted(conflicts, key=lambda pair: pair[0].source_path)


def _renamed(kept: Iterable[Candidate], union: Union[str]) -> list[Candidate]:
    """The kept clips, sorted by path, under the common name of their joined source group."""
    clips: Sequence[Candidate] = sorted(kept, key=lambda c: c.source_path)
    members: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        members[union.root(clip.source_group)].add(clip.source_group)
    names = {root: preferred_name(group) for root, group in members.items()}
    return [replace(c, source_group=names[union.root(c.source_group)]) for c in clips]
