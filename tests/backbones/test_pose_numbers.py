"""Numbers from people's poses depend neither on their distance nor their order, and a blow must reach somebody."""

from __future__ import annotations

import numpy as np
import pytest

from violence_detection.backbones.networks import pose_numbers
from violence_detection.backbones.networks.pose_numbers import PEOPLE

T, TALL = 10, 0.4
#: A standing person's joints, (y, x) as shares of the height: nose, eyes, ears, shoulders, elbows, wrists and so on.
_STANDING = np.array(
    [(0.05, 0), (0.03, -0.02), (0.03, 0.02), (0.05, -0.04), (0.05, 0.04), (0.2, -0.1), (0.2, 0.1), (0.35, -0.13),
     (0.35, 0.13), (0.48, -0.14), (0.48, 0.14), (0.52, -0.07), (0.52, 0.07), (0.75, -0.07), (0.75, 0.07), (1, -0.07),
     (1, 0.07)]
)  # fmt: skip
#: Indices of some of a frame's numbers.
_COUNT, _SEVERAL, _REACH, _NEARNESS, _TIPS, _NEAREST_TIP, _UPRIGHT, _CLEAR = 0, 1, 3, 4, 6, 7, 8, 20


def _person(
    x: float, tall: float = TALL, wrist: tuple[float, float] | None = None, score: float = 0.8
) -> np.ndarray:
    """Return a person (56,) standing at x. `wrist`: where one wrist is instead, in heights from the top of the head."""
    joints = _STANDING.copy()
    if wrist:
        joints[9] = wrist
    joints = joints * tall + (0.2, x)
    box = [*joints.min(0), *joints.max(0)]
    return np.array([*np.column_stack([joints, np.full(17, score)]).ravel(), *box, score], np.float32)


def _clip(*people: np.ndarray) -> np.ndarray:
    """Return a clip (T, 6, 56) with the same people in every frame."""
    frame = [*people, *[np.zeros(56, np.float32)] * (PEOPLE - len(people))]
    return np.tile(np.array(frame), (T, 1, 1))


def _frames(people: np.ndarray) -> np.ndarray:
    return np.asarray(pose_numbers.of_frames(people))


def _fight(tall: float = TALL, swap: bool = False) -> np.ndarray:
    """Return a clip in which one person hits the other's chest."""
    pair = [_person(0.3, tall, (0.25, 0.5)), _person(0.3 + 0.5 * tall, tall)]
    return _clip(*(pair[::-1] if swap else pair))


def test_numbers_are_as_large_near_as_far_and_whoever_is_named_first() -> None:
    near, far, other = _frames(_fight(0.4)), _frames(_fight(0.2)), _frames(_fight(swap=True))
    assert near.shape == (T, 21)
    np.testing.assert_allclose(near, far, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(near, other, rtol=1e-4, atol=1e-4)


def test_a_blow_is_one_that_reaches_somebody() -> None:
    hit = _frames(_fight())[0]
    beside = _frames(_clip(_person(0.3, TALL, (0.25, 0.5)), _person(0.9)))[0]
    assert hit[_COUNT] == beside[_COUNT] == 2
    assert hit[_REACH] == pytest.approx(0.25), "one of four"
    assert hit[_TIPS] > 0
    assert beside[_REACH] == beside[_TIPS] == 0
    assert hit[_NEAREST_TIP] > beside[_NEAREST_TIP] + 0.1
    assert hit[_NEARNESS] > beside[_NEARNESS] + 0.1


def test_nobody_and_one_alone_reach_nobody() -> None:
    nobody, alone = _frames(_clip())[0], _frames(_clip(_person(0.5)))[0]
    np.testing.assert_allclose(nobody[[_COUNT, _SEVERAL, _REACH, _NEARNESS, _UPRIGHT, _CLEAR]], 0)
    assert alone[_COUNT] == 1
    np.testing.assert_allclose(alone[[_SEVERAL, _REACH, _NEARNESS, _TIPS]], 0)
    assert alone[_UPRIGHT] == pytest.approx(1, abs=1e-3)
    assert alone[_CLEAR] == pytest.approx(0.8)


def test_the_length_says_how_clearly_somebody_is_seen() -> None:
    """The length grows from 0 at a mean joint score of 0.2 to 1 at 0.6."""
    lengths = {}
    for score in (0.16, 0.4, 0.7):
        features = np.asarray(pose_numbers.of_clip(_frames(_clip(_person(0.4, score=score), _person(0.5)))))
        assert features.shape == (1, pose_numbers.FEATURES)
        lengths[score] = np.linalg.norm(features)
    assert lengths[0.7] == pytest.approx(1, abs=1e-5), "the other one is seen well"
    alone = {
        score: np.linalg.norm(pose_numbers.of_clip(_frames(_clip(_person(0.4, score=score)))))
        for score in (0.16, 0.4, 0.7)
    }
    assert alone[0.16] == 0
    assert alone[0.4] == pytest.approx(0.5, abs=1e-4)
    assert alone[0.7] == pytest.approx(1, abs=1e-5)


def test_in_numpy_it_is_the_same() -> None:
    people = _fight()
    people[::2] = _clip(_person(0.4, score=0.5))[::2]
    frames = _frames(people)
    found = pose_numbers.joined(frames)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.asarray(pose_numbers.of_clip(frames)), atol=1e-6)
    assert np.abs(found - pose_numbers.joined(_frames(_fight()))).max() > 0.05, "how it changes counts"
