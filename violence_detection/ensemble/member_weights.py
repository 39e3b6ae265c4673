"""Weights of an ensemble's members: equal, unless the selection clips clearly say otherwise.

Clearly means: weights fitted on some sources of the selection part predict its other sources better than equal weights
do, by log loss, and the 95 % interval of the gain, over sources, is above 0. Weights that merely fit the clips they
were fitted on prove nothing; with few sources nothing is clear.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from violence_detection.combine import split
from violence_detection.evaluation import paired

#: Sources below which no weights but equal ones are thought of.
FEWEST_SOURCES = 10
_FOLDS = 5
_ITERATIONS = 200
_TINY = 1e-7


@dataclass(frozen=True)
class Weights:
    """`values` (M,) sum to 1. `gain` is the fall of the log loss on sources they were not fitted on, with interval."""

    values: tuple[float, ...]
    uniform: bool
    why: str
    gain: float | None = None
    gain_ci95: tuple[float, float] | None = None

    def record(self) -> dict[str, Any]:
        """What ensemble.json says about them."""
        return {"uniform": self.uniform, "why": self.why, "gain": self.gain, "gain_ci95": self.gain_ci95}


def equal(members: int, why: str) -> Weights:
    """The same weight for each."""
    return Weights((1 / members,) * members, True, why)


def choose(p_fight: np.ndarray, labels: np.ndarray, groups: Sequence[str], seed: int) -> Weights:
    """Weights for members that give the selection clips `p_fight` (M, n); `labels` (n,) 0 or 1, `groups` (n,)."""
    members, sources = len(p_fight), len(set(groups))
    if members == 1:
        return equal(members, "one member")
    if sources < FEWEST_SOURCES:
        return equal(
            members, f"{sources} sources are too few to tell members apart ({FEWEST_SOURCES} are needed)"
        )
    likelihood = np.where(labels == 1, p_fight, 1 - p_fight).clip(_TINY)  # (M, n), of the true class
    fold = split.grouped_folds(list(groups), labels.tolist(), _FOLDS, seed)
    gain = np.empty(len(labels))
    for i in range(_FOLDS):
        weights = fit(likelihood[:, fold != i])
        out = likelihood[:, fold == i]
        gain[fold == i] = np.log(weights @ out) - np.log(out.mean(axis=0))
    interval = paired.interval(gain, np.asarray(groups), seed)
    measured = (float(gain.mean()), interval)
    if interval is None or interval[0] <= 0:
        why = f"on {sources} sources, fitted weights are not clearly better"
        return Weights((1 / members,) * members, True, why, *measured)
    values = tuple(float(w) for w in fit(likelihood))
    return Weights(values, False, f"clearly better on {sources} sources than equal weights", *measured)


def fit(likelihood: np.ndarray) -> np.ndarray:
    """The mixture weights (M,) of greatest likelihood, for members' P(true class) (M, n), by EM from equal ones.

    Dempster, Laird & Rubin 1977; the problem is convex.
    """
    weights = np.full(len(likelihood), 1 / len(likelihood))
    for _ in range(_ITERATIONS):
        share = weights[:, None] * likelihood  # (M, n)
        weights = (share / share.sum(axis=0)).mean(axis=1)
    return weights
