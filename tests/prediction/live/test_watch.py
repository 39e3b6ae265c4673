"""Watched cameras that are interrupted and come back, stall or end, with the news of their events."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import live_parts
import numpy as np
import pytest
import streamed
import timed_videos

from violence_detection.errors import SourceError, UserError
from violence_detection.prediction.config import OutputConfig
from violence_detection.prediction.events import find_events
from violence_detection.prediction.live import camera_names, camera_state, handover, watch
from violence_detection.prediction.live.camera_reader import CameraReader
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.prediction.live.event_publisher import EventPublisher
from violence_detection.prediction.live.handover import Handover
from violence_detection.prediction.live.live_model import PlacedWindow, WindowsOfStream
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs import ways
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.prediction.live.recent_footage import RecentFootage
from violence_detection.system.own_files import RECORD_NAME
from violence_detection.video import decode, sources
from violence_detection.video.sources import Source, TimedFrame

FPS = 20


class Collected(Outbox):
    """Keeps the messages that it is sent."""

    name = "collected"

    def __init__(self) -> None:
        self.messages: list[EventMessage] = []
        super().__init__()

    def deliver(self, message: EventMessage) -> None:
        self.messages.append(message)


class Footage:
    """A simulated camera, faster than real time: the clock moves on with each frame that is read.

    It sees `fights` and is away in `cuts`, both (begin, end) in seconds, and ends after `end_s`.
    """

    def __init__(self, fights: list[tuple[float, float]], cuts: list[tuple[float, float]], end_s: float):
        self._fights, self._cuts, self.end_s = fights, cuts, end_s
        self.now_s = 0.0
        self.ended = threading.Event()

    def clock(self) -> float:
        """Return the time of this machine's clock."""
        return self.now_s

    def stamp_s(self, since_s: float) -> float:
        """Return the camera's time stamp of a frame that comes `since_s` after the beginning of its connection."""
        return since_s

    def open(self) -> Source:
        """Wait until the camera is back; return a connection to it."""
        self.now_s = next((end for begin, end in self._cuts if begin <= self.now_s < end), self.now_s)
        return _Connection(self)

    def frames(self, closed: threading.Event) -> Iterator[TimedFrame]:
        """Yield the frames of a connection, with the camera's time stamps."""
        begin_s = self.now_s
        yield from self.repeated(begin_s)
        while self.now_s < self.end_s:
            if any(begin <= self.now_s < end for begin, end in self._cuts):
                raise SourceError("camera", "broke off")
            yield TimedFrame(self.stamp_s(self.now_s - begin_s) + 0.25, self.picture(self.now_s))
            self.now_s += 1 / FPS
            time.sleep(5e-4)
        self.ended.set()
        closed.wait(10)

    def picture(self, at_s: float) -> np.ndarray:
        """Return the picture at a time: bright during a fight, otherwise dark."""
        is_fight = any(begin <= at_s < end for begin, end in self._fights)
        return live_parts.picture(live_parts.BRIGHT if is_fight else live_parts.DARK)

    def repeated(self, begin_s: float) -> Iterator[TimedFrame]:
        """Yield the earlier frames that a connection begun at `begin_s` gives first and at once; here none."""
        yield from ()


class _Connection:
    name, live, fps = "camera", True, float(FPS)

    def __init__(self, footage: Footage):
        self._footage, self._closed = footage, threading.Event()

    def frames(self) -> Iterator[TimedFrame]:
        return self._footage.frames(self._closed)

    def close(self) -> None:
        self._closed.set()


def _watched(
    footage: Footage, live: LiveConfig, clips: Path | None = None, recent: RecentFootage | None = None
) -> tuple[CameraState, list[EventMessage]]:
    """Watch footage to its end; return the state of its camera and all messages."""
    model, state, collected = live_parts.BrightnessModel(), CameraState("yard", "camera"), Collected()
    publisher = EventPublisher([collected], 0.6, clips, 5.0, 60.0, 1.0)
    watching = watch.CameraWatch(model, live, publisher, [], footage.clock)
    watching.add(state, footage.open, recent)
    watching.until(footage.ended)
    time.sleep(0.1)
    watching.until_judged()
    watching.close()
    publisher.close(5)
    collected.close(5)
    return state, collected.messages


def test_a_stream_cut_ten_times_has_each_event_once(caplog: pytest.LogCaptureFixture) -> None:
    """Two cuts are in the middle of an event. Delays between attempts do not grow, as each connection had windows."""
    fights = [(10.0, 16.0), (40.0, 48.0), (60.0, 62.0), (70.0, 79.0), (120.0, 126.0)]
    begins = [5.0, 22.0, 30.0, 43.0, 55.0, 73.0, 85.0, 95.0, 105.0, 115.0]
    footage = Footage(fights, [(s, s + 2.0) for s in begins], 133.0)
    state, messages = _watched(footage, LiveConfig(retry_min_s=0.01))
    assert state.reconnections == 10
    assert caplog.text.count("next attempt in 0.0 s") == 10
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


class _ClockSetAhead(Footage):
    """A camera whose clock is set half an hour ahead during its first connection."""

    connections = 0

    def open(self) -> Source:
        self.connections += 1
        return super().open()

    def stamp_s(self, since_s: float) -> float:
        return since_s + (1800.0 if self.connections == 1 and since_s >= 6 else 0.0)


def test_a_camera_whose_clock_is_set_ahead_is_placed_anew() -> None:
    footage = _ClockSetAhead([(100.0, 105.0), (120.0, 125.0)], [(115.0, 116.0)], 130.0)
    state, messages = _watched(footage, LiveConfig(retry_min_s=0.01, stall_s=0.1))
    # one because its times are ahead, and one for the cut
    assert state.reconnections == 2
    ends = [m.news.event for m in messages if m.news.kind == "end"]
    assert [(e.start_s, e.end_s) for e in ends] == [
        (pytest.approx(100, abs=1), pytest.approx(105, abs=1)),
        (pytest.approx(120, abs=1), pytest.approx(125, abs=1)),
    ]


class _ClockSetBack(Footage):
    """This machine's clock is set back by an hour while the camera is away for longer than an event is bridged."""

    def __init__(self, messages: list[EventMessage]):
        super().__init__([(4.0, 8.0), (40.0, 44.0)], [(7.0, 30.0)], 50.0)
        self._messages = messages
        self.told_meanwhile: list[str] = []

    def clock(self) -> float:
        return 10_000 + self.now_s - (3600.0 if self.now_s >= 7 else 0.0)

    def open(self) -> Source:
        if self.now_s >= 7:
            until_s = time.monotonic() + 10
            while not any(m.news.kind == "end" for m in self._messages) and time.monotonic() < until_s:
                time.sleep(0.05)
            self.told_meanwhile = [m.news.kind for m in self._messages]
        return super().open()


def test_an_event_ends_and_times_are_right_where_this_machines_clock_is_set_back() -> None:
    model, state, collected = live_parts.BrightnessModel(), CameraState("yard", "camera"), Collected()
    footage, first = _ClockSetBack(collected.messages), RecentFootage(20.0)
    publisher = EventPublisher([collected], 0.6, None, 5.0, 60.0, 1.0)
    live = LiveConfig(retry_min_s=0.01, bridge_cut_s=0.5)
    watching = watch.CameraWatch(model, live, publisher, [], footage.clock)
    watching.add(state, footage.open, first)
    watching.until(footage.ended)
    time.sleep(0.1)
    watching.until_judged()
    watching.close()
    publisher.close(5)
    collected.close(5)
    assert footage.told_meanwhile[-1:] == ["end"]
    ends = [m.news.event for m in collected.messages if m.news.kind == "end"]
    assert [(e.start_s, e.end_s) for e in ends] == [
        (pytest.approx(10_004, abs=1), pytest.approx(10_007, abs=1)),
        (pytest.approx(6_440, abs=1), pytest.approx(6_444, abs=1)),
    ]
    kept = watching._cameras["yard"].reader.recent
    assert kept is not None
    times_s = [picture.time_s for picture in kept.between(-np.inf, np.inf)]
    assert times_s == sorted(times_s)
    assert 6_425 < times_s[0] < times_s[-1] < 6_451


class _Repeating(Footage):
    """A camera whose connections begin with the last 8 seconds at once, as those of some servers do."""

    def repeated(self, begin_s: float) -> Iterator[TimedFrame]:
        for number in range(8 * FPS):
            yield TimedFrame(number / FPS + 0.25, self.picture(begin_s - 8 + number / FPS))

    def stamp_s(self, since_s: float) -> float:
        return since_s + 8


def test_what_a_new_connection_repeats_is_told_once_and_at_its_time() -> None:
    footage = _Repeating([(15.0, 18.0), (40.0, 45.0)], [(20.0, 21.0)], 50.0)
    recent = RecentFootage(60.0)
    state, messages = _watched(footage, LiveConfig(retry_min_s=0.01, stall_s=0.1), recent=recent)
    assert state.reconnections == 1
    ends = [m.news.event for m in messages if m.news.kind == "end"]
    assert [(e.start_s, e.end_s) for e in ends] == [
        (pytest.approx(15, abs=1), pytest.approx(18, abs=1)),
        (pytest.approx(40, abs=1), pytest.approx(45, abs=1)),
    ]
    times_s = [picture.time_s for picture in recent.between(-np.inf, np.inf)]
    assert times_s == sorted(times_s)


class _Held(Footage):
    """A camera whose frame at `time_s` is available `there_s(time_s)` seconds after the connection began.

    Frames that are available already come at `speed` times real time.
    """

    def __init__(
        self, fps: int, speed: float, there_s: Callable[[float], float], fights: list[tuple[float, float]]
    ):
        super().__init__(fights, [], 60.0)
        self._fps, self._speed, self._there_s = fps, speed, there_s

    def frames(self, closed: threading.Event) -> Iterator[TimedFrame]:
        begin_s = self.now_s
        for number in itertools.count():
            time_s = number / self._fps
            self.now_s = max(self.now_s + 1 / (self._fps * self._speed), begin_s + self._there_s(time_s))
            if self.now_s >= self.end_s:
                break
            yield TimedFrame(time_s, self.picture(time_s))
            time.sleep(5e-4)
        self.ended.set()
        closed.wait(10)


@pytest.mark.parametrize("fps", [12, 25, 60])
def test_what_a_connection_begins_with_is_a_burst_at_every_rate(fps: int) -> None:
    """At 25 frames a second each gained less than 0.04 s on the one before; unseen, that put times 2.4 s ahead."""
    footage = _Held(fps, 6.0, lambda time_s: time_s - 5.0, [(30.0, 35.0)])
    state, messages = _watched(footage, LiveConfig(retry_min_s=0.01))
    assert state.reconnections == 0
    (event,) = (m.news.event for m in messages if m.news.kind == "end")
    assert (event.start_s, event.end_s) == (pytest.approx(25, abs=0.6), pytest.approx(30, abs=0.6))


@pytest.mark.parametrize(
    ("segment_s", "speed", "fetched_s"), [(4, 6.0, 0.0), (6, 2.0, 0.0), (10, 2.0, 0.0), (4, 1000.0, 0.7)]
)
def test_segments_of_which_three_come_first_are_read_on(
    segment_s: int, speed: float, fetched_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    """As its times were ahead, the camera was once reconnected for ever, and what it repeated was told again."""

    def there_s(time_s: float) -> float:
        segment = time_s // segment_s
        return max((segment - 2.5) * segment_s, (segment + 1) * fetched_s)

    footage = _Held(25, speed, there_s, [(6 * segment_s, 7 * segment_s)])
    state, messages = _watched(footage, LiveConfig(retry_min_s=0.01, stall_s=0.5))
    assert "ahead of this machine's clock" not in caplog.text
    assert state.reconnections == 0
    (event,) = (m.news.event for m in messages if m.news.kind == "end")
    assert event.start_s == pytest.approx(2.5 * segment_s + segment_s / speed, abs=2.0)


def test_of_a_long_burst_the_newest_windows_wait_for_its_end() -> None:
    """Only as many windows may wait here as may wait to be judged, since each keeps its pictures in memory."""
    model, waiting, most_waiting = live_parts.BrightnessModel(), weakref.WeakSet[Any](), 0

    def make_windows(source: Source) -> WindowsOfStream:
        maker = model.make_windows(source)
        push = maker.push

        def watched(frame: TimedFrame) -> Sequence[PlacedWindow]:
            nonlocal most_waiting
            windows = push(frame)
            waiting.update(windows)
            most_waiting = max(most_waiting, len(waiting))
            return windows

        maker.push = watched
        return maker

    footage, state = _Held(25, 3.0, lambda time_s: 0.0, []), CameraState("yard", "camera")
    footage.end_s = 20.0
    given: Handover[PlacedWindow] = Handover(5.0, model.step_s)
    reader = CameraReader(
        state, footage.open, make_windows, given, None, window_s=1.0, max_delay_s=5.0, stall_s=10.0,
        retry_min_s=0.01, retry_max_s=1.0, bridge_cut_s=5.0, clock=footage.clock,
    )  # fmt: skip
    reader.start()
    assert footage.ended.wait(20)
    reader.stop()
    assert reader.join(5)
    assert state.dropped > 80
    assert most_waiting <= given.most_live + 1


def test_of_connections_without_a_window_no_more_is_kept_than_what_they_lost() -> None:
    """A camera that breaks off every minute has 43,000 connections a month; each second all of them were added up."""
    cuts = [(3.0 + 0.5 * n, 3.2 + 0.5 * n) for n in range(40)]
    footage, state, model = Footage([], cuts, 26.0), CameraState("a", "camera"), live_parts.BrightnessModel()
    reader = CameraReader(
        state, footage.open, model.make_windows, Handover(5.0, 0.5), None, window_s=1.0, max_delay_s=5.0, stall_s=10.0,
        retry_min_s=0.001, retry_max_s=0.001, bridge_cut_s=5.0, clock=footage.clock,
    )  # fmt: skip
    reader.start()
    assert footage.ended.wait(20)
    reader.stop()
    assert reader.join(5)
    assert state.reconnections == 40
    assert sorted(reader._connections) == [1, 41]
    assert reader.offset_s(41) - reader.offset_s(1) == pytest.approx(22.7, abs=0.2)
    # each connection lost its cut and the time to the next frame
    assert reader.bridged_s(1, 41) == pytest.approx(40 * (0.2 + 0.75 / live_parts.FPS), abs=0.1)
    assert sorted(reader._connections) == [41]


def test_a_camera_that_is_stopped_while_its_source_is_opened_reads_nothing() -> None:
    """`stop` closes the source that it finds; one that came a moment later was read until its time limit."""
    opening, stopped, asked = threading.Event(), threading.Event(), threading.Event()

    class Late:
        name, live, fps = "a", True, 0.0

        def frames(self) -> Iterator[TimedFrame]:
            asked.set()
            yield from ()

        def close(self) -> None:
            pass

    def opened() -> Source:
        opening.set()
        assert stopped.wait(10)
        return Late()

    model = live_parts.BrightnessModel()
    reader = CameraReader(
        CameraState("a", "camera"), opened, model.make_windows, Handover(5.0, 0.5), None, window_s=1.0, max_delay_s=5.0,
        stall_s=10.0, retry_min_s=0.001, retry_max_s=0.001, bridge_cut_s=5.0,
    )  # fmt: skip
    reader.start()
    assert opening.wait(10)
    reader.stop()
    stopped.set()
    assert reader.join(5)
    assert not asked.is_set()


class _LookedAt(CameraState):
    """A camera that is checked for a stall just when it has become live."""

    reader: CameraReader[Any] | None = None
    seen: tuple[str, ...] = ()

    def set_state(self, state: str, reason: str = "", only_from: str | None = None) -> None:
        super().set_state(state, reason, only_from)
        if state == camera_state.LIVE and self.reader is not None:
            self.reader.look()
            self.seen += (self.state,)


def test_a_camera_whose_first_frame_has_just_come_does_not_stand_still() -> None:
    footage, state, model = Footage([], [], 0.2), _LookedAt("yard", "camera"), live_parts.BrightnessModel()
    reader = CameraReader(
        state, footage.open, model.make_windows, Handover(5.0, 0.5), None, window_s=1.0, max_delay_s=5.0, stall_s=10.0,
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
    # needed only if the file is read again
    limit = threading.Timer(5.0, stop.set)
    limit.start()
    cameras, live = camera_names.named(["a=growing:here.ts"]), LiveConfig(retry_min_s=0.05, retry_max_s=0.1)
    found = watch.run(cameras, live_parts.BrightnessModel(), live, OutputConfig(), stop, open_source)
    limit.cancel()
    assert len(opened) == 1
    assert "a bug" in str(found["failures"])


def test_a_camera_that_stands_still_or_cannot_be_had_says_so_and_stops_when_asked(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_LOOK_EVERY_S", 0.05)
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
    until_s = time.monotonic() + 20
    while time.monotonic() < until_s and (
        "a: stalled" not in caplog.text or caplog.text.count("b: lost") <= 5
    ):
        time.sleep(0.02)
    stop.set()
    watching.join(5)
    a, b = found[0]["cameras"]
    assert (a["frames"], a["state"], b["state"]) == (1, "ended", "ended")
    assert caplog.text.count("b: lost (did not answer; next attempt in ") > 5
    assert "a: stalled (no frame for 0.2 s)" in caplog.text


def test_what_is_held_back_until_a_stream_ends_does_not_make_its_camera_live(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder keeps the last pictures until the stream ends, which once told programs that the camera was back."""
    caplog.set_level("INFO")
    monkeypatch.setattr(watch, "_LOOK_EVERY_S", 0.05)
    stop = threading.Event()

    class Ending(_Connection):
        def frames(self) -> Iterator[TimedFrame]:
            yield TimedFrame(0.0, live_parts.picture(20))
            self._closed.wait(1.0)
            yield TimedFrame(0.1, live_parts.picture(20))
            if len(opened) == 2:
                self._closed.wait(0.5)
                stop.set()

    opened: list[str] = []

    def open_source(text: str) -> Source:
        opened.append(text)
        return Ending(Footage([], [], 0.0))

    live = LiveConfig(stall_s=0.3, retry_min_s=0.05, retry_max_s=0.1)
    cameras, model = camera_names.named(["a=rtsp://here"]), live_parts.BrightnessModel()
    watch.run(cameras, model, live, OutputConfig(), stop, open_source)
    said = re.findall(r"a: (live|stalled|lost|ended)", caplog.text)
    assert said[:6] == ["live", "stalled", "lost", "live", "stalled", "live"]


def test_a_camera_that_sends_too_few_frames_to_be_judged_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a camera was once shown as live for weeks, while nothing of it was judged."""
    monkeypatch.setattr(watch, "_SAY_EVERY_S", 0.0)
    monkeypatch.setattr(watch, "_LOOK_EVERY_S", 0.02)

    class Rare(Footage):
        def frames(self, closed: threading.Event) -> Iterator[TimedFrame]:
            for number, frame in enumerate(super().frames(closed)):
                if number % 4 == 0:
                    yield frame

    state, _ = _watched(Rare([], [], 12.0), LiveConfig())
    assert (state.windows, state.dropped) == (0, 0)
    assert state.sparse > 10
    assert state.summary()["windows_sparse"] == state.sparse
    said = re.findall(r"yard: (\d+) more windows were not judged: fewer than 8 frames in 1 s", caplog.text)
    assert 0 < sum(map(int, said)) <= state.sparse


@pytest.mark.parametrize(
    ("rare_s", "its_state"), [(0.0, camera_state.STALLED), (0.25, camera_state.LIVE)], ids=["none", "few"]
)
def test_the_event_of_a_camera_of_which_no_windows_come_ends(rare_s: float, its_state: str) -> None:
    """The source neither fails nor ends: some cameras send at most a frame a second while nothing moves."""
    collected, stop = Collected(), threading.Event()

    class Quiet(_Connection):
        def frames(self) -> Iterator[TimedFrame]:
            for number in range(3 * FPS):
                time.sleep(1 / FPS)
                yield TimedFrame(number / FPS, live_parts.picture(live_parts.BRIGHT))
            time_s = 3.0
            while not self._closed.wait(rare_s or 60):
                time_s += rare_s
                yield TimedFrame(time_s, live_parts.picture(live_parts.DARK))

    live = LiveConfig(stall_s=0.5, bridge_cut_s=0.5)
    cameras, model = camera_names.named(["a=rtsp://here"]), live_parts.BrightnessModel()
    states: list[CameraState] = []
    watching = threading.Thread(
        target=lambda: watch.run(
            cameras, model, live, OutputConfig(), stop, lambda text: Quiet(Footage([], [], 0.0)),
            on_states=states.extend, others=[collected],
        )
    )  # fmt: skip
    watching.start()
    until_s = time.monotonic() + 20
    while not any(m.news.kind == "end" for m in collected.messages) and time.monotonic() < until_s:
        time.sleep(0.05)
    told, state = [m.news for m in collected.messages], states[0].state
    stop.set()
    watching.join(10)
    assert (told[0].kind, told[-1].kind, state) == ("new", "end", its_state)
    assert told[-1].event.end_s - told[-1].event.start_s == pytest.approx(3.0, abs=1.0)


def test_an_event_goes_on_where_its_camera_is_away_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between interruptions, the camera sends too few frames for a window."""
    monkeypatch.setattr(watch, "_LOOK_EVERY_S", 0.0)

    class Flickering(Footage):
        def picture(self, at_s: float) -> np.ndarray:
            # time in which the watch looks at the camera
            time.sleep(0.15 if 8 <= at_s < 18 else 0)
            return super().picture(at_s)

    footage = Flickering([(4.0, 24.0)], [(8.0, 11.0), (11.2, 14.2), (14.4, 17.4)], 30.0)
    state, messages = _watched(footage, LiveConfig(retry_min_s=0.01, bridge_cut_s=4.0))
    assert state.reconnections == 3
    ends = [m.news.event for m in messages if m.news.kind == "end"]
    assert [(e.start_s, e.end_s) for e in ends] == [(pytest.approx(4, abs=1), pytest.approx(24, abs=1))], ends


def test_windows_that_wait_end_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames that are read are far ahead of the windows that are judged."""
    monkeypatch.setattr(watch, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(handover, "_MOST_WAITING", 30)
    collected, model = Collected(), live_parts.BrightnessModel(takes_s=0.03)
    cameras = camera_names.named(["night=growing:night.ts"])
    watch.run(
        cameras, model, LiveConfig(), OutputConfig(), threading.Event(), lambda text: _Recording(),
        others=[collected],
    )  # fmt: skip
    ends = [m.news.event for m in collected.messages if m.news.kind == "end"]
    assert tuple(ends) == find_events([window for _, window in model.judged], model.events_by)
    assert len(ends) == 10


def _asked_for(seconds: float, address: str) -> dict[str, Any]:
    """Watch an address as camera `a` for some seconds, with delays of 0.05 to 60 s; return what the script prints."""
    stop = threading.Event()
    threading.Timer(seconds, stop.set).start()
    live = LiveConfig(retry_min_s=0.05, retry_max_s=60.0)
    return watch.run(
        camera_names.named([f"a={address}"]), live_parts.BrightnessModel(), live, OutputConfig(), stop
    )


def test_the_address_of_a_single_picture_is_asked_less_and_less_and_said_to_be_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = [0]
    with streamed.snapshot(asked) as url:
        found = _asked_for(3.0, f"{url}/snapshot.jpg")
    # attempts are at least 0.05, 0.1, 0.2, 0.4, 0.8 and 1.6 s apart
    assert 2 <= asked[0] <= 7
    assert found["cameras"][0]["frames"] == asked[0]
    assert "a: lost (the stream ended after 1 frame: is this the address of a single picture?" in caplog.text


def test_a_camera_that_refuses_the_password_is_not_asked_again_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Some cameras lock themselves after a few wrong passwords."""
    asked = [0]
    with streamed.refusing(asked) as url:
        _asked_for(2.0, f"{url.replace('http://', 'http://me:geheim@')}/live.ts")
    assert 1 <= asked[0] <= 2, "once, without and with the password"
    assert "rejects this user and password (401)" in caplog.text
    assert "geheim" not in caplog.text


def test_a_live_playlist_that_its_server_has_ended_is_asked_until_it_is_live_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that was restarted may still have the earlier playlist, which then looks like that of a recording."""
    video = timed_videos.write(
        tmp_path / "a.mp4", timed_videos.evenly(160, FPS), rate=FPS, codec="libx264", options={"g": str(FPS)}
    )
    stop = threading.Event()
    limit = threading.Timer(8.0, stop.set)
    limit.start()
    with streamed.playlist(video, tmp_path, "live.m3u8", after_s=1.0) as url:
        found = watch.run(
            camera_names.named([f"a={url}"]),
            live_parts.BrightnessModel(),
            LiveConfig(retry_min_s=0.1, retry_max_s=0.2),
            OutputConfig(),
            stop,
        )
    assert stop.is_set(), "it was given up"
    limit.cancel()
    assert caplog.text.count("a: lost (this address was live and is now a recording") > 1
    (camera,) = found["cameras"]
    assert camera["frames"] <= 160, "nothing was judged twice"
    assert camera["windows"] > 0
    assert found["failures"] == []


def test_a_growing_file_is_judged_to_its_end_in_times_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_LOOK_EVERY_S", 0.02)
    bright = [(live_parts.BRIGHT if 3 <= i / FPS < 5 else live_parts.DARK) for i in range(8 * FPS)]
    pictures = [live_parts.picture(b) for b in bright]
    path = timed_videos.write(
        tmp_path / "night.ts", timed_videos.evenly(len(pictures), FPS), pictures=pictures, rate=FPS
    )
    model = live_parts.BrightnessModel()
    found = watch.run(
        camera_names.named([f"growing:{path}", f"growing:{tmp_path}/gone.ts"]),
        model,
        LiveConfig(stall_s=0.1),
        OutputConfig(clips=tmp_path / "clips"),
        threading.Event(),
        lambda text: sources.open_source(text, still_s=0.3),
    )
    assert "stalled" not in caplog.text, "it has ended, and nobody needs to see to it"
    night, gone = found["cameras"]
    assert (night["frames"], night["events"], night["windows_dropped"], night["state"]) == (
        160,
        1,
        0,
        "ended",
    )
    (event,) = find_events([w for camera, w in model.judged if camera == "night-ts"], model.events_by)
    assert (event.start_s, event.end_s) == (pytest.approx(3, abs=0.5), pytest.approx(5, abs=0.5))
    clips = sorted(p.name for p in (tmp_path / "clips").iterdir() if p.name != RECORD_NAME)
    assert clips == [f"night-ts-{event.start_s:09.2f}s.jpg", f"night-ts-{event.start_s:09.2f}s.mp4"]
    assert gone["reason"] == found["failures"][0]["reason"]
    assert "no such file" in gone["reason"]


class _Recording:
    """A file with ten fights, read much faster than real time."""

    name, live, fps = "night.ts", False, float(FPS)

    def frames(self) -> Iterator[TimedFrame]:
        for number in range(50 * FPS):
            bright = live_parts.BRIGHT if number / FPS % 5 < 2 else live_parts.DARK
            yield TimedFrame(number / FPS, live_parts.picture(bright))

    def close(self) -> None:
        """There is nothing to close."""


class _Slow(Collected):
    """Takes 0.25 s for each message. After `most` messages it is not ready any more, as a broker that is away."""

    def __init__(self, most: int = sys.maxsize):
        self._most = most
        super().__init__()

    def deliver(self, message: EventMessage) -> None:
        time.sleep(0.25)
        super().deliver(message)

    def is_ready(self) -> bool:
        return len(self.messages) < self._most


def test_the_last_messages_of_a_recording_have_the_time_that_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A recording may end before a slow command has run for all of them. A receiver that is away is not waited for."""
    monkeypatch.setattr(ways, "_ENDING_S", 1.0)
    slow, away, cameras = _Slow(), _Slow(3), camera_names.named(["night=growing:night.ts"])
    found = watch.run(
        cameras, live_parts.BrightnessModel(), LiveConfig(), OutputConfig(), threading.Event(),
        lambda text: _Recording(), others=[slow, away],
    )  # fmt: skip
    assert found["cameras"][0]["events"] == 10
    ended = [m.news.event_id for m in slow.messages if m.news.kind == "end"]
    assert (len(ended), slow.failed) == (10, 0)
    assert len(away.messages) == 3
    assert away.failed > 0


def test_another_growing_file_of_the_name_takes_no_clip(tmp_path: Path) -> None:
    """The times of both files begin at 0, so that their events have the same name."""
    seen: dict[Path, bytes] = {}
    for night, fight_s in (("monday", 5), ("tuesday", 6), ("monday", 5), ("tuesday", 6)):
        bright = [(live_parts.BRIGHT if 3 <= i / FPS < fight_s else live_parts.DARK) for i in range(8 * FPS)]
        path = tmp_path / night / "cam.ts"
        if not path.exists():
            path.parent.mkdir()
            pictures = [live_parts.picture(b) for b in bright]
            timed_videos.write(path, timed_videos.evenly(len(bright), FPS), pictures=pictures, rate=FPS)
        watch.run(
            camera_names.named([f"growing:{path}"]),
            live_parts.BrightnessModel(),
            LiveConfig(),
            OutputConfig(clips=tmp_path / "clips"),
            threading.Event(),
            lambda text: sources.open_source(text, still_s=0.3),
        )
        now = {p: p.read_bytes() for p in (tmp_path / "clips").iterdir() if p.suffix in (".jpg", ".mp4")}
        if len(seen) < 4:
            assert {p: now[p] for p in seen} == seen
        seen = now
    assert len(seen) == 4, "the same again makes no copies"
    assert len({p.name.partition("~")[0].removesuffix(p.suffix) for p in seen}) == 1


def test_the_clip_of_a_recording_that_is_judged_as_a_camera_stands_still_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recording is read much faster than real time, and little of it is kept; a box moves in every picture.

    At the end of the recording, the clip has unlimited time, since nobody has asked to stop.
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


def test_clips_are_made_as_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Recorded(EventPublisher):
        def __init__(self, *how: Any):
            made.append(how)
            super().__init__(*how)

    monkeypatch.setattr(watch, "EventPublisher", Recorded)
    outputs, model = OutputConfig(clips=tmp_path, clip_margin_s=2.5), live_parts.BrightnessModel()
    watch.run([], model, LiveConfig(clip_max_s=7.0), outputs, threading.Event())
    assert made == [([], 0.6, tmp_path, 2.5, 7.0, 1.0)]


def test_what_is_for_files_is_refused() -> None:
    with pytest.raises(UserError, match="are for files"):
        watch.check(LiveConfig(), OutputConfig(format=("srt",)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"retry_max_s": 0.0}, r"--retry-max-s\) must be above 0"),
        ({"metrics_port": 99999}, r"--metrics-port\) must be from 0 to 65,535"),
        ({"mqtt_prefix": "a/#"}, r"--mqtt-prefix\) must be a topic without \+ and #"),
        ({"mqtt_prefix": "caf\udce9"}, r"--mqtt-prefix\) must be UTF-8"),
        ({"bridge_cut_s": -1.0}, r"--bridge-cut-s\) must be from 0"),
    ],
)
def test_settings_out_of_range_are_refused_by_their_flag(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        LiveConfig(**wrong)


def test_a_first_wait_that_is_longer_than_the_longest_is_refused() -> None:
    with pytest.raises(
        UserError, match=r"retry_min_s \(--retry-min-s\) 100 .* retry_max_s \(--retry-max-s\) 60"
    ):
        LiveConfig(retry_min_s=100)
    assert LiveConfig(retry_min_s=100, retry_max_s=100).retry_max_s == 100
