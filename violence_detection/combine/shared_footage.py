"""Clips of one part that show the footage of another, though they count as other sources.

Combining makes one source of clips that share footage, but not where that would grow too large to be divided. So parts
that are cut by source may still share some.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from violence_detection.combine import duplicates
from violence_detection.combine.dedupe import Deduplicated
from violence_detection.combine.split import TRAIN, VAL
from violence_detection.datasets import source_groups

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
#: Pairs that take so long, 10 to 40 s on a core, that it is said.
_TOLD = 10_000_000


class SharedFootage:
    """Which fingerprints of a manifest's rows show the same footage: equal ones, and those that make a pair.

    Of a large family a search pairs each clip with some of the others only, so all of these are compared.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._near = duplicates.neighbours(frame.fingerprint)
        self._families = duplicates.families(self._near)

    def without(self, apart: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
        """The rows of `others` that show no footage of `apart`; clips without a fingerprint show none."""
        shown = set(apart.fingerprint) & self._families.keys()
        near = shown.union(*(self._near[text] for text in shown))
        near |= self._compared(shown, set(others.fingerprint) & self._families.keys() - near)
        return others[~others.fingerprint.isin(near)]

    def _compared(self, shown: Iterable[str], others: Iterable[str]) -> set[str]:
        """Those of the others that make a pair with one of their family that is shown."""
        families: dict[int, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for side, texts in enumerate((shown, others)):
            for text in sorted(texts):
                families[self._families[text]][side].append(text)
        found: set[str] = set()
        for seen, left in families.values():
            if (most := len(seen) * len(left)) > _TOLD:
                log.info("up to %d pairs of clips that may show one place are compared", most)
            if seen and left:
                found.update(itertools.compress(left, duplicates.joined_with_any(seen, left)))
        return found


def rather_train(unique: Deduplicated, sides: Mapping[str, str]) -> list[str]:
    """Source paths of clips that had better all be in train, given the side of each source path.

    Those that footage ties to each other, as before one fixed camera, where a division would cost train at least half
    as many clips as val gets. What is tied to an official val clip stays as it is.
    """
    clips = [c for c in unique.kept if c.source_path in sides]
    numbers = {name: k for k, name in enumerate(sorted({c.source_group for c in clips}))}
    of = {c.source_path: numbers[c.source_group] for c in clips}
    bridges = [pair for pair in unique.bridges if all(path in of for path in pair)]
    sets = source_groups.connected(len(numbers), [(of[a], of[b]) for a, b in bridges])
    lost = Counter(sets[of[path]] for path in torn(bridges, sides))
    n_val = Counter(sets[of[c.source_path]] for c in clips if sides[c.source_path] == VAL)
    official = {sets[of[c.source_path]] for c in clips if c.official_split == VAL}
    whole = {k for k, n in lost.items() if 2 * n >= n_val[k]} - official
    return [path for path, number in of.items() if sets[number] in whole]


def to_drop(unique: Deduplicated, sides: Mapping[str, str]) -> dict[str, str]:
    """Train clips to leave out -> a val clip whose footage they show, given the side of each source path.

    Of a large family a search pairs each clip with some of the others only, so it goes on until nothing is found.
    """
    if not unique.bridges:
        return {}
    dropped = torn(unique.bridges, sides)
    while True:
        clips = [c for c in unique.kept if c.source_path in sides and c.source_path not in dropped]
        pairs = duplicates.find_pairs([c.scan.fingerprint for c in clips])
        found = torn([(clips[p.i].source_path, clips[p.j].source_path) for p in pairs], sides)
        if not found:
            return dropped
        dropped |= found


def torn(pairs: Iterable[Sequence[str]], sides: Mapping[str, str]) -> dict[str, str]:
    """The train clips of pairs (source paths) that stand on both sides -> the val clip of the first such pair."""
    found: dict[str, str] = {}
    for pair in pairs:
        by_side = {sides.get(path): path for path in pair}
        if TRAIN in by_side and VAL in by_side:
            found.setdefault(by_side[TRAIN], by_side[VAL])
    return found
