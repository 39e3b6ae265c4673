"""Measure how much moves in a window, where the noise of the sensor must count as nothing.

Frames are averaged over a grid of tiles, which removes noise but keeps a person who fills a fiftieth of the picture's
area or less. A tile's change is the range of its values over the window, so that slow movement counts as much as quick
movement. The window's change is the fourth largest of its tiles: a clock in the picture, or a compression artefact,
changes fewer tiles.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

#: Tiles along a side of the picture.
TILES = 32
#: A window's change is that of the tile at this place, counted from the tile that changes most.
FEWEST_TILES = 4
#: A window that changes by less than this many grey levels is still. Of 810 windows of fights of four data sets the
#: stillest one changes by 58 (benchmarks/bench_stillness.py).
STILL_BELOW = 8.0


def change_of(frames: Iterable[np.ndarray]) -> float:
    """How much frames (H, W, 3) uint8 RGB of one size differ, in grey levels from 0 to 255; 0 for a single frame.

    Raises ValueError if there are none.
    """
    low = high = None
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
        tiles = cv2.resize(grey, (TILES, TILES), interpolation=cv2.INTER_AREA)
        low = tiles if low is None else np.minimum(low, tiles)
        high = tiles if high is None else np.maximum(high, tiles)
    if low is None or high is None:
        raise ValueError("no frames")
    return float(np.partition((high - low).ravel(), -FEWEST_TILES)[-FEWEST_TILES])


def is_still(frames: Iterable[np.ndarray]) -> bool:
    """Whether nothing moves in the frames (H, W, 3) uint8 RGB. Raises ValueError if there are none."""
    return change_of(frames) < STILL_BELOW
