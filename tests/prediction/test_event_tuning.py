"""Event settings chosen on one half of the recordings must be good on the other half."""

from __future__ import annotations

import pytest

from benchmarks import event_rules, event_tuning
from benchmarks.event_figures import Recording, Shown
from violence_detection.errors import UserError
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import JudgedWindow


def recording(name: str, source: str, has_fight: bool = True) -> Recording:
    """Half an hour with eight false alarms of one window each, and two fights of 12.5 s with the same P(violent)."""
    p = ([0.9] + [0.05] * 9) * 8 + ([0.9] * 5 + [0.05] * 5) * 2 * has_fight
    windows = tuple(JudgedWindow(2.5 * i, 2.5 * i + 5, value) for i, value in enumerate(p))
    fights = ((201.25, 213.75), (226.25, 238.75)) if has_fight else ()
    return Recording(name, "style", 1800.0, windows, fights, (Shown(0.0, source),))


@pytest.fixture
def few_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, values in (("SMOOTHING_S", (0.0,)), ("MIN_DURATION_S", (0.0, 5.5)), ("OFFSET_ODDS", (None,))):
        monkeypatch.setattr(event_rules, name, values)


@pytest.mark.usefixtures("few_settings")
def test_a_least_duration_is_chosen_where_false_events_are_short() -> None:
    found = event_tuning.tuned([recording("a", "x"), recording("b", "y")], EventConfig())
    for half in found["halves"]:
        assert half["settings"]["min_duration_s"] == 5.5
        assert half["mean_recall"] == {"touching": 0.0, "events": 0.0, "tuned": 1.0}
        assert half["mean_recall_gain"]["events"] == {
            "gain": 1.0, "ci95_by_recording": [1.0, 1.0], "ci95_by_source": [1.0, 1.0],
        }  # fmt: skip
        balanced = half["tuned"]["balanced"]
        assert (balanced["fights"], balanced["by_overlap"], balanced["false"]) == (2, 2, 0)
        # without a minimum duration there would be 16 false events an hour, so that the threshold is above all fights
        assert half["events"]["balanced"]["by_overlap"] == 0
    assert found["chosen_on_both"]["min_duration_s"] == 5.5


@pytest.mark.usefixtures("few_settings")
def test_a_half_without_fights_tunes_nothing() -> None:
    with pytest.raises(UserError, match="no fight"):
        event_tuning.tuned([recording("a", "x"), recording("b", "y", has_fight=False)], EventConfig())
