"""Judges cameras until asked to stop: has them read, judges their windows in turn, and publishes news of events."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction.config import OutputConfig
from violence_detection.prediction.event_follower import EventFollower, EventNews
from violence_detection.prediction.events import Event
from violence_detection.prediction.live import camera_state, event_publisher
from violence_detection.prediction.live.camera_names import NamedCamera
from violence_detection.prediction.live.camera_reader import CameraReader
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.prediction.live.event_publisher import EventPublisher
from violence_detection.prediction.live.handover import Handover, WaitingWindow
from violence_detection.prediction.live.live_model import LiveModel
from violence_detection.prediction.live.outputs import ways
from violence_detection.prediction.live.outputs.mqtt import MqttOutput
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.prediction.live.recent_footage import RecentFootage
from violence_detection.system import disks
from violence_detection.system.figures import number
from violence_detection.video import decode, sources
from violence_detection.video.sources import Source

log = logging.getLogger(__name__)
W = TypeVar("W")
#: How often the state of cameras is checked.
_LOOK_EVERY_S = 1.0
#: How often each camera's figures are logged.
_SAY_EVERY_S = 60.0
#: At the end: longest wait for the threads that read cameras to end.
_CAMERAS_S = 2.0
#: At the end: longest wait for clips.
_CLIPS_S = 20.0
#: A window may still begin this long before the time that `gone_until_s` gives, because the clocks behind it differ.
_CLOCKS_DIFFER_S = 1.0


def check(live: LiveConfig, outputs: OutputConfig) -> None:
    """Raise UserError for settings that do not work with cameras. To be called before the model is loaded."""
    if outputs.format or outputs.annotate or outputs.timeline or outputs.explain:
        raise UserError(
            "--format, --annotate, --timeline and --explain are for files. For cameras, --clips writes each event"
        )
    ways.check(live)
    if outputs.clips:
        disks.check_can_write(outputs.clips, "--clips")


def run(
    cameras: Sequence[NamedCamera],
    model: LiveModel[Any],
    live: LiveConfig,
    outputs: OutputConfig,
    stop: threading.Event,
    open_source: Callable[[str], Source] = sources.open_source,
    clock: Callable[[], float] = time.time,
    on_states: Callable[[Sequence[CameraState]], None] = lambda states: None,
    others: Sequence[Outbox] = (),
) -> dict[str, Any]:
    """Judge cameras until `stop` is set or all have ended, as growing files do. Return the fields of the JSON line.

    `on_states` is called with the cameras' states before any frame is read; they are updated during the run. `others`:
    further outboxes besides those that the settings ask for; they are closed as well. Raises UserError if an output
    cannot be opened.
    """
    states = [CameraState(camera.name, camera.address) for camera in cameras]
    on_states(states)
    if outputs.clips:
        outputs.clips.mkdir(parents=True, exist_ok=True)  # other programs may watch the folder
    with ways.opened(live, states, others) as outboxes:
        publisher = EventPublisher(
            outboxes,
            model.events_by.threshold,
            outputs.clips,
            outputs.clip_margin_s,
            live.clip_max_s,
            model.window_s,
        )
        keep_s = _kept_s(model, live, outputs) if outputs.clips or live.mqtt else None
        watch = CameraWatch(model, live, publisher, [o for o in outboxes if isinstance(o, MqttOutput)], clock)
        for camera, state in zip(cameras, states, strict=True):
            recent = RecentFootage(keep_s) if keep_s else None
            watch.add(state, lambda text=camera.text: open_source(text), recent)  # type: ignore[misc]
        try:
            watch.until(stop)
            publisher.wait(stop)  # no time limit if all cameras have ended by themselves
            ways.wait(outboxes, stop)
        finally:
            watch.close()
            publisher.close(_CLIPS_S)
    return summary(states)


def summary(states: Sequence[CameraState]) -> dict[str, Any]:
    """The fields of the JSON line: `{cameras, videos, failures}`. `videos` is always empty in a run with cameras."""
    failed = [{"path": state.address, "reason": state.failure} for state in states if state.failure]
    return {"cameras": [state.summary() for state in states], "videos": [], "failures": failed}


def _kept_s(model: LiveModel[Any], live: LiveConfig, outputs: OutputConfig) -> float:
    """Seconds of footage to keep, so that the margin before an event is still there when the event is reported."""
    by = model.events_by
    told_after_s = (
        1.5 * model.window_s + 5 * model.step_s + by.min_duration_s + by.smoothing_s + 2 * by.padding_s
    )
    return outputs.clip_margin_s + told_after_s + live.max_delay_s + 5.0


class _Followed(Generic[W]):
    """A camera, and the events found in its windows."""

    def __init__(self, reader: CameraReader[W], model: LiveModel[W]):
        self.reader, self.state = reader, reader.state
        self.is_live = True
        self.connection = 0
        self.is_finished = False
        self.said_sparse = 0
        self._events_by = model.events_by
        self.begin_anew()

    def begin_anew(self) -> None:
        """Start finding events afresh, for windows whose times have gone back."""
        self.follower = EventFollower(self._events_by, self._name)
        self.last_start_s = -math.inf

    def end_footage(self) -> None:
        """Mark the footage as ended: clips wait for no more of it, and the camera's reader waits for no clip."""
        if self.reader.recent is not None:
            self.reader.recent.end()

    def _name(self, event: Event) -> str:
        return event_publisher.event_id(self.state.name, self.is_live, event)


class CameraWatch(Generic[W]):
    """Judges the windows of several cameras with one model, in one thread."""

    def __init__(
        self,
        model: LiveModel[W],
        live: LiveConfig,
        publisher: EventPublisher,
        brokers: Sequence[MqttOutput],
        clock: Callable[[], float] = time.time,
    ):
        self._model, self._live, self._publisher, self._brokers = model, live, publisher, brokers
        self._clock = clock
        self._handover = Handover[W](live.max_delay_s, model.step_s)
        self._cameras: dict[str, _Followed[W]] = {}
        self._said_s = time.monotonic()

    def add(
        self, state: CameraState, open_source: Callable[[], Source], recent: RecentFootage | None
    ) -> None:
        """Add a camera and start reading it."""
        reader = CameraReader(
            state,
            open_source,
            self._model.make_windows,
            self._handover,
            recent,
            window_s=self._model.window_s,
            max_delay_s=self._live.max_delay_s,
            stall_s=self._live.stall_s,
            retry_min_s=self._live.retry_min_s,
            retry_max_s=self._live.retry_max_s,
            bridge_cut_s=self._live.bridge_cut_s,
            clock=self._clock,
        )
        self._cameras[state.name] = _Followed(reader, self._model)
        reader.start()

    def until(self, stop: threading.Event) -> None:
        """Judge until `stop` is set or all cameras have ended."""
        looked_s = 0.0
        while not stop.is_set() and not all(c.is_finished for c in self._cameras.values()):
            item = self._handover.next(0.2)
            if item is not None:
                self._judge(item)
            if time.monotonic() - looked_s >= _LOOK_EVERY_S:
                looked_s = time.monotonic()
                self._look()

    def until_judged(self) -> None:
        """Judge all windows that are waiting now."""
        while (item := self._handover.next(0)) is not None:
            self._judge(item)

    def close(self) -> None:
        """Stop reading, and end the events that are open."""
        self._handover.close()
        for camera in self._cameras.values():
            camera.reader.stop()
            camera.end_footage()
        until_s = time.monotonic() + _CAMERAS_S
        for camera in self._cameras.values():
            if not camera.reader.join(max(until_s - time.monotonic(), 0.0)):
                log.info("%s: its reading thread did not end in time and is abandoned", camera.state.name)
                camera.state.set_state(camera_state.ENDED)
            self._finish(camera)
            self._tell_state(camera)

    def _judge(self, item: WaitingWindow[W]) -> None:
        camera = self._cameras[item.camera.name]
        began_s = time.monotonic()
        try:
            judged = self._model.judge(item.camera.name, item.window)
        except UnreadableVideo as e:
            log.warning("%s: a window was not judged: %s", item.camera.name, e.reason)
            item.camera.drop()
            return
        now_s = time.monotonic()
        self._handover.took(now_s - began_s)
        item.camera.judged(judged.p_violent, item.late_s + now_s - item.arrived_s)
        lost_s = camera.reader.bridged_s(camera.connection, item.connection)
        if lost_s is None:
            self._publish(camera, camera.follower.finish())
            camera.begin_anew()
        camera.connection, camera.is_live = item.connection, item.may_drop
        offset_s = camera.reader.offset_s(item.connection)
        window = replace(
            judged, start_s=round(judged.start_s + offset_s, 2), end_s=round(judged.end_s + offset_s, 2)
        )
        if window.start_s <= camera.last_start_s:  # a new connection repeats earlier footage
            return
        camera.last_start_s = window.start_s
        self._publish(camera, camera.follower.push(window, lost_s or 0.0))

    def _look(self) -> None:
        """Handle what windows cannot show: cameras that are stalled, away, or have ended."""
        for camera in self._cameras.values():
            camera.reader.look()
            self._tell_state(camera)
            gone_until_s = camera.reader.gone_until_s(camera.connection)
            if self._handover.holds(camera.state):  # asked after gone_until_s: a window may come in between
                continue
            if gone_until_s is not None:
                self._publish(camera, camera.follower.pass_time(gone_until_s - _CLOCKS_DIFFER_S))
            if camera.reader.join(0) and not self._handover.holds(camera.state):
                self._finish(camera)
        if time.monotonic() - self._said_s >= _SAY_EVERY_S:
            self._said_s = time.monotonic()
            for camera in self._cameras.values():
                self._say(camera)

    def _say(self, camera: _Followed[W]) -> None:
        """Log a camera's state and figures."""
        s = camera.state
        log.info(
            "%s: %s, %d frames, %d windows, %d dropped, delay %.1f s, P(violent) %s",
            s.name, s.state, s.frames, s.windows, s.dropped, s.delay_s, number(s.p_violent),
        )  # fmt: skip
        if s.sparse > camera.said_sparse:
            log.warning(
                "%s: %d more windows were not judged: fewer than %d frames in %g s. Raise its frame rate",
                s.name, s.sparse - camera.said_sparse, decode.MIN_FRAMES, self._model.window_s,
            )  # fmt: skip
            camera.said_sparse = s.sparse

    def _finish(self, camera: _Followed[W]) -> None:
        if not camera.is_finished:
            camera.is_finished = True
            self._publish(camera, camera.follower.finish())
            camera.end_footage()

    def _publish(self, camera: _Followed[W], news: Sequence[EventNews]) -> None:
        for one in news:
            self._publisher.publish(camera.state, camera.reader.recent, camera.is_live, one)

    def _tell_state(self, camera: _Followed[W]) -> None:
        for broker in self._brokers:
            broker.tell_state(camera.state)
