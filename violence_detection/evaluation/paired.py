"""Confidence interval of the difference between two models on the same clips, when clips of one source are alike."""

from __future__ import annotations

import numpy as np

#: Bootstrap replicates.
_DRAWS = 2_000


def interval(difference: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float] | None:
    """95 % interval of the mean of `difference` (n,), by resampling whole source groups (n,) with replacement.

    The percentile bootstrap over clusters (Field & Welsh 2007, J. R. Statist. Soc. B 69). None with a single group,
    which says nothing about the variance between groups. Raises ValueError without clips, or if the lengths differ.
    """
    difference, groups = np.asarray(difference, float), np.asarray(groups)
    if len(difference) == 0 or difference.shape != groups.shape:
        raise ValueError(
            f"expected one group per clip and at least one clip, got {difference.shape} and {groups.shape}"
        )
    _, inverse = np.unique(groups, return_inverse=True)
    sizes = np.bincount(inverse)
    if len(sizes) == 1:
        return None
    sums = np.bincount(inverse, weights=difference)
    drawn = np.random.default_rng(seed).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), _DRAWS)
    means = (drawn @ sums) / (drawn @ sizes)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
