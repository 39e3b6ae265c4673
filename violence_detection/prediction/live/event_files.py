"""The snapshot and the clip of each event, written before its news go on, by a thread of its own: disks are slow."""

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
from violence_detection.prediction.live.outputs.outbox import Outbox, said
from violence_detection.prediction.live.recent_footage import RecentFootage
from violence_detection.system import settings
from violence_detection.system.own_files import WrittenFiles
from violence_detection.video.sources import GROWING

log = logging.getLogger(__name__)
#: After so many events the record of the folder of clips is looked through for what was deleted.
_FORGET_EVERY = 1000
#: So much at the beginning of a recording tells it from others, but for what its container writes anew when it is
#: closed: its length and where its index is, in Matroska and FLV up to byte 700, in AVI with sound up to byte 9,926.
_BEGINS_BYTES, _WRITTEN_ANEW_BYTES = 16_384, 12_288
#: So far something else is looked for where that is padding.
_MOST_PADDING_BYTES = 1 << 20


@dataclass
class _Open:
    """What an open event has: its files' name without suffix, its snapshot where it is there, and what that shows."""

    named: Path
    snapshot: Path | None = None
    jpeg: bytes = b""

    @property
    def clip(self) -> Path:
        return self.named.with_name(f"{self.named.name}.mp4")


class EventFiles(Outbox):
    """Writes them to `folder`, and has each message passed on with their paths.

    An event may have begun up to half a window (`window_s`) before its start: so much more its clip shows before it.
    Files that another camera has under an event's name stay, as in growing files, whose times begin at 0 each night.
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
        """Have the files of a message written, and the message passed on; returns at once.

        That of a recording is passed on before: reading waits for a clip that is begun, so that it lacks nothing.
        """
        if message.news.kind != END:
            self._footage.setdefault(message.news.event_id, footage)
        if message.is_live:
            self.send(message)
        else:
            self.deliver(message)

    def deliver(self, message: EventMessage) -> None:
        """Write the snapshot, begin or end the clip, and pass the message on, where it ends when the clip is whole."""
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
        """Whether a message waits, or a clip is not whole yet."""
        return super().is_at_work or self._recorder.is_at_work

    def close(self, timeout_s: float) -> None:
        """Finish the clips, and with them the messages that wait for one."""
        until_s = time.monotonic() + timeout_s
        super().close(timeout_s / 2)
        self._recorder.close(max(until_s - time.monotonic(), 0.0))

    def _give_up(self, message: EventMessage) -> None:
        """Pass on without its files what has waited too long for them: who knows of an event must know of its end."""
        if message.news.kind == UPDATE:  # what is newer comes
            return super()._give_up(message)
        its_files = "clip" if message.news.kind == END else "files"
        log.warning("%s: too slow, %s goes without its %s", self.name, said(message), its_files)
        event = message.news.event_id
        if message.news.kind == END:
            self._footage.pop(event, None)
            if its := self._open.pop(event, None):
                message = replace(message, snapshot=its.snapshot)
                self._recorder.end(its.clip, message.news.event.end_s, None)
        self._pass_on(message)

    def _begun(self, message: EventMessage) -> _Open | None:
        """Name the files of an event, and begin its clip. None where the folder cannot be looked at."""
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
                    "%s has files called %s that are not of this one; its own are called %s",
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
        """Write the picture of the event's most violent moment so far, where that is another now."""
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
        """What its files are written for: the address, or the growing file with what it begins with.

        Wherever this runs. Recorders write the next night under the name of the last.
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
        except OSError as e:  # a full disk, say: events go on
            log.warning("the record in %s cannot be made shorter: %s", self._folder, e)


def _begins(file: Path) -> str:
    with file.open("rb") as f:
        begins = f.read(_BEGINS_BYTES)
        told_by = begins if len(begins) < _BEGINS_BYTES else begins[_WRITTEN_ANEW_BYTES:]
        while len(set(told_by)) == 1 and f.tell() < _MOST_PADDING_BYTES:  # room that is kept for an index
            told_by = f.read(_BEGINS_BYTES)
    return hashlib.sha256(told_by).hexdigest()[:16]
