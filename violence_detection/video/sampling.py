"""Which frames of a video are looked at: windows of it, and the frames that stand for a window.

A clip is judged on a window of at most `window_s` seconds, sampled at T evenly spaced frames. Motion looks at the next
three steps of `motion_spacing_s` from each of them. Some video backbones take their frames in bursts instead: at evenly
spaced moments a few frames, a fixed time apart, or they look at a part of the window alone, the middle unless in
test-time views, so that what they see of a movement depends less on a clip's length.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from violence_detection.video.augment import Draw
from violence_detection.video.config import ClipConfig
from violence_detection.video.decode import MIN_FRAMES, Span, VideoInfo

#: Differences in a motion image, one a channel.
MOTION_STEPS = 3
#: The end of a window may be so far from that of the video and still be it: rates such as 29.97 fit no whole frames.
_HALF_A_FRAME = 0.5
#: Of a stride: what is lost where seconds become frames and seconds again.
_A_BIT = 1e-6


@dataclass(frozen=True)
class Window:
    """A stretch of a video in frames."""

    start: float
    length: float


def middle_window(info: VideoInfo, window_s: float) -> Window:
    """The whole clip, or its middle `window_s` seconds if it is longer."""
    length = min(float(info.n_frames), window_s * info.fps)
    return Window((info.n_frames - length) / 2, length)


def is_whole(window: Window, n_frames: int) -> bool:
    """Whether a window is all of a video of so many frames: then it is a clip."""
    return window.length > n_frames - 1


def sliding_windows(info: VideoInfo, window_s: float, stride_s: float) -> list[Window]:
    """Windows over a video of any length; one alone, the same as `middle_window`, if it fits in one.

    They lie on the grid of `WindowGrid`. Those at the ends are shorter where footage is; what is left over of fewer
    than MIN_FRAMES is no window.
    """
    if info.n_frames <= window_s * info.fps:
        return [middle_window(info, window_s)]
    grid = WindowGrid(info, window_s, stride_s)
    return list(iter(lambda: grid.due(info.n_frames, ended=True), None))


class WindowGrid:
    """The windows of footage longer than one, one after another, as it grows.

    They begin at multiples of `stride_s` in the video's own time, wherever it was cut off, so that the same footage has
    the same windows in a file and in a stream. Of `info` rate and beginning count.
    """

    def __init__(self, info: VideoInfo, window_s: float, stride_s: float):
        self._fps, self._start_s = info.fps, info.start_s
        self._window_s, self._stride_s = window_s, stride_s
        self._number = math.floor(info.start_s / stride_s)
        self._covered = 0.0
        self.sparse = 0  # whole windows that were left out: so few frames come at this rate

    @property
    def next_start(self) -> float:
        """The frame number at which the next window begins; below 0 where it began before the footage."""
        return (self._number * self._stride_s - self._start_s) * self._fps

    def at(self, fps: float, again_from: Window | None = None) -> WindowGrid:
        """The same windows of footage that comes at another rate, those from one that was given already once more."""
        other = WindowGrid(VideoInfo(0, fps, 0, 0, "", start_s=self._start_s), self._window_s, self._stride_s)
        other.sparse = self.sparse
        if again_from is None:
            other._number, other._covered = self._number, self._covered * fps / self._fps
        else:
            begins_s = self._start_s + again_from.start / self._fps
            other._number = math.floor(begins_s / self._stride_s + _A_BIT)
        return other

    def due(self, n_frames: int, ended: bool) -> Window | None:
        """The next window that lies within so many frames; where there will be no more, also the part of one."""
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
    """The first of the frame numbers in a window, and the one behind the last."""
    return max(int(window.start), 0), min(int(np.ceil(window.start + window.length - 1e-9)), n_frames)


def shows_movement(info: VideoInfo, window: Window) -> bool:
    """Whether enough different frames stand in a window to judge by."""
    return info.distinct(*moments_of(window, info.n_frames)) >= MIN_FRAMES


def too_still(info: VideoInfo, window_s: float) -> str:
    """What to say of a video in whose windows too few frames stand."""
    return (
        f"its frames come too seldom to judge movement: {info.n_decoded} in {info.played_s:.1f} s, and {window_s:g} s "
        f"need {MIN_FRAMES}. Record at {MIN_FRAMES / window_s:.1f} frames a second at least"
    )


@dataclass(frozen=True)
class Sampling:
    """The frame numbers of one variant: `base` (T,), and `motion` (T, 4), evenly spaced in time from base on.

    `motion` is (0, 4) where the stream is not wanted, so that its frames are not kept.
    """

    base: np.ndarray
    motion: np.ndarray

    @property
    def frames(self) -> frozenset[int]:
        return frozenset(self.base.tolist()) | frozenset(self.motion.ravel().tolist())


def sample(info: VideoInfo, window: Window, d: Draw, config: ClipConfig) -> Sampling:
    """Where a variant's frames are within a window of the video."""
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
    # at the very end, the last that fit
    first = np.clip(base, 0, max(0, info.n_frames - 1 - MOTION_STEPS * gap))
    motion = first[:, None] + gap * np.arange(MOTION_STEPS + 1)
    return Sampling(base, np.clip(motion, 0, info.n_frames - 1))


def reach(config: ClipConfig, fps: float) -> int:
    """Frames by which a sample may go beyond its window: where that is very short, or motion looks on from its end."""
    burst = _gap(config.burst_spacing_s, fps) * (config.burst - 1)
    motion = _gap(config.motion_spacing_s, fps) * MOTION_STEPS if "motion" in config.streams else 0
    return max(burst, motion)


def _gap(spacing_s: float, fps: float) -> int:
    return max(1, round(spacing_s * fps))


def sample_indices(n_frames: int, count: int, start: float = 0.0, length: float | None = None) -> np.ndarray:
    """Evenly spaced frame numbers, the centres of `count` equal parts of [start, start + length).

    Returns (count,) int64, each in [0, n_frames). A window shorter than `count` frames repeats frames.
    """
    length = n_frames - start if length is None else length
    positions = start + (np.arange(count) + 0.5) * (length / count)
    return np.clip(np.floor(positions).astype(np.int64), 0, n_frames - 1)


def burst_indices(
    n_frames: int, moments: int, burst: int, gap: int, start: float, length: float
) -> np.ndarray:
    """Frame numbers of bursts at evenly spaced moments of [start, start + length), each of frames `gap` apart.

    Returns (moments * burst,) int64, each in [0, n_frames), burst after burst. Bursts lie within the window where it is
    longer than one, else within the video; a video shorter than a burst repeats its last frame.
    """
    span = gap * (burst - 1)
    first = sample_indices(n_frames, moments, start, max(length - span, 0.0))
    first = np.clip(first, 0, max(0, n_frames - 1 - span))
    return np.clip(first[:, None] + gap * np.arange(burst), 0, n_frames - 1).ravel()


def moment_at(info: VideoInfo, time_s: float) -> int:
    """The number of the moment at a time of the video, of those that there are."""
    return min(max(int((time_s - info.start_s) * info.fps + 1e-6), 0), info.n_frames - 1)


def overlap_s(spans: Sequence[Span], others: Sequence[Span]) -> float:
    """Seconds that lie in any of the spans and in any of the others; each in order of time."""
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
