"""Operating points measured on recordings: each part at its own model's thresholds, if they apply to its windows."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import event_points
from benchmarks.event_figures import Recording, Shown
from violence_detection.errors import UserError
from violence_detection.models import shipped
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import JudgedWindow


def _recording(part: int, style: str, surest: float) -> Recording:
    """A minute with a fight at 20-25 s, whose windows have P(violent) `surest`, and a false alarm of 0.6 at 50 s."""
    p = {20.0: surest, 22.5: surest, 50.0: 0.6}
    windows = tuple(JudgedWindow(2.5 * i, 2.5 * i + 5, p.get(2.5 * i, 0.1)) for i in range(23))
    return Recording(f"{part}.mp4", style, 60.0, windows, ((20.0, 25.0),), (Shown(0.0, style),), part)


def test_each_part_is_measured_at_the_thresholds_of_its_own_model() -> None:
    recordings = [_recording(0, "a", 0.8), _recording(1, "b", 0.8)]
    of_parts = [{"balanced": 0.5, "low-false-alarm": 0.7}, {"balanced": 0.5, "low-false-alarm": 0.9}]
    found = event_points.measured(recordings, EventConfig(), of_parts)
    assert list(found) == ["balanced", "low-false-alarm"]
    assert (found["balanced"]["by_overlap"], found["balanced"]["false"]) == (2, 2)
    few = found["low-false-alarm"]
    assert (few["by_overlap"], few["fights"], few["false"], few["thresholds"]) == (1, 2, 0, [0.7, 0.9])
    assert {style: each["recall_by_overlap"] for style, each in few["by_style"].items()} == {
        "a": 1.0,
        "b": 0.0,
    }


def test_one_model_is_for_all_parts_and_a_point_that_one_lacks_is_left_out() -> None:
    recordings = [_recording(0, "a", 0.8), _recording(1, "b", 0.8)]
    assert (
        event_points.measured(recordings, EventConfig(), [{"balanced": 0.7}])["balanced"]["by_overlap"] == 2
    )
    unlike = [{"balanced": 0.5, "high-recall": 0.2}, {"balanced": 0.5}]
    assert list(event_points.measured(recordings, EventConfig(), unlike)) == ["balanced"]


def test_thresholds_are_those_of_the_model_but_where_its_exit_is_not_taken() -> None:
    found = event_points.thresholds(Path("accurate"), 0.5)
    assert found["balanced"] == 0.5 < found["low-false-alarm"] < 1
    assert "high-recall" not in found, "it lies below where the exit decides"
    member = shipped.find(Path("accurate")) / "kernel"
    with pytest.raises(UserError, match="kernel has no operating points: members are left as they are"):
        event_points.thresholds(member, 0.5)
