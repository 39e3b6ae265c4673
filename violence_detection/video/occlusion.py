"""Frames of a window with a place or a stretch of time taken away, so that one sees what a network makes of the rest.

Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks" (arXiv 1311.2901), who grey one place after
another. In a video what is taken away must not move, either: a place becomes a flat patch of the mean colour of the
whole window, a stretch of time a still of the frame before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from violence_detection.video.pictures import KeptFrame


@dataclass(frozen=True)
class Place:
    """A part of the picture: left, top, right and bottom from 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float


def grid(rows: int, columns: int) -> list[Place]:
    """The picture in equal parts, row by row."""
    return [
        Place(c / columns, r / rows, (c + 1) / columns, (r + 1) / rows)
        for r in range(rows)
        for c in range(columns)
    ]


def without_places(frames: Mapping[int, KeptFrame], places: list[Place]) -> dict[int, KeptFrame]:
    """The frames (see pictures.window_frames) with a flat patch at each place."""
    if not frames or not places:
        return dict(frames)
    numbers = sorted(frames)
    if isinstance(frames[numbers[0]], tuple):  # at two sizes
        sizes = [
            _patched(np.stack([frames[n][i] for n in numbers]), places)
            for i in range(len(frames[numbers[0]]))
        ]
        return {n: tuple(size[i] for size in sizes) for i, n in enumerate(numbers)}
    return dict(zip(numbers, _patched(np.stack([frames[n] for n in numbers]), places), strict=True))


def _patched(frames: np.ndarray, places: list[Place]) -> np.ndarray:
    """Frames (N, H, W, 3) uint8 with each place in the mean colour of all of them."""
    _, height, width, _ = frames.shape
    colour = np.round(frames.mean(axis=(0, 1, 2))).astype(np.uint8)
    for place in places:
        rows = slice(round(place.top * height), round(place.bottom * height))
        columns = slice(round(place.left * width), round(place.right * width))
        frames[:, rows, columns] = colour
    return frames


def without_time(frames: Mapping[int, KeptFrame], first: float, end: float) -> dict[int, KeptFrame]:
    """The frames with those numbered from `first` up to `end` held still: each the last one before them.

    At the beginning it is the first one behind them; where there is no other, frames stay as they are.
    """
    others = sorted(n for n in frames if not first <= n < end)
    if not others:
        return dict(frames)
    before = [n for n in others if n < first]
    still = frames[before[-1] if before else others[0]]
    return {n: still if first <= n < end else frame for n, frame in frames.items()}
