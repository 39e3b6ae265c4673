"""Adapting a kernel head to one place by footage without labels.

Self-training: where the model is sure of a window, its verdict becomes the window's label ("pseudo-labels": Lee 2013).
Kernel ridge regression then fits a correction of the logits: 0 at the head's own landmarks, and at each labelled window
what its logit lacks to TARGET (fight) or -TARGET (quiet). The clips that the head was trained on are not needed, and
its logits for them hardly change. Finally the bias is shifted back by the median change of the footage's logits, each
measured while its piece of the footage was held out from the fit. So the ranking of windows is learnt but not the
threshold, about which footage without labels says nothing. Measured in benchmarks/bench_adapt.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from violence_detection.models.light_heads import KernelHead

#: Pseudo-labels of windows; NONE: the window is not fitted to.
QUIET, FIGHT, NONE = 0, 1, -1
#: A window with P(violent) up to this is labelled QUIET.
SURE_QUIET = 0.2
#: A window with P(violent) from this on is labelled FIGHT.
SURE_FIGHT = 0.8
#: The logit that a window labelled FIGHT should get. One labelled QUIET should get its negative.
TARGET = 3.0
#: How closely the correction follows its targets: the ridge added to the kernel matrix is 1 / HOLD.
HOLD = 3.0
#: At most this many labelled windows are used, evenly spread over the labelled ones. More were not tried.
MOST_LABELLED = 120
#: The footage is cut into this many pieces, of which every other one is held out to measure how far logits move.
_PIECES = 10


@dataclass(frozen=True)
class Adapted:
    """The adapted head, with `labels` (N,), the label that each window of the footage was used with.

    `moved`: the median change of held-out logits, which was subtracted from the bias.
    """

    head: KernelHead
    labels: np.ndarray
    moved: float


def pseudo_labels(p: np.ndarray) -> np.ndarray:
    """QUIET, FIGHT or NONE, (N,) int, for each P(violent) (N,); at most MOST_LABELLED of them are not NONE."""
    labels = np.where(p >= SURE_FIGHT, FIGHT, np.where(p <= SURE_QUIET, QUIET, NONE))
    sure = np.flatnonzero(labels != NONE)
    if len(sure) > MOST_LABELLED:
        kept = sure[np.arange(MOST_LABELLED) * len(sure) // MOST_LABELLED]
        labels[np.setdiff1d(sure, kept)] = NONE
    return labels


def correction(alike: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The correction, as weights (M + n,) float64 of the likeness to M landmarks and n labelled windows.

    A clip's correction is the sum of its likenesses, each times its weight. `alike` (M + n, M + n): the likeness of
    landmarks and windows to each other, landmarks first. `logits`, `labels` (n,): of the windows, each label QUIET or
    FIGHT.
    """
    from scipy.linalg import cho_factor, cho_solve

    lacking = np.zeros(len(alike))
    lacking[len(alike) - len(labels) :] = np.where(labels == FIGHT, TARGET, -TARGET) - logits
    shares: np.ndarray = cho_solve(cho_factor(alike + np.eye(len(alike)) / HOLD), lacking)
    return shares


def pieces(n: int) -> np.ndarray:
    """The piece that each of `n` windows in order belongs to, by turns 0 and 1, (n,)."""
    return (np.arange(n) * _PIECES // max(n, 1)) % 2


def adapt(head: KernelHead, units: Mapping[str, np.ndarray], p: np.ndarray) -> Adapted:
    """Adapt the head to N windows of footage, in order of time.

    `units`: `head.units` of the windows, input name -> (N, C). `p`: P(violent) (N,) by the whole model.
    """
    labels = pseudo_labels(p)
    before, part = head.logits(units), pieces(len(p))
    moved = [
        (_fitted(head, units, np.where(part == k, labels, NONE)).logits(units) - before)[part != k]
        for k in (0, 1)
    ]
    offset = float(np.median(np.concatenate(moved)))
    fitted = _fitted(head, units, labels)
    return Adapted(replace(fitted, bias=np.float32(fitted.bias - offset)), labels, offset)


def _fitted(head: KernelHead, units: Mapping[str, np.ndarray], labels: np.ndarray) -> KernelHead:
    """The head with its correction; the labelled windows become landmarks."""
    sure = np.flatnonzero(labels != NONE)
    if not len(sure):
        return head
    new = {name: values[sure] for name, values in units.items()}
    # unused landmarks are zero in all inputs, and so are their weights
    used = np.any([np.any(v != 0, axis=1) for v in head.vectors.values()], axis=0)
    vectors = {name: np.concatenate([v[used], new[name]]) for name, v in head.vectors.items()}
    grown = replace(head, vectors=vectors, kernel=np.zeros(int(used.sum()) + len(sure), np.float32))
    shares = correction(grown.likeness(vectors).astype(np.float64), head.logits(new), labels[sure])
    shares[: used.sum()] += head.kernel[used]
    return replace(grown, kernel=shares.astype(np.float32))
