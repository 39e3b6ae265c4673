"""The windows of a stream, each as soon as its frames are there: the same windows as of a file with that footage."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from violence_detection.prediction.events import JudgedWindow
from violence_detection.video import decode, sampling, window_pictures
from violence_detection.video.window_pictures import Kept, SeenWindow, Viewer, WindowPlan

if TYPE_CHECKING:
    from violence_detection.prediction.detector import Detector
    from violence_detection.video.sources import TimedFrame

#: Seconds of a stream that are enough to tell whether its frames come at the stated rate.
_LEARN_RATE_S = 2.0
#: The rate has risen if in the last `_LEARN_RATE_S`, and in each half of it, frames come more than this many times as
#: fast as the rate in use.
_FASTER = 1.2
#: The number of frames of a stream whose end is not known: more than any stream has.
_ENDLESS = 2**50
#: Frames a second of a stream that states no rate and has too few frames to measure one.
_FALLBACK_FPS = 25.0


class WindowStream:
    """Turns frames, in order of time, into windows. Keeps only the frames that a later window may need, shrunk.

    Frame numbers are moments at a constant rate, as in video/decode.py: a frame is shown until the next one comes. The
    rate is the stated one if the first seconds come at it, otherwise the measured one; with `exact_rate` it is always
    the stated one. If frames later come faster, as from a camera that was idling, the rate rises to theirs, so that
    none is passed over. A window in which too few frames come to judge movement is left out; `still` counts these.
    """

    def __init__(
        self,
        viewers: Sequence[Viewer],
        window_s: float,
        stride_s: float,
        *,
        stated_fps: float = 0.0,
        exact_rate: bool = False,
        variants: Sequence[str] = ("v0",),
    ):
        self._viewers, self._window_s, self._stride_s = tuple(viewers), window_s, stride_s
        self._keep = window_pictures.keeper(viewers)
        self._draws = [viewer.draws("stream", variants) for viewer in viewers]
        self._stated_fps, self._exact_rate = stated_fps, exact_rate
        self._early: list[tuple[float, Kept]] | None = []  # until the rate is known
        self._info = decode.VideoInfo(_ENDLESS, _FALLBACK_FPS, 0, 0, "")
        self._begins_s = 0.0
        self._grid = sampling.WindowGrid(self._info, window_s, stride_s)
        self._lookback = 0
        self._moments: list[int] = []  # the moment from which each kept frame is shown
        self._times: list[float] = []
        self._kept: list[Kept] = []
        # also frames that another one replaced at their moment
        self._latest: deque[tuple[float, Kept]] = deque()
        self._waiting: deque[WindowPlan] = deque()
        self.frames_seen = self._still = 0

    @property
    def frames_kept(self) -> int:
        """How many frames are kept in memory."""
        latest = sum(time_s not in self._times for time_s, _ in self._latest)
        return len(self._early or ()) + len(self._kept) + latest

    @property
    def still(self) -> int:
        """How many windows were left out, since too few frames came in them to judge movement."""
        return self._still + self._grid.sparse

    def span_s(self, window: sampling.Window) -> tuple[float, float]:
        """When the window begins and ends, in seconds of the stream."""
        start_s = self._info.start_s + window.start / self._info.fps
        return start_s, start_s + window.length / self._info.fps

    def push(self, frame: TimedFrame) -> list[SeenWindow]:
        """Add a frame and return the windows that it completes. Frames come in order of time."""
        self.frames_seen += 1
        kept = self._keep(frame.picture)
        if self._early is None:
            self._add(frame.time_s, kept)
            return list(self._complete())
        self._early.append((frame.time_s, kept))
        if frame.time_s - self._early[0][0] < _LEARN_RATE_S and not self._exact_rate:
            return []
        self._begin()
        return list(self._complete())

    def finish(self) -> list[SeenWindow]:
        """Return the remaining windows at the end of the stream; the last may be shorter."""
        if self._early:
            self._begin()
        if not self._moments:
            return []
        done = list(self._complete())
        n_frames = self._moments[-1] + 1
        info = self._with_frames(n_frames)
        windows = [plan.window for plan in self._waiting]
        self._waiting.clear()
        if n_frames <= self._window_s * info.fps:
            windows.append(sampling.middle_window(info, self._window_s))
        else:
            windows += iter(lambda: self._grid.due(n_frames, ended=True), None)
        plans = [WindowPlan(w, info, self._viewers, self._draws) for w in windows if self._moves(w, n_frames)]
        return done + [self._seen(plan) for plan in plans]

    def _begin(self) -> None:
        """Decide on the rate, and add the frames that waited for it."""
        assert self._early
        seconds = np.array([time_s for time_s, _ in self._early])
        fps = self._stated_fps if self._exact_rate else decode.rate_of(seconds, self._stated_fps)
        self._begins_s = float(seconds[0])
        start_s = decode.start_of(self._begins_s)
        self._info = decode.VideoInfo(_ENDLESS, fps or _FALLBACK_FPS, 0, 0, "", start_s=start_s)
        self._grid = sampling.WindowGrid(self._info, self._window_s, self._stride_s)
        self._lookback = self._reach()
        early, self._early = self._early, None
        for time_s, kept in early:
            self._add(time_s, kept)

    def _with_frames(self, n_frames: int) -> decode.VideoInfo:
        return decode.VideoInfo(n_frames, self._info.fps, 0, 0, "", start_s=self._info.start_s)

    def _add(self, time_s: float, kept: Kept) -> None:
        if not self._exact_rate:
            self._latest.append((time_s, kept))
            while time_s - self._latest[0][0] > _LEARN_RATE_S:
                self._latest.popleft()
            if self._comes_faster(time_s) and self._raise_rate():
                return
        self._place(time_s, kept)

    def _comes_faster(self, now_s: float) -> bool:
        """Whether frames come faster than the rate in both halves of the latest seconds, and not just in one burst."""
        enough = _FASTER * self._info.fps * _LEARN_RATE_S
        if len(self._latest) <= enough:
            return False
        second = sum(now_s - time_s < _LEARN_RATE_S / 2 for time_s, _ in self._latest)
        return min(second, len(self._latest) - second) > enough / 2

    def _raise_rate(self) -> bool:
        """Renumber the kept frames at the rate of the latest ones; return False if that rate is no higher."""
        fps = decode.rate_of(np.array([time_s for time_s, _ in self._latest]), self._stated_fps)
        if fps <= self._info.fps:
            return False
        begins_s = self._latest[0][0]
        self._info = replace(self._info, fps=fps)
        self._grid = self._grid.at(fps, self._waiting[0].window if self._waiting else None)
        self._waiting.clear()
        self._lookback = self._reach()
        held = [(t, kept) for t, kept in zip(self._times, self._kept, strict=True) if t < begins_s]
        self._moments, self._times, self._kept = [], [], []
        for time_s, kept in (*held, *self._latest):
            self._place(time_s, kept)
        return True

    def _reach(self) -> int:
        return max(sampling.reach(viewer.config, self._info.fps) for viewer in self._viewers)

    def _place(self, time_s: float, kept: Kept) -> None:
        moment = max(math.ceil((time_s - self._begins_s) * self._info.fps - 0.5), 0)
        # of several frames at one moment only the last is shown
        if self._moments and moment <= self._moments[-1]:
            self._times[-1], self._kept[-1] = time_s, kept
            return
        self._moments.append(moment)
        self._times.append(time_s)
        self._kept.append(kept)

    def _complete(self) -> Iterator[SeenWindow]:
        """Yield the windows that no later frame can change, and drop the frames that no other window needs."""
        newest = self._moments[-1]
        # a stream of up to one window may be a clip, which is judged on the window in its middle
        if newest + 1 > self._window_s * self._info.fps:
            while (window := self._grid.due(newest + 1, ended=False)) is not None:
                self._waiting.append(WindowPlan(window, self._info, self._viewers, self._draws))
        while self._waiting and max(self._waiting[0].frames) < newest:
            plan = self._waiting.popleft()
            if self._moves(plan.window, newest + 1):
                yield self._seen(plan)
        self._forget()

    def _seen(self, plan: WindowPlan) -> SeenWindow:
        return plan.seen({number: self._kept[self._index(number)] for number in plan.frames})

    def _index(self, moment: int) -> int:
        """Index of the kept frame that is shown at a moment."""
        return max(bisect_right(self._moments, moment) - 1, 0)

    def _moves(self, window: sampling.Window, n_frames: int) -> bool:
        first, end = sampling.moments_of(window, n_frames)
        moves = self._index(end - 1) - self._index(first) + 1 >= decode.MIN_FRAMES
        self._still += not moves
        return moves

    def _forget(self) -> None:
        starts = [plan.window.start for plan in self._waiting] + [self._grid.next_start]
        oldest = self._index(max(math.floor(min(starts)) - self._lookback, 0))
        del self._moments[:oldest], self._times[:oldest], self._kept[:oldest]


def of_detector(detector: Detector, fps: float, *, exact_rate: bool = False) -> WindowStream:
    """Return a WindowStream with a detector's settings. `fps`: the rate that the source states, 0 if it states none."""
    return WindowStream(
        detector.viewers,
        detector.model.features.window_s,
        detector.stride_s,
        stated_fps=fps,
        exact_rate=exact_rate,
        variants=detector.views,
    )


class StreamJudge:
    """Judges one stream with a detector, which several streams may share. `name`: the stream's name for messages.

    `fps`: the rate that the source states, 0 if it states none.
    """

    def __init__(self, detector: Detector, name: str, fps: float = 0.0, *, exact_rate: bool = False):
        self._detector, self._name = detector, name
        self._windows = of_detector(detector, fps, exact_rate=exact_rate)

    @property
    def frames_seen(self) -> int:
        """How many frames were pushed."""
        return self._windows.frames_seen

    @property
    def still(self) -> int:
        """How many windows were not judged, since too few frames came in them."""
        return self._windows.still

    def push(self, frame: TimedFrame) -> list[JudgedWindow]:
        """Add a frame and judge the windows that it completes. Frames come in order of time; some may be left out.

        Raises UnreadableVideo if the network's output is not a number.
        """
        return self._judge(self._windows.push(frame))

    def finish(self) -> list[JudgedWindow]:
        """Judge the remaining windows at the end of the stream."""
        return self._judge(self._windows.finish())

    def _judge(self, seen: Iterable[SeenWindow]) -> list[JudgedWindow]:
        return [
            self._detector.profiled(JudgedWindow.of(self._windows.span_s(window), p))
            for window, p in self._detector.judged(self._name, seen)
        ]
