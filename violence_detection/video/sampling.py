"""Chooses which frames of a video are looked at: its windows, and the frames that represent a window.

A clip is judged on a window of at most `window_s` seconds, sampled at T evenly spaced frames. The stream `motion` also
takes three further frames from each of these, in steps of `motion_spacing_s`.

Two things make what a video backbone sees of a movement depend less on a clip's length. Some take their frames in
bursts: at evenly spaced moments a few frames, a fixed time apart. Some look at only part of the window: the middle, or
in test-time views another part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from violence_detection.video.augment import Draw
from violence_detection.video.config import ClipConfig
from violence_detection.video.decode import MIN_FRAMES, Span, VideoInfo

#: Differences in a motion image, one per channel.
MOTION_STEPS = 3
#: Tolerance in frames when lengths are compared: at a rate such as 29.97 a window is not a whole number of frames long.
_HALF_A_FRAME = 0.5
#: Tolerance in strides for the rounding error of turning seconds into frames and back.
_ROUNDING_STRIDES = 1e-6


@dataclass(frozen=True)
class Window:
    """A stretch of a video. `start` and `length` are in frames, and need not be whole."""

    start: float
    length: float


def middle_window(info: VideoInfo, window_s: float) -> Window:
    """The whole clip, or its middle `window_s` seconds if it is longer."""
    length = min(float(info.n_frames), window_s * info.fps)
    return Window((info.n_frames - length) / 2, length)


def is_whole(window: Window, n_frames: int) -> bool:
    """Whether a window covers the whole of a video of `n_frames` frames, as it does for a clip that fits in one."""
    return window.length > n_frames - 1


def sliding_windows(info: VideoInfo, window_s: float, stride_s: float) -> list[Window]:
    """Windows over a video of any length, on the grid of `WindowGrid`. A video that fits in one gets `middle_window`.

    The first and the last window are cut short where the footage begins and ends. A remainder of fewer than MIN_FRAMES
    gets no window.
    """
    if info.n_frames <= window_s * info.fps:
        return [middle_window(info, window_s)]
    grid = WindowGrid(info, window_s, stride_s)
    return list(iter(lambda: grid.due(info.n_frames, ended=True), None))


class WindowGrid:
    """The windows of footage longer than one window, one after another as the footage grows.

    They begin at multiples of `stride_s` in the video's own time, wherever the footage begins, so that the same footage
    has the same windows in a file and in a stream. Of `info` only `fps` and `start_s` are used.
    """

    def __init__(self, info: VideoInfo, window_s: float, stride_s: float):
        self._fps, self._start_s = info.fps, info.start_s
        self._window_s, self._stride_s = window_s, stride_s
        self._number = math.floor(info.start_s / stride_s)
        self._covered = 0.0
        self.sparse = 0  # full-length windows left out because they have fewer than MIN_FRAMES at this rate

    @property
    def next_start(self) -> float:
        """The frame number at which the next window begins; negative if that is before the footage."""
        return (self._number * self._stride_s - self._start_s) * self._fps

    def at(self, fps: float, again_from: Window | None = None) -> WindowGrid:
        """The same grid for footage that now comes at another rate, to go on with the next window.

        `again_from`: a window that `due` has already returned, at the old rate; the new grid begins again with it.
        """
        other = WindowGrid(VideoInfo(0, fps, 0, 0, "", start_s=self._start_s), self._window_s, self._stride_s)
        other.sparse = self.sparse
        if again_from is None:
            other._number, other._covered = self._number, self._covered * fps / self._fps
        else:
            begins_s = self._start_s + again_from.start / self._fps
            other._number = math.floor(begins_s / self._stride_s + _ROUNDING_STRIDES)
        return other

    def due(self, n_frames: int, ended: bool) -> Window | None:
        """The next window that ends within the first `n_frames` frames; None if there is none yet.

        `ended`: no more frames will come; then the last window may be cut short. None means that there are no more.
        """
        while True:
            start = self.next_start
            end = start + self._window_s * self._fps
            if end > n_frames and not ended:
                return None
            if ended and (n_frames - self._covered <= _HALF_A_FRAME or start >= n_frames):
                return None
            self._number += 1
            is_whole = start >= 0 and end <= n_frames
            start, self._covered = max(start, 0.0), min(end, float(n_frames))
            if self._covered - start >= MIN_FRAMES - _HALF_A_FRAME:
                return Window(start, self._covered - start)
            self.sparse += is_whole


def moments_of(window: Window, n_frames: int) -> tuple[int, int]:
    """The frame numbers of a window in a video of `n_frames`: the first, and the one after the last."""
    return max(int(window.start), 0), min(int(np.ceil(window.start + window.length - 1e-9)), n_frames)


def shows_movement(info: VideoInfo, window: Window) -> bool:
    """Whether a window has enough different frames (MIN_FRAMES) to judge movement."""
    return info.distinct(*moments_of(window, info.n_frames)) >= MIN_FRAMES


def too_still(info: VideoInfo, window_s: float) -> str:
    """The reason why a video cannot be judged whose windows have too few different frames."""
    return (
        f"its frames come too seldom to judge movement: {info.n_decoded} in {info.played_s:.1f} s, and {window_s:g} s "
        f"need {MIN_FRAMES}. Record at least {MIN_FRAMES / window_s:.1f} frames per second"
    )


@dataclass(frozen=True)
class Sampling:
    """The frame numbers of one variant: `base` (T,), and `motion` (T, 4), four evenly spaced from each of `base` on.

    Without the stream `motion`, `motion` is (0, 4), so that its frames are not kept.
    """

    base: np.ndarray
    motion: np.ndarray

    @property
    def frames(self) -> frozenset[int]:
        return frozenset(self.base.tolist()) | frozenset(self.motion.ravel().tolist())


def sample(info: VideoInfo, window: Window, d: Draw, config: ClipConfig) -> Sampling:
    """Choose a variant's frames within a window of the video. `d`: the variant's parameters."""
    if config.span_s:
        span = min(window.length, config.span_s * info.fps)
        window = Window(window.start + (window.length - span) * d.place, span)
    length = window.length * d.window_length
    start = window.start + (window.length - length) * d.window_start
    if config.burst > 1:
        gap = _gap(config.burst_spacing_s, info.fps)
        base = burst_indices(info.n_frames, config.frames // config.burst, config.burst, gap, start, length)
    else:
        base = sample_indices(info.n_frames, config.frames, start, length)
    if "motion" not in config.streams:
        return Sampling(base, np.empty((0, MOTION_STEPS + 1), np.int64))
    gap = _gap(config.motion_spacing_s, info.fps)
    # near the end of the video, the last four that fit
    first = np.clip(base, 0, max(0, info.n_frames - 1 - MOTION_STEPS * gap))
    motion = first[:, None] + gap * np.arange(MOTION_STEPS + 1)
    return Sampling(base, np.clip(motion, 0, info.n_frames - 1))


def reach(config: ClipConfig, fps: float) -> int:
    """The most frames by which a sample may go beyond its window.

    A burst does where the window is shorter than the burst; the stream `motion` does from frames near the window's end.
    """
    burst = _gap(config.burst_spacing_s, fps) * (config.burst - 1)
    motion = _gap(config.motion_spacing_s, fps) * MOTION_STEPS if "motion" in config.streams else 0
    return max(burst, motion)


def _gap(spacing_s: float, fps: float) -> int:
    return max(1, round(spacing_s * fps))


def sample_indices(n_frames: int, count: int, start: float = 0.0, length: float | None = None) -> np.ndarray:
    """Evenly spaced frame numbers: the centres of `count` equal parts of [start, start + length).

    Returns (count,) int64, each in [0, n_frames). A window shorter than `count` frames repeats frames.
    """
    length = n_frames - start if length is None else length
    positions = start + (np.arange(count) + 0.5) * (length / count)
    return np.clip(np.floor(positions).astype(np.int64), 0, n_frames - 1)


def burst_indices(
    n_frames: int, moments: int, burst: int, gap: int, start: float, length: float
) -> np.ndarray:
    """Frame numbers of bursts at `moments` evenly spaced moments of [start, start + length).

    A burst is `burst` frames, `gap` apart. Returns (moments * burst,) int64, each in [0, n_frames), burst after burst.
    Bursts lie within the window if it is longer than a burst, otherwise within the video. A video shorter than a burst
    repeats its last frame.
    """
    span = gap * (burst - 1)
    first = sample_indices(n_frames, moments, start, max(length - span, 0.0))
    first = np.clip(first, 0, max(0, n_frames - 1 - span))
    return np.clip(first[:, None] + gap * np.arange(burst), 0, n_frames - 1).ravel()


def moment_at(info: VideoInfo, time_s: float) -> int:
    """The number of the moment at `time_s` of the video; the nearest that exists if that is outside."""
    return min(max(int((time_s - info.start_s) * info.fps + 1e-6), 0), info.n_frames - 1)


def overlap_s(spans: Sequence[Span], others: Sequence[Span]) -> float:
    """Seconds covered both by `spans` and by `others`. Each is ordered by start; spans of one may overlap."""
    spans, others = _joined(spans), _joined(others)
    return sum(max(min(b, d) - max(a, c), 0.0) for a, b in spans for c, d in others)


def _joined(spans: Sequence[Span]) -> list[Span]:
    out: list[Span] = []
    for start, end in spans:
        if out and start <= out[-1][1]:
            out[-1] = out[-1][0], max(end, out[-1][1])
        else:
            out.append((start, end))
    return out
