"""Find where footage was cut from one shot to another, so that a window is judged by one shot alone.

Networks that judge movement take a cut for violent movement, since everything changes at once. Of a window of a longer
video with a cut they therefore see only the frames of the shot that fills most of the window's middle; the footage
beyond the cut is in the middle of the next window. Backbones whose sampling has `one_shot` False, as for the network
that is trained end to end, see the whole window.

A cut is a change from one frame to the next that is large, is far larger than the changes beside it (as in
PySceneDetect's AdaptiveDetector) both in the pixels and in the set of colours, and lasts, unlike a flash.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from violence_detection.video.decode import MIN_FRAMES
from violence_detection.video.pictures import resize
from violence_detection.video.sampling import Sampling, Window

#: Seconds between the frames that are compared where networks look at fewer frames. The limits below were measured at
#: this spacing.
SPACING_S = 0.08
#: Pixels along a side of the pictures that are compared.
_SIDE = 32
#: A picture that differs from the last one by no more than this, in mean grey levels, repeats it.
_REPEAT_LIMIT = 0.5
#: A cut changes a pixel by more than this, in mean grey levels ...
_LEAST_CHANGE = 8.0
#: ... which is more than this many times the changes beside it ...
_LEAST_RATIO = 2.0
#: ... and that ratio times the same ratio of the colours is more than this.
_LEAST_PRODUCT = 5.0
#: How many changes on each side a change is compared with. The second largest of them counts, since two cuts may be
#: near each other.
_N_NEIGHBOURS = 3
#: What is added to the changes beside it, in grey levels and as a share of the colours, so that footage in which hardly
#: anything changes does not give large ratios.
_SOME_GREY = 2.0
_SOME_COLOURS = 0.02
#: The share of a cut's change that must be left if one or two more frames are skipped on either side. A flash leaves
#: hardly any.
_LASTING_SHARE = 0.5
#: Levels of each colour channel that are told apart.
_LEVELS = 4


def small(picture: np.ndarray) -> np.ndarray:
    """Shrink a picture (H, W, 3) uint8 RGB to the size in which pictures are compared, (32, 32, 3) uint8."""
    return resize(picture, _SIDE)


def compared(fps: float, samplings: Sequence[Sampling]) -> np.ndarray:
    """The numbers (N,) int64 of the frames that are compared to find the cuts of a window, each once, ascending.

    `samplings`: the frames that the networks look at. The frames of the densest sampling are compared, and further ones
    SPACING_S apart (at least one frame) where other samplings reach beyond them. If the frames of the densest are more
    than 1.5 times that apart, frames at that spacing are compared instead, from the first one looked at to the last.
    """
    looked_at = np.unique(np.concatenate([np.concatenate([s.base, s.motion.ravel()]) for s in samplings]))
    first, last = int(looked_at[0]), int(looked_at[-1])
    step = max(SPACING_S * fps, 1.0)
    dense = np.unique(min((s.base for s in samplings), key=_spacing))
    if _spacing(dense) > 1.5 * step:
        every = np.round(np.arange(first, last + 0.5, step)).astype(np.int64)
        return np.unique(np.minimum(every, last))
    before = np.arange(dense[0] - step, first - step / 2, -step)
    behind = np.arange(dense[-1] + step, last + step / 2, step)
    every = np.concatenate([np.round(before), dense, np.round(behind)]).astype(np.int64)
    return np.unique(np.clip(every, first, last))


def _spacing(numbers: np.ndarray) -> float:
    """The mean distance between successive frame numbers, each counted once; infinite for a single one."""
    numbers = np.unique(numbers)
    return float((numbers[-1] - numbers[0]) / (len(numbers) - 1)) if len(numbers) > 1 else np.inf


def cuts(thumbnails: Sequence[np.ndarray]) -> list[int]:
    """The indices of the pictures before which there is a cut. `thumbnails`: (32, 32, 3) uint8, in order of time."""
    if len(thumbnails) < 2:
        return []
    shown = _different(np.stack(thumbnails).astype(np.float32))
    pictures = np.stack([thumbnails[i] for i in shown]).astype(np.float32)
    grey = _changes(pictures)
    ratio = grey / (_neighbour_changes(grey) + _SOME_GREY)
    large = (grey > _LEAST_CHANGE) & (ratio > _LEAST_RATIO)
    if not large.any():
        return []
    colours = _colour_change(pictures)
    both = ratio * colours / (_neighbour_changes(colours) + _SOME_COLOURS)
    numbers = np.flatnonzero(large & (both > _LEAST_PRODUCT)).tolist()
    return [shown[i + 1] for i in numbers if _is_lasting(pictures, i, float(grey[i]))]


def _different(pictures: np.ndarray) -> list[int]:
    """The indices of the first picture and of each that differs from the last one kept: a slow camera repeats some."""
    shown = [0]
    for i in range(1, len(pictures)):
        if np.abs(pictures[i] - pictures[shown[-1]]).mean() > _REPEAT_LIMIT:
            shown.append(i)
    return shown


def _changes(pictures: np.ndarray) -> np.ndarray:
    """The mean change of a pixel from each picture to the next, (N - 1,), in grey levels."""
    return np.asarray(np.abs(pictures[1:] - pictures[:-1]).mean(axis=(1, 2, 3)))


def _colour_change(pictures: np.ndarray) -> np.ndarray:
    """The share of the pixels whose colours are new, from each picture to the next, (N - 1,).

    Colours are counted wherever they are in the picture, so that movement alone changes little.
    """
    levels = (pictures // (256 // _LEVELS)).astype(np.int64)
    codes = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
    bins = _LEVELS**3
    offsets = np.arange(len(codes))[:, None] * bins
    counts = np.bincount((codes.reshape(len(codes), -1) + offsets).ravel(), minlength=len(codes) * bins)
    shares = counts.reshape(len(codes), bins) / codes[0].size
    return np.asarray(1 - np.minimum(shares[1:], shares[:-1]).sum(axis=1))


def _neighbour_changes(changes: np.ndarray) -> np.ndarray:
    """For each change the second largest of the _N_NEIGHBOURS changes on either side; beyond the ends they are 0."""
    padded = np.pad(changes, _N_NEIGHBOURS)
    n = len(changes)
    around = [padded[i : i + n] for i in range(2 * _N_NEIGHBOURS + 1) if i != _N_NEIGHBOURS]
    return np.asarray(np.sort(np.stack(around), axis=0)[-2])


def _is_lasting(pictures: np.ndarray, number: int, change: float) -> bool:
    """Whether the pictures after `number` keep differing from those up to it.

    They must differ by more than half of `change` also if one or two more pictures are skipped on either side.
    """
    return all(
        np.abs(pictures[number + 1 + behind] - pictures[number - before]).mean() > _LASTING_SHARE * change
        for before, behind in ((0, 1), (0, 2), (1, 0), (2, 0))
        if number >= before and number + 1 + behind < len(pictures)
    )


def middle_shot(
    numbers: Sequence[int], thumbnails: Sequence[np.ndarray], window: Window
) -> tuple[int, int] | None:
    """The shot with the most frames in the middle half of a window: its first frame, and the one after its last.

    `numbers`: frame numbers of the pictures `thumbnails`, ascending. The first shot begins at frame 0, and the last has
    no end. None if there is no cut, or if fewer than MIN_FRAMES of the pictures are of that shot.
    """
    found = cuts(thumbnails)
    if not found:
        return None
    quarter = window.length / 4
    at = np.asarray(numbers)
    in_middle = (at >= window.start + quarter) & (at < window.start + window.length - quarter)
    edges = [0, *found, len(numbers)]
    first, end = max(itertools.pairwise(edges), key=lambda shot: int(in_middle[slice(*shot)].sum()))
    if end - first < MIN_FRAMES:
        return None
    return int(numbers[first]) if first else 0, int(numbers[end]) if end < len(numbers) else np.iinfo(int).max


def within(sampled: Sampling, shot: tuple[int, int], burst: int = 1) -> Sampling:
    """The sampling reduced to its frames within the shot, repeated evenly so that there are as many as before.

    Frames of a burst stay together, and so do the frames of a motion image. Where none of `base`, or of `motion`, lie
    within the shot, it is left as it is.
    """
    base = _rows_within(sampled.base[:, None], shot, burst)
    return Sampling(sampled.base[base], sampled.motion[_rows_within(sampled.motion, shot, burst)])


def _rows_within(rows: np.ndarray, shot: tuple[int, int], burst: int) -> np.ndarray:
    """The indices (N,) of the rows that replace the N rows of frame numbers (N, K): only rows within the shot.

    All rows as they are if no burst lies within the shot.
    """
    first, end = shot
    inside = ((rows >= first) & (rows < end)).all(axis=1)
    moments = np.flatnonzero(inside.reshape(-1, burst).all(axis=1))
    count = len(rows) // burst
    if not len(moments):
        return np.arange(len(rows))
    stand_for = moments[(2 * np.arange(count) + 1) * len(moments) // (2 * count)]
    return np.asarray((stand_for[:, None] * burst + np.arange(burst)).ravel())
