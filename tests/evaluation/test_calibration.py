"""Predicted and observed shares of fights are compared in ten bins, and every clip counts once."""

from __future__ import annotations

import numpy as np
import pytest

from violence_detection.evaluation import calibration


def test_calibration_error_of_perfect_and_of_overconfident_scores() -> None:
    fight = np.repeat([True, False], 50)
    assert calibration.expected_calibration_error(fight, fight.astype(float)) == 0
    assert calibration.expected_calibration_error(fight, np.full(100, 0.95)) == pytest.approx(0.45)


def test_bins_hold_every_clip_once_and_edges_belong_to_the_upper_bin() -> None:
    rng = np.random.default_rng(0)
    p = np.concatenate([np.round(rng.random(400), 2), [0.0, 1.0, 0.5, 0.25]])
    fight = rng.random(len(p)) < p
    bins = calibration.calibration_bins(fight, p)
    assert bins.n.sum() == len(p)
    assert (bins.n * bins.p_mean).sum() == pytest.approx(p.sum())
    assert (bins.n * bins.share).sum() == pytest.approx(fight.sum())
    edges = np.arange(11) / 10
    for edge, upper in zip(edges[1:-1], edges[1:-1] + 0.05, strict=True):
        pair = calibration.calibration_bins(np.array([False, True]), np.array([edge, upper]))
        assert pair.n.tolist() == [2], edge


def test_scores_of_one_class_alone_are_binned_too() -> None:
    bins = calibration.calibration_bins(np.ones(3, bool), np.array([0.2, 0.95, 0.99]))
    assert bins.share.tolist() == [1.0, 1.0]
    assert bins.n.tolist() == [1, 2]
