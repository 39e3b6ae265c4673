"""Clip-consistent augmentation: one draw of parameters for all frames of a clip and variant.

Per-frame randomness would destroy the motion that tells a fight from a hug. A variant has a name, and the seed, the
clip id and that name alone determine its parameters:
    "v0"        the plain clip
    "v1", ...   training variants: geometry, light, blur, noise, erasing, another time window
    "w1", ...   test-time views: every second one mirrored, all slightly shifted in time, place and scale; a backbone
                that looks at part of a window sees another part of it
    "c3"        the closer look at the plain clip: only the part of the picture that contains all or most of what moves,
                if that part is small (focus.closer); otherwise the plain clip again
With `FeatureConfig.focus`, "v2", "v4", ... and "w2", "w3", "w6", "w7", ... show the part of the picture in which most
moves (see focus.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import cv2
import numpy as np

from violence_detection.system.storage import stable_seed

PLAIN = "v0"
#: Prefix of the names of test-time views. Earlier versions had "t": those views all looked at the middle of a window.
VIEW = "w"
#: Name of the closer look. Give it another number when the rule for what it shows changes: features are cached by it.
CLOSER = "c3"
_LUMA = (0.299, 0.587, 0.114)  # of R, G, B
_BLUR_SIDES = (5, 5)  # of the kernel, which contains all but 3 % of the weight of the largest sigma, 1.2
_NOISE_ROOM = 64  # pixels by which the noise tile is larger than a frame
_NOISE_PLACES = 1024  # frames after which the noise repeats
#: For backbones that look at part of a window: where the plain view and the test-time views look, in turn, as
#: `Draw.place`. The first three together see nearly all of a window that is twice as long as the part. A little is
#: missing because views are slightly shortened.
_VIEWED = (0.5, 0.0, 1.0, 0.5, 0.25, 0.75)


@dataclass(frozen=True)
class Ranges:
    """Half-widths, probabilities and limits from which the parameters of a draw come.

    `shift` and `erase_side` are fractions of the frame's side.
    """

    flip_p: float = 0.5
    rotation_deg: float = 10.0
    shift: float = 0.08
    zoom: float = 0.15
    shear_deg: float = 5.0
    brightness: float = 35.0  # grey levels
    contrast: float = 0.25
    channel_shift: float = 15.0  # grey levels
    blur_p: float = 0.2
    noise_p: float = 0.3
    noise_std: float = 8.0  # grey levels; the most that is drawn
    erase_p: float = 0.25
    erase_side: float = 0.35
    shortest_window: float = 0.7  # fraction of the plain window: changes its start and the speed


TRAIN = Ranges()
TEST_TIME = Ranges(
    rotation_deg=0, shift=0.04, zoom=0.06, shear_deg=0, brightness=0, contrast=0, channel_shift=0, blur_p=0,
    noise_p=0, erase_p=0, shortest_window=0.85,
)  # fmt: skip


def settings() -> dict[str, dict[str, float]]:
    """All ranges, for the feature cache's key."""
    # The keys of existing caches contain the probability of playing a clip backwards, which was always 0. Without it
    # no existing cache would be found, and all features would be extracted again.
    gone = {"reverse_p": 0.0}
    return {"train": asdict(TRAIN) | gone, "test_time": asdict(TEST_TIME) | gone}


@dataclass(frozen=True)
class Draw:
    """The parameters of one variant of one clip. The defaults change nothing."""

    flip: bool = False
    rotation_deg: float = 0.0
    shift_x: float = 0.0
    shift_y: float = 0.0
    zoom: float = 1.0
    shear_deg: float = 0.0
    brightness: float = 0.0
    contrast: float = 1.0
    channel_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    blur_sigma: float = 0.0
    noise_std: float = 0.0
    erase: tuple[float, float, float, float] | None = None  # x, y, width, height as fractions
    #: For a backbone that looks at part of the window: how much of the rest lies before that part, as a fraction.
    place: float = 0.5
    window_start: float = 0.0  # fraction of the time that a shorter window leaves free
    window_length: float = 1.0  # fraction of the plain window
    noise_seed: int = 0
    focus: bool = False


def variant_names(prefix: str, count: int) -> tuple[str, ...]:
    """The names of `count` variants: "v0", the plain clip, then prefix + "1" and so on. `prefix`: "v" or `VIEW`."""
    return (PLAIN, *(f"{prefix}{i}" for i in range(1, count)))


def views(count: int, closer_look: bool = False) -> tuple[str, ...]:
    """The names of `count` test-time views, the plain one first, followed by the closer look if it is taken."""
    return (*variant_names(VIEW, count), *([CLOSER] if closer_look else ()))


def draw(seed: int, clip_id: str, variant: str, focus: bool = False) -> Draw:
    """The parameters of a variant; those of the plain clip and of the closer look change nothing.

    `focus`: every second training variant, and two of every four views, show a crop. Raises ValueError for a variant of
    an earlier version.
    """
    if variant in (PLAIN, CLOSER):
        return Draw()
    number = int(variant[1:])
    if variant.startswith("v"):
        drawn = _draw(np.random.default_rng(stable_seed(seed, clip_id, variant)), TRAIN)
        return replace(drawn, focus=focus and number % 2 == 0)
    if not variant.startswith(VIEW):
        raise ValueError(f"this version has no variant {variant}")
    drawn = _draw(np.random.default_rng(stable_seed(seed, clip_id, f"t{number}")), TEST_TIME)
    # mirrored and unmirrored views alternate, so that any number of views is balanced
    return replace(
        drawn,
        flip=number % 2 == 1,
        focus=focus and number % 4 >= 2,
        place=_VIEWED[number % len(_VIEWED)],
    )


def _draw(rng: np.random.Generator, r: Ranges) -> Draw:
    def within(half_width: float) -> float:
        return float(rng.uniform(-half_width, half_width))

    # The fifth number is not used. It is drawn so that the numbers after it stay those of the variants in caches.
    flip, blur, noise, erase = rng.random(5)[:4] < (r.flip_p, r.blur_p, r.noise_p, r.erase_p)
    width, height = rng.uniform(0.1, max(r.erase_side, 0.1), 2)
    x, y = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    length = float(rng.uniform(r.shortest_window, 1.0))
    return Draw(
        flip=bool(flip),
        rotation_deg=within(r.rotation_deg),
        shift_x=within(r.shift),
        shift_y=within(r.shift),
        zoom=1.0 + within(r.zoom),
        shear_deg=within(r.shear_deg),
        brightness=within(r.brightness),
        contrast=1.0 + within(r.contrast),
        channel_shift=(within(r.channel_shift), within(r.channel_shift), within(r.channel_shift)),
        blur_sigma=float(rng.uniform(0.4, 1.2)) * bool(blur),
        noise_std=float(rng.uniform(1.0, max(r.noise_std, 1.0))) * bool(noise),
        erase=(float(x), float(y), float(width), float(height)) if erase else None,
        window_start=float(rng.random()),
        window_length=length,
        noise_seed=int(rng.integers(2**31)),
    )


class Augmenter:
    """Alters square frames of side `size` by one draw: all in the same way, except that each frame has its own noise.

    Grey frames are altered directly, at a fraction of the cost of colour. Up to rounding and clipping the result is the
    altered colour frame turned to grey: the shifts of the channels are weighted as luma weighs the channels.
    """

    def __init__(self, d: Draw, size: int):
        only_time = Draw(
            place=d.place, window_start=d.window_start, window_length=d.window_length, focus=d.focus
        )
        self._identity = replace(d, noise_seed=0) == only_time
        self._draw, self._size = d, size
        self._maps = None if self._identity else _maps(_matrix(d, size), size)
        # buffers that every frame overwrites, which is faster than allocating memory for each
        self._packed, self._warped = (np.empty((size, size, 4), np.uint8) for _ in range(2))
        self._box = _erase_box(d, size)
        offset = 128 - 128 * d.contrast + d.brightness  # contrast is about mid-grey
        self._grey_offset = offset + float(np.dot(_LUMA, d.channel_shift))
        self._light = np.hstack(
            [d.contrast * np.eye(3), offset + np.array(d.channel_shift)[:, None]], dtype=np.float32
        )
        self._noise = _noise(d, size) if d.noise_std else None
        # Corners of the parts of the noise tile that the frames get. Drawn here for all frames: a random generator per
        # frame would cost as much as the noise itself.
        rng = np.random.default_rng((d.noise_seed, 1))
        self._corners = rng.integers(0, _NOISE_ROOM, (_NOISE_PLACES, 2)).tolist() if d.noise_std else []

    def colour(self, frame: np.ndarray, number: int, out: np.ndarray) -> None:
        """Write the altered RGB frame (S, S, 3) uint8 into `out`. `number`: its frame number; selects its noise."""
        if self._identity:
            out[...] = frame
            return
        # OpenCV warps four channels in half the time of three
        packed = cv2.cvtColor(frame, cv2.COLOR_RGB2RGBA, dst=self._packed)
        warped = self._warp(packed)
        cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=out)
        cv2.transform(out, self._light, dst=out)
        self._degrade(out, [number] * 3)

    def grey(self, frames: Sequence[np.ndarray], numbers: Sequence[int]) -> np.ndarray:
        """Alter four grey uint8 frames (S, S) in one pass; returns them as the channels of one image, (S, S, 4).

        The next call overwrites the returned image.
        """
        packed = cv2.merge(frames, dst=self._packed)
        if self._identity:
            return packed
        warped = self._warp(packed)
        cv2.addWeighted(warped, self._draw.contrast, warped, 0, self._grey_offset, dst=warped)
        self._degrade(warped, numbers)
        return warped

    def _warp(self, image: np.ndarray) -> np.ndarray:
        assert self._maps
        return cv2.remap(
            image, *self._maps, cv2.INTER_LINEAR, dst=self._warped, borderMode=cv2.BORDER_REPLICATE
        )

    def _degrade(self, image: np.ndarray, numbers: Sequence[int]) -> None:
        """Blur, add noise and erase, in place. `numbers`: the frame number of each channel of the image (S, S, K)."""
        if self._draw.blur_sigma:
            cv2.GaussianBlur(image, _BLUR_SIDES, self._draw.blur_sigma, dst=image)
        if noise := self._noise_of(numbers):
            more, less = noise
            cv2.add(image, more, dst=image)
            cv2.subtract(image, less, dst=image)
        if self._box is not None:
            image[self._box] = 127

    def _noise_of(self, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
        """What to add and what to subtract, one channel per frame number: two uint8 images (S, S, K)."""
        if self._noise is None:
            return None
        corners = [self._corners[i % len(self._corners)] for i in numbers]
        more, less = (
            cv2.merge([tile[y : y + self._size, x : x + self._size] for y, x in corners])
            for tile in self._noise
        )
        return more, less


def _noise(d: Draw, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A tile of noise, of which each frame uses its own part: its positive and its negative values, both uint8."""
    side = size + _NOISE_ROOM
    noise = np.random.default_rng(d.noise_seed).standard_normal((side, side), np.float32) * d.noise_std
    more, less = (np.clip(np.rint(half), 0, 255).astype(np.uint8) for half in (noise, -noise))
    return more, less


def _matrix(d: Draw, size: int) -> np.ndarray:
    """(2, 3) affine map about the centre: mirror, shear, rotation and zoom, then shift."""
    c = (size - 1) / 2
    angle, shear = np.deg2rad(d.rotation_deg), np.tan(np.deg2rad(d.shear_deg))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = d.zoom * rotation @ np.array([[1, shear], [0, 1]]) @ np.diag([-1.0 if d.flip else 1.0, 1.0])
    shift = np.array([c, c]) - linear @ np.array([c, c]) + size * np.array([d.shift_x, d.shift_y])
    return np.hstack([linear, shift[:, None]])


def _maps(matrix: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the altered frame comes from, x and y: two (S, S) float32, mirrored at the edges.

    Computed once for all frames of a clip: `warpAffine`, which computes this for every frame, takes a third longer.
    """
    (a, b, x0), (c, d, y0) = cv2.invertAffineTransform(matrix)
    place, last = np.arange(size), size - 1
    x = np.abs(np.add.outer(b * place + x0, a * place))
    y = np.abs(np.add.outer(d * place + y0, c * place))
    return tuple(np.where(v > last, 2 * last - v, v).astype(np.float32) for v in (x, y))


def _erase_box(d: Draw, size: int) -> tuple[slice, slice] | None:
    if d.erase is None:
        return None
    x, y, width, height = (round(v * size) for v in d.erase)
    return slice(y, y + height), slice(x, x + width)
