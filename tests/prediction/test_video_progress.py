"""The log of a long video while it is judged: each event once, at a cost for each window that does not grow."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from violence_detection.prediction import video_progress
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import JudgedWindow, JudgingNews, find_events
from violence_detection.prediction.video_progress import VideoProgress
from violence_detection.system import console


@pytest.fixture(autouse=True)
def no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = SimpleNamespace(n=0.0, set_postfix_str=_nothing, update=_nothing, close=_nothing)
    monkeypatch.setattr(console, "progress", lambda **_: bar)


def _nothing(*_: object, **__: object) -> None:
    pass


def _windows(number: int) -> list[JudgedWindow]:
    """Windows of 2 s, one a second; every fifth stretch of 20 s is violent."""
    rng = np.random.default_rng(0)
    return [
        JudgedWindow(float(i), i + 2.0, round(float(rng.random() / 2 + (0.5 if i // 20 % 5 == 1 else 0)), 4))
        for i in range(number)
    ]


def _news(windows: list[JudgedWindow]) -> Iterator[JudgingNews]:
    """Yield the windows 16 at a time, as of a video that goes on after them."""
    for i in range(0, len(windows), 16):
        some = tuple(windows[i : i + 16])
        yield JudgingNews(some, some[-1].end_s, len(windows) + 1000.0)


def _cpu_s(number: int) -> float:
    news, progress = list(_news(_windows(number))), VideoProgress(EventConfig())
    begin_s = time.process_time()
    with progress.of(Path("v.mp4")):
        for some in news:
            progress.tell(some)
    return time.process_time() - begin_s


def test_of_a_recording_of_days_the_next_windows_cost_no_more_than_the_first() -> None:
    """The log of a recording of a week once took 24 minutes of a core."""
    assert min(_cpu_s(16_000) for _ in range(3)) < 3 * min(_cpu_s(8_000) for _ in range(3))


@pytest.mark.parametrize(
    "settings", [EventConfig(), EventConfig(smoothing_s=4.0, padding_s=1.5, cooldown_s=30.0)]
)
def test_each_event_is_said_once_as_it_will_be_though_the_video_is_judged_anew(
    settings: EventConfig, caplog: pytest.LogCaptureFixture
) -> None:
    windows, progress = _windows(800), VideoProgress(settings)
    with caplog.at_level(logging.INFO), progress.of(Path("v.mp4")):
        for some in [*list(_news(windows))[:20], *_news(windows)]:
            progress.tell(some)
    found = find_events(windows, settings)
    said = [
        record.args[1:4]
        for record in caplog.records
        if record.name == video_progress.__name__ and isinstance(record.args, tuple)
    ]
    assert len(said) == len(found) > 1
    shown = [(video_progress.minutes(e.start_s), video_progress.minutes(e.end_s)) for e in found]
    assert [(start, end) for start, end, _ in said] == shown
