"""Events from windows: what each setting does, and that later footage changes no event that is over."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from violence_detection.prediction.config import EventConfig, PredictConfig
from violence_detection.prediction.events import (
    Event,
    JudgedWindow,
    event_at,
    find_events,
    smoothed,
    stretches,
)

PLAIN = EventConfig(merge_gap_s=0.0, offset=0.5)
SETTINGS = [
    EventConfig(),
    EventConfig(0.7, 0.3, 5.0, 4.0, 3.0, 1.0, 10.0),
    EventConfig(threshold=0.9, smoothing_s=10.0),
    EventConfig(padding_s=4.0),
    EventConfig(cooldown_s=20.0, merge_gap_s=0.0),
    EventConfig(min_duration_s=6.0),
]


def _windows(ps: list[float], window_s: float = 5.0, stride_s: float = 2.5) -> list[JudgedWindow]:
    """A window for each probability, `stride_s` apart."""
    return [JudgedWindow(i * stride_s, i * stride_s + window_s, p) for i, p in enumerate(ps)]


def _spans(ps: list[float], settings: EventConfig) -> list[tuple[float, float]]:
    return [(e.start_s, e.end_s) for e in find_events(_windows(ps), settings)]


def test_each_window_stands_for_what_is_nearer_to_it_than_to_another() -> None:
    windows = [
        JudgedWindow(0, 5, 0),
        JudgedWindow(2.5, 7.5, 0),
        JudgedWindow(5, 8, 0),
        JudgedWindow(20, 25, 0),
    ]
    assert stretches(windows) == [(0, 3.75), (3.75, 6.25), (6.25, 8), (20, 25)]


def test_neighbouring_windows_at_or_above_the_threshold_are_one_event() -> None:
    found = find_events(_windows([0.2, 0.7, 0.9, 0.1, 0.1, 0.5]), PLAIN)
    assert found == (Event(3.75, 8.75, 0.9, 7.5), Event(13.75, 17.5, 0.5, 15.0))
    assert found[0].p_peak == 0.9
    assert found[0].duration_s == 5.0


def test_an_event_goes_on_until_it_falls_below_the_offset() -> None:
    ps = [0.1, 0.6, 0.4, 0.35, 0.3, 0.4, 0.1]
    assert _spans(ps, replace(PLAIN, offset=0.35)) == [(3.75, 11.25)]
    assert _spans(ps, PLAIN) == [(3.75, 6.25)]
    begins = replace(PLAIN, offset=0.3)
    assert _spans(ps[::-1], begins) == [(13.75, 16.25)], "what leads up to the threshold is no event yet"


@pytest.mark.parametrize(("threshold", "offset"), [(0.5, 1 / 3), (0.0, 0.0), (1.0, 1.0), (0.8, 2 / 3)])
def test_without_an_offset_it_has_half_the_odds_of_the_threshold(threshold: float, offset: float) -> None:
    settings = EventConfig(threshold)
    assert settings.ends_below == pytest.approx(offset)
    if 0 < threshold < 1:
        odds = [p / (1 - p) for p in (settings.ends_below, threshold)]
        assert odds[0] == pytest.approx(odds[1] / 2)


def test_the_threshold_of_an_operating_point_is_the_onset_and_the_offset_follows() -> None:
    settings = PredictConfig(smoothing_s=5.0).at(0.8)
    assert type(settings) is EventConfig
    assert (settings.threshold, settings.smoothing_s) == (0.8, 5.0)
    assert settings.ends_below == pytest.approx(2 / 3)


def test_a_short_gap_is_bridged_and_a_longer_one_is_not() -> None:
    ps = [0.9, 0.1, 0.9, 0.1, 0.1, 0.9]
    assert _spans(ps, replace(PLAIN, merge_gap_s=2.5)) == [(0.0, 8.75), (13.75, 17.5)]
    assert _spans(ps, replace(PLAIN, merge_gap_s=5.0)) == [(0.0, 17.5)]
    assert _spans(ps, replace(PLAIN, merge_gap_s=2.4)) == [(0.0, 3.75), (6.25, 8.75), (13.75, 17.5)]


def test_a_gap_in_the_footage_ends_an_event_unless_it_is_bridged() -> None:
    windows = [JudgedWindow(0, 5, 0.9), JudgedWindow(10, 15, 0.9)]
    assert [(e.start_s, e.end_s) for e in find_events(windows, EventConfig())] == [(0, 5), (10, 15)]
    assert len(find_events(windows, EventConfig(merge_gap_s=5))) == 1


def test_short_events_are_left_out_by_what_they_are_without_padding() -> None:
    ps = [0.1, 0.9, 0.1, 0.1, 0.9, 0.9, 0.1]
    settings = replace(PLAIN, min_duration_s=5.0, padding_s=1.0)
    assert _spans(ps, settings) == [(10.25, 17.25)]


def test_padding_stays_within_what_was_judged_and_joins_what_then_touches() -> None:
    ps = [0.9, 0.1, 0.1, 0.8, 0.1]
    assert _spans(ps, replace(PLAIN, padding_s=1.0)) == [(0.0, 4.75), (7.75, 12.25)]
    (event,) = find_events(_windows(ps), replace(PLAIN, padding_s=2.5))
    assert event == Event(0.0, 13.75, 0.9, 2.5)


def test_no_event_begins_in_the_cooldown_and_one_that_lasts_begins_behind_it() -> None:
    ps = [0.9, 0.1, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9]
    assert _spans(ps, replace(PLAIN, cooldown_s=10.0)) == [(0.0, 3.75), (13.75, 22.5)]


def test_smoothing_is_the_mean_of_the_windows_around() -> None:
    windows = _windows([0.0, 0.9, 0.0, 0.3])
    np.testing.assert_allclose(smoothed(windows, 5.0), [0.45, 0.3, 0.4, 0.15])
    assert smoothed(windows, 4.9) == smoothed(windows, 0.0) == [0.0, 0.9, 0.0, 0.3]
    assert find_events(windows, replace(PLAIN, smoothing_s=5.0)) == ()
    lone = [JudgedWindow(0, 5, 0.2), JudgedWindow(60, 65, 0.8)]
    assert smoothed(lone, 5.0) == [0.2, 0.8], "windows on the other side of a gap are not around"


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("p", [0.0, 0.49, 0.5, 0.7, 0.9, 1.0])
def test_a_video_of_one_window_has_an_event_where_it_reaches_the_threshold(
    settings: EventConfig, p: float
) -> None:
    found = find_events([JudgedWindow(0.0, 1.6, p)], settings)
    assert found == ((Event(0.0, 1.6, p, 0.8),) if p >= settings.threshold else ())


@pytest.mark.parametrize("seed", range(10))
def test_with_the_defaults_there_is_an_event_where_a_window_reaches_the_threshold(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for threshold in (0.1, 0.5, 0.95):
        ps = np.round(rng.beta(0.3, 2.0, int(rng.integers(1, 12))), 4).tolist()
        assert bool(find_events(_windows(ps), EventConfig(threshold))) == (max(ps) >= threshold)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", range(20))
def test_events_are_in_order_apart_and_within_what_was_judged(settings: EventConfig, seed: int) -> None:
    rng = np.random.default_rng(seed)
    windows = _windows(np.round(rng.beta(0.5, 0.5, 60), 4).tolist())
    # some windows are missing, as if parts of the video were damaged
    kept = [w for w in windows if rng.uniform() < 0.9]
    found = find_events(kept, settings)
    assert all(e.start_s < e.end_s for e in found)
    assert all(a.end_s < b.start_s for a, b in itertools.pairwise(found))
    if found:
        assert kept[0].start_s <= found[0].start_s
        assert found[-1].end_s <= kept[-1].end_s
    for event in found:
        assert event.start_s <= event.peak_s <= event.end_s
        assert event.p_violent in [w.p_violent for w in kept if w.middle_s == event.peak_s]
    assert find_events(kept, settings) == found


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", range(10))
def test_what_comes_later_changes_no_event_that_is_over(settings: EventConfig, seed: int) -> None:
    """At any moment of a stream, the events that are over are those of the whole file."""
    rng = np.random.default_rng(seed)
    windows = _windows(np.round(rng.beta(0.5, 0.5, 80), 4).tolist())
    whole = find_events(windows, settings)
    reach_s = settings.merge_gap_s + settings.smoothing_s + 2 * settings.padding_s
    for count in range(2, len(windows)):
        over_s = windows[count - 1].start_s - reach_s
        so_far = find_events(windows[:count], settings)
        assert [e for e in so_far if e.end_s < over_s] == [e for e in whole if e.end_s < over_s]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", range(10))
def test_a_moment_is_found_in_the_event_that_it_lies_in(settings: EventConfig, seed: int) -> None:
    rng = np.random.default_rng(seed)
    windows = _windows(np.round(rng.beta(0.5, 0.5, 80), 4).tolist())
    events = find_events(windows, settings)
    moments = [t for e in events for t in (e.start_s, e.end_s)] + [w.middle_s for w in windows] + [-1.0, 1e6]
    assert [event_at(events, t) for t in moments] == [
        next((n for n, e in enumerate(events, 1) if e.start_s <= t < e.end_s), 0) for t in moments
    ]
