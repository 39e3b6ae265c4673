"""Where in the picture most moves: fights that fixed cameras see from afar fill a small part of it.

The whole picture, squeezed to a backbone's input, shows such a fight in a few dozen pixels. A crop around the
strongest motion shows it larger, with what the file's resolution has to give.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np

#: Grey levels of a difference that count as noise, and the share of the pixels above which change counts no more, so
#: that a flickering lamp or a caption does not outweigh people.
NOISE_LEVEL, CEILING = 12, 0.995
#: Of the rule below; part of the cache's key.
VERSION = 2
#: Side of the crop that the stream `crop` shows, as a fraction of the picture's.
STREAM_SIDE = 0.6


def crop_position(greys: Sequence[np.ndarray], side: float) -> tuple[float, float]:
    """Where the square crop lies in which most changes from frame to frame.

    `greys`: T frames (S, S) uint8 in order; `side`: of the crop, a fraction of the picture's, in (0, 1).
    Returns x and y from 0 (left, top) to 1 (right, bottom), of the room that the crop leaves; the middle if nothing
    changes. A movement smaller than the crop fits in many places: it is brought to the crop's middle. Integers
    throughout, so that machines agree.
    """
    size = len(greys[0])
    change = np.zeros((size, size), np.int32)
    for before, after in itertools.pairwise(greys):
        change += np.maximum(cv2.absdiff(before, after).astype(np.int32) - NOISE_LEVEL, 0)
    change = np.minimum(change, int(np.quantile(change, CEILING)) + 1)
    crop = round(side * size)
    sums = cv2.integral(change.astype(np.float64))  # exact: whole numbers far below 2**53
    inside = sums[crop:, crop:] - sums[:-crop, crop:] - sums[crop:, :-crop] + sums[:-crop, :-crop]
    if not inside.any():
        return 0.5, 0.5
    best = np.argwhere(inside == inside.max())
    top, left = best[0]
    weights = change[top : top + crop, left : left + crop].astype(np.int64)
    moments = np.array([weights.sum(1) @ np.arange(crop), weights.sum(0) @ np.arange(crop)])
    off = 2 * weights.sum() * (best - best[0]) + weights.sum() * (crop - 1) - 2 * moments
    y, x = best[np.argmin(np.abs(off).sum(1))]
    return float(x / (size - crop)), float(y / (size - crop))
