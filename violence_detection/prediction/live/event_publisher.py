"""News of events on their way out: the picture before the message, the clip before the message of the end."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from violence_detection.errors import UserError
from violence_detection.prediction import formats
from violence_detection.prediction.clock import minutes
from violence_detection.prediction.event_follower import END, NEW, EventNews
from violence_detection.prediction.events import Event
from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.clip_recorder import ClipRecorder
from violence_detection.prediction.live.messages import EventMessage, iso
from violence_detection.prediction.live.outputs.outbox import Outbox
from violence_detection.prediction.live.recent_footage import RecentFootage
from violence_detection.system.own_files import WrittenFiles
from violence_detection.video.sources import GROWING

log = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.1
#: After so many events the record of the folder of clips is looked through for what was deleted.
_FORGET_EVERY = 1000


@dataclass
class _Shown:
    """What an open event has been given: where its snapshot is, the picture, and the P(violent) that it shows."""

    snapshot: Path | None
    jpeg: bytes
    p_violent: float


class EventPublisher:
    """Tells all outboxes. `clips`: the folder of snapshots and clips, None for none.

    An event may have begun up to half a window (`window_s`) before its start: so much more its clip shows before it.
    Files that another camera has under an event's name stay, as in growing files, whose times begin at 0 each night.
    """

    def __init__(
        self,
        outboxes: Sequence[Outbox],
        threshold: float,
        clips: Path | None,
        clip_margin_s: float,
        clip_max_s: float,
        window_s: float,
    ):
        self._outboxes, self._threshold, self._clips = outboxes, threshold, clips
        self._recorder: ClipRecorder | None = None
        self._written = WrittenFiles(clips) if clips else None
        if self._written:
            self._forget_gone(self._written)
            before_s = clip_margin_s + window_s / 2
            self._recorder = ClipRecorder(before_s, clip_margin_s, clip_max_s, self._written)
        self._shown: dict[str, _Shown] = {}
        self._named = 0
        #: What the files of open events are called, without suffix.
        self._files: dict[str, Path] = {}

    def publish(
        self, camera: CameraState, footage: RecentFootage | None, is_live: bool, news: EventNews
    ) -> None:
        """Have news of a camera's event on their way. `footage`: the pictures that are kept of it."""
        _log(camera, is_live, news)
        if news.kind == NEW:
            camera.events += 1
            self._name_files(camera, news.event_id)
        if footage is not None:
            self._show(camera, footage, news)
        shown = self._shown.get(news.event_id, _Shown(None, b"", 0.0))
        message = EventMessage(
            camera.name, camera.address, news, self._threshold, is_live, shown.snapshot, jpeg=shown.jpeg
        )
        named = self._files.get(news.event_id)
        if news.kind == END:
            self._shown.pop(news.event_id, None)
            self._files.pop(news.event_id, None)
        if self._recorder is None or named is None or footage is None:
            return self._send(message)
        clip = named.with_name(f"{named.name}.mp4")
        if news.kind == NEW:
            self._recorder.begin(clip, footage, news.event.start_s, is_live, _source(camera))
        if news.kind == END:
            self._recorder.end(
                clip,
                news.event.end_s,
                lambda path, lost_s: self._send(replace(message, clip=path, clip_lost_s=lost_s)),
            )
        else:
            self._send(message)

    def wait(self, stop: threading.Event) -> None:
        """Wait until the clips of events that have ended are whole, or somebody asks to stop."""
        while self._recorder is not None and self._recorder.is_at_work and not stop.wait(_LOOK_EVERY_S):
            pass

    def close(self, timeout_s: float) -> None:
        """Finish the clips, and with them the messages that wait for one."""
        if self._recorder is not None:
            self._recorder.close(timeout_s)

    def _send(self, message: EventMessage) -> None:
        for outbox in self._outboxes:
            outbox.send(message)

    def _name_files(self, camera: CameraState, event: str) -> None:
        if self._clips is None or self._written is None:
            return
        self._named += 1
        if self._named % _FORGET_EVERY == 0:
            self._forget_gone(self._written)
        named = self._clips / event
        there = [named.with_name(f"{named.name}{suffix}") for suffix in (".jpg", ".mp4")]
        if not all(self._written.may_replace(path, _source(camera)) for path in there):
            named = self._clips / formats.marked(event, _source(camera))
            log.info(
                "%s has files called %s that are not of this one; its own are called %s",
                self._clips,
                event,
                named.name,
            )
        self._files[event] = named

    def _forget_gone(self, written: WrittenFiles) -> None:
        try:
            written.forget_gone()
        except OSError as e:  # a full disk, say: events go on
            log.warning("the record in %s cannot be made shorter: %s", self._clips, e)

    def _show(self, camera: CameraState, footage: RecentFootage, news: EventNews) -> None:
        """Keep the picture of the event's most violent moment so far."""
        before = self._shown.get(news.event_id)
        if before is not None and news.event.p_violent <= before.p_violent:
            return
        picture = footage.nearest(news.event.peak_s)
        if picture is None:
            return
        named, snapshot = self._files.get(news.event_id), None
        if named is not None and self._written is not None:
            snapshot = named.with_name(f"{named.name}.jpg")
            try:
                with self._written.replacing(snapshot, _source(camera)) as temporary:
                    temporary.write_bytes(picture.jpeg)
            except (OSError, UserError) as e:
                log.warning("the snapshot %s cannot be written: %s", snapshot, e)
                snapshot = before.snapshot if before else None
        self._shown[news.event_id] = _Shown(snapshot, picture.jpeg, news.event.p_violent)


def _source(camera: CameraState) -> str:
    """What its files are written for: the growing file, or the address."""
    return os.path.realpath(camera.address.removeprefix(GROWING))


def event_id(camera: str, is_live: bool, event: Event) -> str:
    """`front-20261126T140500.250Z`, or with the seconds of the footage; good as a file's name, too."""
    when = iso(event.start_s).replace("-", "").replace(":", "") if is_live else f"{event.start_s:09.2f}s"
    return f"{camera}-{when}"


def _log(camera: CameraState, is_live: bool, news: EventNews) -> None:
    start, end = ((iso if is_live else minutes)(s) for s in (news.event.start_s, news.event.end_s))
    p = news.event.p_violent
    if news.kind == NEW:
        log.warning("%s: violent since %s, %.3f  %s", camera.name, start, p, news.event_id)
    elif news.kind == END:
        log.warning("%s: was violent %s - %s, %.3f  %s", camera.name, start, end, p, news.event_id)
