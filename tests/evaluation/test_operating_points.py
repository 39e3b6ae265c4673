"""Thresholds are MAPIE's for one clip per source, hold on new sources, and promise nothing if sources are few."""

from __future__ import annotations

import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController

from violence_detection.evaluation import operating_points
from violence_detection.models.calibration import Calibration

RAW = Calibration(None).apply


def _clips(n_sources: int, seed: int, a_source: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities and sources; the clips of a source have one class and similar probabilities."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_sources), a_source)
    is_fight = groups % 2 == 1
    logit = (
        np.where(is_fight, 2.0, -2.0) + rng.normal(0, 1, n_sources)[groups] + rng.normal(0, 1, len(groups))
    )
    return is_fight, 1 / (1 + np.exp(-logit)), groups


def _library(is_fight: np.ndarray, p: np.ndarray, risk: str, level: float) -> BinaryClassificationController:
    controller = BinaryClassificationController(
        lambda x: np.column_stack([1 - x, x]),
        risk=risk,
        target_level=level,
        confidence_level=0.9,
        list_predict_params=operating_points.GRID,
        fwer_method="fixed_sequence",
    )
    return controller.calibrate(p, is_fight.astype(int))


def test_thresholds_are_those_of_the_library_where_each_source_has_one_clip() -> None:
    is_fight, p, groups = _clips(300, 0, a_source=1)
    found = operating_points.choose(is_fight, p, groups, RAW, seed=0)
    low = _library(is_fight, p, "fpr", 0.05)
    assert found["low_false_alarm"]["threshold"] == pytest.approx(low.best_predict_param, abs=2e-4)
    high = _library(is_fight, p, "recall", 0.95)
    assert found["high_recall"]["threshold"] == pytest.approx(high.valid_predict_params.max(), abs=2e-4)
    for name in ("low_false_alarm", "high_recall"):
        assert found[name]["guarantee"]["holds"]
    assert found["balanced"]["threshold"] == 0.5
    assert not found["balanced"]["guarantee"]["holds"]


def test_the_library_is_asked_about_one_clip_of_each_source() -> None:
    is_fight, p, groups = _clips(200, 1, a_source=5)
    kept = operating_points.controlled(is_fight, p, groups, "fpr", 0.05, seed=4)
    chosen = np.random.default_rng(4).permutation(np.flatnonzero(~is_fight))
    drawn = [next(i for i in chosen if groups[i] == g) for g in np.unique(groups[~is_fight])]
    assert len(drawn) == 100
    library = _library(is_fight[drawn], p[drawn], "fpr", 0.05)
    np.testing.assert_array_equal(kept, np.sort(library.valid_predict_params))
    assert len(kept) > 0


def test_a_temperature_moves_the_threshold_and_not_the_decisions() -> None:
    is_fight, p, groups = _clips(200, 2)
    warm = Calibration(2.5)
    raw, calibrated = (operating_points.choose(is_fight, p, groups, f, 0) for f in (RAW, warm.apply))
    for name in ("low_false_alarm", "high_recall"):
        a, b = raw[name], calibrated[name]
        assert a["threshold"] != b["threshold"]
        differ = (p >= a["threshold"]) != (warm.apply(p) >= b["threshold"])
        assert differ.mean() < 0.005, "but for the last digit"
        assert a["guarantee"] == b["guarantee"]


def test_the_promised_rates_hold_on_new_sources_more_often_than_nine_times_in_ten() -> None:
    is_fight, p, _ = _clips(40_000, 99)
    broken = {"low_false_alarm": 0, "high_recall": 0}
    draws = 40
    for seed in range(draws):
        found = operating_points.choose(*_clips(160, seed), RAW, seed)
        assert all(found[name]["guarantee"]["holds"] for name in broken)
        broken["low_false_alarm"] += (p[~is_fight] >= found["low_false_alarm"]["threshold"]).mean() > 0.05
        broken["high_recall"] += (p[is_fight] >= found["high_recall"]["threshold"]).mean() < 0.95
    # the promise allows 10 %, 4 of 40; at exactly that rate, one count exceeds 8 once in 65 draws
    assert max(broken.values()) <= 8, broken


def test_few_sources_promise_nothing_and_say_how_many_are_needed() -> None:
    assert operating_points.fewest_sources(0.05) == 45
    is_fight, p, groups = _clips(88, 5, a_source=6)
    found = operating_points.choose(is_fight, p, groups, RAW, 0)
    for name, wanted in (
        ("low_false_alarm", "at most 5 % false alarms"),
        ("high_recall", "at least 95 % of the fights found"),
    ):
        guarantee = found[name]["guarantee"]
        assert not guarantee["holds"]
        assert guarantee["text"] == (
            f"no guarantee: 44 sources, at least 45 are needed for {wanted} with confidence 90 %"
        )
    assert found["low_false_alarm"]["by_source"]["false_alarm_rate"] <= 0.05
    assert found["high_recall"]["by_source"]["recall"] >= 0.95
    # the library needs the same number
    for n, holds in ((44, False), (45, True)):
        none_wrong = np.full(n, 0.01)
        kept = operating_points.controlled(np.zeros(n, bool), none_wrong, np.arange(n), "fpr", 0.05, 0)
        assert bool(len(kept)) is holds


def test_sources_enough_and_errors_at_every_threshold_promise_nothing_either() -> None:
    groups = np.arange(120)
    is_fight = groups % 2 == 1
    p = np.where(is_fight, 0.9, np.where(groups % 8 == 0, 1.0, 0.1))  # a quarter of the nonfights get 1
    found = operating_points.choose(is_fight, p, groups, RAW, 0)["low_false_alarm"]
    assert found["guarantee"]["text"] == (
        "no guarantee: on 60 sources no threshold keeps at most 5 % false alarms with confidence 90 %"
    )
    assert found["false_alarm_rate"] == pytest.approx(0.25)


def test_no_rounding_of_a_verdict_breaks_the_rate() -> None:
    for threshold in (0.91234, 0.5, 0.99991, 1e-5, 0.123449999):
        up, down = operating_points._rounded_up(threshold), operating_points._rounded_down(threshold)
        below = threshold - 1e-9
        assert round(below, 4) < up or up == 1.0
        assert round(threshold, 4) >= down
        assert down <= threshold <= up
