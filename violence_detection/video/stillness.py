"""How much moves in a window: nothing where only the sensor's noise changes the picture.

Frames are averaged over a grid of tiles, which takes noise away and keeps a figure of a fiftieth of the picture's area
or less. A tile's change is its range over the window, so that slow movement counts as quick one does; the window's is
that of the fourth of its tiles, of those that change most: a clock in the picture or a speck of compression is fewer.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np

#: Tiles along a side of the picture.
TILES = 32
#: Of so many tiles that change most the last one counts.
FEWEST_TILES = 4
#: Grey levels. Of 810 windows of fights of four data sets the stillest changes by 58, benchmarks/bench_stillness.py.
STILL_BELOW = 8.0


def change_of(frames: Iterable[np.ndarray]) -> float:
    """How much frames (H, W, 3) uint8 RGB of one size differ, in grey levels from 0 to 255; 0 of a single one."""
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
    """Whether nothing moves in them."""
    return change_of(frames) < STILL_BELOW
