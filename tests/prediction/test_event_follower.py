"""Events followed window by window: one id for each, and in the end those that find_events finds in these windows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.event_follower import EventFollower, EventNews
from violence_detection.prediction.events import Event, JudgedWindow, find_events

SETTINGS = [
    EventConfig(),
    EventConfig(0.7, 0.3, 5.0, 4.0, 3.0, 1.0, 10.0),
    EventConfig(threshold=0.8, smoothing_s=10.0),
    EventConfig(padding_s=4.0),
    EventConfig(padding_s=2.5, min_duration_s=4.0, merge_gap_s=0.0),
    EventConfig(cooldown_s=20.0, merge_gap_s=0.0),
    EventConfig(min_duration_s=6.0, smoothing_s=5.0),
]


def _follower(settings: EventConfig) -> EventFollower:
    names = iter(range(10_000))
    return EventFollower(settings, lambda event: f"e{next(names)}")


def _windows(seed: int, count: int) -> list[JudgedWindow]:
    """Windows every 2.5 s, with some missing, some cut short and pauses between."""
    rng = np.random.default_rng(seed)
    out, shift_s = [], 1_000_000.0
    for i in range(count):
        shift_s += rng.choice([0.0, 3.7, 40.0], p=[0.94, 0.03, 0.03])
        length_s = rng.choice([5.0, 1.3], p=[0.95, 0.05])
        p = round(float(rng.beta(0.5, 0.5)), 4)
        start_s = round(shift_s + i * 2.5, 2)
        out.append(JudgedWindow(start_s, round(start_s + length_s, 2), p))
    return [w for w in out if rng.uniform() < 0.9] or out[:1]


def _followed(windows: list[JudgedWindow], settings: EventConfig, clock_seed: int | None) -> list[EventNews]:
    follower, said = _follower(settings), []
    rng = np.random.default_rng(clock_seed)
    for i, window in enumerate(windows):
        said += follower.push(window)
        if clock_seed is not None and i + 1 < len(windows):
            said += follower.pass_time(
                window.start_s + rng.uniform(0, 1) * (windows[i + 1].start_s - window.start_s)
            )
    return said + follower.finish()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("clock_seed", [None, 1])
def test_what_is_said_last_is_what_find_events_makes_of_the_same_windows(
    settings: EventConfig, clock_seed: int | None
) -> None:
    found = 0
    for seed in range(50):
        windows = _windows(seed, 1 + seed)
        said = _followed(windows, settings, clock_seed)
        ends = [news.event for news in said if news.kind == "end"]
        assert tuple(ends) == find_events(windows, settings), seed
        by_id: dict[str, list[str]] = {}
        for news in said:
            by_id.setdefault(news.event_id, []).append(news.kind)
        assert len(by_id) == len(ends)
        for kinds in by_id.values():
            assert (kinds[0], kinds[-1]) == ("new", "end")
            assert set(kinds[1:-1]) <= {"update"}
        found += len(ends)
    assert found > 30


def test_an_event_is_said_with_its_first_window_and_ended_when_nothing_can_join_it() -> None:
    follower = _follower(EventConfig())
    kinds = []
    for i, p in enumerate([0.1, 0.9, 0.95, 0.1, 0.1, 0.1]):
        kinds.append([news.kind for news in follower.push(JudgedWindow(i * 2.5, i * 2.5 + 5, p))])
    assert kinds == [[], ["new"], ["update"], ["update"], [], ["end"]]


def test_a_short_event_is_said_when_it_is_long_enough_and_a_shorter_one_never() -> None:
    follower = _follower(EventConfig(min_duration_s=5.0, merge_gap_s=0.0, offset=0.5))
    said = [
        follower.push(JudgedWindow(i * 2.5, i * 2.5 + 5, p))
        for i, p in enumerate([0.1, 0.9, 0.1, 0.9, 0.9, 0.9])
    ]
    assert [bool(news) for news in said] == [False, False, False, False, False, True]


def test_the_event_of_a_camera_that_is_away_ends_and_one_across_a_short_cut_goes_on() -> None:
    follower = _follower(EventConfig())
    (new,) = follower.push(JudgedWindow(0, 5, 0.9))
    assert follower.pass_time(7.4) == []
    assert follower.push(JudgedWindow(14, 17.5, 0.4), lost_s=9.0)[0].event_id == new.event_id
    (update,) = follower.push(JudgedWindow(15, 20, 0.9))
    assert (update.kind, update.event_id) == ("update", new.event_id)
    assert follower.pass_time(22.4) == []
    (end,) = follower.pass_time(22.6)
    assert end == EventNews("end", new.event_id, Event(0, 20, 0.9, 2.5))
    (second,) = follower.push(JudgedWindow(25, 30, 0.9))
    assert (second.kind, second.event_id) == ("new", "e1")


def test_memory_does_not_grow() -> None:
    follower = _follower(replace(SETTINGS[1], smoothing_s=30.0))
    for i, p in enumerate(np.random.default_rng(1).beta(0.5, 0.5, 3000)):
        follower.push(JudgedWindow(i * 2.5, i * 2.5 + 5, float(p)))
    assert len(follower._recent) <= 30
    assert len(follower._runs.found) + len(follower._reported) <= 4
