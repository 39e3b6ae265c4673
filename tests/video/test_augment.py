"""Augmentation: reproducible from seed, clip and variant, with one draw for all frames of a clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from violence_detection.system import storage
from violence_detection.video import augment

SIZE = 48
C = (SIZE - 1) / 2
VARIANTS = [f"v{i}" for i in range(1, 60)]


def _frames(count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return list(rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8))


def _apply(frames: list[np.ndarray], d: augment.Draw) -> list[np.ndarray]:
    augmenter = augment.Augmenter(d, SIZE)
    return [_colour(augmenter, frame, number) for number, frame in enumerate(frames)]


def _colour(augmenter: augment.Augmenter, frame: np.ndarray, number: int) -> np.ndarray:
    out = np.empty_like(frame)
    augmenter.colour(frame, number, out)
    return out


def test_a_draw_depends_on_seed_clip_and_variant_alone() -> None:
    first = augment.draw(1, "clip", "v3")
    augment.draw(9, "other", "v1")
    assert augment.draw(1, "clip", "v3") == first
    others = {augment.draw(2, "clip", "v3"), augment.draw(1, "clop", "v3"), augment.draw(1, "clip", "v4")}
    assert len({first, *others}) == 4


def test_the_plain_variant_is_the_clip_itself() -> None:
    frames = _frames()
    plain = augment.draw(7, "clip", augment.PLAIN)
    assert plain == augment.Draw()
    for before, after in zip(frames, _apply(frames, plain), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("variant", [*VARIANTS[:20], "w1", "w2", "w3"])
def test_all_frames_of_a_clip_are_altered_alike(variant: str) -> None:
    same = _frames(1) * 4
    d = replace(augment.draw(0, "clip", variant), noise_std=0.0)
    altered = _apply(same, d)
    assert all(np.array_equal(altered[0], other) for other in altered[1:])
    assert not np.array_equal(altered[0], same[0])


def test_noise_differs_from_frame_to_frame_but_not_from_run_to_run() -> None:
    d = augment.Draw(noise_std=5.0, noise_seed=3)
    once, again = _apply(_frames(1) * 2, d), _apply(_frames(1) * 2, d)
    assert not np.array_equal(once[0], once[1])
    np.testing.assert_array_equal(once, again)


def test_every_variant_keeps_shape_type_and_range() -> None:
    for variant in [*VARIANTS, "w1", "w2"]:
        for frame in _apply(_frames(2), augment.draw(0, "clip", variant)):
            assert frame.shape == (SIZE, SIZE, 3)
            assert frame.dtype == np.uint8


def test_variants_do_not_alter_the_decoded_frames_in_place() -> None:
    frames = _frames()
    kept = [f.copy() for f in frames]
    for variant in VARIANTS:
        _apply(frames, augment.draw(0, "clip", variant))
    np.testing.assert_array_equal(frames, kept)


def test_a_flip_is_the_exact_mirror_image() -> None:
    frames = _frames()
    for before, after in zip(frames, _apply(frames, augment.Draw(flip=True)), strict=True):
        np.testing.assert_array_equal(after, before[:, ::-1])


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({}, (12, 30)),
        ({"flip": True}, (SIZE - 1 - 12, 30)),
        ({"shift_x": 0.125, "shift_y": -0.125}, (12 + SIZE / 8, 30 - SIZE / 8)),
        ({"zoom": 1.5}, (C + 1.5 * (12 - C), C + 1.5 * (30 - C))),
        ({"rotation_deg": 90.0}, (C - (30 - C), C + (12 - C))),
        ({"shear_deg": 45.0}, (12 + (30 - C), 30)),
    ],
)
def test_geometry_moves_a_spot_to_where_it_should(change: dict[str, Any], place: tuple[float, float]) -> None:
    """The place is the centre of mass of a white spot drawn at x 12, y 30 of a black frame, in colour and in grey."""
    frame = np.zeros((SIZE, SIZE, 3), np.uint8)
    cv2.circle(frame, (12, 30), 3, (255, 255, 255), -1)
    d = augment.Draw(**{"brightness": 0.01, **change})  # so that the draw is never the identity
    augmenter = augment.Augmenter(d, SIZE)
    greys = [np.ascontiguousarray(frame[..., 0])] * 4
    for altered in (_colour(augmenter, frame, 0)[..., 1], augmenter.grey(greys, [0] * 4)[..., 2]):
        seen = altered.astype(float)
        y, x = (np.average(axis, weights=seen) for axis in np.mgrid[:SIZE, :SIZE])
        assert (x, y) == pytest.approx(place, abs=0.2)


def test_beyond_the_edge_the_picture_is_mirrored() -> None:
    frame = _frames(1)[0]
    moved = _colour(augment.Augmenter(augment.Draw(shift_x=4 / SIZE), SIZE), frame, 0)
    np.testing.assert_array_equal(moved[:, 4:], frame[:, :-4])
    np.testing.assert_array_equal(moved[:, :4], frame[:, 4:0:-1])


def test_light_is_changed_about_mid_grey_and_by_channel() -> None:
    frame = np.full((SIZE, SIZE, 3), (28, 128, 178), np.uint8)
    d = augment.Draw(contrast=1.2, brightness=10.0, channel_shift=(5.0, 0.0, -5.0))
    assert _colour(augment.Augmenter(d, SIZE), frame, 0)[7, 7].tolist() == [23, 138, 193]


def test_test_time_views_alternate_mirroring_and_leave_light_alone() -> None:
    draws = [augment.draw(0, "clip", v) for v in augment.variant_names(augment.VIEW, 7)]
    assert [d.flip for d in draws] == [False, True, False, True, False, True, False]
    for d in draws:
        assert (d.brightness, d.contrast, d.channel_shift) == (0.0, 1.0, (0.0, 0.0, 0.0))
        assert (d.rotation_deg, d.blur_sigma, d.noise_std, d.erase) == (0.0, 0.0, 0.0, None)


def test_test_time_views_look_at_the_middle_the_beginning_and_the_end_in_turn() -> None:
    draws = [augment.draw(0, "clip", v) for v in augment.variant_names(augment.VIEW, 7)]
    assert [d.place for d in draws] == [0.5, 0.0, 1.0, 0.5, 0.25, 0.75, 0.5]
    # training variants stay in the middle, since cached features were made so
    assert {augment.draw(0, "clip", v).place for v in VARIANTS} == {0.5}


def test_where_a_view_looks_does_not_alter_its_pictures() -> None:
    (frame,) = _frames(1)
    np.testing.assert_array_equal(_colour(augment.Augmenter(augment.Draw(place=1.0), SIZE), frame, 0), frame)


def test_training_variants_use_every_kind_of_change_within_its_range() -> None:
    draws = [augment.draw(0, "clip", v) for v in VARIANTS]
    r = augment.TRAIN
    assert 0.3 < np.mean([d.flip for d in draws]) < 0.7
    assert any(d.blur_sigma for d in draws)
    assert any(d.noise_std for d in draws)
    assert any(d.erase for d in draws)
    assert max(abs(d.rotation_deg) for d in draws) <= r.rotation_deg
    assert max(abs(d.zoom - 1) for d in draws) <= r.zoom
    assert all(r.shortest_window <= d.window_length <= 1 and 0 <= d.window_start <= 1 for d in draws)
    assert all(d.erase is None or d.erase[0] + d.erase[2] <= 1 >= d.erase[1] + d.erase[3] for d in draws)


def test_every_number_of_a_draw_varies_within_its_range_and_on_both_sides() -> None:
    draws = [augment.draw(0, f"clip{i}", "v1") for i in range(300)]
    r = augment.TRAIN
    ranges = {
        "rotation_deg": (0, r.rotation_deg), "shift_x": (0, r.shift), "shift_y": (0, r.shift), "zoom": (1, r.zoom),
        "shear_deg": (0, r.shear_deg), "brightness": (0, r.brightness), "contrast": (1, r.contrast),
    }  # fmt: skip
    drawn = {name: np.array([getattr(d, name) for d in draws]) for name in ranges}
    for i in range(3):
        ranges[f"channel {i}"] = (0, r.channel_shift)
        drawn[f"channel {i}"] = np.array([d.channel_shift[i] for d in draws])
    for name, (middle, half) in ranges.items():
        off = (drawn[name] - middle) / half
        assert -1 <= np.min(off) < -0.9, name
        assert 0.9 < np.max(off) <= 1, name


def test_caches_made_before_stay_valid_and_hold_what_would_be_drawn_now() -> None:
    assert storage.stable_hash(augment.settings()) == "d00baa32bf57"
    assert augment.draw(0, "abc", "v3") == augment.Draw(
        flip=True,
        rotation_deg=5.755493182751131,
        shift_x=-0.017918305313162047,
        shift_y=-0.06968459783276687,
        zoom=0.8860441229302866,
        shear_deg=-3.9958836625529113,
        brightness=-9.694890025106286,
        contrast=1.0170765899853942,
        channel_shift=(-0.3132001386147536, 2.3785857496006493, -6.7524996686412155),
        window_start=0.6363597978707298,
        window_length=0.9792811389611698,
        noise_seed=1380363314,
    )


def test_variant_names_begin_with_the_plain_clip() -> None:
    assert augment.variant_names("v", 3) == ("v0", "v1", "v2")
    assert augment.variant_names(augment.VIEW, 2) == ("v0", "w1")
    assert augment.variant_names(augment.VIEW, 1) == ("v0",)


@pytest.mark.parametrize("variant", ["v0", *VARIANTS[:20], "w1", "w2"])
def test_grey_frames_are_altered_as_their_colour_frames_are(variant: str) -> None:
    frames = [cv2.GaussianBlur(f // 2 + 64, (0, 0), 2.0) for f in _frames(4)]  # so that nothing is clipped
    d = replace(augment.draw(0, "clip", variant), brightness=5.0)
    augmenter = augment.Augmenter(d, SIZE)
    numbers = [3, 5, 7, 9]
    colour = [_colour(augmenter, f, i) for f, i in zip(frames, numbers, strict=True)]
    grey = augmenter.grey([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames], numbers)
    for a, b in zip(colour, cv2.split(grey), strict=True):
        assert np.abs(cv2.cvtColor(a, cv2.COLOR_RGB2GRAY).astype(int) - b).max() <= 3


def test_a_view_of_a_former_version_is_refused() -> None:
    with pytest.raises(ValueError, match="this version has no variant t1"):
        augment.draw(0, "clip", "t1")
