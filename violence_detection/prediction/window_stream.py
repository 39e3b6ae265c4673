"""Windows of a stream, each as soon as its frames have come: those that the same footage has as a file."""

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

#: So much of a stream shows whether its frames come at the rate that it states.
_LEARN_RATE_S = 2.0
#: Frames that come so much faster for so long, in each half of it, come at another rate.
_FASTER = 1.2
#: More frames than any stream has, as long as its end is not known.
_ENDLESS = 2**50
#: The rate of a stream that neither states one nor has two frames.
_SOME_RATE = 25.0


class WindowStream:
    """Takes frames in order of time, gives windows, and keeps what a coming window may need, shrunk.

    Numbers of frames are moments at a constant rate, as in video/decode.py: a frame stands until the next one comes.
    The rate is the stated one where the first seconds come at it, else theirs; with `exact_rate` it is the stated one.
    Where frames come faster later, as of a camera that idles, it is theirs from then on, at which none is passed over.
    A stretch in which too few frames come to judge movement has no window; `still` counts those.
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
        self._info = decode.VideoInfo(_ENDLESS, _SOME_RATE, 0, 0, "")
        self._begins_s = 0.0
        self._grid = sampling.WindowGrid(self._info, window_s, stride_s)
        self._lookback = 0
        self._moments: list[int] = []  # from which the frames stand
        self._times: list[float] = []
        self._kept: list[Kept] = []
        self._latest: deque[tuple[float, Kept]] = deque()  # those of a moment that another one took, too
        self._waiting: deque[WindowPlan] = deque()
        self.frames_seen = self._still = 0

    @property
    def frames_kept(self) -> int:
        """How many frames are held."""
        latest = sum(time_s not in self._times for time_s, _ in self._latest)
        return len(self._early or ()) + len(self._kept) + latest

    @property
    def still(self) -> int:
        """How many windows had too few frames to judge movement."""
        return self._still + self._grid.sparse

    def span_s(self, window: sampling.Window) -> tuple[float, float]:
        """When the window begins and ends, in seconds of the stream."""
        start_s = self._info.start_s + window.start / self._info.fps
        return start_s, start_s + window.length / self._info.fps

    def push(self, frame: TimedFrame) -> list[SeenWindow]:
        """The windows that are complete with this frame. Frames come in order of time."""
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
        """The windows that are left when the stream has ended, of which the last may be shorter."""
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
        """Settle the rate, and take the frames that waited for it."""
        assert self._early
        seconds = np.array([time_s for time_s, _ in self._early])
        fps = self._stated_fps if self._exact_rate else decode.rate_of(seconds, self._stated_fps)
        self._begins_s = float(seconds[0])
        start_s = decode.start_of(self._begins_s)
        self._info = decode.VideoInfo(_ENDLESS, fps or _SOME_RATE, 0, 0, "", start_s=start_s)
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
            if self._comes_faster(time_s) and self._go_faster():
                return
        self._place(time_s, kept)

    def _comes_faster(self, now_s: float) -> bool:
        """Whether more frames than before have come in both halves of the latest seconds: not in one burst."""
        enough = _FASTER * self._info.fps * _LEARN_RATE_S
        if len(self._latest) <= enough:
            return False
        second = sum(now_s - time_s < _LEARN_RATE_S / 2 for time_s, _ in self._latest)
        return min(second, len(self._latest) - second) > enough / 2

    def _go_faster(self) -> bool:
        """Number the frames that are held anew, by the rate of the latest; False where that is none."""
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
        if self._moments and moment <= self._moments[-1]:  # it alone is seen of those that come in one moment
            self._times[-1], self._kept[-1] = time_s, kept
            return
        self._moments.append(moment)
        self._times.append(time_s)
        self._kept.append(kept)

    def _complete(self) -> Iterator[SeenWindow]:
        """The windows of which nothing can change any more. What the others do not need is let go."""
        newest = self._moments[-1]
        # else it may be a clip, which is judged on its middle
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
        """Which of the frames held stands at a moment."""
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
    """The windows that a detector judges of a stream. `fps`: what its source states, 0 where it does not."""
    return WindowStream(
        detector.viewers,
        detector.model.features.window_s,
        detector.stride_s,
        stated_fps=fps,
        exact_rate=exact_rate,
        variants=detector.views,
    )


class StreamJudge:
    """Judges one stream with a detector, which several may share. `name`: of the stream, as it may be shown.

    `fps`: what the source states, 0 where it does not.
    """

    def __init__(self, detector: Detector, name: str, fps: float = 0.0, *, exact_rate: bool = False):
        self._detector, self._name = detector, name
        self._windows = of_detector(detector, fps, exact_rate=exact_rate)

    @property
    def frames_seen(self) -> int:
        """How many frames were taken."""
        return self._windows.frames_seen

    @property
    def still(self) -> int:
        """Windows that were not judged, since too few frames came in them."""
        return self._windows.still

    def push(self, frame: TimedFrame) -> list[JudgedWindow]:
        """The windows that are complete with this frame, judged. Frames come in order of time; some may be left out.

        Raises UnreadableVideo where the network's output is no number.
        """
        return self._judge(self._windows.push(frame))

    def finish(self) -> list[JudgedWindow]:
        """The windows that are left when the stream has ended."""
        return self._judge(self._windows.finish())

    def _judge(self, seen: Iterable[SeenWindow]) -> list[JudgedWindow]:
        return [
            self._detector.profiled(JudgedWindow.of(self._windows.span_s(window), p))
            for window, p in self._detector.judged(self._name, seen)
        ]
