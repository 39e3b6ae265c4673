"""Vectors as whole numbers of one byte, times a step for each of their dimensions: half the bytes of float16.

What is rounded to such a grid before a model is fitted to it is the model that is fitted: nothing changes when it is
kept so.
"""

from __future__ import annotations

import numpy as np

_MOST = 127


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest vectors (N, C) float32 of such a grid: of each dimension the largest value is 127 steps."""
    step = np.abs(values).max(axis=0).astype(np.float32) / np.float32(_MOST)
    step[step == 0] = 1
    return joined(np.rint(values / step), step)


def split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Numbers (N, C) int8 and steps (C,) float32 of which `joined` makes these very values; None if there are none."""
    nearest = np.abs(values).max(axis=0).astype(np.float32) / np.float32(_MOST)
    nearest[~(nearest > 0)] = 1
    steps = nearest.copy()
    found = np.zeros(len(steps), bool)
    # the largest value, divided again, may have lost its last digit
    for step in (nearest, np.nextafter(nearest, np.float32(0)), np.nextafter(nearest, np.float32(np.inf))):
        exact = (joined(np.rint(values / step), step) == values).all(axis=0) & ~found
        steps[exact] = step[exact]
        found |= exact
    return (np.rint(values / steps).astype(np.int8), steps) if found.all() else None


def joined(numbers: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The vectors (N, C) float32."""
    return numbers.astype(np.float32) * step.astype(np.float32)
