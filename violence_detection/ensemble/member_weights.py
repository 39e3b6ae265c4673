"""Weights of an ensemble's members: equal, unless the selection clips clearly favour others.

Clearly means: weights fitted on some sources of the selection part predict its other sources with a lower log loss than
equal weights do, and the 95 % interval of that gain, over sources, lies above 0. How well weights fit the clips that
they were fitted on proves nothing. With few sources the weights are always equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from violence_detection.combine import split
from violence_detection.evaluation import paired

#: With fewer sources than this the weights are always equal.
FEWEST_SOURCES = 10
_FOLDS = 5
_ITERATIONS = 200
_TINY = 1e-7


@dataclass(frozen=True)
class Weights:
    """The weights of M members: `values` (M,), which sum to 1.

    `uniform`: whether they are equal; `why`: the reason, in words. `gain`: by how much fitted weights lower the log
    loss against equal ones on sources that they were not fitted on, with its 95 % interval over sources; None where
    nothing was fitted.
    """

    values: tuple[float, ...]
    uniform: bool
    why: str
    gain: float | None = None
    gain_ci95: tuple[float, float] | None = None

    def record(self) -> dict[str, Any]:
        """What ensemble.json has under `weighting`."""
        return {"uniform": self.uniform, "why": self.why, "gain": self.gain, "gain_ci95": self.gain_ci95}


def equal(members: int, why: str) -> Weights:
    """Equal weights for that many members. `why`: the reason, in words."""
    return Weights((1 / members,) * members, True, why)


def choose(p_fight: np.ndarray, labels: np.ndarray, groups: Sequence[str], seed: int) -> Weights:
    """Choose the members' weights on the selection clips: fitted ones if they are clearly better, else equal ones.

    `p_fight` (M, n): the members' P(fight); `labels` (n,): 0 or 1; `groups` (n,): source groups.
    """
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
    """The mixture weights (M,) of greatest likelihood for the members' P(true class) (M, n), by EM from equal weights.

    Dempster, Laird & Rubin 1977. The problem is convex, so EM does not end at a local optimum.
    """
    weights = np.full(len(likelihood), 1 / len(likelihood))
    for _ in range(_ITERATIONS):
        share = weights[:, None] * likelihood  # (M, n)
        weights = (share / share.sum(axis=0)).mean(axis=1)
    return weights
