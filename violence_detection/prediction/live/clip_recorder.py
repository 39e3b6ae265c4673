"""Writes clips of events while they go on, from pictures that are kept before an event is known."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from violence_detection.prediction.live.recent_footage import (
    FPS,
    Follower,
    KeptPicture,
    RecentFootage,
    picture_of,
)
from violence_detection.system.own_files import WrittenFiles
from violence_detection.video import writer

log = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.25
#: How much longer than expected a clip waits for its last pictures.
_WAIT_S = 2.0
#: Most pictures written to a clip before the next clip has its turn.
_TURN = 10

Done = Callable[[Path | None, float], None]


@dataclass
class _OpenClip:
    """A clip that is being written.

    source: what it is written for, see own_files; most_s: its longest length, from begin_s on; end_s: where it ends,
    None while that is unknown; due_s: when it is closed at the latest, on the monotonic clock; written: number of
    pictures so far, one every 1 / FPS seconds from begin_s on; put: writes a picture, None until the first one comes;
    last: the latest picture.
    """

    path: Path
    source: str
    footage: RecentFootage
    follower: Follower
    begin_s: float
    most_s: float
    end_s: float | None = None
    due_s: float = np.inf
    done: Done | None = None
    written: int = 0
    put: Callable[[np.ndarray], None] | None = None
    last: np.ndarray | None = None
    failed: bool = False
    files: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class ClipRecorder:
    """Writes the clips of all cameras in one thread. A clip gets its name when it is complete.

    `before_s`, `after_s`: seconds that a clip shows before and after its event; `most_s`: longest clip, counted from
    the event's onset; `written`: the record of the folder that all clips go to. Without it, each clip reads the record
    of its own folder.
    """

    def __init__(self, before_s: float, after_s: float, most_s: float, written: WrittenFiles | None = None):
        self._written = written
        self._before_s, self._after_s, self._most_s = before_s, after_s, most_s
        self._open: dict[Path, _OpenClip] = {}
        #: Clips that reached their longest length while their events go on, with the seconds of footage they lack.
        self._lost_s: dict[Path, float] = {}
        self._changed = threading.Condition()
        self._has_news = self._ending = self._has_ended = self._is_telling = False
        self._thread = threading.Thread(target=self._run, name="clips", daemon=True)
        self._thread.start()

    def begin(
        self, path: Path, footage: RecentFootage, onset_s: float, is_live: bool = True, source: str = ""
    ) -> None:
        """Begin the clip of an event, as long before its onset as wanted and kept. `source`: see own_files.

        The reader of footage that is not live waits for the clip, so that the clip lacks nothing.
        """
        follower = Follower(self._news, not is_live, until_s=np.inf)
        with self._changed:
            if self._has_ended:
                return
            first_s = footage.follow(follower, onset_s - self._before_s)
            begin_s = onset_s if first_s is None else first_s
            most_s = onset_s - begin_s + self._most_s
            self._open[path] = _OpenClip(path, source, footage, follower, begin_s, most_s)
        self._news()

    def end(self, path: Path, event_end_s: float, done: Done | None) -> None:
        """End the clip `after_s` seconds after its event.

        `done` is then called with the clip's path, or None if there is no such file, and the seconds of footage that it
        lacks. Without `done` nobody checks whether the file exists, so that a slow disk delays nothing here.
        """
        with self._changed:
            clip = self._open.get(path)
            if clip is not None:
                clip.end_s, clip.done = event_end_s + self._after_s, done
                if not clip.follower.is_waited_for:
                    left_s = max(clip.end_s - clip.footage.newest_s, 0.0)
                    clip.due_s = time.monotonic() + min(left_s, self._after_s) + _WAIT_S
                self._has_news = True
                self._changed.notify_all()
                return
            lost_s = self._lost_s.pop(path, 0.0)
        if done is not None:
            done(_seen(path), lost_s)

    @property
    def is_at_work(self) -> bool:
        """Whether a clip is not complete yet, or its `done` has not returned yet."""
        with self._changed:
            return bool(self._open) or self._is_telling

    def close(self, timeout_s: float) -> None:
        """Finish all clips with the footage that there is, within `timeout_s` seconds."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            with self._changed:
                log.warning(
                    "%d clips were not finished in time, so the ends of their events were not reported",
                    len(self._open),
                )

    def _news(self) -> None:
        """Make the thread look for pictures."""
        with self._changed:
            self._has_news = True
            self._changed.notify_all()

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._has_news or self._ending, _LOOK_EVERY_S)
                    self._has_news = False
                    ending, clips = self._ending, list(self._open.values())
                for clip in clips:
                    self._go_on(clip, ending)
                with self._changed:
                    if ending and not self._open:
                        return
        finally:  # even after an error: no reader may wait for pictures to be taken
            with self._changed:
                self._has_ended, clips = True, list(self._open.values())
                self._open.clear()
            for clip in clips:
                clip.footage.leave(clip.follower)

    def _go_on(self, clip: _OpenClip, ending: bool) -> None:
        try:
            if not self._write(clip, ending):
                return
            clip.files.close()
        except Exception as e:  # noqa: BLE001 - such as a full disk: other clips and all news must go on
            self._failed(clip, e)
        clip.footage.leave(clip.follower)
        clip.put, clip.last = None, None
        lost_s = round(clip.follower.lost_s, 1)
        if lost_s and not clip.failed:
            log.warning(
                "the clip %s lacks %.1f s of footage, dropped before it could be written", clip.path, lost_s
            )
        with self._changed:
            self._open.pop(clip.path, None)
            its_event_goes_on = clip.end_s is None and not ending  # the clip has its longest length
            if its_event_goes_on:
                self._lost_s[clip.path] = lost_s
            done = None if its_event_goes_on else clip.done
            self._is_telling = done is not None
        if done is not None:
            try:
                done(_seen(clip.path), lost_s)
            finally:  # also if it fails: nobody must wait for a thread that has ended
                self._is_telling = False

    def _write(self, clip: _OpenClip, ending: bool) -> bool:
        """Write some of the pictures that have come; return whether the clip is complete."""
        is_due, has_ended = time.monotonic() > clip.due_s, clip.footage.has_ended
        newest_s, until_s = clip.footage.newest_s, clip.begin_s + clip.most_s
        if clip.end_s is not None:
            until_s = min(until_s, clip.end_s)
        taken = clip.footage.take(clip.follower, until_s, _TURN)
        for kept in taken:
            self._put(clip, kept)
        if len(taken) == _TURN:
            self._news()  # there may be more
            return False
        return ending or is_due or newest_s >= until_s or (has_ended and clip.end_s is not None)

    def _put(self, clip: _OpenClip, kept: KeptPicture) -> None:
        """Write a picture, after filling the time before it with the last one."""
        picture = picture_of(kept)
        if clip.put is None:
            written = self._written or WrittenFiles(clip.path.parent)
            temporary = clip.files.enter_context(written.replacing(clip.path, clip.source))
            clip.put = clip.files.enter_context(writer.h264(temporary, FPS))
            clip.last = picture
        number = round((kept.time_s - clip.begin_s) * FPS)
        while clip.written < number:  # no picture came for these: the last one was still shown
            clip.put(clip.last if clip.last is not None else picture)
            clip.written += 1
        if clip.written == number:
            clip.put(picture)
            clip.written += 1
        clip.last = picture

    def _failed(self, clip: _OpenClip, error: Exception) -> None:
        log.warning("the clip %s cannot be written: %s", clip.path, error)
        clip.failed = True
        with contextlib.suppress(Exception):
            clip.files.pop_all().__exit__(type(error), error, None)


def _seen(path: Path) -> Path | None:
    """The path if the file exists; None if not, or if its folder cannot be accessed (a share may be away)."""
    try:
        return path if path.is_file() else None
    except OSError as e:
        log.warning("cannot look for the clip %s: %s", path, e)
        return None
