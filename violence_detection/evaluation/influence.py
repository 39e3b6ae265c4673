"""Figures of a classifier with the influence of each clip on them, from which intervals by source are computed.

A figure is a function of the clips' weights. A clip's influence is the figure's first-order change when the clip counts
once more (Hampel 1974, "The influence curve and its role in robust estimation", JASA 69; for clusters Binder 1983, "On
the variances of asymptotically normal estimators from complex surveys", Int. Stat. Rev. 51). Its sums over sources give
the variance of any figure in one pass, where a bootstrap would compute the figure thousands of times.

Arrays are (n,), one value per clip: `is_fight` bool, `p_fight` in [0, 1], `called` (called a fight) bool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Figure:
    """A figure in [0, 1].

    `influence` (n,): the influence of each clip; they sum to 0. `weight` (n,): how much of the figure rests on each
    clip, at least 0. `loss` (n,): how far each clip keeps the figure from 1, at least 0 (in an accuracy, 1 for a wrong
    clip). `clips`: how many independent clips the figure is assumed to rest on if there is no loss to estimate that
    from. `classes` (n,) bool: whether a clip is of the first of two classes; given if the influences sum to 0 in each
    class. `halves`: given if the figure is the mean of two figures that share no clip.
    """

    value: float
    influence: np.ndarray
    weight: np.ndarray
    loss: np.ndarray
    clips: float
    classes: np.ndarray | None = None
    halves: tuple[Figure, Figure] | None = None


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> Figure | None:
    """Ratio of the sums of two arrays with 0 <= numerator <= denominator; None if the denominator's sum is 0."""
    num, den = np.asarray(numerator, float), np.asarray(denominator, float)
    total = float(den.sum())
    if total == 0:
        return None
    value = float(num.sum()) / total
    return Figure(value, (num - value * den) / total, den, den - num, total**2 / float((den**2).sum()))


def accuracy(is_fight: np.ndarray, called: np.ndarray) -> Figure | None:
    """Share of the clips that are called what they are; None without clips."""
    return ratio(is_fight == called, np.ones(len(called)))


def precision(is_fight: np.ndarray, called: np.ndarray) -> Figure | None:
    """Share of the clips called fights that are fights; None if none is called a fight."""
    return ratio(is_fight & called, called)


def recall(is_fight: np.ndarray, called: np.ndarray) -> Figure | None:
    """Share of the fights that are called fights; None without fights."""
    return ratio(is_fight & called, is_fight)


def f1(is_fight: np.ndarray, called: np.ndarray) -> Figure | None:
    """2 TP / (2 TP + FP + FN); None if there is neither a fight nor a clip called one."""
    return ratio(2.0 * (is_fight & called), is_fight.astype(float) + called)


def balanced_accuracy(is_fight: np.ndarray, called: np.ndarray) -> Figure | None:
    """Mean of the recalls of both classes; None without clips of both."""
    fights, others = recall(is_fight, called), recall(~is_fight, ~called)
    if fights is None or others is None:
        return None
    return Figure(
        (fights.value + others.value) / 2,
        (fights.influence + others.influence) / 2,
        _weight_of_classes(is_fight),
        (is_fight != called).astype(float),
        2 * _harmonic_mean(is_fight),
        is_fight,
        (fights, others),
    )


def roc_auc(is_fight: np.ndarray, p_fight: np.ndarray) -> Figure | None:
    """Share of the pairs of a fight and a nonfight clip in which the fight scores higher; ties count half.

    None without clips of both classes. A clip's influence comes from its placement among the clips of the other class
    (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44), to be summed over sources as in Obuchowski 1997
    ("Nonparametric analysis of clustered ROC curve data", Biometrics 53).
    """
    if not is_fight.any() or is_fight.all():
        return None
    weight = _weight_of_classes(is_fight)
    placement = np.empty(len(p_fight))
    placement[is_fight] = _share_below(p_fight[is_fight], p_fight[~is_fight])
    placement[~is_fight] = 1 - _share_below(p_fight[~is_fight], p_fight[is_fight])
    value = float(placement[is_fight].mean())
    clips = _harmonic_mean(is_fight)
    return Figure(value, (placement - value) * weight, weight, 1 - placement, clips, is_fight)


def average_precision(is_fight: np.ndarray, p_fight: np.ndarray) -> Figure | None:
    """Mean over the fights of the precision among the clips that score at least as high as the fight.

    None without clips of both classes. Also called the area under the precision-recall curve. For an interval on a
    scale for shares see Boyd, Eng & Page 2013, "Area under the precision-recall curve: point estimates and confidence
    intervals", ECML.
    """
    if not is_fight.any() or is_fight.all():
        return None
    fights = np.sort(p_fight[is_fight])
    above = len(p_fight) - np.searchsorted(np.sort(p_fight), p_fight)  # clips that score at least as high
    precision_at = (len(fights) - np.searchsorted(fights, p_fight)) / above
    n_fights = len(fights)
    value = float(precision_at[is_fight].mean())
    # A clip is in the denominator of the precision at every fight that scores no higher than it.
    order = np.argsort(p_fight[is_fight], kind="stable")
    found = np.concatenate([[0.0], np.cumsum((1 / above)[is_fight][order])])
    diluted = np.concatenate([[0.0], np.cumsum((precision_at / above)[is_fight][order])])
    no_higher = np.searchsorted(fights, p_fight, side="right")
    influence = (
        is_fight * (precision_at - value) + is_fight * found[no_higher] - diluted[no_higher]
    ) / n_fights
    weight, loss = _weight_of_classes(is_fight), is_fight * (1 - precision_at)
    return Figure(value, influence, weight, loss, n_fights)


def recall_at(
    is_fight: np.ndarray, p_fight: np.ndarray, false_alarms: float
) -> tuple[Figure, float | None] | None:
    """The highest recall at a threshold with at most this share of false alarms, and that threshold.

    The threshold is None if no clip scores high enough. Returns None without fights, or with fewer nonfight clips than
    1 / `false_alarms`. A nonfight clip moves the threshold, and with it the recall, by the slope of the ROC curve: that
    of the secant over one standard deviation of the false alarm rate to either side (variance: Hsieh & Turnbull 1996,
    "Nonparametric and semiparametric estimation of the ROC curve", Ann. Stat. 24).
    """
    fights, others = np.sort(p_fight[is_fight]), np.sort(p_fight[~is_fight])[::-1]
    m, n = len(fights), len(others)
    if m == 0 or n * false_alarms < 1 - 1e-9:
        return None
    admitted = int(np.floor(false_alarms * n + 1e-9))
    limit = others[admitted] if admitted < n else -1.0
    found = is_fight & (p_fight > limit)
    value = float(found.sum() / m)
    higher = p_fight[p_fight > limit]
    threshold = float(higher.min()) if len(higher) else None
    spread = np.sqrt(false_alarms * (1 - false_alarms) / n)
    ends = np.clip([false_alarms - spread, false_alarms + spread], 0, 1)
    at = np.minimum(np.floor(ends * n + 1e-9).astype(int), n - 1)
    recalls = 1 - np.searchsorted(fights, others[at], side="right") / m
    slope = float((recalls[1] - recalls[0]) / (ends[1] - ends[0]))
    # except for ties, the nonfight clips above the limit are exactly the admitted ones
    influence = np.where(is_fight, (found - value) / m, -slope * ((p_fight > limit) - admitted / n) / n)
    influence[~is_fight] -= influence[~is_fight].mean()
    weight, loss = _weight_of_classes(is_fight), (is_fight & ~found).astype(float)
    return Figure(value, influence, weight, loss, m, is_fight), threshold


def _weight_of_classes(is_fight: np.ndarray) -> np.ndarray:
    """Weights (n,) by which both classes count the same: 1 over the number of clips in the clip's class."""
    fights = int(is_fight.sum())
    return np.where(is_fight, 1 / fights, 1 / (len(is_fight) - fights))


def _harmonic_mean(is_fight: np.ndarray) -> float:
    """Harmonic mean of the two classes' numbers of clips."""
    return 2 / float(_weight_of_classes(is_fight) ** 2 @ np.ones(len(is_fight)))


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of `others` below each of `values`; equal ones count half."""
    ordered = np.sort(others)
    low, high = np.searchsorted(ordered, values), np.searchsorted(ordered, values, side="right")
    return (low + high) / (2 * len(others))
