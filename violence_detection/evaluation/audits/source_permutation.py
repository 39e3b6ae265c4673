"""Test whether scores tell the classes apart better than chance, where clips of one source are related.

A permutation test whose units are sources: classes are permuted among the sources whose clips are all of one class, and
labels within each source that has both classes. So what the clips of one source have in common is not mistaken for a
difference between the classes. (Good 2005, "Permutation, Parametric and Bootstrap Tests of Hypotheses", ch. 3; p-values
that count the observed arrangement: Phipson & Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

#: Random permutations of a test.
DRAWS = 4_999
#: Permutations in memory at once.
_CHUNK = 250


@dataclass(frozen=True)
class PermutationTest:
    """The result of a permutation test.

    `auc`: of the scores. `p_value`: how probable an AUC at least as high is by chance. `attainable`: the lowest p-value
    that was possible; with few sources there are so few permutations that none can be significant.
    """

    auc: float
    p_value: float
    attainable: float


def permutation_test(
    is_fight: np.ndarray, scores: np.ndarray, groups: np.ndarray, draws: int = DRAWS
) -> PermutationTest:
    """Test, one-sided, whether fights get higher scores.

    `is_fight`: (n,) bool. `scores`: (n,) float. `groups`: (n,) source groups. Raises ValueError unless there are clips
    of both classes.
    """
    from scipy.stats import rankdata

    is_fight = np.asarray(is_fight, bool)
    if not is_fight.any() or is_fight.all():
        raise ValueError("an AUC needs clips of both classes")
    ranks = rankdata(scores)
    found = float(_auc(np.asarray(ranks[is_fight].sum()), np.asarray(is_fight.sum()), len(ranks)))
    _, source = np.unique(np.asarray(groups), return_inverse=True)
    sizes = np.bincount(source)
    fights = np.bincount(source, weights=is_fight).astype(int)
    whole = (fights == 0) | (fights == sizes)
    mixed = [(ranks[source == s], int(fights[s])) for s in np.flatnonzero(~whole)]
    of_class = (fights > 0)[whole]
    rank_sums = np.bincount(source, weights=ranks)[whole]
    rng = np.random.default_rng(0)
    as_high = 0
    for start in range(0, draws, _CHUNK):
        count = min(_CHUNK, draws - start)
        drawn = rng.permuted(np.tile(of_class, (count, 1)), axis=1)  # (count, sources of one class)
        sums = drawn @ rank_sums
        positives = drawn @ sizes[whole]
        for values, k in mixed:
            chosen = rng.random((count, len(values))).argpartition(k - 1, axis=1)[:, :k]
            sums = sums + values[chosen].sum(axis=1)
            positives = positives + k
        as_high += int((_auc(sums, positives, len(ranks)) >= found - 1e-12).sum())
    ways = math.comb(len(of_class), int(of_class.sum())) * math.prod(math.comb(len(v), k) for v, k in mixed)
    return PermutationTest(found, (1 + as_high) / (1 + draws), max(1 / ways, 1 / (1 + draws)))


def _auc(rank_sum: np.ndarray, positives: np.ndarray, n: int) -> np.ndarray:
    """Area under the ROC curve from the sum of the positives' ranks among all `n` clips (Mann & Whitney 1947)."""
    negatives = n - positives
    return (rank_sum - positives * (positives + 1) / 2) / np.maximum(positives * negatives, 1)
