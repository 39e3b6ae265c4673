"""Clips of events, written while the event goes on, from pictures that were kept before anybody knew of it."""

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
#: How much longer than due a camera's last pictures are waited for.
_WAIT_S = 2.0
#: So many pictures of a clip are written before it is the turn of the next.
_TURN = 10

Done = Callable[[Path | None, float], None]


@dataclass
class _OpenClip:
    """A clip that is written.

    source: what it is written for, see own_files; written: pictures so far, one each 1 / FPS from begin_s on; end_s:
    where it ends, None while nobody knows; due_s: when it is closed at the latest, on the monotonic clock.
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
    """Writes the clips of all cameras in one thread. A clip is under its name once it is whole.

    `before_s`, `after_s`: what it shows of before its event and after it; `most_s`: the most from the onset on;
    `written`: what is known of the folder of all clips, else the record there is read for each.
    """

    def __init__(self, before_s: float, after_s: float, most_s: float, written: WrittenFiles | None = None):
        self._written = written
        self._before_s, self._after_s, self._most_s = before_s, after_s, most_s
        self._open: dict[Path, _OpenClip] = {}
        #: Of clips that are as long as they may be, while their events go on: the seconds that they lack.
        self._lost_s: dict[Path, float] = {}
        self._changed = threading.Condition()
        self._has_news = self._ending = self._has_ended = self._is_telling = False
        self._thread = threading.Thread(target=self._run, name="clips", daemon=True)
        self._thread.start()

    def begin(
        self, path: Path, footage: RecentFootage, onset_s: float, is_live: bool = True, source: str = ""
    ) -> None:
        """Begin the clip of an event, before its onset as far as there is footage. `source`: see own_files.

        Where the footage is not live, its reader waits for the clip rather than have it lack pictures.
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
        """End the clip some time after its event.

        `done` is then called with its path, or None if there is none, and how many seconds of footage it lacks. Without
        it no disk is waited for.
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
        """Whether a clip is not whole yet, or nobody was told so far."""
        with self._changed:
            return bool(self._open) or self._is_telling

    def close(self, timeout_s: float) -> None:
        """Finish all clips with the footage that there is."""
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            with self._changed:
                log.warning(
                    "%d clips were not finished in time, nor their events told as ended", len(self._open)
                )

    def _news(self) -> None:
        """Have the thread look for pictures."""
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
        finally:  # whatever happened: no reader waits for what nobody takes
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
        except Exception as e:  # noqa: BLE001 - a full disk, say: the other clips, and all news, go on
            self._failed(clip, e)
        clip.footage.leave(clip.follower)
        clip.put, clip.last = None, None
        lost_s = round(clip.follower.lost_s, 1)
        if lost_s and not clip.failed:
            log.warning("the clip %s lacks %.1f s of footage: it was not written in time", clip.path, lost_s)
        with self._changed:
            self._open.pop(clip.path, None)
            its_event_goes_on = clip.end_s is None and not ending  # it is as long as a clip may be
            if its_event_goes_on:
                self._lost_s[clip.path] = lost_s
            done = None if its_event_goes_on else clip.done
            self._is_telling = done is not None
        if done is not None:
            try:
                done(_seen(clip.path), lost_s)
            finally:  # nobody waits for a thread that has ended
                self._is_telling = False

    def _write(self, clip: _OpenClip, ending: bool) -> bool:
        """Write some of what has come since; returns whether it is all."""
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
        """Write a picture, and before it the last one as long as it stood."""
        picture = picture_of(kept)
        if clip.put is None:
            written = self._written or WrittenFiles(clip.path.parent)
            temporary = clip.files.enter_context(written.replacing(clip.path, clip.source))
            clip.put = clip.files.enter_context(writer.h264(temporary, FPS))
            clip.last = picture
        number = round((kept.time_s - clip.begin_s) * FPS)
        while clip.written < number:  # nothing came meanwhile: the last picture stands
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
    """The path, where there is a file and its folder can be looked at: a share may be away."""
    try:
        return path if path.is_file() else None
    except OSError as e:
        log.warning("the clip %s is not to be seen: %s", path, e)
        return None
