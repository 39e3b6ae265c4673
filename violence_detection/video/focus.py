"""Where in the picture most moves: fights that fixed cameras see from afar fill a small part of it.

The whole picture, squeezed to a backbone's input, shows such a fight in a few dozen pixels. A crop around the
strongest motion shows it larger, with what the file's resolution has to give.

A crop of one size (`crop_position`) is a stream or an alteration. The closer look (`closer`) is as small as what moves,
and is taken only where a small part of the picture has nearly all that moves, or a few such parts that lie apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

#: Grey levels of a difference that count as noise, and the share of the pixels above which change counts no more, so
#: that a flickering lamp or a caption does not outweigh people.
NOISE_LEVEL, CEILING = 12, 0.995
#: Of the rule below; part of the cache's key.
VERSION = 2
#: Side of the crop that the stream `crop` shows, as a fraction of the picture's.
STREAM_SIDE = 0.6
#: Of the closer look: the share of all change that its square holds, and the sides that are tried, as fractions of the
#: picture's. A rule that changes gets another name in video/augment.py, by which features are kept.
CLOSER_SHARE, CLOSER_SIDES = 0.9, (0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
#: Into how many squares what changes may fall, as where some fight and others pass by, and how far apart these are,
#: from middle to middle, in sides: two of one body lie closer.
CLOSER_PARTS, CLOSER_APART = 3, 1.25
#: Pixels along a side of the grey frames that it goes by.
CLOSER_GREY = 176


@dataclass(frozen=True)
class Square:
    """A part of the picture, as wide and as high in fractions of it. x and y: of the room that it leaves, 0 to 1."""

    side: float
    x: float
    y: float

    def of(self, frame: np.ndarray) -> np.ndarray:
        """That part of a frame (H, W, ...), a view."""
        height, width = (max(round(n * self.side), 1) for n in frame.shape[:2])
        top, left = round((len(frame) - height) * self.y), round((frame.shape[1] - width) * self.x)
        return frame[top : top + height, left : left + width]


def crop_position(greys: Sequence[np.ndarray], side: float) -> tuple[float, float]:
    """Where the square crop lies in which most changes from frame to frame.

    `greys`: T frames (S, S) uint8 in order; `side`: of the crop, a fraction of the picture's, in (0, 1).
    Returns x and y from 0 (left, top) to 1 (right, bottom), of the room that the crop leaves; the middle if nothing
    changes. A movement smaller than the crop fits in many places: it is brought to the crop's middle. Integers
    throughout, so that machines agree.
    """
    change = _change(greys)
    return _position(change, cv2.integral(change.astype(np.float64)), round(side * len(change)))


def closer(greys: Sequence[np.ndarray]) -> Square | None:
    """The smallest of the squares that hold CLOSER_SHARE of what changes.

    Where none of CLOSER_SIDES does, of the smallest squares that lie apart and hold it together, CLOSER_PARTS at most,
    the one in which most changes; None where there are no such squares. `greys` as for `crop_position`.
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
    """See closer; `change` (S, S) as `_change` gives it."""
    sides = [side for side in CLOSER_SIDES if side * (1 + CLOSER_APART) <= 1]
    if _parts(change, sides[-1]) is None:  # as for most windows: no smaller ones hold more
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
    """Squares of that side that hold CLOSER_SHARE of the change together, the strongest first; None of too many."""
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
    """How much each pixel changes from frame to frame in all, (S, S) int32, up to a ceiling."""
    size = len(greys[0])
    sums = np.zeros((size, size), np.float32)  # whole numbers, exact up to 65,000 frames
    noise = np.full((size, size), NOISE_LEVEL, np.uint8)
    for before, after in itertools.pairwise(greys):
        cv2.accumulate(cv2.subtract(cv2.absdiff(before, after), noise), sums)
    change = sums.astype(np.int32)
    return np.minimum(change, int(np.quantile(change, CEILING)) + 1)


def _inside(sums: np.ndarray, crop: int) -> np.ndarray:
    """The change in each square of that side, by its top left corner. Exact: whole numbers far below 2**53."""
    inside: np.ndarray = sums[crop:, crop:] - sums[:-crop, crop:] - sums[crop:, :-crop] + sums[:-crop, :-crop]
    return inside


def _position(change: np.ndarray, sums: np.ndarray, crop: int) -> tuple[float, float]:
    """See crop_position; `sums`: the integral of `change`."""
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
