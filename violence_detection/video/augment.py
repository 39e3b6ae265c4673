"""Clip-consistent augmentation: one draw of parameters for all frames of a clip and variant.

Per-frame randomness would destroy the motion that tells a fight from a hug. A variant is named and reproducible
from (seed, clip id, variant name) alone:
    "v0"        the plain clip
    "v1", ...   training variants: geometry, light, blur, noise, erasing, another time window
    "w1", ...   test-time views: mirrored, gently shifted in time and scale; backbones that look at a part of a window
                see another part of it
    "c3"        the plain clip, closer: the part of the picture that has what moves, or most of it, where that is small
                (focus.closer); elsewhere the plain clip again
With `FeatureConfig.focus`, "v2", "v4", ... and "w2", "w3", "w6", "w7", ... show the part of the picture that moves most
(see focus.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import cv2
import numpy as np

from violence_detection.system.storage import stable_seed

PLAIN = "v0"
#: Of the names of test-time views. Those of former versions, "t", looked at the middle of a window alone.
VIEW = "w"
#: The closer look. Another rule of what it shows gets another number.
CLOSER = "c3"
_LUMA = (0.299, 0.587, 0.114)  # of R, G, B
_BLUR_SIDES = (5, 5)  # of the kernel: enough for the largest sigma, 1.2, to within 3 % of its weight
_NOISE_ROOM = 64  # pixels by which the noise tile is larger than a frame
_NOISE_PLACES = 1024  # frames after which the noise repeats
#: Where in a window test-time views look, one after another, of backbones that look at a part of it: with the plain
#: view in the middle two more see nearly all of a window twice as long as the part (each is shortened a little).
_VIEWED = (0.5, 0.0, 1.0, 0.5, 0.25, 0.75)


@dataclass(frozen=True)
class Ranges:
    """Half-widths and probabilities that parameters are drawn from; fractions are of the frame's side."""

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
    noise_std: float = 8.0  # grey levels, at most
    erase_p: float = 0.25
    erase_side: float = 0.35
    shortest_window: float = 0.7  # of the plain window: another start and another speed


TRAIN = Ranges()
TEST_TIME = Ranges(
    rotation_deg=0, shift=0.04, zoom=0.06, shear_deg=0, brightness=0, contrast=0, channel_shift=0, blur_p=0,
    noise_p=0, erase_p=0, shortest_window=0.85,
)  # fmt: skip


def settings() -> dict[str, dict[str, float]]:
    """All ranges, for the feature cache's key."""
    # Caches have been keyed with a chance of playing backwards, always 0. Without it they would all be made again.
    gone = {"reverse_p": 0.0}
    return {"train": asdict(TRAIN) | gone, "test_time": asdict(TEST_TIME) | gone}


@dataclass(frozen=True)
class Draw:
    """The parameters of one variant of one clip. The identity by default."""

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
    place: float = (
        0.5  # of a backbone that looks at a part of the window: fraction of the room before that part
    )
    window_start: float = 0.0  # fraction of the room left by a shorter window
    window_length: float = 1.0  # fraction of the plain window
    noise_seed: int = 0
    focus: bool = False


def variant_names(prefix: str, count: int) -> tuple[str, ...]:
    """`count` names: "v0", the plain clip, and count - 1 with that prefix: "v" or `VIEW`."""
    return (PLAIN, *(f"{prefix}{i}" for i in range(1, count)))


def views(count: int, closer_look: bool = False) -> tuple[str, ...]:
    """The names of `count` test-time views, the plain one first, and of the closer look behind them if it is taken."""
    return (*variant_names(VIEW, count), *([CLOSER] if closer_look else ()))


def draw(seed: int, clip_id: str, variant: str, focus: bool = False) -> Draw:
    """The parameters of a variant; the plain clip's are the identity. `focus`: half of the others show a crop."""
    if variant in (PLAIN, CLOSER):
        return Draw()
    number = int(variant[1:])
    if variant.startswith("v"):
        drawn = _draw(np.random.default_rng(stable_seed(seed, clip_id, variant)), TRAIN)
        return replace(drawn, focus=focus and number % 2 == 0)
    if not variant.startswith(VIEW):
        raise ValueError(f"no variant of this version: {variant}")
    drawn = _draw(np.random.default_rng(stable_seed(seed, clip_id, f"t{number}")), TEST_TIME)
    # views alternate so that any number of them is balanced
    return replace(
        drawn,
        flip=number % 2 == 1,
        focus=focus and number % 4 >= 2,
        place=_VIEWED[number % len(_VIEWED)],
    )


def _draw(rng: np.random.Generator, r: Ranges) -> Draw:
    def within(half_width: float) -> float:
        return float(rng.uniform(-half_width, half_width))

    # The fifth number decides nothing; what is drawn after it stays what it is in the caches.
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
    """Alters square frames of side `size` by one draw, all alike; the noise alone differs from frame to frame.

    A grey frame is altered without its colours, at a fraction of the cost: up to rounding and clipping it is the grey
    of the altered colour frame, the channel shift being weighted as luma weighs the channels.
    """

    def __init__(self, d: Draw, size: int):
        only_time = Draw(
            place=d.place, window_start=d.window_start, window_length=d.window_length, focus=d.focus
        )
        self._identity = replace(d, noise_seed=0) == only_time
        self._draw, self._size = d, size
        self._maps = None if self._identity else _maps(_matrix(d, size), size)
        # written anew for each frame, which is faster than new memory for each
        self._packed, self._warped = (np.empty((size, size, 4), np.uint8) for _ in range(2))
        self._box = _erase_box(d, size)
        offset = 128 - 128 * d.contrast + d.brightness  # contrast is about mid-grey
        self._grey_offset = offset + float(np.dot(_LUMA, d.channel_shift))
        self._light = np.hstack(
            [d.contrast * np.eye(3), offset + np.array(d.channel_shift)[:, None]], dtype=np.float32
        )
        self._noise = _noise(d, size) if d.noise_std else None
        # where a frame's part of the noise begins: a generator for each frame would cost as much as the noise
        rng = np.random.default_rng((d.noise_seed, 1))
        self._corners = rng.integers(0, _NOISE_ROOM, (_NOISE_PLACES, 2)).tolist() if d.noise_std else []

    def colour(self, frame: np.ndarray, number: int, out: np.ndarray) -> None:
        """Put an RGB uint8 frame (S, S, 3) into `out`; `number` is its place in the video, which decides its noise."""
        if self._identity:
            out[...] = frame
            return
        # four channels take half the time of three
        packed = cv2.cvtColor(frame, cv2.COLOR_RGB2RGBA, dst=self._packed)
        warped = self._warp(packed)
        cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=out)
        cv2.transform(out, self._light, dst=out)
        self._spoil(out, [number] * 3)

    def grey(self, frames: Sequence[np.ndarray], numbers: Sequence[int]) -> np.ndarray:
        """Four grey uint8 frames (S, S), altered in one pass as the channels of one image, (S, S, 4).

        What is returned is overwritten by the next call.
        """
        packed = cv2.merge(frames, dst=self._packed)
        if self._identity:
            return packed
        warped = self._warp(packed)
        cv2.addWeighted(warped, self._draw.contrast, warped, 0, self._grey_offset, dst=warped)
        self._spoil(warped, numbers)
        return warped

    def _warp(self, image: np.ndarray) -> np.ndarray:
        assert self._maps
        return cv2.remap(
            image, *self._maps, cv2.INTER_LINEAR, dst=self._warped, borderMode=cv2.BORDER_REPLICATE
        )

    def _spoil(self, image: np.ndarray, numbers: Sequence[int]) -> None:
        """Blur, noise and erasing, in place; `numbers`: the frame that each channel of the image (S, S, K) is of."""
        if self._draw.blur_sigma:
            cv2.GaussianBlur(image, _BLUR_SIDES, self._draw.blur_sigma, dst=image)
        if noise := self._noise_of(numbers):
            more, less = noise
            cv2.add(image, more, dst=image)
            cv2.subtract(image, less, dst=image)
        if self._box is not None:
            image[self._box] = 127

    def _noise_of(self, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray] | None:
        """What to add and what to subtract, a channel a frame number: two uint8 images (S, S, K)."""
        if self._noise is None:
            return None
        corners = [self._corners[i % len(self._corners)] for i in numbers]
        more, less = (
            cv2.merge([tile[y : y + self._size, x : x + self._size] for y, x in corners])
            for tile in self._noise
        )
        return more, less


def _noise(d: Draw, size: int) -> tuple[np.ndarray, np.ndarray]:
    """One tile of noise that every frame cuts its own part from: its positive and its negative half, uint8."""
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
    """Where each pixel of the altered frame comes from, x and y: two (S, S) float32. Beyond the edge it is mirrored.

    Once for all frames of a clip: `warpAffine`, which works this out for each, takes a third longer.
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
