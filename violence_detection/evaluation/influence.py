"""Figures of a classifier, with what each clip adds to them: what intervals by source are made of.

A figure is a function of how much each clip counts. Its first-order change when a clip counts once more is the clip's
influence (Hampel 1974, "The influence curve and its role in robust estimation", JASA 69; for clusters Binder 1983,
"On the variances of asymptotically normal estimators from complex surveys", Int. Stat. Rev. 51). Sums of it over
sources give the variance, at the cost of one pass whatever the figure, where a bootstrap would compute it thousands
of times.

Arrays are (n,), one value a clip: `is_fight` bool, `p_fight` in [0, 1], `called` bool.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Figure:
    """A figure in [0, 1].

    `influence` (n,): what each clip adds, 0 in sum. `weight` (n,): how much of the figure rests on each clip, at
    least 0. `loss` (n,): how far each clip keeps the figure from 1, at least 0 (1 for a wrong clip of an accuracy).
    `clips`: what it is taken to rest on where there is no loss to tell. `classes` (n,) bool: which clips are of
    the one class, where the influences of each class are 0 in sum. `halves`: the figures of which it is the mean, each
    of clips of its own.
    """

    value: float
    influence: np.ndarray
    weight: np.ndarray
    loss: np.ndarray
    clips: float
    classes: np.ndarray | None = None
    halves: tuple[Figure, Figure] | None = None


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> Figure | None:
    """Sum over sum of arrays with 0 <= numerator <= denominator; None where the denominator is 0."""
    num, den = np.asarray(numerator, float), np.asarray(denominator, float)
    total = float(den.sum())
    if total == 0:
        return None
    value = float(num.sum()) / total
    return Figure(value, (num - value * den) / total, den, den - num, total**2 / float((den**2).sum()))


def accuracy(is_fight: np.ndarray, called: np.ndarray) -> Figure | None:
    """Share of the clips called right; None for no clips."""
    return ratio(is_fight == called, np.ones(len(called)))


def precision(is_fight: np.ndarray, called: np.ndarray) -> Figure | None:
    """Share of the clips called fights that are; None where none is called one."""
    return ratio(is_fight & called, called)


def recall(is_fight: np.ndarray, called: np.ndarray) -> Figure | None:
    """Share of the fights that are called so; None for no fights."""
    return ratio(is_fight & called, is_fight)


def f1(is_fight: np.ndarray, called: np.ndarray) -> Figure | None:
    """2 TP / (2 TP + FP + FN); None where nothing is or is called a fight."""
    return ratio(2.0 * (is_fight & called), is_fight.astype(float) + called)


def balanced_accuracy(is_fight: np.ndarray, called: np.ndarray) -> Figure | None:
    """Mean of both classes' recall; None for one class."""
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
    """Share of pairs of a fight and another clip in which the fight scores higher, ties half; None for one class.

    A clip's influence is its placement among the other class (DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44),
    summed over sources as Obuchowski 1997 does ("Nonparametric analysis of clustered ROC curve data", Biometrics 53).
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
    """Mean over the fights of the precision of all clips that score at least as high; None for one class.

    Also called the area under the precision-recall curve. Its interval on a scale for shares: Boyd, Eng & Page 2013,
    "Area under the precision-recall curve: point estimates and confidence intervals", ECML.
    """
    if not is_fight.any() or is_fight.all():
        return None
    fights = np.sort(p_fight[is_fight])
    above = len(p_fight) - np.searchsorted(np.sort(p_fight), p_fight)  # clips that score at least as high
    precision_at = (len(fights) - np.searchsorted(fights, p_fight)) / above
    n_fights = len(fights)
    value = float(precision_at[is_fight].mean())
    # A clip stands among those "at least as high" of every fight that scores no higher than it.
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
    """The largest recall at a threshold with at most this share of false alarms, and that threshold.

    The threshold is None where no clip scores high enough, the whole None where a class lacks or there are fewer
    other clips than 1 / `false_alarms`. A clip that is no fight moves the threshold, and so the recall by the slope
    of the ROC curve, taken as a secant over one standard deviation of the false alarms to both sides (variance: Hsieh
    & Turnbull 1996, "Nonparametric and semiparametric estimation of the ROC curve", Ann. Stat. 24).
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
    # every other clip above the limit is one of the admitted, but for ties
    influence = np.where(is_fight, (found - value) / m, -slope * ((p_fight > limit) - admitted / n) / n)
    influence[~is_fight] -= influence[~is_fight].mean()
    weight, loss = _weight_of_classes(is_fight), (is_fight & ~found).astype(float)
    return Figure(value, influence, weight, loss, m, is_fight), threshold


def _weight_of_classes(is_fight: np.ndarray) -> np.ndarray:
    """Both classes count as much in all: 1 over the number of clips of the clip's class."""
    fights = int(is_fight.sum())
    return np.where(is_fight, 1 / fights, 1 / (len(is_fight) - fights))


def _harmonic_mean(is_fight: np.ndarray) -> float:
    """Of the numbers of clips of both classes."""
    return 2 / float(_weight_of_classes(is_fight) ** 2 @ np.ones(len(is_fight)))


def _share_below(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """For each value the share of `others` below it, those equal counted half."""
    ordered = np.sort(others)
    low, high = np.searchsorted(ordered, values), np.searchsorted(ordered, values, side="right")
    return (low + high) / (2 * len(others))
