"""Where footage was cut from one shot to another, so that a window is judged by one of them.

Networks of movement take a cut for a violent one: everything changes at once. Of a window of a longer video in which
there is one they see the frames of the shot that has most of its middle; what is behind the cut is in the middle of the
next. Not so networks that were trained end to end (`one_shot` of a backbone's sampling).

A cut is a change from one frame to the next that is large, is far larger than the changes beside it (as in
PySceneDetect's AdaptiveDetector), in the pixels and in the colours that there are, and stays: a flash does not.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from violence_detection.video.decode import MIN_FRAMES
from violence_detection.video.pictures import resize
from violence_detection.video.sampling import Sampling, Window

#: Seconds between frames that are compared, where networks look at fewer. Cuts were measured at it.
SPACING_S = 0.08
#: Pixels along a side of the pictures that are compared.
_SIDE = 32
#: Grey levels by which a picture changes in the mean where nothing but noise, or nothing new, is shown.
_ALIKE = 0.5
#: Of a cut: grey levels in the mean; how many times the changes beside it; the same times that of colours.
_LEAST, _TIMES, _BOTH_TIMES = 8.0, 2.0, 5.0
#: Changes on each side that it is held against (of them the second largest: two cuts may be near each other), and what
#: is added to them, in grey levels and as a share of the colours, so that what hardly changes gives no great ratio.
_BESIDE, _SOME_GREY, _SOME_COLOURS = 3, 2.0, 0.02
#: What is left of a change when one or two frames are left out on either side; of a flash hardly any is.
_STAYS = 0.5
#: Levels of a colour channel that are told apart.
_LEVELS = 4


def small(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 RGB as it is compared, (32, 32, 3) uint8."""
    return resize(picture, _SIDE)


def compared(fps: float, samplings: Sequence[Sampling]) -> np.ndarray:
    """The numbers (N,) int64 of the frames in which cuts of a window are looked for, each once, in order.

    `samplings`: which frames networks look at. Those of the densest are taken, and as far as the others look beyond
    them more are added, SPACING_S apart; where all look at few, none of theirs.
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
    """Frames from one to the next of those looked at, in the mean."""
    numbers = np.unique(numbers)
    return float((numbers[-1] - numbers[0]) / (len(numbers) - 1)) if len(numbers) > 1 else np.inf


def cuts(smalls: Sequence[np.ndarray]) -> list[int]:
    """Before which of the pictures (32, 32, 3) uint8, in order of time, there is a cut."""
    if len(smalls) < 2:
        return []
    shown = _different(np.stack(smalls).astype(np.float32))
    pictures = np.stack([smalls[i] for i in shown]).astype(np.float32)
    grey = _changes(pictures)
    ratio = grey / (_beside(grey) + _SOME_GREY)
    large = (grey > _LEAST) & (ratio > _TIMES)
    if not large.any():
        return []
    colours = _colour_change(pictures)
    both = ratio * colours / (_beside(colours) + _SOME_COLOURS)
    numbers = np.flatnonzero(large & (both > _BOTH_TIMES)).tolist()
    return [shown[i + 1] for i in numbers if _stays(pictures, i, float(grey[i]))]


def _different(pictures: np.ndarray) -> list[int]:
    """The first picture, and those that differ from the one before them of these: a slow camera repeats its own."""
    shown = [0]
    for i in range(1, len(pictures)):
        if np.abs(pictures[i] - pictures[shown[-1]]).mean() > _ALIKE:
            shown.append(i)
    return shown


def _changes(pictures: np.ndarray) -> np.ndarray:
    """The mean change of a pixel from each picture to the next, (N - 1,), in grey levels."""
    return np.asarray(np.abs(pictures[1:] - pictures[:-1]).mean(axis=(1, 2, 3)))


def _colour_change(pictures: np.ndarray) -> np.ndarray:
    """The share of the pixels whose colour was not there before, from each picture to the next, (N - 1,)."""
    levels = (pictures // (256 // _LEVELS)).astype(np.int64)
    codes = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
    bins = _LEVELS**3
    offsets = np.arange(len(codes))[:, None] * bins
    counts = np.bincount((codes.reshape(len(codes), -1) + offsets).ravel(), minlength=len(codes) * bins)
    shares = counts.reshape(len(codes), bins) / codes[0].size
    return np.asarray(1 - np.minimum(shares[1:], shares[:-1]).sum(axis=1))


def _beside(changes: np.ndarray) -> np.ndarray:
    """For each change the second largest of those beside it; 0 where there are fewer."""
    padded = np.pad(changes, _BESIDE)
    n = len(changes)
    around = [padded[i : i + n] for i in range(2 * _BESIDE + 1) if i != _BESIDE]
    return np.asarray(np.sort(np.stack(around), axis=0)[-2])


def _stays(pictures: np.ndarray, number: int, change: float) -> bool:
    """Whether what is shown from behind `number` on is other than what was shown up to it, whichever frame is taken."""
    return all(
        np.abs(pictures[number + 1 + behind] - pictures[number - before]).mean() > _STAYS * change
        for before, behind in ((0, 1), (0, 2), (1, 0), (2, 0))
        if number >= before and number + 1 + behind < len(pictures)
    )


def middle_shot(
    numbers: Sequence[int], smalls: Sequence[np.ndarray], window: Window
) -> tuple[int, int] | None:
    """The shot of which most lies in the middle half of a window: its first frame, and the one behind its last.

    `numbers`: of the pictures `smalls`, in order. None where there is no cut, and where no shot has enough frames to
    tell of movement.
    """
    found = cuts(smalls)
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
    """As many frames of the shot alone, of those that are sampled: each stands for those nearest to it in time.

    Frames of a burst stay together, and so do those of a motion. What has none within the shot is left as it is.
    """
    base = _rows_within(sampled.base[:, None], shot, burst)
    return Sampling(sampled.base[base], sampled.motion[_rows_within(sampled.motion, shot, burst)])


def _rows_within(rows: np.ndarray, shot: tuple[int, int], burst: int) -> np.ndarray:
    """Which rows of frame numbers (N, K) stand for the N: those that lie within the shot; all where none do."""
    first, end = shot
    inside = ((rows >= first) & (rows < end)).all(axis=1)
    moments = np.flatnonzero(inside.reshape(-1, burst).all(axis=1))
    count = len(rows) // burst
    if not len(moments):
        return np.arange(len(rows))
    stand_for = moments[(2 * np.arange(count) + 1) * len(moments) // (2 * count)]
    return np.asarray((stand_for[:, None] * burst + np.arange(burst)).ravel())
