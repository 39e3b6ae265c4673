"""From a video to the images a backbone sees: the same for training and prediction."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import cv2
import numbered_videos
import numpy as np
import pytest
import seen_by_one
import small_videos

from violence_detection.features.config import FeatureConfig
from violence_detection.video import augment, decode, pictures, sampling, writer

CONFIG = FeatureConfig(frames=8, window_s=1.5)
SIZE = 40
INFO = decode.VideoInfo(n_frames=200, fps=20.0, width=64, height=48, codec="")


def test_prediction_sees_the_images_that_training_saw(tmp_path: Path) -> None:
    path = small_videos.write(tmp_path / "clip.avi", 3, n_frames=15)
    variants = ("v0", "v1", "v2", "w1")
    trained = dict(pictures.clip_variants(path, "id", variants, SIZE, CONFIG))
    info = decode.probe(path)
    windows = sampling.sliding_windows(info, CONFIG.window_s, stride_s=0.5)
    (judged,) = seen_by_one.windows_of(path, info, windows, variants, SIZE, CONFIG)
    for variant in variants:
        for stream in ("rgb", "motion"):
            images = judged[variant][stream]
            assert images.shape == (8, SIZE, SIZE, 3)
            assert images.dtype == np.uint8
            np.testing.assert_array_equal(images, trained[variant][stream])


def test_each_window_of_a_long_video_shows_its_own_stretch(tmp_path: Path) -> None:
    path = small_videos.write(tmp_path / "long.avi", 3, n_frames=120)
    info = decode.probe(path)
    windows = sampling.sliding_windows(info, 2.5, stride_s=1.6)
    shown = [w["v0"]["rgb"] for w in seen_by_one.windows_of(path, info, windows, ("v0",), SIZE, CONFIG)]
    assert len(shown) == len(windows) == 6
    for window, images in zip(windows, shown, strict=True):
        expected = sampling.sample_indices(120, 8, window.start, window.length)
        _, frames = decode.read(path, lambda i: range(i.n_frames), pictures.frame_resizer(SIZE))
        np.testing.assert_array_equal(images, [frames[i] for i in expected])


@pytest.mark.parametrize("variant", ["v0", "v1", "v2", "v3", "v4", "w1"])
def test_a_still_clip_has_no_motion_in_any_variant(tmp_path: Path, variant: str) -> None:
    path = numbered_videos.write(tmp_path / "still.avi", 30, still=True)
    _, frames = decode.read(path, lambda i: range(i.n_frames), pictures.frame_resizer(SIZE))
    d = replace(augment.draw(0, "id", variant), noise_std=0.0)
    info = decode.probe(path)
    sample = sampling.sample(info, sampling.middle_window(info, 5.0), d, CONFIG)
    streams = pictures.images(frames, sample, d, SIZE, CONFIG)
    assert not streams["motion"].any()
    assert streams["rgb"].any()


VIEWS = replace(CONFIG, streams=("rgb", "crop", "moving"))


@pytest.mark.parametrize("variant", ["v0", "v1", "w1"])
def test_prediction_sees_the_crop_and_what_moves_as_training_saw_them(tmp_path: Path, variant: str) -> None:
    path = small_videos.write(tmp_path / "clip.avi", 3, n_frames=15)
    ((_, trained),) = pictures.clip_variants(path, "id", (variant,), SIZE, VIEWS)
    info = decode.probe(path)
    windows = sampling.sliding_windows(info, CONFIG.window_s, stride_s=0.5)
    (judged,) = seen_by_one.windows_of(path, info, windows, (variant,), SIZE, VIEWS)
    ((_, alone),) = pictures.clip_variants(path, "id", (variant,), SIZE, CONFIG)
    assert list(trained) == list(judged[variant]) == ["rgb", "crop", "moving"]
    for stream, images in trained.items():
        assert images.shape == (8, SIZE, SIZE, 3)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images, judged[variant][stream])
    np.testing.assert_array_equal(trained["rgb"], alone["rgb"])  # the other streams make no difference


def test_what_stands_still_is_mid_grey_and_what_moves_is_not() -> None:
    frames = np.full((12, SIZE, SIZE, 3), 90, np.uint8)
    frames[:, 5, 5] = 200
    for t in range(12):
        frames[t, 20, 3 * t : 3 * t + 2] = 170
    moving = pictures.without_still(frames)
    assert moving.shape == frames.shape
    assert (moving[:, 5, 5] == 127).all()
    for t in range(12):
        assert (moving[t, 20, 3 * t : 3 * t + 2] == 127 + 80).all()
    assert (np.abs(moving.astype(int) - 127) > 0).sum() == 12 * 2 * 3


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 31, 32, 33])
def test_what_stands_still_is_the_median_of_any_number_of_frames(count: int) -> None:
    frames = np.random.default_rng(count).integers(0, 256, (count, 6, 5, 3)).astype(np.uint8)
    # the median; between the two middle values, their mean rounded down
    still = np.floor(np.median(frames, axis=0))
    np.testing.assert_array_equal(pictures.without_still(frames), np.clip(frames - still + 127, 0, 255))


def test_the_crop_shows_the_part_that_moves_from_the_larger_picture(tmp_path: Path) -> None:
    """A bright square wanders in the lower right quarter of a textured still picture."""
    rng = np.random.default_rng(0)
    still = rng.integers(60, 80, (120, 160, 3), np.uint8)
    shown = []
    for t in range(30):
        frame = still.copy()
        frame[80:110, 90 + t : 120 + t] = 255
        shown.append(frame)
    path = tmp_path / "clip.avi"
    writer.write(path, 20.0, shown, "MJPG")
    ((_, streams),) = pictures.clip_variants(path, "id", ("v0",), SIZE, VIEWS)
    bright = [int((streams[s].min(axis=-1) > 180).sum()) for s in ("rgb", "crop")]
    assert bright[0] > 0
    assert 2.0 < bright[1] / bright[0] < 3.6, "1 / 0.6 squared, at the edges a little more or less"


def test_motion_holds_three_successive_amplified_differences(tmp_path: Path) -> None:
    path = numbered_videos.write(tmp_path / "clip.avi", 60)
    config = replace(CONFIG, motion_spacing_s=0.1, motion_gain=0.5)  # a spacing of two frames at 20 fps
    info = decode.probe(path)
    sample = sampling.sample(info, sampling.middle_window(info, 5.0), augment.Draw(), config)
    _, frames = decode.read(path, lambda i: range(i.n_frames), pictures.frame_resizer(SIZE))
    grey = {i: cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(float) for i, frame in frames.items()}
    motion = pictures.images(frames, sample, augment.Draw(), SIZE, config)["motion"]
    assert motion.any()
    for i, base in enumerate(sample.base.tolist()):
        first = min(base, 59 - 6)  # near the end: the last frames that fit
        for channel in range(3):
            a, b = grey[first + 2 * channel], grey[first + 2 * channel + 2]
            assert np.abs(motion[i, ..., channel] - np.abs(a - b) * 0.5).max() <= 0.5


@pytest.mark.parametrize("n_frames", [8, 9, 20, 200])
@pytest.mark.parametrize("fps", [5.0, 25.0, 240.0])
def test_the_frames_of_motion_lie_inside_the_clip_evenly_spaced(n_frames: int, fps: float) -> None:
    info = replace(INFO, n_frames=n_frames, fps=fps)
    for variant in ("v0", "v1", "v2", "v3", "w1"):
        d = augment.draw(0, "id", variant)
        sample = sampling.sample(info, sampling.middle_window(info, 5.0), d, CONFIG)
        assert 0 <= min(sample.frames) <= max(sample.frames) < n_frames
        gap = max(1, round(CONFIG.motion_spacing_s * fps))
        if 3 * gap < n_frames:
            assert set(np.diff(sample.motion, axis=1).ravel().tolist()) == {gap}


def test_a_stream_is_the_same_with_and_without_the_other(tmp_path: Path) -> None:
    path = small_videos.write(tmp_path / "clip.avi", 3)
    noisy = next(v for v in (f"v{i}" for i in range(1, 50)) if augment.draw(0, "id", v).noise_std)
    (_, both), *_ = pictures.clip_variants(path, "id", (noisy,), SIZE, CONFIG)
    for stream in ("rgb", "motion"):
        alone = replace(CONFIG, streams=(stream,))
        (_, streams), *_ = pictures.clip_variants(path, "id", (noisy,), SIZE, alone)
        assert list(streams) == [stream]
        np.testing.assert_array_equal(streams[stream], both[stream])


def test_a_variant_does_not_depend_on_which_others_are_made(tmp_path: Path) -> None:
    path = small_videos.write(tmp_path / "clip.avi", 3)
    together = dict(pictures.clip_variants(path, "id", ("v0", "v1", "v2", "v3"), SIZE, CONFIG))
    ((_, alone),) = pictures.clip_variants(path, "id", ("v2",), SIZE, CONFIG)
    for stream, images in alone.items():
        np.testing.assert_array_equal(images, together["v2"][stream])


@pytest.mark.parametrize("n_frames", [10, 100, 101, 133, 200, 4567])
def test_sliding_windows_cover_the_whole_video(n_frames: int) -> None:
    info = replace(INFO, n_frames=n_frames)
    windows = sampling.sliding_windows(info, window_s=5.0, stride_s=2.5)
    assert windows[0].start == 0
    assert windows[-1].start + windows[-1].length == pytest.approx(n_frames)
    starts = np.array([w.start for w in windows])
    np.testing.assert_allclose(starts, 50.0 * np.arange(len(starts)))
    assert all(w.length == min(100, n_frames) for w in windows[:-1])
    assert min(n_frames, 50) < windows[-1].length <= 100 or n_frames == 10


def test_a_clip_longer_than_a_window_is_judged_on_its_middle() -> None:
    assert sampling.middle_window(INFO, 5.0) == sampling.Window(50.0, 100.0)
    assert sampling.middle_window(replace(INFO, n_frames=60), 5.0) == sampling.Window(0.0, 60.0)


@pytest.mark.parametrize("shape", [(20, 30), (100, 90), (20, 90)])
def test_frames_of_any_size_are_squeezed_to_the_square(shape: tuple[int, int]) -> None:
    frame = np.full((*shape, 3), 77, np.uint8)
    out = pictures.frame_resizer(SIZE)(frame)
    assert out.shape == (SIZE, SIZE, 3)
    assert (out == 77).all()


@pytest.mark.parametrize("shape", [(20, 30), (100, 90), (3 * SIZE, SIZE), (SIZE, SIZE), (400, 3)])
def test_a_letterboxed_frame_keeps_its_shape_with_black_beside_it(shape: tuple[int, int]) -> None:
    frame = np.full((*shape, 3), 77, np.uint8)
    out = pictures.frame_resizer(SIZE, replace(CONFIG, letterbox=True))(frame)
    assert out.shape == (SIZE, SIZE, 3)
    assert set(np.unique(out)) <= {0, 77}
    rows, columns = (np.flatnonzero((out == 77).any(axis=(axis, 2))) for axis in (1, 0))
    for found, side in ((rows, shape[0]), (columns, shape[1])):
        assert abs(len(found) - max(1, SIZE * side / max(shape))) <= 0.5
        np.testing.assert_array_equal(found, np.arange(found[0], found[-1] + 1))
        assert abs(found[0] - (SIZE - 1 - found[-1])) <= 1, "in the middle"
    assert pictures.letterboxed(out, SIZE) is out


@pytest.mark.parametrize(
    "shape", [(20, 30), (SIZE, SIZE), (3 * SIZE, 3 * SIZE), (100, 178), (5 * SIZE, 11 * SIZE)]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_squeezed_frame_is_the_whole_picture_the_right_way_round(shape: tuple[int, int], axis: int) -> None:
    """A linear ramp must stay the same ramp from edge to edge: a shift or a flip would change it."""
    ramp = 250 * (np.arange(shape[axis]) + 0.5) / shape[axis]
    expected = 250 * (np.arange(SIZE) + 0.5) / SIZE
    if axis == 0:
        ramp, expected = ramp[:, None], expected[:, None]
    frame = np.broadcast_to(ramp[..., None] if axis == 0 else ramp[None, :, None], (*shape, 3))
    out = pictures.frame_resizer(SIZE)(np.rint(frame).astype(np.uint8))
    middle = slice(1, -1)  # without the edge, beyond which pixels are repeated
    off = np.abs(out - np.broadcast_to(expected, (SIZE, SIZE))[..., None])[middle, middle]
    assert off.max() <= 3


@pytest.mark.parametrize("shape", [(4 * SIZE, 4 * SIZE), (2 * SIZE, 4 * SIZE), (4 * SIZE, SIZE)])
def test_every_pixel_counts_where_sides_are_halved_to_the_end(shape: tuple[int, int]) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    blocks = frame.reshape(SIZE, shape[0] // SIZE, SIZE, shape[1] // SIZE, 3)
    mean = blocks.mean(axis=(1, 3))
    assert np.abs(pictures.frame_resizer(SIZE)(frame) - mean).max() <= 1.5  # rounded once per halving


def test_decoded_frames_go_with_their_clip_without_the_collector_of_cycles() -> None:
    frames = {i: np.full((SIZE, SIZE, 3), i, np.uint8) for i in range(8)}
    whole = pictures.Pictures(frames, SIZE)
    sample = sampling.Sampling(np.array([0, 3]), np.array([[0, 1, 2, 3], [3, 4, 5, 6]]))
    gc.disable()
    try:
        pictures.images(frames, sample, augment.Draw(), SIZE, CONFIG, whole)
        last = weakref.ref(whole)
        del whole
        assert last() is None
    finally:
        gc.enable()
