"""What is removed from a window shows nothing and does not move, and the rest stays as it was."""

from __future__ import annotations

import numpy as np

from violence_detection.video import occlusion
from violence_detection.video.occlusion import Place
from violence_detection.video.pictures import NearFrame
from violence_detection.video.window_pictures import NEAR


def _frames(side: int, count: int = 4) -> dict[int, np.ndarray]:
    rng = np.random.default_rng(side)
    return {10 * i: rng.integers(0, 255, (side, side, 3), np.uint8) for i in range(count)}


def test_a_place_is_flat_and_still_and_the_rest_untouched() -> None:
    frames = _frames(8)
    kept = {n: {(8, 0, False): frame} for n, frame in frames.items()}
    changed = occlusion.without_places(kept, [Place(0.5, 0.0, 1.0, 0.25)], aspect=1.5)
    found = {n: frame[8, 0, False] for n, frame in changed.items()}
    assert found.keys() == frames.keys()
    patches = np.stack([found[n][:2, 4:] for n in sorted(found)])
    assert len(np.unique(patches.reshape(-1, 3), axis=0)) == 1
    for n, frame in frames.items():
        np.testing.assert_array_equal(found[n][2:], frame[2:])
        np.testing.assert_array_equal(found[n][:2, :4], frame[:2, :4])


def test_places_are_taken_at_both_sizes_and_cover_the_picture_together() -> None:
    small, large = _frames(6), _frames(12)
    both = {n: {(6, 12, False): (small[n], large[n])} for n in small}
    found = occlusion.without_places(both, occlusion.grid(3, 2), aspect=1.5)
    for i in (0, 1):
        first = found[0][6, 12, False][i]
        assert all(np.array_equal(first, kept[6, 12, False][i]) for kept in found.values()), (
            "nothing moves any more"
        )
    part = occlusion.grid(3, 2)[3]
    assert part == Place(0.5, 1 / 3, 1.0, 2 / 3)
    patch = occlusion.without_places(both, [part], aspect=1.5)[10][6, 12, False][1][4:8, 6:]
    assert len(np.unique(patch.reshape(-1, 3), axis=0)) == 1


def test_a_place_is_flat_in_frames_of_the_videos_own_shape_which_may_change() -> None:
    rng = np.random.default_rng(0)
    shapes = [(9, 16), (9, 16), (12, 16)]
    frames = {
        n: {NEAR: NearFrame(rng.integers(0, 255, (*shape, 3), np.uint8))} for n, shape in enumerate(shapes)
    }
    before = {n: kept[NEAR].picture.copy() for n, kept in frames.items()}
    changed = occlusion.without_places(frames, [Place(0.5, 0.0, 1.0, 1.0)], aspect=16 / 9)
    patches = np.concatenate([kept[NEAR].picture[:, 8:].reshape(-1, 3) for kept in changed.values()])
    assert len(np.unique(patches, axis=0)) == 1, "one colour in all of them: else it would flicker"
    for n, kept in frames.items():
        np.testing.assert_array_equal(kept[NEAR].picture, before[n])
        np.testing.assert_array_equal(changed[n][NEAR].picture[:, :8], before[n][:, :8])


def test_a_stretch_of_time_stands_still() -> None:
    frames = {n: {(4, 0, False): frame} for n, frame in _frames(4).items()}
    later = occlusion.without_time(frames, 15, 25)
    assert [later[n] is frames[m] for n, m in ((0, 0), (10, 10), (20, 10), (30, 30))] == [True] * 4
    early = occlusion.without_time(frames, -5, 15)
    assert [early[n] is frames[20] for n in (0, 10)] == [True, True]
    assert occlusion.without_time(frames, 0, 99) == frames


def test_in_letterboxed_pictures_a_place_is_where_the_video_shows_it() -> None:
    frames = {n: {(8, 0, True): frame} for n, frame in _frames(8).items()}
    changed = occlusion.without_places(frames, [Place(0.0, 0.0, 0.5, 1.0)], aspect=2.0)
    for n, kept in frames.items():
        before, after = kept[8, 0, True], changed[n][8, 0, True]
        np.testing.assert_array_equal(after[:2], before[:2])
        np.testing.assert_array_equal(after[6:], before[6:])
        np.testing.assert_array_equal(after[2:6, 4:], before[2:6, 4:])
        assert len(np.unique(after[2:6, :4].reshape(-1, 3), axis=0)) == 1
