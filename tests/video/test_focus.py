"""The crop around the strongest motion: where it is, what it shows, and that nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import seen_by_one
import small_videos

from violence_detection.errors import UserError
from violence_detection.features import extract, key
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.video import augment, decode, focus, pictures, sampling, window_pictures
from violence_detection.video.window_pictures import Viewer

SIZE = 60
PLAIN = FeatureConfig(frames=8, window_s=2.0)
FOCUSED = replace(PLAIN, focus=0.5)
VARIANTS = ("v0", "v1", "v2", "w1", "w2", "w3")


def _moving_square(path: Path, left: int, top: int) -> Path:
    """A red 24 x 24 square that shivers at one place in a still, textured picture of 240 x 240."""
    still = cv2.resize(
        np.random.default_rng(0).integers(60, 120, (12, 12, 3), np.uint8),
        (240, 240),
        interpolation=cv2.INTER_CUBIC,
    )
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (240, 240))
    assert writer.isOpened(), path
    for number in range(24):
        frame = still.copy()
        x, y = left + 9 * (number // 2 % 2), top + 5 * (number // 3 % 2)
        frame[y : y + 24, x : x + 24] = (0, 0, 255)
        writer.write(frame)
    writer.release()
    return path


def _red_pixels(images: np.ndarray) -> float:
    """Mean number of the square's pixels per frame."""
    red = images.astype(int)
    return float(((red[..., 0] > 180) & (red[..., 1] < 90)).sum() / len(images))


@pytest.mark.parametrize(("left", "top"), [(10, 10), (180, 30), (100, 190), (105, 105)])
def test_the_crop_shows_what_moves_larger_and_sharper(tmp_path: Path, left: int, top: int) -> None:
    path = _moving_square(tmp_path / "clip.avi", left, top)
    shown = dict(pictures.clip_variants(path, "id", ("v0", "w2"), SIZE, FOCUSED))
    whole, crop = (_red_pixels(shown[v]["rgb"]) for v in ("v0", "w2"))
    assert 25 <= whole <= 49  # of the square's side: 24 of 240 pixels become 6 of 60
    assert 3 * whole <= crop <= 5.5 * whole


def test_a_still_clip_shows_its_middle() -> None:
    assert focus.crop_position([np.full((SIZE, SIZE), 90, np.uint8)] * 4, 0.5) == (0.5, 0.5)


def test_noise_and_a_flickering_spot_do_not_outweigh_what_moves() -> None:
    rng = np.random.default_rng(1)
    greys = [np.full((100, 100), 90, np.uint8) + rng.integers(0, 10, (100, 100), np.uint8) for _ in range(8)]
    for number, grey in enumerate(greys):
        grey[2:4, 2:4] = 255 * (number % 2)
        grey[70:85, 70 + number : 85 + number] = 140
    x, y = focus.crop_position(greys, 0.4)
    assert 0.6 * x + 0.4 > 0.85
    assert y > 0.7


def test_a_movement_smaller_than_the_crop_is_in_its_middle() -> None:
    greys = [np.full((200, 200), 90, np.uint8) for _ in range(8)]
    for number, grey in enumerate(greys):
        grey[100:120, 60:80] = 90 + 40 * (number % 2)
    x, y = focus.crop_position(greys, 0.5)
    assert (100 * x + 50, 100 * y + 50) == pytest.approx((70, 110), abs=1)
    assert focus.crop_position([np.roll(grey, 65, axis=1) for grey in greys], 0.5)[0] == pytest.approx(
        0.85, abs=0.01
    )
    assert focus.crop_position([np.roll(grey, 110, axis=1) for grey in greys], 0.5)[0] == 1.0, (
        "no further than the edge"
    )


def test_half_of_the_variants_and_views_show_the_crop() -> None:
    names = [*augment.variant_names("v", 10), *augment.variant_names(augment.VIEW, 9)[1:]]
    draws = {v: augment.draw(0, "id", v, focus=True) for v in names}
    assert [v for v, d in draws.items() if d.focus] == ["v2", "v4", "v6", "v8", "w2", "w3", "w6", "w7"]
    assert [draws[f"w{i}"].flip for i in (1, 2, 3)] == [True, False, True]
    for v, d in draws.items():  # all else in a draw is as it is without the focus
        assert replace(d, focus=False) == augment.draw(0, "id", v)


def test_prediction_sees_the_crops_that_training_saw(tmp_path: Path) -> None:
    path = _moving_square(tmp_path / "clip.avi", 150, 40)
    trained = dict(pictures.clip_variants(path, "id", VARIANTS, SIZE, FOCUSED))
    info = decode.probe(path)
    windows = sampling.sliding_windows(info, FOCUSED.window_s, stride_s=1.0)
    (judged,) = seen_by_one.windows_of(path, info, windows, VARIANTS, SIZE, FOCUSED)
    for variant in VARIANTS:
        for stream in ("rgb", "motion"):
            assert judged[variant][stream].shape == (8, SIZE, SIZE, 3)
            np.testing.assert_array_equal(judged[variant][stream], trained[variant][stream])


def test_a_variant_does_not_depend_on_which_others_are_made(tmp_path: Path) -> None:
    path = _moving_square(tmp_path / "clip.avi", 150, 40)
    together = dict(pictures.clip_variants(path, "id", VARIANTS, SIZE, FOCUSED))
    for variant in VARIANTS:
        ((_, alone),) = pictures.clip_variants(path, "id", (variant,), SIZE, FOCUSED)
        for stream, images in alone.items():
            np.testing.assert_array_equal(images, together[variant][stream])


def test_motion_is_that_of_the_crop(tmp_path: Path) -> None:
    path = _moving_square(tmp_path / "clip.avi", 150, 40)
    shown = dict(pictures.clip_variants(path, "id", ("v0", "w2"), SIZE, FOCUSED))
    assert shown["w2"]["motion"].mean() > 2.5 * shown["v0"]["motion"].mean()


def test_crops_have_a_cache_of_their_own_and_other_caches_stay_valid(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"w")
    plain, half, most = (
        key.record(replace(PLAIN, focus=side), "efficientnet_lite0", "rgb", weights) for side in (0, 0.5, 0.7)
    )
    assert "focus" not in plain
    assert len({str(key.folder_of(tmp_path, r)) for r in (plain, half, most)}) == 3


@pytest.mark.parametrize("side", [-0.5, 0.1, 0.95, 1.0])
def test_a_crop_of_a_senseless_size_is_refused(side: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--focus"):
        extract.ensure([], replace(PLAIN, focus=side), ExtractConfig(data_root=tmp_path, workers=1))


CLOSER = (augment.PLAIN, augment.CLOSER)


def _greys(side: int, left: int, top: int, *, size: int = 176) -> list[np.ndarray]:
    """Six grey frames with a square of that side in one place, alternately darker and lighter."""
    greys = [np.full((size, size), 90, np.uint8) for _ in range(6)]
    for number, grey in enumerate(greys):
        grey[top : top + side, left : left + side] = 90 + 60 * (number % 2)
    return greys


@pytest.mark.parametrize(
    ("side", "found"), [(20, 0.2), (50, 0.3), (88, 0.5), (104, 0.6), (130, None), (176, None)]
)
def test_the_closer_look_is_as_small_as_what_moves_and_none_where_that_is_large(
    side: int, found: float | None
) -> None:
    square = focus.closer(_greys(side, 30, 40))
    assert (square.side if square else None) == found
    if square and found:
        frame = np.zeros((360, 640, 3), np.uint8)
        left, top, reach = 30 / 176, 40 / 176, side / 176
        frame[
            round(360 * top) : round(360 * (top + reach)), round(640 * left) : round(640 * (left + reach))
        ] = 255
        assert square.of(frame).shape[:2] == (round(360 * found), round(640 * found))
        assert square.of(frame).sum() >= focus.CLOSER_SHARE * frame.sum()


@pytest.mark.parametrize(
    ("places", "found"),
    [
        ([(10, 20, 30), (130, 120, 20)], 0),  # two squares far apart
        ([(10, 20, 20), (130, 120, 30)], 1),
        ([(5, 5, 20), (140, 10, 30), (60, 140, 20)], 1),
        ([(5, 5, 20), (140, 10, 20), (5, 140, 20), (140, 140, 20)], None),  # squares all over the picture
        ([(x, 70, 30) for x in range(3, 140, 30)], None),  # a body as wide as the picture
    ],
)
def test_of_several_that_move_apart_the_closer_look_sees_the_one_that_moves_most(
    places: list[tuple[int, int, int]], found: int | None
) -> None:
    greys = [np.full((176, 176), 90, np.uint8) for _ in range(6)]
    for left, top, side in places:
        for number, grey in enumerate(greys):
            grey[top : top + side, left : left + side] = 90 + 60 * (number % 2)
    square = focus.closer(greys)
    if found is None:
        assert square is None
        return
    left, top, side = places[found]
    frame = np.zeros((176, 176), np.uint8)
    frame[top : top + side, left : left + side] = 1
    assert square
    assert square.side == 0.2
    assert square.of(frame).sum() == side * side


def test_there_is_no_closer_look_where_nothing_moves_or_the_camera_does() -> None:
    assert focus.closer([np.full((176, 176), 90, np.uint8)] * 4) is None
    scene = np.random.default_rng(0).integers(0, 255, (176, 300), np.uint8)
    assert focus.closer([scene[:, 9 * i : 9 * i + 176] for i in range(6)]) is None


def test_the_closer_look_shows_what_moves_larger_in_every_stream(tmp_path: Path) -> None:
    path = _moving_square(tmp_path / "clip.avi", 160, 30)
    config = replace(PLAIN, streams=("rgb", "motion", "moving"))
    shown = dict(pictures.clip_variants(path, "id", CLOSER, SIZE, config))
    plain, closer = (shown[v] for v in CLOSER)
    assert list(closer) == list(plain)
    assert _red_pixels(closer["rgb"]) > 8 * _red_pixels(plain["rgb"])
    assert closer["motion"].mean() > 4 * plain["motion"].mean()
    boxed = replace(PLAIN, streams=("rgb",), letterbox=True)
    assert (
        _red_pixels(dict(pictures.clip_variants(path, "id", CLOSER, SIZE, boxed))[augment.CLOSER]["rgb"])
        > 200
    )


@pytest.mark.parametrize("letterbox", [False, True])
def test_prediction_looks_closer_where_training_did(tmp_path: Path, letterbox: bool) -> None:
    path = _moving_square(tmp_path / "clip.avi", 160, 30)
    config = replace(PLAIN, letterbox=letterbox)
    trained = dict(pictures.clip_variants(path, "id", CLOSER, SIZE, config))
    info = decode.probe(path)
    windows = sampling.sliding_windows(info, config.window_s, stride_s=1.0)
    viewers = [Viewer(SIZE, config, closer_look=True), Viewer(40, PLAIN, closer_look=True)]
    (seen,) = window_pictures.of_file(path, info, windows, viewers, "id", CLOSER)
    assert seen.closer(0) == seen.closer(1)
    for stream, images in trained[augment.CLOSER].items():
        np.testing.assert_array_equal(seen.pictures(0, augment.CLOSER)[stream], images)


def test_where_there_is_nothing_to_see_closer_the_plain_clip_is_not_shown_again(tmp_path: Path) -> None:
    path = small_videos.write(tmp_path / "clip.avi", 3, n_frames=24)  # the whole picture moves
    assert dict(pictures.clip_variants(path, "id", CLOSER, SIZE, PLAIN))[augment.CLOSER] == {}
    info = decode.probe(path)
    (window, *_) = sampling.sliding_windows(info, PLAIN.window_s, stride_s=1.0)
    viewers = [Viewer(SIZE, PLAIN, closer_look=True)]
    (seen,) = window_pictures.of_file(path, info, [window], viewers, "id", CLOSER)
    assert seen.closer(0) is None
    for stream, images in seen.pictures(0, augment.PLAIN).items():
        np.testing.assert_array_equal(seen.pictures(0, augment.CLOSER)[stream], images)


def test_large_frames_are_kept_smaller_for_a_closer_look_and_small_ones_as_they_are() -> None:
    small = np.zeros((360, 640, 3), np.uint8)
    assert pictures.near(small) is small
    assert pictures.near(np.zeros((1080, 1920, 3), np.uint8)).shape == (360, 640, 3)
    assert pictures.near(np.zeros((1920, 1080, 3), np.uint8)).shape == (640, 360, 3)
    assert pictures.near(np.zeros((2, 3000, 3), np.uint8)).shape == (1, 640, 3)
    fine = np.tile(np.array([[0, 255], [255, 0]], np.uint8)[..., None], (540, 960, 3))  # a chequerboard
    assert np.abs(pictures.near(fine).astype(int) - 127.5).max() <= 1, "no pixel is left out"


@pytest.mark.parametrize(("width", "height"), [(640, 360), (1280, 720)])
def test_what_a_closer_look_goes_by_is_made_once_where_a_viewer_has_frames_of_its_size(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    own = Viewer(focus.CLOSER_GREY, PLAIN, closer_look=True)
    kept = window_pictures.keeper([own])(frame)
    # The viewer's own size, which is that of a closer look's picture, is made before the closer look asks.
    kept[own.kept_as]
    alone = pictures.NearFrame(frame)
    resized: list[tuple[int, ...]] = []
    resize = pictures.resize

    def noted(picture: np.ndarray, size: int, half: np.ndarray | None = None) -> np.ndarray:
        resized.append(picture.shape)
        return resize(picture, size, half)

    monkeypatch.setattr(pictures, "resize", noted)
    np.testing.assert_array_equal(kept[window_pictures.NEAR].grey, alone.grey)
    # A frame that is shrunk first has other pixels, so the closer look's picture is made from the shrunk frame.
    was_shrunk = width > pictures.NEAR_SIDE
    assert resized == [(360, 640, 3)] * (1 + was_shrunk)


@pytest.mark.parametrize(
    ("width", "height"), [(1280, 720), (1920, 1080), (1079, 1919), (3840, 2160), (1300, 300)]
)
def test_a_large_frame_is_halved_once_for_all_and_nobody_sees_another_picture_for_it(
    monkeypatch: pytest.MonkeyPatch, width: int, height: int
) -> None:
    frame = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    boxed = replace(PLAIN, letterbox=True)
    viewers = [Viewer(size, config, closer_look=True) for size in (176, 224) for config in (PLAIN, boxed)]
    alone = {viewer.kept_as: pictures.keeper(viewer.size, viewer.config)(frame) for viewer in viewers}
    near = pictures.near(frame)
    halvings: list[tuple[int, ...]] = []
    halved = pictures.halved

    def noted(picture: np.ndarray) -> np.ndarray:
        halvings.append(picture.shape)
        return halved(picture)

    monkeypatch.setattr(pictures, "halved", noted)
    kept = window_pictures.keeper(viewers)(frame)
    assert halvings.count(frame.shape) == 1
    for kept_as, picture in alone.items():
        np.testing.assert_array_equal(kept[kept_as], picture)
    np.testing.assert_array_equal(kept[window_pictures.NEAR].picture, near)


@pytest.mark.parametrize("moving", [0.02, 0.1, 0.4])
def test_what_changes_is_counted_above_the_noise_and_its_square_is_the_smallest(moving: float) -> None:
    rng = np.random.default_rng(0)
    greys = [np.full((176, 176), 90, np.uint8) + rng.integers(0, 9, (176, 176), np.uint8) for _ in range(33)]
    size = round(176 * moving)
    for grey in greys:
        grey[20 : 20 + size, 100 : 100 + size] = rng.integers(0, 255, (size, size))
    steps = np.abs(np.diff(np.stack(greys).astype(int), axis=0))
    change = np.maximum(steps - focus.NOISE_LEVEL, 0).sum(axis=0)
    change = np.minimum(change, int(np.quantile(change, focus.CEILING)) + 1)
    square = focus.closer(greys)
    assert square
    inside = {}
    for side in focus.CLOSER_SIDES:
        crop = round(176 * side)
        at = [change[y : y + crop, x : x + crop].sum() for y in range(177 - crop) for x in range(177 - crop)]
        inside[side] = max(at)
    assert square.side == min(s for s, held in inside.items() if held >= focus.CLOSER_SHARE * change.sum())
    assert square.of(change).sum() == inside[square.side]
