"""From a video file to the images a backbone sees, the one path for training, evaluation and prediction.

A clip is judged on a window of at most `window_s` seconds, sampled at T evenly spaced frames. Each stream turns them
into T images: `rgb` the frames themselves, `motion` how the picture changes over the next three steps of
`motion_spacing_s`, the absolute difference of each step in a channel of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from violence_detection.features.config import FeatureConfig
from violence_detection.video import augment, decode, focus

#: Differences in a motion image, one a channel.
MOTION_STEPS = 3


@dataclass(frozen=True)
class Window:
    """A stretch of a video in frames."""

    start: float
    length: float


def middle_window(info: decode.VideoInfo, window_s: float) -> Window:
    """The whole clip, or its middle `window_s` seconds if it is longer."""
    length = min(float(info.n_frames), window_s * info.fps)
    return Window((info.n_frames - length) / 2, length)


def sliding_windows(info: decode.VideoInfo, window_s: float, stride_s: float) -> list[Window]:
    """Windows that cover a video of any length; one alone, the same as `middle_window`, if it fits in one."""
    length = window_s * info.fps
    if info.n_frames <= length:
        return [middle_window(info, window_s)]
    count = int(np.ceil((info.n_frames - length) / (stride_s * info.fps))) + 1
    return [Window(float(start), length) for start in np.linspace(0, info.n_frames - length, count)]


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


def sampling(info: decode.VideoInfo, window: Window, d: augment.Draw, config: FeatureConfig) -> Sampling:
    """Where a variant's frames are within a window of the video."""
    length = window.length * d.window_length
    start = window.start + (window.length - length) * d.window_start
    base = decode.sample_indices(info.n_frames, config.frames, start, length)
    if "motion" not in config.streams:
        return Sampling(base, np.empty((0, MOTION_STEPS + 1), np.int64))
    gap = max(1, round(config.motion_spacing_s * info.fps))
    first = np.clip(
        base, 0, max(0, info.n_frames - 1 - MOTION_STEPS * gap)
    )  # at the very end, the last that fit
    motion = first[:, None] + gap * np.arange(MOTION_STEPS + 1)
    return Sampling(base, np.clip(motion, 0, info.n_frames - 1))


def squeeze(picture: np.ndarray, size: int) -> np.ndarray:
    """The whole picture (H, W, 3) as (size, size, 3) uint8, itself if it has that size.

    Bilinear, after each side has been halved while it is at least twice `size`; of what is then left, always below 2:1,
    pixels count unequally. Averaging over areas does not have that, takes three to eight times as long and is no more
    accurate (docs/results.md).
    """
    height, width, _ = picture.shape
    while height >= 2 * size or width >= 2 * size:
        height, width = (side // 2 if side >= 2 * size else side for side in (height, width))
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    if (height, width) == (size, size):
        return picture
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)


def resizer(size: int) -> Callable[[np.ndarray], np.ndarray]:
    """BGR frames (H, W, 3) to RGB (size, size, 3): the whole picture, squeezed."""
    return lambda frame: cv2.cvtColor(squeeze(frame, size), cv2.COLOR_BGR2RGB)


def frame_side(size: int, config: FeatureConfig) -> int:
    """Side at which decoded frames are kept, so that a crop of `focus` of it has the backbone's input size."""
    return round(size / config.focus) if config.focus else size


class Pictures(dict[int, np.ndarray]):
    """What of each frame is shown, (S, S, 3) uint8 RGB by number, each made when it is first asked for.

    The whole picture, or with `corner` (x, y from 0 to 1, of the room that the crop leaves) a crop of it.
    """

    def __init__(
        self, frames: Mapping[int, np.ndarray], size: int, corner: tuple[float, float] | None = None
    ):
        self._frames, self._size, self._corner = frames, size, corner
        self._greys: dict[int, np.ndarray] = {}

    def __missing__(self, number: int) -> np.ndarray:
        frame, size = self._frames[number], self._size
        if self._corner:
            x, y = (round(c * (len(frame) - size)) for c in self._corner)
            frame = frame[y : y + size, x : x + size]
        else:
            frame = squeeze(frame, size)
        self[number] = frame
        return frame

    def grey(self, number: int) -> np.ndarray:
        """The picture in grey, (S, S) uint8."""
        if number not in self._greys:
            self._greys[number] = cv2.cvtColor(self[number], cv2.COLOR_RGB2GRAY)
        return self._greys[number]


def images(
    frames: Mapping[int, np.ndarray],
    sample: Sampling,
    d: augment.Draw,
    size: int,
    config: FeatureConfig,
    whole: Pictures | None = None,
) -> dict[str, np.ndarray]:
    """The images of each stream of the config: name -> (T, S, S, 3) uint8, where S is `size`.

    `frames`: number -> RGB (F, F, 3) uint8, those of `sample` at least; F is `frame_side(size, config)`. `whole`: of
    them, where variants share it.
    """
    whole = Pictures(frames, size) if whole is None else whole
    shown = whole
    if d.focus:
        corner = focus.corner([whole.grey(i) for i in sample.base.tolist()], config.focus)
        shown = Pictures(frames, size, corner)
    augmenter = augment.Augmenter(d, size)
    out = {}
    if "rgb" in config.streams:
        out["rgb"] = np.empty((len(sample.base), size, size, 3), np.uint8)
        for image, i in zip(out["rgb"], sample.base.tolist(), strict=True):
            augmenter.colour(shown[i], i, image)
    if "motion" in config.streams:
        out["motion"] = np.empty((len(sample.motion), size, size, 3), np.uint8)
        for image, row in zip(out["motion"], sample.motion.tolist(), strict=True):
            _motion(augmenter.grey([shown.grey(i) for i in row], row), config.motion_gain, image)
    return out


def _motion(grey: np.ndarray, gain: float, out: np.ndarray) -> None:
    """Put three successive differences of four grey frames (S, S, 4) into the channels of `out`, (S, S, 3) uint8."""
    row = grey.reshape(1, -1)  # neighbours in memory are successive frames' same pixel, but for every fourth
    steps = np.empty_like(row)
    cv2.absdiff(row[:, :-1], row[:, 1:], dst=steps[:, :-1])
    three = cv2.cvtColor(steps.reshape(grey.shape), cv2.COLOR_RGBA2RGB)
    cv2.convertScaleAbs(three, dst=out, alpha=gain)


def clip_variants(
    path: Path, clip_id: str, variants: Sequence[str], size: int, config: FeatureConfig
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Decode a clip once and yield (variant, {stream: (T, S, S, 3) uint8}) for each variant asked for.

    Raises UnreadableVideo naming the file.
    """
    draws = _draws(clip_id, variants, config)

    def samplings(info: decode.VideoInfo) -> dict[str, Sampling]:
        window = middle_window(info, config.window_s)
        return {v: sampling(info, window, d, config) for v, d in draws.items()}

    def plan(info: decode.VideoInfo) -> Sequence[int]:
        return sorted(frozenset[int]().union(*(s.frames for s in samplings(info).values())))

    resize = resizer(frame_side(size, config))
    info, frames = decode.decode(path, plan, resize, threads=1)  # clips are decoded side by side
    whole = Pictures(frames, size)
    for variant, sample in samplings(info).items():
        yield variant, images(frames, sample, draws[variant], size, config, whole)


def window_variants(
    path: Path,
    clip_id: str,
    info: decode.VideoInfo,
    windows: Sequence[Window],
    variants: Sequence[str],
    size: int,
    config: FeatureConfig,
) -> Iterator[dict[str, dict[str, np.ndarray]]]:
    """For each window of a video, {variant: {stream: (T, S, S, 3) uint8}}; one decode, whatever the length.

    A window gets the images that the same stretch would get as a clip, but that the motion at its end may look on, into
    what follows it. Raises UnreadableVideo naming the file.
    """
    draws = _draws(clip_id, variants, config)
    plans = [{v: sampling(info, w, d, config) for v, d in draws.items()} for w in windows]
    groups = [frozenset[int]().union(*(s.frames for s in plan.values())) for plan in plans]
    decoded = decode.decode_groups(path, groups, resizer(frame_side(size, config)))
    for plan, frames in zip(plans, decoded, strict=True):
        whole = Pictures(frames, size)
        yield {v: images(frames, sample, draws[v], size, config, whole) for v, sample in plan.items()}


def _draws(clip_id: str, variants: Sequence[str], config: FeatureConfig) -> dict[str, augment.Draw]:
    return {v: augment.draw(config.augment_seed, clip_id, v, config.focus > 0) for v in variants}
