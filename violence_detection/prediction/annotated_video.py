"""Annotated videos: below the picture, a panel with the score, the verdict and a timeline."""

from __future__ import annotations

import bisect
from pathlib import Path

import cv2
import numpy as np

from violence_detection.prediction.clock import minutes
from violence_detection.prediction.events import Verdict, event_at, stretches
from violence_detection.system.figures import number
from violence_detection.system.own_files import WrittenFiles
from violence_detection.video import decode, writer
from violence_detection.video.shown import boxed, square

#: A picture narrower than this many pixels is enlarged by a whole factor, so that the panel can be read.
_LEAST_WIDTH = 320
#: The width of picture, in pixels, for which the panel's sizes are given; they grow in proportion to the width.
_DRAWN_FOR = 640
#: Shortest length of the timeline: durations are rounded to hundredths of a second, so a very short video has 0.
_LEAST_S = 0.01
_BACKGROUND, _TEXT, _DIM = (24, 24, 28), (235, 235, 235), (90, 90, 98)
_VIOLENT, _QUIET, _BAND = (235, 70, 60), (70, 170, 110), (110, 40, 40)


def write(verdict: Verdict, path: Path, comment: str = "", written: WrittenFiles | None = None) -> None:
    """Write the annotated video (H.264, square pixels) with the times of the original video.

    If the pictures begin later than the video, it is black until then. A stretch of which nothing decodes shows the
    last picture before it, and the panel says "not judged". Every frame has the size of the first; one of another
    shape gets black borders. `comment` is stored in the file. `written`: the record of the folder, if the caller has
    it already; by default it is read.
    Raises UnreadableVideo, and UserError if the file cannot be written or a file that is not this video's is there.
    """
    video = Path(verdict.path)
    info = decode.probe(video)
    panel: Panel | None = None
    shape: tuple[int, ...] = ()
    with (
        (written or WrittenFiles(path.parent)).replacing(path, video) as temporary,
        writer.h264(temporary, info.fps, comment) as put,
    ):
        for number, frame in decode.moments(video, info, range(info.n_frames)):
            picture = _large_enough(square(frame, info.pixel_shape))
            if panel is None:
                panel, shape = Panel(verdict, picture.shape[1]), picture.shape
                for late in range(round(info.start_s * info.fps)):
                    put(np.vstack([np.zeros_like(picture), panel.at(late / info.fps)]))
            put(np.vstack([boxed(picture, shape), panel.at(info.start_s + number / info.fps)]))


def _large_enough(frame: decode.Frame) -> decode.Frame:
    times = -(-_LEAST_WIDTH // frame.shape[1])
    if times == 1:
        return frame
    return cv2.resize(frame, None, fx=times, fy=times, interpolation=cv2.INTER_NEAREST)


class Panel:
    """Draws the strip below the picture, (height, width, 3) uint8 RGB, for any moment of the video."""

    def __init__(self, verdict: Verdict, width: int):
        self._verdict, self._width = verdict, width
        self._unit = max(width / _DRAWN_FOR, 0.75)
        self._stretches = stretches(verdict.windows)
        self._starts = [start for start, _ in self._stretches]
        self._events = verdict.events
        self.height = self._px(72)
        self._still = self._drawn_once()

    def at(self, time_s: float) -> np.ndarray:
        """Draw the panel for the moment `time_s`, in seconds of the video."""
        out = self._still.copy()
        p = self.score(time_s)
        violent = bool(event_at(self._events, time_s))
        colour = _VIOLENT if violent else _QUIET
        self._text(out, "not judged" if p is None else f"P(violent) {number(p, 2)}", self._px(8), _TEXT)
        left, right = self._bar()
        top, bottom = self._px(8), self._px(24)
        if p is not None:
            cv2.rectangle(out, (left, top), (left + round(p * (right - left)), bottom), colour, -1)
        tick = left + round(self._verdict.threshold * (right - left))
        cv2.line(out, (tick, top - self._px(3)), (tick, bottom + self._px(3)), _TEXT, self._px(1))
        said = f"{'VIOLENT' if violent else 'quiet'}  {minutes(time_s)}"
        self._text(out, said, right + self._px(10), colour)
        x = self._x(time_s)
        cv2.line(out, (x, self._px(34)), (x, self.height), _TEXT, self._px(1))
        return out

    def score(self, time_s: float) -> float | None:
        """Return P(violent) of the window whose stretch contains the moment; None if there is none."""
        i = bisect.bisect_right(self._starts, time_s) - 1
        if i < 0 or time_s >= self._stretches[i][1] + 1e-6:
            return None
        return self._verdict.windows[i].p_violent

    def _drawn_once(self) -> np.ndarray:
        """Draw what stays the same: the outlines, the events, the bar chart of scores and the whole video's verdict."""
        out = np.full((self.height, self._width, 3), _BACKGROUND, np.uint8)
        left, right = self._bar()
        cv2.rectangle(out, (left, self._px(8)), (right, self._px(24)), _DIM, self._px(1))
        top, bottom = self._px(38), self.height - self._px(4)
        for e in self._events:
            cv2.rectangle(out, (self._x(e.start_s), top), (self._x(e.end_s), bottom), _BAND, -1)
        for window, (start_s, end_s) in zip(self._verdict.windows, self._stretches, strict=True):
            y = bottom - round(window.p_violent * (bottom - top))
            colour = _VIOLENT if window.p_violent >= self._verdict.threshold else _QUIET
            cv2.rectangle(out, (self._x(start_s), y), (max(self._x(end_s) - 1, 0), bottom), colour, -1)
        y = bottom - round(self._verdict.threshold * (bottom - top))
        cv2.line(out, (0, y), (self._width, y), _DIM, 1)
        whole = f"whole video: {self._verdict.label}"
        self._text(out, whole, self._px(6), _TEXT, top + self._px(12), 0.36)
        return out

    def _bar(self) -> tuple[int, int]:
        """Left and right edge of the score bar, in pixels."""
        return self._px(128), self._width - self._px(142)

    def _x(self, time_s: float) -> int:
        """The x coordinate of a moment on the timeline, in pixels."""
        long_s = self._verdict.duration_s or max(self._verdict.windows[-1].end_s, _LEAST_S)
        return round(time_s / long_s * (self._width - 1))

    def _px(self, drawn: float) -> int:
        return max(round(drawn * self._unit), 1)

    def _text(
        self,
        out: np.ndarray,
        text: str,
        x: int,
        colour: tuple[int, int, int],
        y: int | None = None,
        size: float = 0.44,
    ) -> None:
        at = (x, self._px(21) if y is None else y)
        cv2.putText(
            out, text, at, cv2.FONT_HERSHEY_SIMPLEX, size * self._unit, colour, self._px(1), cv2.LINE_AA
        )
