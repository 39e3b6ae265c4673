"""How well probabilities are calibrated: the predicted share of fights against the observed one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from violence_detection.models.calibration import Calibration, name_of

if TYPE_CHECKING:
    from violence_detection.models.trained_model import TrainedModel

_BINS = 10


class CalibrationBins(NamedTuple):
    """The bins with clips, arrays (bins,): their mean probability, share of fights, and number of clips."""

    p_mean: np.ndarray
    share: np.ndarray
    n: np.ndarray


def calibration_bins(is_fight: np.ndarray, p_fight: np.ndarray) -> CalibrationBins:
    """Predicted and observed share of fights in ten bins of equal width. Empty bins are left out.

    `is_fight` (n,) bool, `p_fight` (n,) in [0, 1]. A probability on the edge of two bins falls into the upper one, just
    as a clip at the threshold is called a fight.
    """
    from sklearn.calibration import calibration_curve

    # calibration_curve puts edges into the lower bin, so it is given P(nonfight)
    p_peace = 1 - np.asarray(p_fight)
    peaceful, predicted = calibration_curve(~np.asarray(is_fight, bool), p_peace, n_bins=_BINS)
    # calibration_curve does not return the number of clips in each bin
    n = np.bincount(np.searchsorted(np.linspace(0, 1, _BINS + 1)[1:-1], p_peace))
    return CalibrationBins(1 - predicted[::-1], 1 - peaceful[::-1], n[n > 0][::-1])


def expected_calibration_error(is_fight: np.ndarray, p_fight: np.ndarray) -> float:
    """ECE: mean absolute difference of predicted and observed share of fights over ten bins (Naeini et al. 2015).

    Bins are of equal width and weighted by their clips.
    """
    bins = calibration_bins(is_fight, p_fight)
    return float(np.average(np.abs(bins.p_mean - bins.share), weights=bins.n))


def before_and_after(is_fight: np.ndarray, before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    """ECE, Brier score and bins of the probabilities (n,) of the same clips before and after calibration, JSON-able."""
    from sklearn.metrics import brier_score_loss

    record: dict[str, Any] = {}
    for name, p in (("before", before), ("after", after)):
        bins = calibration_bins(is_fight, p)
        record[f"ece_{name}"] = expected_calibration_error(is_fight, p)
        record[f"brier_{name}"] = float(brier_score_loss(is_fight, p))
        record[f"bins_{name}"] = [
            {"p_mean": float(m), "share": float(s), "n": int(n)} for m, s, n in zip(*bins, strict=True)
        ]
    return record


def rates(is_fight: np.ndarray, p: np.ndarray, groups: np.ndarray, threshold: float) -> dict[str, Any]:
    """False alarm rate and recall at a threshold: shares of clips, and means over sources (`by_source`).

    None for a class without clips.
    """
    called = p >= threshold
    of_clips, by_source = {}, {}
    for name, of_class in (("false_alarm_rate", ~is_fight), ("recall", is_fight)):
        any_clip = bool(of_class.any())
        of_clips[name] = float(called[of_class].mean()) if any_clip else None
        by_source[name] = mean_over_sources(called[of_class], groups[of_class]) if any_clip else None
    return {**of_clips, "by_source": by_source}


def mean_over_sources(values: np.ndarray, groups: np.ndarray) -> float:
    """Average `values` (n,) within each source of `groups` (n,), then over the sources with equal weights."""
    _, inverse = np.unique(groups, return_inverse=True)
    return float((np.bincount(inverse, weights=values) / np.bincount(inverse)).mean())


def section(
    model: TrainedModel,
    is_fight: np.ndarray,
    by_member: Mapping[str, np.ndarray],
    p: np.ndarray,
    p_before: np.ndarray,
    groups: np.ndarray,
    views: int = 1,
) -> dict[str, Any]:
    """The `calibration` section of metrics.json: what is stored with the model, and how it does on the clips judged.

    `p`, `p_before` (n,): probabilities with and without the model's temperature, at its operating point. `by_member`:
    name -> P(fight) (n,) at the member's own temperature, from which the probabilities at other operating points are
    computed. `views`: how many views of a clip were averaged.
    """
    found = model.calibration or Calibration(None, why_not="nothing is stored with the model")
    used = model.applied or found  # differs from `found` if the early exit is not taken
    said = "; ".join(filter(None, (used.described(), found.other_views(views))))
    of_used = {"temperature": used.temperature, "why_not": used.why_not, "said": said}
    record = {**found.record(), **of_used}
    by = {model.by_all: p}
    for name in record["operating_points"]:
        at = model.at(name_of(name))
        if at.by_all not in by:
            by[at.by_all] = at.average(by_member)
        point = record["operating_points"][name]
        point["here"] = rates(is_fight, by[at.by_all], groups, float(point["threshold"]))
    return {**record, **before_and_after(is_fight, p_before, p)}
