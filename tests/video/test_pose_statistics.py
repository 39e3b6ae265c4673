"""Numbers of people's poses: as large near as far, whoever is named first; a blow is one that reaches somebody."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import pose_statistics

STEP_S, T, TALL = 0.1, 12, 0.4
#: Where a standing person's joints are, (y, x) of the height: nose, eyes, ears, shoulders, elbows, wrists, and so on.
_STANDING = np.array(
    [(0.05, 0), (0.03, -0.02), (0.03, 0.02), (0.05, -0.04), (0.05, 0.04), (0.2, -0.1), (0.2, 0.1), (0.35, -0.13),
     (0.35, 0.13), (0.48, -0.14), (0.48, 0.14), (0.52, -0.07), (0.52, 0.07), (0.75, -0.07), (0.75, 0.07), (1, -0.07),
     (1, 0.07)]
)  # fmt: skip


def _person(x: float, tall: float = TALL, wrist: tuple[float, float] | None = None) -> np.ndarray:
    """(56,): standing at x, one wrist elsewhere if it is given, in heights from the head."""
    joints = _STANDING.copy()
    if wrist:
        joints[9] = wrist
    joints = joints * tall + (0.2, x)
    box = [*joints.min(0), *joints.max(0)]
    return np.array([*np.column_stack([joints, np.full(17, 0.8)]).ravel(), *box, 0.9], np.float32)


def _nobody() -> np.ndarray:
    return np.zeros(56, np.float32)


def _fight(tall: float = TALL, distance: float = 0.5, swap: bool = False) -> np.ndarray:
    """Two people, one of whom hits at the other's chest and draws back, again and again."""
    clip = []
    for t in range(T):
        out = distance * (0.5 + 0.5 * np.cos(np.pi * t / 2))
        pair = [_person(0.3, tall, (0.25, out)), _person(0.3 + distance * tall, tall)]
        clip.append([*(pair[::-1] if swap else pair), *[_nobody()] * 4])
    return np.array(clip)


def test_numbers_are_as_large_near_as_far_and_whoever_is_named_first() -> None:
    near, far = (pose_statistics.of_clip(_fight(tall), STEP_S) for tall in (0.4, 0.2))
    other = pose_statistics.of_clip(_fight(swap=True), STEP_S)
    assert near.keys() == far.keys()
    for name, value in near.items():
        assert value == pytest.approx(far[name], rel=2e-3, abs=2e-3), name
        assert value == pytest.approx(other[name], rel=1e-4, abs=1e-4), name


def test_a_blow_is_one_that_reaches_somebody() -> None:
    hit = pose_statistics.of_clip(_fight(), STEP_S)
    missed = _fight()
    missed[:, 1] = [_person(0.9) for _ in range(T)]
    beside = pose_statistics.of_clip(missed, STEP_S)
    assert hit["wrists, high"] == pytest.approx(beside["wrists, high"], rel=0.01), "it moves alike"
    assert hit["blows, high"] > 0.3
    assert beside["blows, high"] == 0
    assert hit["reach, high"] == pytest.approx(0.25), "one of four"
    assert hit["nearest tip, high"] > 2 * beside["nearest tip, high"]


def test_whoever_is_not_seen_counts_for_nothing_and_a_clip_of_nobody_has_numbers() -> None:
    alone = np.array([[_person(0.3), *[_nobody()] * 5]] * T)
    ghost = alone.copy()
    ghost[:, 1] = _person(0.35)
    ghost[:, 1, 55] = 0.1
    assert pose_statistics.of_clip(ghost, STEP_S) == pose_statistics.of_clip(alone, STEP_S)
    empty = pose_statistics.of_clip(np.zeros((T, 6, 56), np.float32), STEP_S)
    assert np.isfinite(list(empty.values())).all()
    assert pose_statistics.visibility(np.zeros((T, 6, 56), np.float32)) == 0
    assert pose_statistics.visibility(alone) == 1
