"""A still picture counts as still whatever its noise, and small or slow movement is noticed."""

from __future__ import annotations

import numpy as np
import pytest

from violence_detection.video import stillness

SIDE = 176


def _scene(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 200, (SIDE, SIDE, 3), np.uint8)


def _with_person(scene: np.ndarray, x: int, *, width: int, contrast: int) -> np.ndarray:
    """The scene with a figure three times as high as it is wide, lighter than what is behind it by `contrast`."""
    frame = scene.copy()
    figure = frame[80 : 80 + 3 * width, x : x + width]
    figure[:] = np.clip(figure.astype(int) + contrast, 0, 255)
    return frame


@pytest.mark.parametrize("noise", [0, 3, 6])
def test_noise_is_no_movement(noise: int) -> None:
    rng = np.random.default_rng(1)
    frames = [
        np.clip(_scene() + rng.normal(0, noise, (SIDE, SIDE, 1)), 0, 255).astype(np.uint8) for _ in range(32)
    ]
    assert stillness.is_still(frames)


@pytest.mark.parametrize("step", [1, 6])
def test_a_small_figure_that_walks_is_movement_slow_or_quick(step: int) -> None:
    """The figure is a fifteenth of the picture wide."""
    frames = [_with_person(_scene(), 20 + i * step, width=12, contrast=40) for i in range(16)]
    assert not stillness.is_still(frames)
    assert stillness.is_still(frames[:1] * 16)


def test_a_clock_in_the_picture_is_no_movement() -> None:
    frames = []
    for i in range(10):
        frames.append(_scene())
        frames[-1][6:11, 6:16] = 25 * i
    assert stillness.is_still(frames)
    assert not stillness.is_still([*frames, _scene() + 40])


def test_the_change_is_in_grey_levels() -> None:
    black, grey = (np.full((90, 160, 3), level, np.uint8) for level in (10, 70))
    assert stillness.change_of([black, grey, black]) == pytest.approx(60)
    with pytest.raises(ValueError, match="no frames"):
        stillness.change_of([])
