"""Vectors as whole numbers of one byte and a step for each dimension: half the bytes of float16.

The landmarks of a kernel head are rounded to such a grid before anything is fitted to them, so storing them this way
does not change the model.
"""

from __future__ import annotations

import numpy as np

#: Largest magnitude of a stored number.
_INT8_MAX = 127


def rounded(values: np.ndarray) -> np.ndarray:
    """Round vectors (N, C) to the grid: (N, C) float32. A dimension's step is 1/127 of its largest magnitude."""
    step = np.abs(values).max(axis=0).astype(np.float32) / np.float32(_INT8_MAX)
    step[step == 0] = 1
    return joined(np.rint(values / step), step)


def split(values: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Numbers (N, C) int8 and steps (C,) float32 from which `joined` makes exactly `values`; None if none are found.

    They are found for values that `rounded` has returned.
    """
    nearest = np.abs(values).max(axis=0).astype(np.float32) / np.float32(_INT8_MAX)
    nearest[~(nearest > 0)] = 1
    steps = nearest.copy()
    found = np.zeros(len(steps), bool)
    # 127 steps, rounded to float32 and divided by 127, may give not the step but one of its neighbours
    for step in (nearest, np.nextafter(nearest, np.float32(0)), np.nextafter(nearest, np.float32(np.inf))):
        exact = (joined(np.rint(values / step), step) == values).all(axis=0) & ~found
        steps[exact] = step[exact]
        found |= exact
    return (np.rint(values / steps).astype(np.int8), steps) if found.all() else None


def joined(numbers: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The vectors (N, C) float32: whole numbers (N, C) times the steps (C,)."""
    return numbers.astype(np.float32) * step.astype(np.float32)
