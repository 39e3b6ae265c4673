"""Clips of events, from footage that was kept before the events were found."""

from __future__ import annotations

import collections
import errno
import os
import threading
import time
from pathlib import Path

import numbered_videos
import numpy as np
import pytest
import record_lines

from violence_detection.prediction.event_follower import END, NEW, EventNews
from violence_detection.prediction.events import Event
from violence_detection.prediction.live import clip_recorder, event_files
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.clip_recorder import ClipRecorder
from violence_detection.prediction.live.event_publisher import EventPublisher
from violence_detection.prediction.live.recent_footage import RecentFootage, picture_of
from violence_detection.system import own_files
from violence_detection.system.own_files import RECORD_NAME
from violence_detection.video import decode


def _add(footage: RecentFootage, begin_s: float, end_s: float, fps: float = 20.0) -> None:
    """Add footage in which each picture shows the whole seconds of its time."""
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
    done: list[tuple[Path | None, float]] = []
    _add(footage, 0, 14)
    recorder.begin(path, footage, onset_s=10.0)
    _add(footage, 14, 18)
    recorder.end(path, 12.0, lambda *told: done.append(told))
    _wait(path)
    assert {p.name for p in tmp_path.iterdir()} == {"a.mp4", RECORD_NAME}
    recorder.close(5)
    assert done == [(path, 0.0)]
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
    done: list[tuple[Path | None, float]] = []
    _add(footage, 0, 10)
    recorder.begin(tmp_path / "file" / "a.mp4", footage, onset_s=3.0)
    recorder.end(tmp_path / "file" / "a.mp4", 5.0, lambda *told: done.append(told))
    recorder.begin(tmp_path / "b.mp4", footage, onset_s=3.0)
    recorder.end(tmp_path / "b.mp4", 5.0, lambda *told: done.append(told))
    recorder.close(5)
    assert done == [(None, 0.0), (tmp_path / "b.mp4", 0.0)]
    assert "a.mp4 cannot be written" in caplog.text


def test_a_share_that_goes_away_costs_the_clips_of_then_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread once ended, or `done` was not called: ends of events were not told and other clips not written."""
    is_away, stat = threading.Event(), Path.stat

    def answered(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if is_away.is_set() and path.is_relative_to(tmp_path):
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(path))
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", answered)
    footage, recorder = RecentFootage(30.0), ClipRecorder(1.0, 1.0, 4.0)
    done: list[tuple[Path | None, float]] = []
    paths = [tmp_path / name for name in ("longest.mp4", "open.mp4", "behind.mp4")]
    _add(footage, 0, 4)
    recorder.begin(paths[1], footage, onset_s=3.0)
    recorder.begin(paths[0], footage, onset_s=-1.0)
    # this clip is complete, since it is as long as a clip may be, but its event goes on
    _wait(paths[0])
    is_away.set()
    recorder.end(paths[1], 4.0, lambda *told: done.append(told))
    recorder.end(paths[0], 4.0, lambda *told: done.append(told))
    _add(footage, 4, 6)
    until_s = time.monotonic() + 5
    while len(done) < 2 and time.monotonic() < until_s:
        time.sleep(0.02)
    is_away.clear()
    assert done == [(None, 0.0), (None, 0.0)]
    assert f"cannot look for the clip {paths[0]}: " in caplog.text
    recorder.begin(paths[2], footage, onset_s=3.0)
    recorder.end(paths[2], 4.0, lambda *told: done.append(told))
    recorder.close(5)
    assert done[2:] == [(paths[2], 0.0)]


def test_a_clip_is_at_work_until_its_end_is_told(tmp_path: Path) -> None:
    """At the end of a recording, clips are waited for only while the recorder is at work."""
    footage, recorder, at_work = RecentFootage(30.0), ClipRecorder(1.0, 1.0, 4.0), list[bool]()
    _add(footage, 0, 6)
    recorder.begin(tmp_path / "a.mp4", footage, onset_s=2.0)
    recorder.end(tmp_path / "a.mp4", 4.0, lambda *_: at_work.append(recorder.is_at_work))
    recorder.close(30)
    assert (at_work, recorder.is_at_work) == ([True], False)


def test_clips_that_take_too_long_to_be_finished_are_named_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    footage, recorder = RecentFootage(60.0), ClipRecorder(20.0, 2.0, 60.0)
    _add(footage, 0, 20, fps=10.0)
    recorder.begin(tmp_path / "a.mp4", footage, onset_s=20.0)
    recorder.close(0)
    assert "1 clips were not finished in time, so the ends of their events were not reported" in caplog.text
    recorder._thread.join(30)
    assert (tmp_path / "a.mp4").is_file()


def test_a_reader_faster_than_the_clip_is_written_waits_for_it(tmp_path: Path) -> None:
    """If a recording is judged as a camera, its clips lack no picture, however little footage is kept."""
    footage, recorder = RecentFootage(3.0), ClipRecorder(1.0, 1.0, 60.0)
    done: list[tuple[Path | None, float]] = []
    paths = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    _add(footage, 0, 4)
    recorder.begin(paths[0], footage, onset_s=2.0, is_live=False)
    recorder.begin(paths[1], footage, onset_s=2.0, is_live=False)
    _add(footage, 4, 45)
    for path in paths:
        recorder.end(path, 43.0, lambda *told: done.append(told))
    footage.end()
    recorder.close(60)
    assert done == [(path, 0.0) for path in paths]
    for path in paths:
        seconds = _seconds(path)
        assert len(seconds) == pytest.approx(430, abs=1)
        assert collections.Counter(seconds[:420]) == dict.fromkeys(range(1, 43), 10)


def test_the_clip_of_footage_that_comes_slowly_waits_for_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clip_recorder, "_WAIT_S", 0.0)
    footage, recorder, path = RecentFootage(20.0), ClipRecorder(1.0, 0.5, 60.0), tmp_path / "a.mp4"
    done: list[tuple[Path | None, float]] = []
    _add(footage, 0, 4)
    recorder.begin(path, footage, onset_s=2.0, is_live=False)
    recorder.end(path, 7.5, lambda *told: done.append(told))
    # for example because the model is slow
    time.sleep(1.5)
    assert not done
    _add(footage, 4, 9)
    _wait(path)
    recorder.close(5)
    assert (_seconds(path)[0], _seconds(path)[-1]) == (1, 7)


def test_nobody_waits_for_a_clip_that_cannot_be_written_nor_behind_its_end(tmp_path: Path) -> None:
    footage, recorder = RecentFootage(3.0), ClipRecorder(1.0, 1.0, 5.0)
    (tmp_path / "file").touch()
    _add(footage, 0, 4)
    recorder.begin(tmp_path / "file" / "a.mp4", footage, onset_s=2.0, is_live=False)
    recorder.begin(tmp_path / "b.mp4", footage, onset_s=2.0, is_live=False)
    adding = threading.Thread(target=_add, args=(footage, 4, 30), daemon=True)
    adding.start()
    adding.join(20)
    assert not adding.is_alive()
    recorder.close(5)
    assert _seconds(tmp_path / "b.mp4")[-1] == 6


class _Held:
    """A recorder whose thread waits for `go_on`, as it would for a disk that does not answer."""

    def __init__(self, folder: Path):
        self.recorder, self.go_on = ClipRecorder(1.0, 1.0, 60.0), threading.Event()
        footage, stands = RecentFootage(5.0), threading.Event()
        _add(footage, 0, 4)

        def done(path: Path | None, lost_s: float) -> None:
            stands.set()
            self.go_on.wait(30)

        self.recorder.begin(folder / "first.mp4", footage, onset_s=1.0)
        self.recorder.end(folder / "first.mp4", 1.5, done)
        assert stands.wait(10)


def test_a_live_camera_waits_for_no_clip_and_what_it_lacks_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    held, footage = _Held(tmp_path), RecentFootage(3.0)
    lost: dict[Path | None, float] = {}
    paths = [tmp_path / "ends.mp4", tmp_path / "long.mp4"]
    _add(footage, 0, 4)
    held.recorder.begin(paths[0], footage, onset_s=2.0)
    held.recorder.begin(paths[1], footage, onset_s=-48.0)
    _add(footage, 4, 14)
    held.recorder.end(paths[0], 12.5, lambda *told: lost.update([told]))
    held.go_on.set()
    # this clip is complete, since it is as long as a clip may be, but its event goes on
    _wait(paths[1])
    held.recorder.end(paths[1], 13.0, lambda *told: lost.update([told]))
    held.recorder.close(10)
    assert lost == pytest.approx({paths[0]: 10.0, paths[1]: 11.0}, abs=0.3), "up to 11 s, from 1 s or all"
    for path in paths:
        assert caplog.text.count(f"{path} lacks {lost[path]:.1f} s of footage") == 1


def test_who_waits_for_a_clip_is_let_go_at_the_end(tmp_path: Path) -> None:
    held, footage = _Held(tmp_path), RecentFootage(3.0)
    _add(footage, 0, 4)
    held.recorder.begin(tmp_path / "a.mp4", footage, onset_s=2.0, is_live=False)
    adding = threading.Thread(target=_add, args=(footage, 4, 8), daemon=True)
    adding.start()
    adding.join(0.5)
    assert adding.is_alive()
    footage.end()
    adding.join(10)
    assert not adding.is_alive()
    held.go_on.set()
    held.recorder.close(10)
    seconds = _seconds(tmp_path / "a.mp4")
    assert len(seconds) == pytest.approx(70, abs=1)
    assert collections.Counter(seconds[:60]) == dict.fromkeys(range(1, 7), 10)


def test_over_weeks_neither_the_record_of_clips_grows_nor_is_it_read_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old clips are deleted by somebody, so that the record can forget them."""
    monkeypatch.setattr(event_files, "_FORGET_EVERY", 5)
    monkeypatch.setattr(own_files, "_NEWEST_LINES", 4)
    read = record_lines.counted(monkeypatch.setattr)
    footage, camera = RecentFootage(300.0), CameraState("front", "rtsp://host/s")
    publisher = EventPublisher([], 0.5, tmp_path, 1.0, 5.0, 1.0)
    _add(footage, 0, 40, fps=2.0)
    for number in range(20):
        for kind in (NEW, END):
            event = Event(number + 2.0, number + 3.0, 0.9, number + 2.5)
            publisher.publish(camera, footage, True, EventNews(kind, f"front-{number}", event))
        publisher.wait(threading.Event())
        for path in tmp_path.glob(f"front-{number}.*"):
            path.unlink()
    publisher.close(5)
    assert len((tmp_path / RECORD_NAME).read_text().splitlines()) <= 15
    assert len(read) <= 100, "each line once, and the few that are left where it was made shorter"
