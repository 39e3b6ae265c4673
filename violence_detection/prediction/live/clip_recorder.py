"""Clips of events, written while the event goes on, from pictures that were kept before anybody knew of it."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from violence_detection.prediction.live.recent_footage import FPS, RecentFootage, picture_of
from violence_detection.system.own_files import WrittenFiles
from violence_detection.video import writer

log = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.25
#: How much longer than due a camera's last pictures are waited for.
_WAIT_S = 2.0


@dataclass
class _OpenClip:
    """A clip that is written.

    source: what it is written for, see own_files; written: pictures so far, one each 1 / FPS from begin_s on; end_s:
    where it ends, None while nobody knows; due_s: when it is closed at the latest, on the monotonic clock.
    """

    path: Path
    source: str
    footage: RecentFootage
    begin_s: float
    most_s: float
    end_s: float | None = None
    due_s: float = np.inf
    done: Callable[[Path | None], None] = lambda path: None
    written: int = 0
    put: Callable[[np.ndarray], None] | None = None
    last: np.ndarray | None = None
    failed: bool = False
    files: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)


class ClipRecorder:
    """Writes the clips of all cameras in one thread. A clip is under its name once it is whole.

    `before_s`, `after_s`: what it shows of before its event and after it; `most_s`: the most from the onset on.
    """

    def __init__(self, before_s: float, after_s: float, most_s: float):
        self._before_s, self._after_s, self._most_s = before_s, after_s, most_s
        self._open: dict[Path, _OpenClip] = {}
        self._changed = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._run, name="clips", daemon=True)
        self._thread.start()

    def begin(self, path: Path, footage: RecentFootage, onset_s: float, source: str = "") -> None:
        """Begin the clip of an event, before its onset as far as there is footage. `source`: see own_files."""
        kept = footage.between(onset_s - self._before_s, np.inf)
        begin_s = kept[0].time_s if kept else onset_s
        with self._changed:
            self._open[path] = _OpenClip(path, source, footage, begin_s, onset_s - begin_s + self._most_s)

    def end(self, path: Path, event_end_s: float, done: Callable[[Path | None], None]) -> None:
        """End the clip some time after its event; `done` is then called with its path, or None if there is none."""
        with self._changed:
            clip = self._open.get(path)
            if clip is not None:
                clip.end_s, clip.done = event_end_s + self._after_s, done
                left_s = max(clip.end_s - clip.footage.newest_s, 0.0)
                clip.due_s = time.monotonic() + min(left_s, self._after_s) + _WAIT_S
                self._changed.notify_all()
                return
        done(path if path.is_file() else None)

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

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._ending:
                    self._changed.wait(_LOOK_EVERY_S)
                ending, clips = self._ending, list(self._open.values())
            for clip in clips:
                self._go_on(clip, ending)
            if ending:
                return

    def _go_on(self, clip: _OpenClip, ending: bool) -> None:
        try:
            is_whole = self._write(clip) or ending or time.monotonic() > clip.due_s
        except Exception as e:  # noqa: BLE001 - a full disk, say: the other clips, and all news, go on
            self._failed(clip, e)
            is_whole = True
        if not is_whole:
            return
        if not clip.failed:
            try:
                clip.files.close()
            except Exception as e:  # noqa: BLE001 - as above
                self._failed(clip, e)
        clip.put, clip.last = None, None
        with self._changed:
            self._open.pop(clip.path, None)
            its_event_goes_on = clip.end_s is None and not ending  # it is as long as a clip may be
        if not its_event_goes_on:
            clip.done(clip.path if clip.path.is_file() else None)

    def _write(self, clip: _OpenClip) -> bool:
        """Write what has come since; returns whether that is all."""
        longest_s = clip.begin_s + clip.most_s
        until_s = min(longest_s, np.inf if clip.end_s is None else clip.end_s)
        for kept in clip.footage.between(clip.begin_s + (clip.written - 0.5) / FPS, until_s):
            picture = picture_of(kept)
            if clip.put is None:
                temporary = clip.files.enter_context(
                    WrittenFiles(clip.path.parent).replacing(clip.path, clip.source)
                )
                clip.put = clip.files.enter_context(writer.h264(temporary, FPS))
                clip.last = picture
            elif clip.last is not None and picture.shape != clip.last.shape:  # the camera's size has changed
                picture = cv2.resize(picture, clip.last.shape[1::-1], interpolation=cv2.INTER_AREA)
            number = round((kept.time_s - clip.begin_s) * FPS)
            while clip.written < number:  # nothing came meanwhile: the last picture stands
                clip.put(clip.last if clip.last is not None else picture)
                clip.written += 1
            if clip.written == number:
                clip.put(picture)
                clip.written += 1
            clip.last = picture
        return clip.footage.newest_s >= until_s

    def _failed(self, clip: _OpenClip, error: Exception) -> None:
        log.warning("the clip %s cannot be written: %s", clip.path, error)
        clip.failed = True
        with contextlib.suppress(Exception):
            clip.files.pop_all().__exit__(type(error), error, None)
