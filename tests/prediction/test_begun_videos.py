"""Windows of videos that were not judged to their end: kept, found by the next run, and removed with the verdict."""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from violence_detection.prediction import begun_videos
from violence_detection.prediction.begun_videos import BegunVideos
from violence_detection.prediction.events import JudgedWindow, JudgingNews

WINDOWS = tuple(JudgedWindow(2.5 * i, 2.5 * i + 5, i / 100) for i in range(40))
TOTAL_S = 100.0


def _news(first: int, end: int, **said: Any) -> JudgingNews:
    new = WINDOWS[first:end]
    return JudgingNews(new, new[-1].end_s, TOTAL_S + 2.5, **said)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return begun_videos.path_for(tmp_path / "out.json.journal.jsonl")


def _judge(path: Path, key: str, *news: JudgingNews) -> None:
    with begun_videos.kept(path) as begun:
        begun.begin(key)
        for new in news:
            begun.tell(new)


def _known(path: Path, key: str) -> tuple[JudgedWindow, ...]:
    with begun_videos.kept(path) as begun:
        return begun.begin(key)


def test_windows_are_known_as_far_as_they_came(path: Path) -> None:
    _judge(path, "a", _news(0, 16), _news(16, 32))
    assert path.name == "out.json.begun.jsonl"
    assert _known(path, "a") == WINDOWS[:32]
    assert _known(path, "b") == ()
    _judge(path, "a", _news(0, 16, before=True), _news(16, 20))
    assert path.read_text().count("\n") == 3, "what was known is not written again"
    assert _known(path, "a") == WINDOWS[:20], "the newest line of a place counts"


def test_without_a_camera_profile(path: Path) -> None:
    seen = JudgedWindow(0.0, 5.0, 0.9, p_model=0.4)
    _judge(path, "a", JudgingNews((seen, JudgedWindow(2.5, 7.5, 0.0, still=True)), 7.5, TOTAL_S))
    assert _known(path, "a") == (JudgedWindow(0.0, 5.0, 0.4), JudgedWindow(2.5, 7.5, 0.0, still=True))


def test_one_that_is_judged_anew_from_its_beginning_has_its_new_windows(path: Path) -> None:
    _judge(path, "a", _news(0, 16), _news(16, 32), _news(0, 10))
    assert _known(path, "a") == WINDOWS[:10]


def test_a_gap_or_a_line_of_another_making_ends_what_is_known(path: Path) -> None:
    _judge(path, "a", _news(0, 16), _news(16, 32))
    lines = path.read_text().splitlines()
    for second in ('{"key": "a.16", "wind', '{"key": "a.16", "windows": [{"start_s": 1}]}',
                   '{"key": "a.16", "windows": 3}', '{"key": "a.17", "windows": []}', "",
                   lines[1].replace('"p_violent": 0.16', '"p_violent": 16')):  # fmt: skip
        path.write_text(f"{lines[0]}\n{second}")
        assert _known(path, "a") == WINDOWS[:16], second


def test_what_comes_last_is_not_kept_since_the_verdict_is(path: Path) -> None:
    _judge(path, "a", JudgingNews(WINDOWS, WINDOWS[-1].end_s, WINDOWS[-1].end_s))
    assert not path.exists()


def test_lines_go_with_the_verdict_and_those_of_other_videos_stay(path: Path) -> None:
    _judge(path, "a", _news(0, 16))
    _judge(path, "b", _news(0, 32))
    with begun_videos.kept(path) as begun:
        begun.begin("a")
        begun.done("a")
    assert _known(path, "a") == ()
    assert _known(path, "b") == WINDOWS[:32]
    with begun_videos.kept(path) as begun:
        begun.done("b")
    assert not path.exists()


def test_a_video_that_is_not_there_has_no_lines(path: Path) -> None:
    _judge(path, "", _news(0, 16))
    assert not path.exists()


def test_a_full_disk_costs_the_lines_and_no_verdict(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def full(key: str, fields: Mapping[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    begun = BegunVideos(path, full)
    begun.begin("a")
    with caplog.at_level(logging.WARNING):
        for first in (0, 16):
            begun.tell(_news(first, first + 16))
    assert caplog.text.count("No space left on device") == 1, "said once a video"
