"""Finds the part of the picture in which most moves.

A fight that a fixed camera sees from afar fills a small part of the picture. In the whole picture, squeezed to a
backbone's input, it is a few dozen pixels wide. A crop around the strongest motion shows it larger, at up to the file's
own resolution.

A crop of fixed size (`crop_position`) is shown by the stream `crop` and, with `FeatureConfig.focus`, by some variants
and views. The closer look (`closer`) is as small as what moves, and is taken only where one small part of the picture,
or a few small parts that lie apart, contain nearly all that moves.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

#: Grey levels by which a pixel may differ between frames and count as noise.
NOISE_LEVEL = 12
#: Quantile of the pixels' change at which change is capped, so that a flickering lamp or a caption does not outweigh
#: people.
CEILING = 0.995
#: Version of the rule of `crop_position`; part of the feature cache's key.
VERSION = 2
#: Side of the crop that the stream `crop` shows, as a fraction of the picture's.
STREAM_SIDE = 0.6
# The rule of the closer look. If any of it changes, so must the number in `augment.CLOSER`: features are cached by it.
#: The share of all change that the square, or the squares together, must contain.
CLOSER_SHARE = 0.9
#: The sides of a square that are tried, as fractions of the picture's.
CLOSER_SIDES = (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
#: The most squares among which the change may be divided, as where some people fight and others walk past.
CLOSER_PARTS = 3
#: The least distance between the middles of two such squares, in sides. Two squares on one body are nearer.
CLOSER_APART = 1.25
#: Side in pixels of the grey frames in which change is measured.
CLOSER_GREY = 176


@dataclass(frozen=True)
class Square:
    """A part of the picture whose width and height are the same fraction `side` of the picture's.

    `x`, `y`: its position, from 0 (left, top) to 1 (right, bottom), as a fraction of the room that it leaves.
    """

    side: float
    x: float
    y: float

    def of(self, frame: np.ndarray) -> np.ndarray:
        """That part of a frame (H, W, ...), as a view of it."""
        height, width = (max(round(n * self.side), 1) for n in frame.shape[:2])
        top, left = round((len(frame) - height) * self.y), round((frame.shape[1] - width) * self.x)
        return frame[top : top + height, left : left + width]


def crop_position(greys: Sequence[np.ndarray], side: float) -> tuple[float, float]:
    """Find the square crop in which most changes from frame to frame.

    `greys`: T frames (S, S) uint8 in order; `side`: of the crop, as a fraction of the picture's, in (0, 1).
    Returns the crop's x and y, from 0 (left, top) to 1 (right, bottom), as fractions of the room that it leaves; 0.5
    and 0.5 if nothing changes. Where several positions contain equally much change, as around a movement smaller than
    the crop, the one that has the movement nearest to its middle is chosen. Computed in whole numbers, so that all
    machines agree.
    """
    change = _change(greys)
    return _position(change, cv2.integral(change.astype(np.float64)), round(side * len(change)))


def closer(greys: Sequence[np.ndarray]) -> Square | None:
    """The square of the closer look: the smallest that contains CLOSER_SHARE of all change. `greys`: see crop_position.

    Where even the largest of CLOSER_SIDES contains less, up to CLOSER_PARTS equal squares that lie CLOSER_APART from
    each other may contain that share together. Then it is, of the smallest such squares, the one in which most changes.
    None where there are no such squares either, or nothing changes.
    """
    change = _change(greys)
    sums = cv2.integral(change.astype(np.float64))

    def holds(side: float) -> bool:
        return bool(_inside(sums, round(side * len(change))).max() >= CLOSER_SHARE * sums[-1, -1])

    if not sums[-1, -1]:
        return None
    if holds(CLOSER_SIDES[-1]):
        side = next(side for side in CLOSER_SIDES if holds(side))
        return Square(side, *_position(change, sums, round(side * len(change))))
    return _strongest_part(change)


def _strongest_part(change: np.ndarray) -> Square | None:
    """The square of `closer` where the change falls into several. `change`: (S, S), made by `_change`."""
    sides = [side for side in CLOSER_SIDES if side * (1 + CLOSER_APART) <= 1]
    if _parts(change, sides[-1]) is None:  # smaller squares contain no more; most windows end here
        return None
    for side in sides:
        parts = _parts(change, side)
        if parts and all(
            max(abs(a.x - b.x), abs(a.y - b.y)) * (1 - side) >= CLOSER_APART * side
            for a, b in itertools.combinations(parts, 2)
        ):
            return parts[0]
    return None


def _parts(change: np.ndarray, side: float) -> list[Square] | None:
    """Squares of that side that together contain CLOSER_SHARE of the change, the strongest first.

    None if it takes more than CLOSER_PARTS.
    """
    rest, crop = change.copy(), round(side * len(change))
    parts: list[Square] = []
    for _ in range(CLOSER_PARTS):
        part = Square(side, *_position(rest, cv2.integral(rest.astype(np.float64)), crop))
        part.of(rest)[:] = 0
        parts.append(part)
        if rest.sum() <= (1 - CLOSER_SHARE) * change.sum():
            return parts
    return None


def _change(greys: Sequence[np.ndarray]) -> np.ndarray:
    """How much each pixel changes from frame to frame, summed over all frames and capped, (S, S) int32."""
    size = len(greys[0])
    sums = np.zeros((size, size), np.float32)  # whole numbers, exact up to 65,000 frames
    noise = np.full((size, size), NOISE_LEVEL, np.uint8)
    for before, after in itertools.pairwise(greys):
        cv2.accumulate(cv2.subtract(cv2.absdiff(before, after), noise), sums)
    change = sums.astype(np.int32)
    return np.minimum(change, int(np.quantile(change, CEILING)) + 1)


def _inside(sums: np.ndarray, crop: int) -> np.ndarray:
    """The change in each square of `crop` pixels a side, by its top left corner.

    `sums`: the integral of the change. Exact, since its whole numbers are far below 2**53.
    """
    inside: np.ndarray = sums[crop:, crop:] - sums[:-crop, crop:] - sums[crop:, :-crop] + sums[:-crop, :-crop]
    return inside


def _position(change: np.ndarray, sums: np.ndarray, crop: int) -> tuple[float, float]:
    """The result of `crop_position`. `sums`: the integral of `change`; `crop`: the crop's side in pixels."""
    size, inside = len(change), _inside(sums, crop)
    if not inside.any():
        return 0.5, 0.5
    best = np.argwhere(inside == inside.max())
    top, left = best[0]
    weights = change[top : top + crop, left : left + crop].astype(np.int64)
    moments = np.array([weights.sum(1) @ np.arange(crop), weights.sum(0) @ np.arange(crop)])
    off = 2 * weights.sum() * (best - best[0]) + weights.sum() * (crop - 1) - 2 * moments
    y, x = best[np.argmin(np.abs(off).sum(1))]
    return float(x / (size - crop)), float(y / (size - crop))
