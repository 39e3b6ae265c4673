"""A camera's threshold is chosen on footage other than that it is measured on."""

from __future__ import annotations

import pytest

from benchmarks import event_calibration
from benchmarks.event_figures import Recording, Shown
from violence_detection.errors import UserError
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import JudgedWindow

#: How long each source is shown, and when in that time there is a fight.
LENGTH_S, FIGHT_S = 200.0, (100.0, 120.0)


def camera(style: str, quiet: dict[str, float], fight: float = 0.95) -> Recording:
    """A recording that shows each source in turn; one quiet window of each has the given P(violent), the others 0.1."""
    windows, fights, shown = [], [], []
    for number, (source, loudest) in enumerate(quiet.items()):
        begins_s = number * LENGTH_S
        shown.append(Shown(begins_s, f"{style}:{source}"))
        fights.append((begins_s + FIGHT_S[0], begins_s + FIGHT_S[1]))
        for i in range(int(LENGTH_S / 2.5)):
            at_s = 2.5 * i
            p = fight if FIGHT_S[0] <= at_s and at_s + 5 <= FIGHT_S[1] else loudest if i == 20 else 0.1
            windows.append(JudgedWindow(begins_s + at_s, begins_s + at_s + 5, p))
    return Recording(style, style, len(quiet) * LENGTH_S, tuple(windows), tuple(fights), tuple(shown))


def test_each_camera_has_the_threshold_of_its_own_other_sources() -> None:
    cameras = [camera("calm", dict.fromkeys("abcd", 0.6), 0.7), camera("busy", dict.fromkeys("efgh", 0.9))]
    found = event_calibration.calibrated(cameras, EventConfig())
    assert (found["cameras"], found["left_out"]) == (2, 0)
    assert (found["before"]["false"], found["before"]["by_overlap"]) == (8, 8)
    own = found["asked_1_an_hour"]
    assert (own["false"], own["by_overlap"], own["fights"]) == (0, 8, 8)
    assert (own["thresholds"]["lowest"], own["thresholds"]["highest"]) == (0.6001, 0.9001)
    # a threshold for both has to lie above the busy camera's 0.9, and misses all fights of the calm one
    assert (own["one_for_all"]["false"], own["one_for_all"]["by_overlap"]) == (0, 4)
    assert own["by_style"]["calm"] == {"recall_by_overlap": 1.0, "false_an_hour": 0.0}


def test_what_a_source_shows_has_no_part_in_the_threshold_it_is_measured_at() -> None:
    found = event_calibration.calibrated(
        [camera("one", {"a": 0.6, "b": 0.6, "c": 0.6, "loud": 0.8})], EventConfig()
    )
    own = found["asked_1_an_hour"]
    assert own["false"] == 1
    assert own["thresholds"] == {"lowest": 0.6001, "median": 0.8001, "highest": 0.8001}


def test_the_rate_that_is_asked_for_leaves_events_where_the_footage_is_long_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_calibration, "ASKED", (1.0, 60.0))
    found = event_calibration.calibrated([camera("one", dict.fromkeys("abcdefgh", 0.6))], EventConfig())
    assert found["asked_1_an_hour"]["false"] == 0
    assert found["asked_60_an_hour"]["false"] == 8


def test_a_camera_of_few_sources_is_left_out() -> None:
    few, enough = camera("few", {"a": 0.6, "b": 0.6}), camera("enough", dict.fromkeys("cdef", 0.6))
    found = event_calibration.calibrated([few, enough], EventConfig())
    assert (found["cameras"], found["left_out"], found["before"]["fights"]) == (1, 1, 4)
    with pytest.raises(UserError, match="4 sources"):
        event_calibration.calibrated([few], EventConfig())
