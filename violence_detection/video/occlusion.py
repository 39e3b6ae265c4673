"""Covers a place or a stretch of time in a window's frames, to see what a network makes of the rest.

Zeiler & Fergus 2014, "Visualizing and Understanding Convolutional Networks" (arXiv 1311.2901), cover one place after
another in grey. In a video the cover must not move either: a place becomes a flat patch of the mean colour of the whole
window, and a stretch of time a still of the frame before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from violence_detection.video.pictures import NearFrame
from violence_detection.video.window_pictures import NEAR, Kept, KeptAs


@dataclass(frozen=True)
class Place:
    """A part of the picture. Its edges are fractions of the whole picture's width or height, from 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float


def grid(rows: int, columns: int) -> list[Place]:
    """Divide the picture into `rows` x `columns` equal parts, listed row by row."""
    return [
        Place(c / columns, r / rows, (c + 1) / columns, (r + 1) / rows)
        for r in range(rows)
        for c in range(columns)
    ]


def without_places(frames: Mapping[int, Kept], places: Sequence[Place], aspect: float) -> dict[int, Kept]:
    """The frames of a window (see window_pictures.Kept) with a flat patch over each place.

    `aspect`: the video's width divided by its height, from which follows where letterboxed frames contain the picture.
    """
    numbers = sorted(frames)
    changed: dict[int, dict[KeptAs, Any]] = {n: {} for n in numbers}
    for kept_as in frames[numbers[0]] if numbers else ():
        pictures = [frames[n][kept_as] for n in numbers]
        shown = _letterboxed(aspect) if kept_as[2] else Place(0, 0, 1, 1)
        if isinstance(pictures[0], tuple):  # kept at two sizes, for the stream `crop`
            sizes = [_patched(of_size, places, shown) for of_size in zip(*pictures, strict=True)]
            patched: Any = list(zip(*sizes, strict=True))
        elif kept_as == NEAR:
            nears = _patched([frame.picture for frame in pictures], places, shown)
            patched = [NearFrame(picture) for picture in nears]
        else:
            patched = _patched(pictures, places, shown)
        for n, picture in zip(numbers, patched, strict=True):
            changed[n][kept_as] = picture
    return dict(changed)


def _letterboxed(aspect: float) -> Place:
    """Where in a letterboxed square frame the picture is. `aspect`: its width divided by its height."""
    width, height = min(1.0, aspect), min(1.0, 1 / aspect)
    return Place((1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2)


def _patched(frames: Sequence[np.ndarray], places: Sequence[Place], shown: Place) -> list[np.ndarray]:
    """Copies of frames (H, W, 3) uint8 in which each place has the mean colour of all frames.

    `shown`: the part of each frame that contains the picture; places are fractions of it. Frames may differ in shape:
    those kept for a closer look have the video's own, which may change within it.
    """
    means = [frame[_slices(shown, frame.shape)].mean(axis=(0, 1)) for frame in frames]
    colour = np.round(np.mean(means, axis=0)).astype(np.uint8)
    changed = [frame.copy() for frame in frames]
    width, height = shown.right - shown.left, shown.bottom - shown.top
    for place in places:
        within = Place(
            shown.left + place.left * width,
            shown.top + place.top * height,
            shown.left + place.right * width,
            shown.top + place.bottom * height,
        )
        for frame in changed:
            frame[_slices(within, frame.shape)] = colour
    return changed


def _slices(place: Place, shape: Sequence[int]) -> tuple[slice, slice]:
    """The rows and columns of a place in an array of shape (height, width, ...)."""
    height, width = shape[:2]
    rows = slice(round(place.top * height), round(place.bottom * height))
    return rows, slice(round(place.left * width), round(place.right * width))


def without_time(frames: Mapping[int, Kept], first: float, end: float) -> dict[int, Kept]:
    """The window's frames, those numbered `first` <= n < `end` replaced by the last one before `first`.

    Where none comes before, they are replaced by the first one from `end` on; where there is none either, nothing
    changes.
    """
    others = sorted(n for n in frames if not first <= n < end)
    if not others:
        return dict(frames)
    before = [n for n in others if n < first]
    still = frames[before[-1] if before else others[0]]
    return {n: still if first <= n < end else frame for n, frame in frames.items()}
