"""Which frames of a video are looked at: windows of it, and the frames that stand for a window.

A clip is judged on a window of at most `window_s` seconds, sampled at T evenly spaced frames. Motion looks at the next
three steps of `motion_spacing_s` from each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from violence_detection.video.augment import Draw
from violence_detection.video.config import ClipConfig
from violence_detection.video.decode import MIN_FRAMES, VideoInfo

#: Differences in a motion image, one a channel.
MOTION_STEPS = 3


@dataclass(frozen=True)
class Window:
    """A stretch of a video in frames."""

    start: float
    length: float


def middle_window(info: VideoInfo, window_s: float) -> Window:
    """The whole clip, or its middle `window_s` seconds if it is longer."""
    length = min(float(info.n_frames), window_s * info.fps)
    return Window((info.n_frames - length) / 2, length)


def sliding_windows(info: VideoInfo, window_s: float, stride_s: float) -> list[Window]:
    """Windows that cover a video of any length; one alone, the same as `middle_window`, if it fits in one."""
    length = window_s * info.fps
    if info.n_frames <= length:
        return [middle_window(info, window_s)]
    count = int(np.ceil((info.n_frames - length) / (stride_s * info.fps))) + 1
    return [Window(float(start), length) for start in np.linspace(0, info.n_frames - length, count)]


def shows_movement(info: VideoInfo, window: Window) -> bool:
    """Whether enough different frames stand in a window to judge by."""
    return info.distinct(window.start, window.length) >= MIN_FRAMES


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
    length = window.length * d.window_length
    start = window.start + (window.length - length) * d.window_start
    base = sample_indices(info.n_frames, config.frames, start, length)
    if "motion" not in config.streams:
        return Sampling(base, np.empty((0, MOTION_STEPS + 1), np.int64))
    gap = max(1, round(config.motion_spacing_s * info.fps))
    first = np.clip(
        base, 0, max(0, info.n_frames - 1 - MOTION_STEPS * gap)
    )  # at the very end, the last that fit
    motion = first[:, None] + gap * np.arange(MOTION_STEPS + 1)
    return Sampling(base, np.clip(motion, 0, info.n_frames - 1))


def sample_indices(n_frames: int, count: int, start: float = 0.0, length: float | None = None) -> np.ndarray:
    """Evenly spaced frame numbers, the centres of `count` equal parts of [start, start + length).

    Returns (count,) int64, each in [0, n_frames). A window shorter than `count` frames repeats frames.
    """
    length = n_frames - start if length is None else length
    positions = start + (np.arange(count) + 0.5) * (length / count)
    return np.clip(np.floor(positions).astype(np.int64), 0, n_frames - 1)
