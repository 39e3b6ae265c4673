"""Turns a video file into the pictures that a backbone sees. Training, evaluation and prediction all use this code.

Each stream turns a window's T frames into T pictures:
    `rgb`       the frames themselves
    `motion`    how the picture changes over the next three steps of `motion_spacing_s`: the absolute difference of each
                step, in a channel of its own
    `crop`      the part of the frames in which most moves
    `moving`    the frames less what stands still, on mid-grey
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np

from violence_detection.errors import NOT_READ, UnreadableVideo
from violence_detection.video import augment, decode, sampling
from violence_detection.video.config import ClipConfig

if TYPE_CHECKING:
    from violence_detection.video.focus import Square

#: Frames kept for a closer look are shrunk to at most this many pixels along their longer side, about three times the
#: side of a network's input.
NEAR_SIDE = 640


def halved(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) at half its width and height. Each pixel is the mean of four where H and W are even."""
    height, width, _ = picture.shape
    return cv2.resize(picture, (max(width // 2, 1), max(height // 2, 1)), interpolation=cv2.INTER_LINEAR)


def resize(picture: np.ndarray, size: int, half: np.ndarray | None = None) -> np.ndarray:
    """The whole picture (H, W, 3) squeezed to (size, size, 3) uint8; the picture itself if it has that size.

    Each side is halved while it is at least twice `size`; the rest, always less than 2:1, is a bilinear reduction,
    which weighs pixels unequally. Averaging over areas would weigh them equally, but takes three to eight times as long
    and makes nothing more accurate (docs/results.md). `half`: the result of `halved`, if it has been computed.
    """
    if half is not None and min(picture.shape[:2]) >= 2 * size:
        picture = half
    height, width, _ = picture.shape
    while height >= 2 * size or width >= 2 * size:
        height, width = (side // 2 if side >= 2 * size else side for side in (height, width))
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    if (height, width) == (size, size):
        return picture
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)


#: A decoded frame as it is kept: (F, F, 3) uint8, or with the stream `crop` a pair of them at two sizes.
KeptFrame: TypeAlias = Any


def letterboxed(picture: np.ndarray, size: int) -> np.ndarray:
    """The whole picture (H, W, 3), its shape kept, in the middle of a black square (size, size, 3) uint8.

    The picture itself if it has that size.
    """
    height, width, _ = picture.shape
    if (height, width) == (size, size):
        return picture
    scale = size / max(height, width)
    height, width = (max(1, round(side * scale)) for side in (height, width))
    top, left = (size - height) // 2, (size - width) // 2
    square = np.zeros((size, size, 3), np.uint8)
    square[top : top + height, left : left + width] = cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    return square


def frame_resizer(size: int, config: ClipConfig | None = None) -> Callable[..., np.ndarray]:
    """A function that makes (size, size, 3) of a frame (H, W, 3): squeezed, or letterboxed if the settings say so.

    The function accepts the `half` of `resize` as its second argument.
    """
    if config and config.letterbox:
        return lambda frame, half=None: letterboxed(frame, size)
    return lambda frame, half=None: resize(frame, size, half)


def frame_side(size: int, config: ClipConfig) -> int:
    """Side at which decoded frames are kept: large enough that a crop of `config.focus` of it has side `size`."""
    return round(size / config.focus) if config.focus else size


def crop_side(size: int, config: ClipConfig) -> int:
    """Side of the larger picture from which the stream `crop` is cut; 0 without that stream."""
    if "crop" not in config.streams:
        return 0
    from violence_detection.video import focus  # imported only here: few models look at a crop

    return round(size / focus.STREAM_SIDE)


def keeper(size: int, config: ClipConfig) -> Callable[..., KeptFrame]:
    """A function that makes of a decoded frame (H, W, 3) what is kept of it: a shrunk copy, to save memory.

    The function accepts the `half` of `resize` as its second argument.
    """
    whole, large = frame_resizer(frame_side(size, config), config), crop_side(size, config)
    if not large:
        return whole
    larger = frame_resizer(large, config)
    return lambda frame, half=None: (whole(frame, half), larger(frame, half))


def near(frame: np.ndarray, half: np.ndarray | None = None) -> np.ndarray:
    """A frame (H, W, 3) uint8 as it is kept for a closer look: shrunk if its longer side exceeds NEAR_SIDE.

    It is shrunk in the way of `resize`. `half`: the result of `halved`, if it has been computed.
    """
    scale = NEAR_SIDE / max(frame.shape[:2])
    if scale >= 1:
        return frame
    height, width = (max(round(n * scale), 1) for n in frame.shape[:2])
    while max(frame.shape[:2]) >= 2 * NEAR_SIDE:
        frame, half = halved(frame) if half is None else half, None
    if frame.shape[:2] == (height, width):
        return frame
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)


class NearFrame:
    """A frame (H, W, 3) uint8 kept for a closer look: `picture`, made by `near`, and `grey`, to find where to look.

    `small`: the frame resized to side focus.CLOSER_GREY, `half`: the frame `halved`, each if it has been computed.
    """

    def __init__(self, frame: np.ndarray, small: np.ndarray | None = None, half: np.ndarray | None = None):
        self.picture = near(frame, half)
        # Where `near` has shrunk the frame, `grey` is made from the shrunk one, whose pixels are not those of `small`.
        self._small = small if self.picture is frame else None

    @functools.cached_property
    def grey(self) -> np.ndarray:
        """The whole picture in grey, (G, G) uint8, where G is focus.CLOSER_GREY. Kept, because windows share frames."""
        from violence_detection.video import focus

        small = resize(self.picture, focus.CLOSER_GREY) if self._small is None else self._small
        return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def closer_square(nears: Sequence[NearFrame]) -> Square | None:
    """The part of these frames that a closer look shows; None where it would show the whole picture again."""
    from violence_detection.video import focus

    return focus.closer([frame.grey for frame in nears])


def closer_images(
    nears: Mapping[int, NearFrame], square: Square, sample: sampling.Sampling, size: int, config: ClipConfig
) -> dict[str, np.ndarray]:
    """The images of each stream, as `images` returns them, of the part `square` of the frames. `nears`: by number."""
    keep = keeper(size, config)
    frames = {number: keep(square.of(nears[number].picture)) for number in sample.frames}
    return images(frames, sample, augment.Draw(), size, config)


class Pictures(dict[int, np.ndarray]):
    """Frame number -> the picture that is shown of the frame, (S, S, 3) uint8 RGB, made when it is first read.

    The whole frame, or with `crop_at` a crop of it: x and y from 0 to 1, fractions of the room that the crop leaves.
    """

    def __init__(
        self, frames: Mapping[int, np.ndarray], size: int, crop_at: tuple[float, float] | None = None
    ):
        self._frames, self._size, self._crop_at = frames, size, crop_at
        self._greys: dict[int, np.ndarray] = {}

    def __missing__(self, number: int) -> np.ndarray:
        frame, size = self._frames[number], self._size
        if self._crop_at:
            x, y = (round(c * (len(frame) - size)) for c in self._crop_at)
            frame = frame[y : y + size, x : x + size]
        else:
            frame = resize(frame, size)
        self[number] = frame
        return frame

    def grey(self, number: int) -> np.ndarray:
        """The picture in grey, (S, S) uint8."""
        if number not in self._greys:
            self._greys[number] = cv2.cvtColor(self[number], cv2.COLOR_RGB2GRAY)
        return self._greys[number]


def images(
    frames: Mapping[int, KeptFrame],
    sample: sampling.Sampling,
    d: augment.Draw,
    size: int,
    config: ClipConfig,
    whole: Pictures | None = None,
) -> dict[str, np.ndarray]:
    """The images of each stream of the config: name -> (T, S, S, 3) uint8, where S is `size`.

    `frames`: number -> RGB (F, F, 3) uint8, where F is `frame_side(size, config)`; at least those of `sample`. With the
    stream `crop` each is a pair of that and the larger picture from which the crop is cut. `whole`: the result of
    `whole_pictures` for these frames, where variants share it.
    """
    large: dict[int, np.ndarray] = {}
    if "crop" in config.streams:
        large = {number: both[1] for number, both in frames.items()}
        frames = {number: both[0] for number, both in frames.items()}
    whole = Pictures(frames, size) if whole is None else whole
    shown = whole
    numbers = sample.base.tolist()
    if d.focus:
        from violence_detection.video import focus

        crop_at = focus.crop_position([whole.grey(i) for i in numbers], config.focus)
        shown = Pictures(frames, size, crop_at)
    augmenter = augment.Augmenter(d, size)

    def coloured(pictures: Pictures) -> np.ndarray:
        made = np.empty((len(numbers), size, size, 3), np.uint8)
        for image, i in zip(made, numbers, strict=True):
            augmenter.colour(pictures[i], i, image)
        return made

    out = {}
    if {"rgb", "moving"} & set(config.streams):
        out["rgb"] = coloured(shown)
    if "crop" in config.streams:
        from violence_detection.video import focus

        crop_at = focus.crop_position([whole.grey(i) for i in numbers], focus.STREAM_SIDE)
        out["crop"] = coloured(Pictures(large, size, crop_at))
    if "moving" in config.streams:
        out["moving"] = without_still(out["rgb"])
    if "motion" in config.streams:
        out["motion"] = np.empty((len(sample.motion), size, size, 3), np.uint8)
        for image, row in zip(out["motion"], sample.motion.tolist(), strict=True):
            _motion(augmenter.grey([shown.grey(i) for i in row], row), config.motion_gain, image)
    return {name: out[name] for name in config.streams}


def without_still(frames: np.ndarray) -> np.ndarray:
    """Subtract what stands still, the median over time, from frames (T, S, S, 3) uint8, and add mid-grey.

    Where nothing moves, the result is 127.
    """
    low, high = _middle(frames)
    still = low + (high - low) // 2
    moved, grey = np.empty_like(frames), np.full_like(still, 127)
    for frame, out in zip(frames, moved, strict=True):  # every step saturates at 0 or 255
        brighter = cv2.add(grey, cv2.subtract(frame, still))
        cv2.subtract(brighter, cv2.subtract(still, frame), dst=out)
    return moved


def _middle(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower and the higher median over time of each value, (S, S, 3); the same for an odd number of frames.

    Computed by a sorting network on whole frames: Batcher's odd-even merge sort (1968, "Sorting networks and their
    applications"). With it `without_still` takes 7 ms for 32 frames of side 224; partitioning each pixel's values would
    make that 57 ms.
    """
    rows, swapped = [*frames.copy()], np.empty_like(frames[0])
    for a, b in _comparisons(len(rows)):
        np.minimum(rows[a], rows[b], out=swapped)
        np.maximum(rows[a], rows[b], out=rows[b])
        rows[a], swapped = swapped, rows[a]
    return rows[(len(rows) - 1) // 2], rows[len(rows) // 2]


@functools.cache
def _comparisons(count: int) -> tuple[tuple[int, int], ...]:
    """The pairs of `count` rows that the sorting network compares, in order. The lower value goes to the first row.

    Comparisons that affect neither of the middle rows are left out.
    """
    pairs = []
    size = 1
    while size < count:
        step = size
        while step:
            for start in range(step % size, count - step, 2 * step):
                for a in range(start, min(start + step, count - step)):
                    if a // (2 * size) == (a + step) // (2 * size):
                        pairs.append((a, a + step))
            step //= 2
        size *= 2
    needed, kept = {(count - 1) // 2, count // 2}, []
    for pair in reversed(pairs):
        if needed & {*pair}:
            needed |= {*pair}
            kept.append(pair)
    return tuple(reversed(kept))


def _motion(grey: np.ndarray, gain: float, out: np.ndarray) -> None:
    """Put three successive differences of four grey frames (S, S, 4) into the channels of `out`, (S, S, 3) uint8."""
    # Neighbours in memory are the same pixel of successive frames, except after every fourth value; those differences
    # are dropped as the fourth channel.
    row = grey.reshape(1, -1)
    steps = np.empty_like(row)
    cv2.absdiff(row[:, :-1], row[:, 1:], dst=steps[:, :-1])
    three = cv2.cvtColor(steps.reshape(grey.shape), cv2.COLOR_RGBA2RGB)
    cv2.convertScaleAbs(three, dst=out, alpha=gain)


def clip_variants(
    path: Path, clip_id: str, variants: Sequence[str], size: int, config: ClipConfig
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Decode a clip once and yield (variant, {stream: (T, S, S, 3) uint8}) for each variant asked for.

    The closer look is yielded with {} where its images would be those of the plain clip.
    Raises UnreadableVideo, naming the file, if it does not decode, the system cannot read it, or it has too few
    different frames to show movement.
    """
    draws = draws_of(clip_id, variants, config)

    def samplings(info: decode.VideoInfo) -> dict[str, sampling.Sampling]:
        window = sampling.middle_window(info, config.window_s)
        return {v: sampling.sample(info, window, d, config) for v, d in draws.items()}

    def plan(info: decode.VideoInfo) -> Sequence[int]:
        return sorted(frozenset[int]().union(*(s.frames for s in samplings(info).values())))

    nears: dict[int, NearFrame] = {}
    keep = keeper(size, config)
    looks_closer = augment.CLOSER in variants

    def kept(frame: np.ndarray) -> Any:
        return (keep(frame), NearFrame(frame)) if looks_closer else keep(frame)

    try:
        # one thread, since many clips are decoded at once
        info, frames = decode.read(path, plan, kept, threads=1)
    except OSError as e:
        raise UnreadableVideo(path, f"{NOT_READ}{e.strerror or e}") from e
    if looks_closer:
        nears = {number: both[1] for number, both in frames.items()}
        frames = {number: both[0] for number, both in frames.items()}
    if not sampling.shows_movement(info, sampling.middle_window(info, config.window_s)):
        raise UnreadableVideo(path, sampling.too_still(info, config.window_s))
    whole = whole_pictures(frames, size)
    for variant, sample in samplings(info).items():
        if variant == augment.CLOSER:
            square = closer_square([nears[number] for number in sample.base.tolist()])
            yield variant, closer_images(nears, square, sample, size, config) if square else {}
            continue
        yield variant, images(frames, sample, draws[variant], size, config, whole)


def whole_of(frame: KeptFrame) -> np.ndarray:
    """The whole picture of a kept frame, (F, F, 3) uint8."""
    return frame[0] if isinstance(frame, tuple) else frame


def whole_pictures(frames: Mapping[int, KeptFrame], size: int) -> Pictures:
    """Whole pictures of kept frames, (size, size, 3) each, by frame number."""
    return Pictures({number: whole_of(frame) for number, frame in frames.items()}, size)


def draws_of(clip_id: str, variants: Sequence[str], config: ClipConfig) -> dict[str, augment.Draw]:
    return {v: augment.draw(config.augment_seed, clip_id, v, config.focus > 0) for v in variants}
