"""Clips of events from footage that was kept before anybody knew of them."""

from __future__ import annotations

import time
from pathlib import Path

import numbered_videos
import numpy as np
import pytest

from violence_detection.prediction.live.clip_recorder import ClipRecorder
from violence_detection.prediction.live.recent_footage import RecentFootage, picture_of
from violence_detection.system.own_files import RECORD_NAME
from violence_detection.video import decode


def _add(footage: RecentFootage, begin_s: float, end_s: float, fps: float = 20.0) -> None:
    """Footage of which each picture carries the whole seconds of its time."""
    for number in range(round(begin_s * fps), round(end_s * fps)):
        picture = numbered_videos.frame(int(number / fps))[:, :, ::-1]
        if kept := footage.kept(number / fps, np.ascontiguousarray(picture)):
            footage.keep(kept)


def _seconds(path: Path) -> list[int]:
    info, frames = decode.read(path, lambda info: range(info.n_frames))
    assert info.fps == 10.0
    return [numbered_videos.number_of(frames[i][:, :, ::-1]) for i in range(info.n_frames)]


def _wait(path: Path) -> None:
    until_s = time.monotonic() + 5
    while not path.is_file() and time.monotonic() < until_s:
        time.sleep(0.02)


def test_memory_holds_the_last_seconds_at_ten_pictures_a_second() -> None:
    footage = RecentFootage(5.0)
    _add(footage, 0, 60)
    kept = footage.between(0, 100)
    assert len(kept) == pytest.approx(51, abs=1)
    assert kept[0].time_s == pytest.approx(55, abs=0.2)
    assert footage.newest_s == pytest.approx(60, abs=0.11)
    assert footage.size_bytes == sum(len(k.jpeg) for k in kept)
    nearest = footage.nearest(57.5)
    assert nearest is not None
    assert numbered_videos.number_of(picture_of(nearest)[:, :, ::-1]) == 57


def test_a_clip_begins_before_its_event_and_ends_behind_it(tmp_path: Path) -> None:
    footage, recorder, path = RecentFootage(20.0), ClipRecorder(5.0, 5.0, 60.0), tmp_path / "a.mp4"
    done: list[Path | None] = []
    _add(footage, 0, 14)
    recorder.begin(path, footage, onset_s=10.0)
    _add(footage, 14, 18)
    recorder.end(path, 12.0, done.append)
    _wait(path)
    assert {p.name for p in tmp_path.iterdir()} == {"a.mp4", RECORD_NAME}
    recorder.close(5)
    assert done == [path]
    seconds = _seconds(path)
    assert (seconds[0], seconds[-1]) == (5, 16)
    assert len(seconds) == pytest.approx(120, abs=2)


def test_a_pause_in_the_footage_keeps_its_length_and_what_is_open_is_finished(tmp_path: Path) -> None:
    footage, recorder, path = RecentFootage(30.0), ClipRecorder(2.0, 2.0, 60.0), tmp_path / "a.mp4"
    _add(footage, 0, 4)
    recorder.begin(path, footage, onset_s=3.0)
    _add(footage, 9, 11)
    recorder.close(5)
    seconds = _seconds(path)
    assert len(seconds) == pytest.approx(100, abs=2)
    assert seconds[35:75] == [3] * 40, "the last picture stands"
    assert seconds[-1] == 10


def test_a_clip_that_cannot_be_written_holds_no_message_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    footage, recorder = RecentFootage(30.0), ClipRecorder(2.0, 2.0, 60.0)
    (tmp_path / "file").touch()
    done: list[Path | None] = []
    _add(footage, 0, 10)
    recorder.begin(tmp_path / "file" / "a.mp4", footage, onset_s=3.0)
    recorder.end(tmp_path / "file" / "a.mp4", 5.0, done.append)
    recorder.begin(tmp_path / "b.mp4", footage, onset_s=3.0)
    recorder.end(tmp_path / "b.mp4", 5.0, done.append)
    recorder.close(5)
    assert done == [None, tmp_path / "b.mp4"]
    assert "a.mp4 cannot be written" in caplog.text


def test_clips_that_take_too_long_to_be_finished_are_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    footage, recorder = RecentFootage(60.0), ClipRecorder(20.0, 2.0, 60.0)
    _add(footage, 0, 20, fps=10.0)
    recorder.begin(tmp_path / "a.mp4", footage, onset_s=20.0)
    recorder.close(0)
    assert "1 clips were not finished in time, nor their events told as ended" in caplog.text
    recorder._thread.join(30)
    assert (tmp_path / "a.mp4").is_file()
