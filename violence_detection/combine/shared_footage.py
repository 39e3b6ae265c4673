"""Find clips of one part that share footage with another part although their source groups differ.

Combining joins the source groups of clips that share footage, except where the joined group would be too large to be
divided. So parts divided by source may still share footage.
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
#: Number of pairs from which their comparison, 10 to 40 s on one core, is announced in the log.
_ANNOUNCED_PAIRS = 10_000_000


class SharedFootage:
    """Knows which clips of a manifest show the same footage: their fingerprints are equal or make a pair.

    In a large family, a search pairs each clip with only some of the others, so within a family all are compared.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._near = duplicates.neighbours(frame.fingerprint)
        self._families = duplicates.families(self._near)

    def without(self, apart: pd.DataFrame, others: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of `others` that share no footage with `apart`; clips without a fingerprint share none."""
        shown = set(apart.fingerprint) & self._families.keys()
        near = shown.union(*(self._near[text] for text in shown))
        near |= self._compared(shown, set(others.fingerprint) & self._families.keys() - near)
        return others[~others.fingerprint.isin(near)]

    def _compared(self, shown: Iterable[str], others: Iterable[str]) -> set[str]:
        """Return those of `others` that make a pair with a fingerprint of `shown` from the same family."""
        families: dict[int, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for side, texts in enumerate((shown, others)):
            for text in sorted(texts):
                families[self._families[text]][side].append(text)
        found: set[str] = set()
        for seen, left in families.values():
            if (most := len(seen) * len(left)) > _ANNOUNCED_PAIRS:
                log.info("comparing up to %d pairs of clips that may show the same place", most)
            if seen and left:
                found.update(itertools.compress(left, duplicates.joined_with_any(seen, left)))
        return found


def rather_train(unique: Deduplicated, sides: Mapping[str, str]) -> list[str]:
    """Find clips that should all go to train, given the side of each source path; return their source paths.

    These are the sets of clips connected by shared footage, as from one fixed camera, whose division would cost train
    at least half as many clips as val gets. A set with an official val clip is left as it is.
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
    """Map each train clip to leave out to a val clip whose footage it shows, given the side of each source path.

    In a large family, a search pairs each clip with only some of the others, so it is repeated until it finds no more.
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
    """Map the train clip of each pair (of source paths) that is on both sides to the val clip of its first pair."""
    found: dict[str, str] = {}
    for pair in pairs:
        by_side = {sides.get(path): path for path in pair}
        if TRAIN in by_side and VAL in by_side:
            found.setdefault(by_side[TRAIN], by_side[VAL])
    return found
