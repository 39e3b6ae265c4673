"""Writes the snapshot and clip of each event before its news is passed on, in its own thread: disks are slow."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from violence_detection.errors import UserError
from violence_detection.prediction import formats
from violence_detection.prediction.event_follower import END, UPDATE
from violence_detection.prediction.live.clip_recorder import ClipRecorder
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs.outbox import Outbox, message_name
from violence_detection.prediction.live.recent_footage import RecentFootage
from violence_detection.system import settings
from violence_detection.system.own_files import WrittenFiles
from violence_detection.video.sources import GROWING

log = logging.getLogger(__name__)
#: After this many events, files that were deleted are removed from the record of the clips' folder.
_FORGET_EVERY = 1000
#: A recording is told from others by its bytes up to this position, without those that may be overwritten.
_BEGINS_BYTES = 16_384
#: When a recording is closed, its container overwrites its length and the position of its index: in Matroska and FLV
#: up to byte 700, in AVI with sound up to byte 9,926.
_WRITTEN_ANEW_BYTES = 12_288
#: If those bytes are padding, later ones are used instead, up to this position.
_MOST_PADDING_BYTES = 1 << 20


@dataclass
class _Open:
    """Files of an open event. named: path without suffix; snapshot: None until written; jpeg: the latest picture."""

    named: Path
    snapshot: Path | None = None
    jpeg: bytes = b""

    @property
    def clip(self) -> Path:
        return self.named.with_name(f"{self.named.name}.mp4")


class EventFiles(Outbox):
    """Writes snapshots and clips to `folder`, and passes each message on with their paths.

    Clips show `margin_s` seconds before and after their event, and half a window (`window_s`) more before it, because
    the event may have begun that much before its reported start. `most_s`: longest clip, counted from that start.
    Files that have the event's name already, but were not written for this source or were changed since, are kept, and
    the event's own get another name. This happens with growing files, whose times begin at 0 each night.
    """

    name = "clips"

    def __init__(
        self,
        folder: Path,
        margin_s: float,
        most_s: float,
        window_s: float,
        pass_on: Callable[[EventMessage], None],
    ):
        self._folder, self._pass_on, self._written = folder, pass_on, WrittenFiles(folder)
        self._forget_gone()
        self._recorder = ClipRecorder(margin_s + window_s / 2, margin_s, most_s, self._written)
        self._named = 0
        self._open: dict[str, _Open] = {}
        self._footage: dict[str, RecentFootage] = {}
        self._sources: dict[str, str] = {}
        super().__init__()

    def take(self, message: EventMessage, footage: RecentFootage) -> None:
        """Write the files of a message and pass it on: for a live camera in this outbox's thread, returning at once.

        For a recording this happens before the call returns. Reading then waits for the clip, which lacks nothing.
        """
        if message.news.kind != END:
            self._footage.setdefault(message.news.event_id, footage)
        if message.is_live:
            self.send(message)
        else:
            self.deliver(message)

    def deliver(self, message: EventMessage) -> None:
        """Write the snapshot, begin or end the clip, and pass the message on; an `end` once the clip is complete."""
        event = message.news.event_id
        its = self._open.get(event) or (self._begun(message) if message.news.kind != END else None)
        if its is not None:
            self._show(its, message)
            message = replace(message, snapshot=its.snapshot)
        if message.news.kind == END:
            self._open.pop(event, None)
            self._footage.pop(event, None)
        if its is None or message.news.kind != END:
            return self._pass_on(message)
        self._recorder.end(
            its.clip,
            message.news.event.end_s,
            lambda path, lost_s: self._pass_on(replace(message, clip=path, clip_lost_s=lost_s)),
        )

    @property
    def is_at_work(self) -> bool:
        """Whether a message is waiting or a clip is not complete yet."""
        return super().is_at_work or self._recorder.is_at_work

    def close(self, timeout_s: float) -> None:
        """Finish the clips within `timeout_s` seconds and pass on the messages that wait for them."""
        until_s = time.monotonic() + timeout_s
        super().close(timeout_s / 2)
        self._recorder.close(max(until_s - time.monotonic(), 0.0))

    def _give_up(self, message: EventMessage) -> None:
        """Pass a message on without its files, so that receivers learn the end of every event; drop an `update`."""
        if message.news.kind == UPDATE:  # a newer one will come
            return super()._give_up(message)
        its_files = "clip" if message.news.kind == END else "files"
        log.warning("%s: too slow, %s is sent without its %s", self.name, message_name(message), its_files)
        event = message.news.event_id
        if message.news.kind == END:
            self._footage.pop(event, None)
            if its := self._open.pop(event, None):
                message = replace(message, snapshot=its.snapshot)
                self._recorder.end(its.clip, message.news.event.end_s, None)
        self._pass_on(message)

    def _begun(self, message: EventMessage) -> _Open | None:
        """Name the files of an event and begin its clip. Return None if the folder cannot be accessed."""
        event = message.news.event_id
        self._named += 1
        if self._named % _FORGET_EVERY == 0:
            self._forget_gone()
        its = _Open(self._folder / event)
        try:
            source = self._source(message)
            there = [its.clip, its.clip.with_suffix(".jpg")]
            if not all(self._written.may_replace(path, source) for path in there):
                its = _Open(self._folder / formats.marked(event, source))
                log.info(
                    "%s has files named %s that were not written for this source, or were changed since; those of this "
                    "event are named %s",
                    self._folder, event, its.named.name,
                )  # fmt: skip
        except OSError as e:
            log.warning("%s cannot be written to: %s", self._folder, e)
            return None
        self._open[event] = its
        onset_s = message.news.event.start_s
        self._recorder.begin(its.clip, self._footage[event], onset_s, message.is_live, source)
        return its

    def _show(self, its: _Open, message: EventMessage) -> None:
        """Write the picture of the event's most violent moment so far, if it has changed."""
        if not message.jpeg or message.jpeg == its.jpeg:
            return
        its.jpeg, snapshot = message.jpeg, its.clip.with_suffix(".jpg")
        try:
            with self._written.replacing(snapshot, self._source(message)) as temporary:
                temporary.write_bytes(message.jpeg)
            its.snapshot = snapshot
        except (OSError, UserError) as e:
            log.warning("the snapshot %s cannot be written: %s", snapshot, e)

    def _source(self, message: EventMessage) -> str:
        """What the record says the files are written for: the address, or a growing file's real path and hash.

        It does not depend on the working directory. The hash of the file's beginning tells nights apart, because
        recorders write each one under the same name.
        """
        address = message.address
        if address not in self._sources:
            file = settings.expanded(address.removeprefix(GROWING))
            is_file = address.startswith(GROWING) and file.is_file()
            self._sources[address] = f"{os.path.realpath(file)}#{_begins(file)}" if is_file else f"/{address}"
        return self._sources[address]

    def _forget_gone(self) -> None:
        try:
            self._written.forget_gone()
        except OSError as e:  # such as a full disk: events go on
            log.warning("cannot shorten the record in %s: %s", self._folder, e)


def _begins(file: Path) -> str:
    with file.open("rb") as f:
        begins = f.read(_BEGINS_BYTES)
        told_by = begins if len(begins) < _BEGINS_BYTES else begins[_WRITTEN_ANEW_BYTES:]
        while len(set(told_by)) == 1 and f.tell() < _MOST_PADDING_BYTES:  # space reserved for an index
            told_by = f.read(_BEGINS_BYTES)
    return hashlib.sha256(told_by).hexdigest()[:16]
