"""Publishes news of events: the snapshot is written before a message is sent, the clip before that of the end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from violence_detection.prediction.clock import minutes
from violence_detection.prediction.event_follower import END, NEW, EventNews
from violence_detection.prediction.events import Event
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.event_files import EventFiles
from violence_detection.prediction.live.messages import EventMessage, iso
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.prediction.live.recent_footage import RecentFootage
from violence_detection.system.figures import number

log = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.1


class EventPublisher:
    """Sends news to all outboxes. `clips`: the folder for snapshots and clips, None to write none; see EventFiles."""

    def __init__(
        self,
        outboxes: Sequence[Outbox],
        threshold: float,
        clips: Path | None,
        clip_margin_s: float,
        clip_max_s: float,
        window_s: float,
    ):
        self._outboxes, self._threshold = outboxes, threshold
        self._files = EventFiles(clips, clip_margin_s, clip_max_s, window_s, self._send) if clips else None
        #: Open events: P(violent) of the most violent moment so far, and its picture.
        self._shown: dict[str, tuple[float, bytes]] = {}

    def publish(
        self, camera: CameraState, footage: RecentFootage | None, is_live: bool, news: EventNews
    ) -> None:
        """Log news of a camera's event and send it. `footage`: the camera's recent pictures, None if none are kept."""
        _log(camera, is_live, news)
        if news.kind == NEW:
            camera.events += 1
        jpeg = self._picture(footage, news) if footage is not None else b""
        if news.kind == END:
            self._shown.pop(news.event_id, None)
        message = EventMessage(camera.name, camera.address, news, self._threshold, is_live, jpeg=jpeg)
        if self._files is None or footage is None:
            self._send(message)
        else:
            self._files.take(message, footage)

    def wait(self, stop: threading.Event) -> None:
        """Wait until the files of events are complete and their messages passed on, or until `stop` is set."""
        while self._files is not None and self._files.is_at_work and not stop.wait(_LOOK_EVERY_S):
            pass

    def close(self, timeout_s: float) -> None:
        """Finish the clips within `timeout_s` seconds and pass on the messages that wait for them."""
        if self._files is not None:
            self._files.close(timeout_s)

    def _send(self, message: EventMessage) -> None:
        for outbox in self._outboxes:
            outbox.send(message)

    def _picture(self, footage: RecentFootage, news: EventNews) -> bytes:
        """The picture of the event's most violent moment so far, as JPEG; empty if there is none."""
        before_p, before = self._shown.get(news.event_id, (0.0, b""))
        if before and news.event.p_violent <= before_p:
            return before
        picture = footage.nearest(news.event.peak_s)
        if picture is None:
            return before
        self._shown[news.event_id] = news.event.p_violent, picture.jpeg
        return picture.jpeg


def event_id(camera: str, is_live: bool, event: Event) -> str:
    """`front-20261126T140500.250Z`, or for a recording `front-000012.50s`. Also valid as a file name."""
    when = iso(event.start_s).replace("-", "").replace(":", "") if is_live else f"{event.start_s:09.2f}s"
    return f"{camera}-{when}"


def _log(camera: CameraState, is_live: bool, news: EventNews) -> None:
    start, end = ((iso if is_live else minutes)(s) for s in (news.event.start_s, news.event.end_s))
    p = number(news.event.p_violent)
    if news.kind == NEW:
        log.warning("%s: violent since %s, %s  %s", camera.name, start, p, news.event_id)
    elif news.kind == END:
        log.warning("%s: was violent %s - %s, %s  %s", camera.name, start, end, p, news.event_id)
