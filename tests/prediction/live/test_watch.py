"""Cameras watched: cut and brought back, standing still, and ended, with the news of their events."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import live_parts
import numpy as np
import pytest
import timed_videos

from violence_detection.errors import SourceError, UserError
from violence_detection.prediction.config import OutputConfig
from violence_detection.prediction.events import find_events
from violence_detection.prediction.live import camera_names, camera_state, watch
from violence_detection.prediction.live.camera_reader import CameraReader
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.prediction.live.event_publisher import EventPublisher
from violence_detection.prediction.live.handover import Handover
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.video import decode, sources
from violence_detection.video.sources import Source, TimedFrame

FPS = 20


class Collected(Outbox):
    """Keeps what it is sent."""

    name = "collected"

    def __init__(self) -> None:
        self.messages: list[EventMessage] = []
        super().__init__()

    def deliver(self, message: EventMessage) -> None:
        self.messages.append(message)


class Footage:
    """What happens before a camera, faster than it would be: its clock goes on with each frame that is read.

    The camera is away in `cuts`, (begin, end) in seconds, and ends `end_s` after its beginning.
    """

    def __init__(self, fights: list[tuple[float, float]], cuts: list[tuple[float, float]], end_s: float):
        self._fights, self._cuts, self.end_s = fights, cuts, end_s
        self.now_s = 0.0
        self.ended = threading.Event()

    def clock(self) -> float:
        return self.now_s

    def open(self) -> Source:
        """Wait until the camera is back."""
        self.now_s = next((end for begin, end in self._cuts if begin <= self.now_s < end), self.now_s)
        return _Connection(self)

    def frames(self, closed: threading.Event) -> Iterator[TimedFrame]:
        """Frames of a connection, at times of its own."""
        begin_s = self.now_s
        while self.now_s < self.end_s:
            if any(begin <= self.now_s < end for begin, end in self._cuts):
                raise SourceError("camera", "broke off")
            is_fight = any(begin <= self.now_s < end for begin, end in self._fights)
            bright = live_parts.BRIGHT if is_fight else live_parts.DARK
            yield TimedFrame(self.now_s - begin_s + 0.25, live_parts.picture(bright))
            self.now_s += 1 / FPS
            time.sleep(5e-4)
        self.ended.set()
        closed.wait(10)


class _Connection:
    name, live, fps = "camera", True, float(FPS)

    def __init__(self, footage: Footage):
        self._footage, self._closed = footage, threading.Event()

    def frames(self) -> Iterator[TimedFrame]:
        return self._footage.frames(self._closed)

    def close(self) -> None:
        self._closed.set()


def _watched(
    footage: Footage, live: LiveConfig, clips: Path | None = None
) -> tuple[CameraState, list[EventMessage]]:
    """All messages of footage that is watched to its end."""
    model, state, collected = live_parts.BrightnessModel(), CameraState("yard", "camera"), Collected()
    publisher = EventPublisher([collected], 0.6, clips, 5.0, 60.0, 1.0)
    watching = watch.CameraWatch(model, live, publisher, [], footage.clock)
    watching.add(state, footage.open, None)
    watching.until(footage.ended)
    time.sleep(0.1)
    watching.until_judged()
    watching.close()
    publisher.close(5)
    collected.close(5)
    return state, collected.messages


def test_a_stream_cut_ten_times_has_each_event_once() -> None:
    """Two cuts come in the middle of an event."""
    fights = [(10.0, 16.0), (40.0, 48.0), (60.0, 62.0), (70.0, 79.0), (120.0, 126.0)]
    begins = [5.0, 22.0, 30.0, 43.0, 55.0, 73.0, 85.0, 95.0, 105.0, 115.0]
    footage = Footage(fights, [(s, s + 2.0) for s in begins], 133.0)
    state, messages = _watched(footage, LiveConfig(retry_min_s=0.01))
    assert state.reconnections == 10
    ends = [m.news.event for m in messages if m.news.kind == "end"]
    assert len({m.news.event_id for m in messages}) == len(ends) == len(fights) == state.events
    for event, (begin_s, end_s) in zip(ends, fights, strict=True):
        assert event.start_s == pytest.approx(begin_s, abs=1.0)
        assert event.end_s == pytest.approx(end_s, abs=1.0)
    kinds = [m.news.kind for m in messages if m.news.event_id == messages[0].news.event_id]
    assert (kinds[0], kinds[-1]) == ("new", "end")


def test_a_longer_interruption_ends_the_event() -> None:
    footage = Footage([(4.0, 40.0)], [(8.0, 30.0)], 36.0)
    _, messages = _watched(footage, LiveConfig(retry_min_s=0.01, bridge_cut_s=5.0))
    ends = [m.news.event for m in messages if m.news.kind == "end"]
    assert [(round(e.start_s), round(e.end_s)) for e in ends] == [(4, 8), (30, 36)], ends


class _LookedAt(CameraState):
    """A camera that somebody looks at just when it has become live."""

    reader: CameraReader[Any] | None = None
    seen: tuple[str, ...] = ()

    def be(self, state: str, reason: str = "", only_from: str | None = None) -> None:
        super().be(state, reason, only_from)
        if state == camera_state.LIVE and self.reader is not None:
            self.reader.look()
            self.seen += (self.state,)


def test_a_camera_whose_first_frame_has_just_come_does_not_stand_still() -> None:
    footage, state, model = Footage([], [], 0.2), _LookedAt("yard", "camera"), live_parts.BrightnessModel()
    reader = CameraReader(
        state, footage.open, model.make_windows, Handover(5.0, 0.5), None, max_delay_s=5.0, stall_s=10.0,
        retry_min_s=0.01, retry_max_s=1.0, bridge_cut_s=5.0, clock=footage.clock,
    )  # fmt: skip
    state.reader = reader
    reader.start()
    assert footage.ended.wait(5), state
    reader.stop()
    assert reader.join(5)
    assert state.seen == (camera_state.LIVE,)


def test_a_file_read_as_a_camera_is_not_begun_again_after_a_fault() -> None:
    opened: list[str] = []

    class Faulty(_Connection):
        def frames(self) -> Iterator[TimedFrame]:
            yield TimedFrame(0.0, live_parts.picture(20))
            raise RuntimeError("a bug")

    def open_source(text: str) -> Source:
        opened.append(text)
        source = Faulty(Footage([], [], 0.0))
        source.live = False
        return source

    stop = threading.Event()
    limit = threading.Timer(5.0, stop.set)  # only where it goes on
    limit.start()
    cameras, live = camera_names.named(["a=growing:here.ts"]), LiveConfig(retry_min_s=0.05, retry_max_s=0.1)
    found = watch.run(cameras, live_parts.BrightnessModel(), live, OutputConfig(), stop, open_source)
    limit.cancel()
    assert len(opened) == 1
    assert "a bug" in str(found["failures"])


def test_a_camera_that_stands_still_or_cannot_be_had_says_so_and_stops_when_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stop = threading.Event()

    class Hanging(_Connection):
        def frames(self) -> Iterator[TimedFrame]:
            yield TimedFrame(0.0, live_parts.picture(20))
            self._closed.wait(30)

    def open_source(text: str) -> Source:
        if "gone" in text:
            raise SourceError("gone", "did not answer")
        return Hanging(Footage([], [], 0.0))

    cameras = camera_names.named(["a=rtsp://here", "b=rtsp://gone"])
    found: list[dict[str, Any]] = []
    live = LiveConfig(stall_s=0.2, retry_min_s=0.05, retry_max_s=0.1)
    model = live_parts.BrightnessModel()
    watching = threading.Thread(
        target=lambda: found.append(watch.run(cameras, model, live, OutputConfig(), stop, open_source))
    )
    watching.start()
    time.sleep(1.3)
    stop.set()
    watching.join(5)
    a, b = found[0]["cameras"]
    assert (a["frames"], a["state"], b["state"]) == (1, "ended", "ended")
    assert caplog.text.count("b: lost (did not answer; next attempt in ") > 5
    assert "a: stalled (no frame for 0.2 s)" in caplog.text


def test_a_growing_file_is_judged_to_its_end_in_times_of_its_own(tmp_path: Path) -> None:
    bright = [(live_parts.BRIGHT if 3 <= i / FPS < 5 else live_parts.DARK) for i in range(8 * FPS)]
    pictures = [live_parts.picture(b) for b in bright]
    path = timed_videos.write(
        tmp_path / "night.ts", timed_videos.evenly(len(pictures), FPS), pictures=pictures, rate=FPS
    )
    model = live_parts.BrightnessModel()
    found = watch.run(
        camera_names.named([f"growing:{path}", f"growing:{tmp_path}/gone.ts"]),
        model,
        LiveConfig(),
        OutputConfig(clips=tmp_path / "clips"),
        threading.Event(),
        lambda text: sources.open_source(text, still_s=0.3),
    )
    night, gone = found["cameras"]
    assert (night["frames"], night["events"], night["windows_dropped"], night["state"]) == (
        160,
        1,
        0,
        "ended",
    )
    (event,) = find_events([w for camera, w in model.judged if camera == "night-ts"], model.events_by)
    assert (event.start_s, event.end_s) == (pytest.approx(3, abs=0.5), pytest.approx(5, abs=0.5))
    clips = sorted(p.name for p in (tmp_path / "clips").iterdir())
    assert clips == [f"night-ts-{event.start_s:09.2f}s.jpg", f"night-ts-{event.start_s:09.2f}s.mp4"]
    assert gone["reason"] == found["failures"][0]["reason"]
    assert "no such file" in gone["reason"]


def test_the_clip_of_a_recording_that_is_judged_as_a_camera_stands_still_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read much faster than real time, and little of it is kept; a box moves in every picture.

    At its end the clip takes the time that it takes: nobody has asked to stop.
    """
    monkeypatch.setattr(watch, "_kept_s", lambda model, live, outputs: 11.0)
    monkeypatch.setattr(watch, "_CLIPS_S", 0.0)

    def picture(number: int) -> np.ndarray:
        out = live_parts.picture(live_parts.BRIGHT if 20 <= number / FPS < 40 else live_parts.DARK, 320, 240)
        left = (7 * number) % 280
        out[100:140, left : left + 40] = 128
        return out

    path = timed_videos.write(
        tmp_path / "night.ts",
        timed_videos.evenly(50 * FPS, FPS),
        pictures=[picture(n) for n in range(50 * FPS)],
        rate=FPS,
    )
    watch.run(
        camera_names.named([f"growing:{path}"]),
        live_parts.BrightnessModel(),
        LiveConfig(),
        OutputConfig(clips=tmp_path / "clips"),
        threading.Event(),
        lambda text: sources.open_source(text, still_s=0.3),
    )
    (clip,) = (tmp_path / "clips").glob("*.mp4")
    info, frames = decode.read(clip, lambda info: range(info.n_frames))
    assert info.duration_s == pytest.approx(30.5, abs=1.5), "the event with 5 s before and behind it"
    rows = [frames[n][120, :, 0].astype(int) for n in range(info.n_frames)]
    still = [n for n, (a, b) in enumerate(itertools.pairwise(rows)) if np.abs(a - b).max() < 40]
    assert not still, "pictures behind which nothing moves"


def test_what_a_killed_run_left_of_a_clip_goes_with_the_next(tmp_path: Path) -> None:
    program = (
        "import sys, os, signal; from pathlib import Path; import numpy as np\n"
        "from violence_detection.prediction.live.clip_recorder import ClipRecorder\n"
        "from violence_detection.prediction.live.recent_footage import RecentFootage\n"
        "footage, recorder = RecentFootage(20.0), ClipRecorder(5.0, 5.0, 60.0)\n"
        "for n in range(50):\n"
        "    footage.keep(footage.kept(n / 10, np.zeros((64, 96, 3), np.uint8)))\n"
        "recorder.begin(Path(sys.argv[1]), footage, 4.0)\n"
        "while not any(Path(sys.argv[1]).parent.glob('.*')):\n"
        "    pass\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(watch.__file__).parents[3])}
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.mp4")], env=environment)
    assert killed.returncode == -signal.SIGKILL
    assert [p.name.startswith(".a.") for p in tmp_path.iterdir()] == [True]
    watch.check(LiveConfig(), OutputConfig(clips=tmp_path))
    assert not list(tmp_path.iterdir())


def test_what_is_for_files_is_refused() -> None:
    with pytest.raises(UserError, match="are for files"):
        watch.check(LiveConfig(), OutputConfig(format=("srt",)))
    for wrong in (
        {"retry_max_s": 0.0},
        {"metrics_port": 99999},
        {"mqtt_prefix": "a/#"},
        {"bridge_cut_s": -1.0},
    ):
        with pytest.raises(UserError):
            LiveConfig(**wrong)
