"""From a video file to the pictures a backbone sees, the one path for training, evaluation and prediction.

Each stream turns a window's T frames into T pictures: `rgb` the frames themselves, `motion` how the picture changes
over the next three steps of `motion_spacing_s`, the absolute difference of each step in a channel of its own, `crop`
the part of the frames in which most moves, `moving` the frames less what stands still, on mid-grey.
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

#: Pixels that frames keep at most along their longer side for a closer look: a third of it is the input of a network.
NEAR_SIDE = 640


def halved(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) with half as many pixels along each side, each the mean of four where H and W are even."""
    height, width, _ = picture.shape
    return cv2.resize(picture, (max(width // 2, 1), max(height // 2, 1)), interpolation=cv2.INTER_LINEAR)


def resize(picture: np.ndarray, size: int, half: np.ndarray | None = None) -> np.ndarray:
    """The whole picture (H, W, 3) as (size, size, 3) uint8, itself if it has that size.

    Bilinear, after each side has been halved while it is at least twice `size`; of what is then left, always below 2:1,
    pixels count unequally. Averaging over areas does not have that, takes three to eight times as long and is no more
    accurate (docs/results.md). `half`: the picture `halved`, where somebody has it.
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


#: A decoded frame as it is kept: (F, F, 3) uint8, or for the stream `crop` at two sizes.
KeptFrame: TypeAlias = Any


def letterboxed(picture: np.ndarray, size: int) -> np.ndarray:
    """The whole picture (H, W, 3) in its own shape in the middle of (size, size, 3) uint8, black beside it.

    Itself if it has that size.
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
    """Frames (H, W, 3) to (size, size, 3): the whole picture, squeezed, or where the settings say so letterboxed.

    What is returned takes a frame, and what `resize` calls its `half`.
    """
    if config and config.letterbox:
        return lambda frame, half=None: letterboxed(frame, size)
    return lambda frame, half=None: resize(frame, size, half)


def frame_side(size: int, config: ClipConfig) -> int:
    """Side at which decoded frames are kept, so that a crop of `focus` of it has the backbone's input size."""
    return round(size / config.focus) if config.focus else size


def crop_side(size: int, config: ClipConfig) -> int:
    """Side of the larger picture that the stream `crop` is cut from, 0 without that stream."""
    if "crop" not in config.streams:
        return 0
    from violence_detection.video import focus  # few models look at a crop

    return round(size / focus.STREAM_SIDE)


def keeper(size: int, config: ClipConfig) -> Callable[..., KeptFrame]:
    """What is kept of a decoded frame (H, W, 3): it is shrunk at once, so that memory stays small.

    What is returned takes a frame, and what `resize` calls its `half`.
    """
    whole, large = frame_resizer(frame_side(size, config), config), crop_side(size, config)
    if not large:
        return whole
    larger = frame_resizer(large, config)
    return lambda frame, half=None: (whole(frame, half), larger(frame, half))


def near(frame: np.ndarray, half: np.ndarray | None = None) -> np.ndarray:
    """What is kept of a frame (H, W, 3) uint8 for a closer look: itself, or shrunk to NEAR_SIDE along its longer side.

    Shrunk as `resize` does it. `half`: the frame `halved`, where somebody has it.
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
    """A frame (H, W, 3) uint8 kept for a closer look: its `picture`, as `near` has it, and what the look goes by.

    `small`: the frame as `resize` makes it with the side focus.CLOSER_GREY, `half`: the frame `halved`, where somebody
    has made them.
    """

    def __init__(self, frame: np.ndarray, small: np.ndarray | None = None, half: np.ndarray | None = None):
        self.picture = near(frame, half)
        # a frame that was shrunk first gives other pixels
        self._small = small if self.picture is frame else None

    @functools.cached_property
    def grey(self) -> np.ndarray:
        """The whole picture, (G, G) uint8, G being focus.CLOSER_GREY. Made when asked for: windows share frames."""
        from violence_detection.video import focus

        small = resize(self.picture, focus.CLOSER_GREY) if self._small is None else self._small
        return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)


def closer_square(nears: Sequence[NearFrame]) -> Square | None:
    """Where a closer look at these frames looks; None where it would see the whole picture again."""
    from violence_detection.video import focus

    return focus.closer([frame.grey for frame in nears])


def closer_images(
    nears: Mapping[int, NearFrame], square: Square, sample: sampling.Sampling, size: int, config: ClipConfig
) -> dict[str, np.ndarray]:
    """The images of each stream, as `images` has them, of a part of the picture. `nears`: frames by number."""
    keep = keeper(size, config)
    frames = {number: keep(square.of(nears[number].picture)) for number in sample.frames}
    return images(frames, sample, augment.Draw(), size, config)


class Pictures(dict[int, np.ndarray]):
    """What of each frame is shown, (S, S, 3) uint8 RGB by number, each made when it is first asked for.

    The whole picture, or with `crop_at` (x, y from 0 to 1, of the room that the crop leaves) a crop of it.
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

    `frames`: number -> RGB (F, F, 3) uint8, those of `sample` at least, F being `frame_side(size, config)`; for the
    stream `crop` that and the larger picture that is cut. `whole`: of them, where variants share it.
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
    """Frames (T, S, S, 3) uint8 less what stands still, on mid-grey: where nothing moves, all is 127.

    What stands still is the median over time.
    """
    low, high = _middle(frames)
    still = low + (high - low) // 2
    moved, grey = np.empty_like(frames), np.full_like(still, 127)
    for frame, out in zip(frames, moved, strict=True):  # each sum and difference ends at 0 and 255
        brighter = cv2.add(grey, cv2.subtract(frame, still))
        cv2.subtract(brighter, cv2.subtract(still, frame), dst=out)
    return moved


def _middle(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each value the two in the middle of time, the lower and the higher; of an odd number of frames one, twice.

    By a sorting network, whole frames at a time: Batcher's odd-even merge sort (1968, "Sorting networks and their
    applications"). `without_still` of 32 frames of 224 takes 7 ms so, and 57 where each pixel's values are partitioned.
    """
    rows, swapped = [*frames.copy()], np.empty_like(frames[0])
    for a, b in _comparisons(len(rows)):
        np.minimum(rows[a], rows[b], out=swapped)
        np.maximum(rows[a], rows[b], out=rows[b])
        rows[a], swapped = swapped, rows[a]
    return rows[(len(rows) - 1) // 2], rows[len(rows) // 2]


@functools.cache
def _comparisons(count: int) -> tuple[tuple[int, int], ...]:
    """Which of `count` rows are compared, in order: of each pair the lower value goes to the first.

    Comparisons on which neither row in the middle depends are left out.
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
    row = grey.reshape(1, -1)  # neighbours in memory are successive frames' same pixel, but for every fourth
    steps = np.empty_like(row)
    cv2.absdiff(row[:, :-1], row[:, 1:], dst=steps[:, :-1])
    three = cv2.cvtColor(steps.reshape(grey.shape), cv2.COLOR_RGBA2RGB)
    cv2.convertScaleAbs(three, dst=out, alpha=gain)


def clip_variants(
    path: Path, clip_id: str, variants: Sequence[str], size: int, config: ClipConfig
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Decode a clip once and yield (variant, {stream: (T, S, S, 3) uint8}) for each variant asked for.

    The closer look has no images, {}, where they would be the plain clip's.
    Raises UnreadableVideo naming the file, also where its disk does not give it or too few frames tell of movement.
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
        info, frames = decode.read(path, plan, kept, threads=1)  # clips are decoded side by side
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
    """The whole picture of each frame."""
    return Pictures({number: whole_of(frame) for number, frame in frames.items()}, size)


def draws_of(clip_id: str, variants: Sequence[str], config: ClipConfig) -> dict[str, augment.Draw]:
    return {v: augment.draw(config.augment_seed, clip_id, v, config.focus > 0) for v in variants}
