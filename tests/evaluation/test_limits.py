"""What limits a figure is said in words, and only what was checked is called fine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from violence_detection.evaluation import intervals
from violence_detection.evaluation.report import limits


def seen(touched: int = 0, not_checked: str = "") -> dict[str, Any]:
    ways = {w: {"not_checked": not_checked} for w in ("same_source", "near_copy")}
    return {"touched": touched, "clips": 50, "same_clip": {"not_checked": ""}, **ways}


def row(accuracy: float) -> dict[str, Any]:
    ci95 = [accuracy - 0.1, accuracy + 0.1]
    return {"accuracy": accuracy, "ci95": ci95, "n": 25, "asked": 25, "other_threshold": False}


def coverage(fights: int, others: int) -> dict[str, Any]:
    return {"nonfight": {"n": 25, "predicted": others}, "fight": {"n": 25, "predicted": fights}}


def record(**changes: Any) -> dict[str, Any]:
    base = {
        **row(0.9), "n": 50, "asked": 50, "n_groups": 40, "ece": 0.05, "seen_in_training": seen(),
        "by_dataset": {"a": row(0.95), "b": row(0.85)}, "baselines": {"metadata_only": {"accuracy": 0.55}},
        "out_of_set": {"measured_by": "elsewhere", "what": "c", **row(0.8)}, "coverage": coverage(25, 25),
        "n_failures": 0,
    }  # fmt: skip
    return {**base, **changes}


def by_name(found: list[limits.Limit]) -> dict[str, limits.Limit]:
    return {limit.name: limit for limit in found}


def test_a_sound_measurement_has_no_alarm() -> None:
    found = limits.limits(record())
    assert {limit.state for limit in found} == {limits.NOTE, limits.FINE}
    assert by_name(found)["Worst data set"].text.startswith("b, 85.0\u00a0%")
    assert "none of the 50 clips" in by_name(found)["Seen in training"].text


@pytest.mark.parametrize(
    ("changes", "name", "state"),
    [
        ({"seen_in_training": seen(touched=3)}, "Seen in training", limits.ALARM),
        ({"seen_in_training": seen(not_checked="old")}, "Seen in training", limits.UNKNOWN),
        ({"n_groups": 7}, "Few sources", limits.NOTE),
        ({"baselines": {"metadata_only": {"accuracy": 0.81}}}, "File format", limits.ALARM),
        ({"n": 40}, "Coverage", limits.NOTE),
        ({"n_failures": 3}, "Coverage", limits.NOTE),
        ({"ece": 0.2}, "Calibration", limits.NOTE),
        ({"out_of_set": {"measured_by": ""}}, "Elsewhere", limits.UNKNOWN),
        ({"out_of_set": {"measured_by": "", "one_class": ["quiet"]}}, "Elsewhere", limits.UNKNOWN),
        ({"coverage": coverage(0, 25)}, "One class", limits.NOTE),
        ({"coverage": coverage(25, 0)}, "One class", limits.NOTE),
        ({"out_of_set": {"measured_by": "elsewhere", "what": "c", **row(0.6)}}, "Elsewhere", limits.ALARM),
    ],
)
def test_each_fault_is_named(changes: dict[str, Any], name: str, state: str) -> None:
    sound = by_name(limits.limits(record()))
    assert name not in sound or sound[name].state != state
    assert by_name(limits.limits(record(**changes)))[name].state == state


@pytest.mark.parametrize(("rule", "where"), [(0.81, "within"), (1.0, "above")])
def test_a_rule_that_beats_the_model_is_not_called_as_good_as_it(rule: float, where: str) -> None:
    found = limits.limits(record(**row(0.8), baselines={"metadata_only": {"accuracy": rule}}))
    assert f"which is {where} the model" in by_name(found)["File format"].text


def test_figures_of_two_thresholds_are_not_held_against_each_other() -> None:
    worse = {"measured_by": "leave_one_dataset_out", "what": "c", **row(0.6), "other_threshold": True}
    assert by_name(limits.limits(record(out_of_set=worse)))["Elsewhere"].state == limits.NOTE


def test_nothing_to_compare_is_not_blamed_on_the_sources() -> None:
    shortcuts = {"alarms": [], "comparisons": 0, "too_few": 0}
    found = by_name(limits.limits(record(audits={"shortcuts": shortcuts})))["Shortcuts"]
    assert found.text == "no data set has enough clips and sources of both classes"


def test_a_set_that_training_met_in_part_was_measured_and_tells_nothing_of_unseen_clips() -> None:
    found = by_name(limits.limits(record(out_of_set={"measured_by": "", "met_in_training": ["fresh"]})))
    assert found["Elsewhere"].state == limits.UNKNOWN
    assert found["Elsewhere"].text.endswith("training had clips of fresh, or copies of them")


def test_a_figure_of_generated_clips_from_elsewhere_is_labelled_here_too() -> None:
    drawn = {"measured_by": "elsewhere", "what": "c", **row(0.6), "sample_label": "generated sample clips"}
    assert by_name(limits.limits(record(out_of_set=drawn)))["Elsewhere"].text.endswith(
        "on c (generated sample clips)"
    )
    real = by_name(limits.limits(record(out_of_set={**drawn, "sample_label": ""})))
    assert real["Elsewhere"].text.endswith("on c")


def test_how_many_clips_a_figure_lacks_is_said() -> None:
    elsewhere = {"measured_by": "elsewhere", "what": "c", **row(0.6), "n": 8, "asked": 20}
    found = by_name(limits.limits(record(out_of_set=elsewhere, by_dataset={"a": row(0.9), "b": elsewhere})))
    assert found["Elsewhere"].text.endswith("on c; 8 of 20 clips could be judged")
    assert found["Worst data set"].text.endswith("of the 8 of 20 clips that were judged")


@pytest.mark.parametrize(("rule", "state"), [(0.55, limits.NOTE), (1.0, limits.ALARM), (0.4, limits.FINE)])
def test_a_model_that_is_right_on_all_clips_of_few_sources_is_no_alarm_for_a_rule_that_is_not(
    rule: float, state: str
) -> None:
    groups = np.repeat(np.arange(9), [200, 100, 50, 30, 20, 15, 10, 4, 1])
    low, high = intervals.accuracy_interval(np.ones(430, bool), groups)
    assert 0.4 < low < 0.55
    made = record(accuracy=1.0, ci95=[low, high], baselines={"metadata_only": {"accuracy": rule}})
    assert by_name(limits.limits(made))["File format"].state == state


def test_the_gravest_come_first_and_what_was_not_made_is_said() -> None:
    shortcuts = {"limit": {"state": "alarm", "name": "Shortcuts", "text": "one frame is enough"}}
    found = limits.limits(record(audits={"shortcuts": shortcuts}), ["shortcuts", "label_suspects"])
    assert found[0] == limits.Limit("alarm", "Shortcuts", "one frame is enough")
    assert by_name(found)["Other audits"].text == "not made in this run: label suspects"
    order = [limits.STATES.index(limit.state) for limit in found]
    assert order == sorted(order)


def test_a_calibration_that_was_measured_speaks_for_itself() -> None:
    own = {"limit": {"state": "fine", "name": "Calibrated", "text": "fitted"}}
    names = by_name(limits.limits(record(calibration=own)))
    assert "Calibrated" in names
    assert "Calibration" not in names


def test_the_ledger_of_val_and_the_audit_of_shortcuts_are_read() -> None:
    ledger = {"checked": True, "looks_before": 3, "text": "val was looked at 3 times before"}
    assert by_name(limits.limits(record(val_ledger=ledger)))["Looks at val"].state == limits.NOTE
    first = {**ledger, "looks_before": 0}
    assert by_name(limits.limits(record(val_ledger=first)))["Looks at val"].state == limits.FINE
    audit: dict[str, Any] = {"alarms": [], "comparisons": 4, "too_few": 1}
    states = {}
    for name, changes in (
        ("found", {"alarms": [{"check": "file_format", "dataset": "a"}]}),
        ("none", {}),
        ("few", {"too_few": 4}),
    ):
        shortcuts = {**audit, **changes}
        states[name] = by_name(limits.limits(record(audits={"shortcuts": shortcuts})))["Shortcuts"].state
    assert states == {"found": limits.ALARM, "none": limits.FINE, "few": limits.UNKNOWN}


def test_one_clip_of_one_source_is_said_as_such() -> None:
    alone = {**row(0.9), "n": 1, "asked": 1}
    found = by_name(limits.limits(record(n=1, asked=1, n_groups=1, by_dataset={"a": alone, "b": row(0.95)})))
    assert found["Few sources"].text.startswith("1 clip from 1 source:")
    assert found["Worst data set"].text.endswith("of 1 clip")
