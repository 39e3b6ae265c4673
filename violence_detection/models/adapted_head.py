"""The kernel head adapted to a place by footage without labels.

Self-training: what the model is sure of in the footage is taken for its label ("pseudo-labels": Lee 2013). The head
gets a correction, by kernel ridge regression: 0 on the landmarks it has, on the labelled windows what their logits lack
to TARGET. So it needs no clip that it was trained on, and what it says of those hardly moves. Then the offset is set
back by as much as the footage's own logits moved, in the median, where they were not fitted to: the ranking is
learnt, the threshold is not, for which footage without labels is no guide. Measured in benchmarks/bench_adapt.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from violence_detection.models.light_heads import KernelHead

QUIET, FIGHT, NONE = 0, 1, -1
#: P(violent) at most, or at least, from which a window is labelled.
SURE_QUIET, SURE_FIGHT = 0.2, 0.8
#: The logit that a labelled window should have, or its negative.
TARGET = 3.0
#: How tightly landmarks and labelled windows are held to theirs: the ridge is its inverse.
HOLD = 3.0
#: Labelled windows that are kept, spread over the footage: no more were tried.
MOST_LABELLED = 120
#: The footage is cut into so many pieces; every other one is fitted to, to see how far the rest moves.
_PIECES = 10


@dataclass(frozen=True)
class Adapted:
    """The adapted head. `labels` (N,): of the footage's windows, QUIET, FIGHT or NONE, as they were used.

    `moved`: by how much the offset was set back, a logit.
    """

    head: KernelHead
    labels: np.ndarray
    moved: float


def pseudo_labels(p: np.ndarray) -> np.ndarray:
    """QUIET, FIGHT or NONE, (N,) int, of P(violent) (N,)."""
    labels = np.where(p >= SURE_FIGHT, FIGHT, np.where(p <= SURE_QUIET, QUIET, NONE))
    sure = np.flatnonzero(labels != NONE)
    if len(sure) > MOST_LABELLED:
        kept = sure[np.arange(MOST_LABELLED) * len(sure) // MOST_LABELLED]
        labels[np.setdiff1d(sure, kept)] = NONE
    return labels


def correction(alike: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Shares (M + n,) float64 that, times the likeness to M landmarks and n labelled windows, are to be added.

    `alike` (M + n, M + n): how like each other these are. `logits`, `labels` (n,): what is said of the windows, QUIET
    or FIGHT.
    """
    from scipy.linalg import cho_factor, cho_solve

    lacking = np.zeros(len(alike))
    lacking[len(alike) - len(labels) :] = np.where(labels == FIGHT, TARGET, -TARGET) - logits
    shares: np.ndarray = cho_solve(cho_factor(alike + np.eye(len(alike)) / HOLD), lacking)
    return shares


def pieces(n: int) -> np.ndarray:
    """0 or 1, (n,): every other piece of what is in order."""
    return (np.arange(n) * _PIECES // max(n, 1)) % 2


def adapt(head: KernelHead, units: Mapping[str, np.ndarray], p: np.ndarray) -> Adapted:
    """Adapt to windows in their order: `head.units` of them, name -> (N, C), and P(violent) (N,) by the whole model."""
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
    """The head with its correction, the labelled windows among its landmarks."""
    sure = np.flatnonzero(labels != NONE)
    if not len(sure):
        return head
    new = {name: values[sure] for name, values in units.items()}
    # landmarks that were never set are zero, and so are their shares
    used = np.any([np.any(v != 0, axis=1) for v in head.vectors.values()], axis=0)
    vectors = {name: np.concatenate([v[used], new[name]]) for name, v in head.vectors.items()}
    grown = replace(head, vectors=vectors, kernel=np.zeros(int(used.sum()) + len(sure), np.float32))
    shares = correction(grown.likeness(vectors).astype(np.float64), head.logits(new), labels[sure])
    shares[: used.sum()] += head.kernel[used]
    return replace(grown, kernel=shares.astype(np.float32))
