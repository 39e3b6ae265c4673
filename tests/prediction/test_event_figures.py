"""Figures of events in recordings, compared with what can be counted by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks import event_figures, event_rules
from benchmarks.event_figures import Recording, Shown
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import Event, JudgedWindow


def windows(*p: float) -> tuple[JudgedWindow, ...]:
    """Windows of 5 s every 2.5 s."""
    return tuple(JudgedWindow(2.5 * i, 2.5 * i + 5, value) for i, value in enumerate(p))


def event(start_s: float, end_s: float) -> Event:
    return Event(start_s, end_s, 0.9, (start_s + end_s) / 2)


def recording(
    name: str, *p: float, fights: Sequence[tuple[float, float]] = (), sources: Sequence[str] = ("quiet",)
) -> Recording:
    """A recording that counts as an hour long whatever its windows, and shows each source for an equal part of it."""
    shown = tuple(Shown(3600 * i / len(sources), source) for i, source in enumerate(sources))
    return Recording(name, "style", 3600.0, windows(*p), tuple(fights), shown)


def test_overlap_is_intersection_over_union() -> None:
    assert event_figures.overlap((0, 10), (5, 15)) == pytest.approx(5 / 15)
    assert event_figures.overlap((0, 10), (2, 5)) == pytest.approx(0.3)
    assert event_figures.overlap((0, 10), (10, 12)) == 0
    assert event_figures.overlap((0, 1), (5, 6)) == 0


def test_each_event_finds_one_fight_and_as_many_fights_as_can_be_are_found() -> None:
    fights = [(0.0, 4.0), (5.0, 9.0)]
    assert len(event_figures.pairs(fights, [event(0, 9)], event_figures._overlaps)) == 1
    # the first event fits both fights, the second only the first
    found = event_figures.pairs(fights, [event(0, 9), event(1, 4)], event_figures._overlaps)
    assert found == {0: 1, 1: 0}
    assert event_figures.pairs([], [event(0, 1)], event_figures._overlaps) == {}


def test_the_rule_of_before_joins_windows_that_touch() -> None:
    found = event_rules.touching_windows(windows(0.6, 0.1, 0.7, 0.1, 0.1, 0.1, 0.5), 0.5)
    assert [(e.start_s, e.end_s, e.p_violent, e.peak_s) for e in found] == [
        (0, 10, 0.7, 7.5),
        (15, 20, 0.5, 17.5),
    ]


def test_counts_of_one_recording() -> None:
    # events at 0.5: 0-3.75 (in no fight), 8.75-13.75 (the fight), 16.25-18.75 (a tenth in it)
    made = recording("a", 0.8, 0.1, 0.1, 0.9, 0.9, 0.1, 0.8, 0.1, fights=[(9.0, 16.5)])
    rule = event_rules.by_settings(EventConfig(merge_gap_s=0.0))
    assert [(e.start_s, e.end_s) for e in rule(made.windows, 0.5)] == [
        (0.0, 3.75),
        (8.75, 13.75),
        (16.25, 18.75),
    ]
    found = event_figures.tally([made], rule, [0.5, 0.95])
    at_half, above = event_figures.figures_at(found, 0), event_figures.figures_at(found, 1)
    names = ("fights", "by_overlap", "by_onset", "false", "unmatched", "events")
    assert [at_half[name] for name in names] == [1, 1, 1, 2, 2, 3]
    assert [above[name] for name in names] == [1, 0, 0, 0, 0, 0]
    assert (at_half["recall_by_overlap"], at_half["false_an_hour"], at_half["unmatched_an_hour"]) == (
        1.0,
        2.0,
        2.0,
    )
    # no event in the hour: at a rate of 3.689 an hour, that happens once in 40 times
    assert above["false_an_hour_ci95_by_recording"] == [0.0, pytest.approx(-np.log(0.025), abs=1e-3)]


def test_a_short_event_in_a_long_fight_is_not_false_and_an_endless_one_is() -> None:
    fights = [(100.0, 120.0), (200.0, 220.0)]
    assert event_figures.share_in_fights(event(105, 107.5), fights) == 1.0
    assert event_figures.share_in_fights(event(90, 230), fights) == pytest.approx(40 / 140)
    # an event of 5 s around a fight of 2 s
    assert event_figures.share_in_fights(event(0, 5), [(1.0, 3.0)]) == pytest.approx(0.4)
    made = recording("a", *[0.1] * 39, *[0.9] * 60, 0.1, fights=fights)
    at_half = event_figures.tally([made], event_rules.by_settings(EventConfig()), [0.5])
    assert [at_half.of(name).sum() for name in ("by_overlap", "false", "unmatched")] == [0, 1, 1]


def test_onset_within_three_seconds_does_not_ask_for_the_end() -> None:
    made = recording("a", 0.1, 0.9, 0.1, fights=[(1.0, 30.0)])
    found = event_figures.tally([made], event_rules.by_settings(EventConfig()), [0.5])
    assert (found.of("by_onset").sum(), found.of("by_overlap").sum()) == (1, 0)
    far = recording("a", 0.1, 0.9, 0.1, fights=[(7.0, 30.0)])
    assert event_figures.tally([far], event_rules.by_settings(EventConfig()), [0.5]).of("by_onset").sum() == 0


def test_a_false_event_belongs_to_the_source_that_is_shown_at_its_peak() -> None:
    made = recording("a", 0.9, 0.1, sources=["x", "y"])
    found = event_figures.tally([made], event_rules.touching_windows, [0.5])
    assert dict(zip(found.sources.tolist(), found.of("false")[:, 0], strict=True)) == {"x": 1, "y": 0}
    assert found.of("hours")[:, 0].tolist() == [0.5, 0.5]


def test_the_interval_widens_where_events_come_from_one_source() -> None:
    """Twelve recordings of an hour have one false event each, always while the same one of six sources is shown."""
    sources = ("x", "a", "b", "c", "d", "e")
    made = [recording(f"r{i}", 0.9, 0.1, sources=sources) for i in range(12)]
    found = event_figures.tally(made, event_rules.touching_windows, [0.5])
    by_recording = event_figures.figures_at(found, 0)["false_an_hour_ci95_by_recording"]
    by_source = event_figures.figures_at(found, 0)["false_an_hour_ci95_by_source"]
    assert by_recording == [1.0, 1.0]
    assert by_source[0] == 0.0
    assert by_source[1] >= 2.0


def test_bootstrap_over_recordings_is_that_of_scipy() -> None:
    from scipy import stats

    rng = np.random.default_rng(3)
    made = [recording(f"r{i}", *([0.9, 0.1, 0.1, 0.1] * int(rng.integers(0, 5)) or [0.1])) for i in range(30)]
    found = event_figures.tally(made, event_rules.touching_windows, [0.5])
    counts = np.array([found.of("false")[found.recordings == f"r{i}", 0].sum() for i in range(30)])
    theirs = stats.bootstrap((counts,), np.mean, method="percentile", random_state=0).confidence_interval
    low, high = found.interval("false", "hours", "recording")
    assert (low[0], high[0]) == (pytest.approx(theirs.low, abs=0.07), pytest.approx(theirs.high, abs=0.07))


def test_delay_is_what_somebody_waits_who_sees_the_footage_as_it_comes() -> None:
    made = recording("a", 0.1, 0.1, 0.1, 0.9, 0.9, 0.1, fights=[(8.0, 14.0)])
    plain = event_rules.by_settings(EventConfig())
    # the event begins with the window at 7.5-12.5 s, which ends 4.5 s after the fight began
    assert event_figures.delays([made], plain, 0.5) == [4.5]
    # the event reaches the minimum duration with the next window
    assert event_figures.delays([made], event_rules.by_settings(EventConfig(min_duration_s=5.0)), 0.5) == [
        7.0
    ]
    assert event_figures.delays([made], plain, 0.95) == []


def test_mean_recall_is_taken_at_fixed_rates_of_false_events() -> None:
    # at 0.6 one of two fights is found, without a false event; at 0.2 both, with three false events in the hour
    made = recording(
        "a", *[0.9, 0, 0, 0, 0.3, 0, 0, 0] + [0.3, 0, 0, 0] * 3, fights=[(0.0, 3.75), (10.0, 14.0)]
    )
    found = event_figures.tally([made], event_rules.by_settings(EventConfig(offset=None)), [0.2, 0.6])
    assert found.of("false").sum(0).tolist() == [3, 0]
    assert found.ratio("by_overlap", "fights").tolist() == [1.0, 0.5]
    assert found.froc() == pytest.approx((0.5 + 0.5 + 0.5 + 1 + 1) / 5)
    assert (found.at_rate(1.0), found.at_rate(3.0)) == (1, 0)
    gain, (low, high) = event_figures.froc_gain(found, found)
    assert (gain, low, high) == (0.0, 0.0, 0.0)


def test_the_offset_goes_with_the_threshold() -> None:
    assert event_rules.at(EventConfig(), 0.9, 1.0).ends_below == pytest.approx(0.9)
    assert event_rules.at(EventConfig(), 0.8, 0.25).ends_below == pytest.approx(0.5)
    assert event_rules.at(EventConfig(offset=0.1), 0.5, None).ends_below == pytest.approx(1 / 3)
