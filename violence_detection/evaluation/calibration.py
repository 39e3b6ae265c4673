"""Whether probabilities can be taken at their word: the predicted share of fights against the observed one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

CALIBRATION_BINS = 10


class CalibrationBins(NamedTuple):
    """Bins that hold clips, (bins,) each: mean probability, share that are fights, and number of clips."""

    p_mean: np.ndarray
    share: np.ndarray
    n: np.ndarray


def calibration_bins(
    is_fight: np.ndarray, p_fight: np.ndarray, bins: int = CALIBRATION_BINS
) -> CalibrationBins:
    """Predicted against observed share of fights in equal-width bins. Empty bins are left out.

    `is_fight` (n,) bool, `p_fight` (n,) in [0, 1]. A probability on the edge of two bins is in the upper one, as a clip
    at the threshold is called a fight.
    """
    from sklearn.calibration import calibration_curve

    # calibration_curve puts edges into the lower bin, so it is asked about peace.
    p_peace = 1 - np.asarray(p_fight)
    peaceful, predicted = calibration_curve(~np.asarray(is_fight, bool), p_peace, n_bins=bins)
    # The same bins again, for it does not say how many clips each holds.
    n = np.bincount(np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], p_peace))
    return CalibrationBins(1 - predicted[::-1], 1 - peaceful[::-1], n[n > 0][::-1])


def expected_calibration_error(is_fight: np.ndarray, p_fight: np.ndarray) -> float:
    """Mean distance of predicted and observed share of fights, ten equal bins (Naeini et al. 2015)."""
    bins = calibration_bins(is_fight, p_fight)
    return float(np.average(np.abs(bins.p_mean - bins.share), weights=bins.n))
