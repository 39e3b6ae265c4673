"""Bursts of frames a fixed time apart, at evenly spaced moments of the window, the same in training and prediction."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numbered_videos
import numpy as np
import pytest
import seen_by_one

from violence_detection.features.config import FeatureConfig
from violence_detection.video import augment, decode, pictures, sampling

PAIRS = replace(FeatureConfig(), streams=("rgb",), frames=10, burst=2, burst_spacing_s=0.2)
INFO = decode.VideoInfo(n_frames=200, fps=20.0, width=64, height=48, codec="")


def _pairs(info: decode.VideoInfo, window: sampling.Window, variant: str = "v0") -> np.ndarray:
    """Frame numbers of the five pairs in a window: (5, 2)."""
    return sampling.sample(info, window, augment.draw(0, "id", variant), PAIRS).base.reshape(5, 2)


@pytest.mark.parametrize("fps", [8.0, 15.0, 24.0, 25.0, 30.0, 60.0])
@pytest.mark.parametrize("duration_s", [1.0, 2.0, 5.0, 30.0])
@pytest.mark.parametrize("variant", ["v0", "v1", "v2", "w1"])
def test_the_frames_of_a_pair_are_equally_far_apart_whatever_the_clip(
    fps: float, duration_s: float, variant: str
) -> None:
    info = replace(INFO, n_frames=round(fps * duration_s), fps=fps)
    window = sampling.middle_window(info, PAIRS.window_s)
    pairs = _pairs(info, window, variant)
    assert set(np.diff(pairs, axis=1).ravel().tolist()) == {round(0.2 * fps)}
    assert pairs.min() >= np.floor(window.start)
    assert pairs.max() < window.start + window.length
    assert (np.diff(pairs[:, 0]) > 0).all()


def test_pairs_are_spread_evenly_over_the_window() -> None:
    pairs = _pairs(INFO, sampling.Window(50.0, 100.0))
    np.testing.assert_array_equal(pairs, [[59, 63], [78, 82], [98, 102], [117, 121], [136, 140]])


def test_bursts_of_three_frames() -> None:
    found = sampling.burst_indices(100, 2, 3, 10, 0.0, 100.0)
    np.testing.assert_array_equal(found, [20, 30, 40, 60, 70, 80])


@pytest.mark.parametrize("n_frames", [1, 2, 3, 5])
def test_a_video_shorter_than_a_burst_repeats_its_last_frame(n_frames: int) -> None:
    pairs = sampling.burst_indices(n_frames, 3, 2, 4, 0.0, float(n_frames)).reshape(3, 2)
    assert pairs.min() >= 0
    assert pairs.max() == n_frames - 1
    assert (pairs[:, 1] == min(4 + pairs[0, 0], n_frames - 1)).all()


def test_prediction_sees_the_bursts_that_training_saw(tmp_path: Path) -> None:
    path = numbered_videos.write(tmp_path / "clip.avi", 60)
    variants = ("v0", "v1", "w1")
    trained = dict(pictures.clip_variants(path, "id", variants, 40, PAIRS))
    info = decode.probe(path)
    windows = sampling.sliding_windows(info, PAIRS.window_s, stride_s=2.5)
    (judged,) = seen_by_one.windows_of(path, info, windows, variants, 40, PAIRS)
    for variant in variants:
        np.testing.assert_array_equal(judged[variant]["rgb"], trained[variant]["rgb"])


def test_without_bursts_frames_are_sampled_as_ever() -> None:
    even = replace(PAIRS, burst=1)
    found = sampling.sample(INFO, sampling.Window(50.0, 100.0), augment.Draw(), even).base
    np.testing.assert_array_equal(found, sampling.sample_indices(200, 10, 50.0, 100.0))


def _spans(info: decode.VideoInfo, window_s: float, stride_s: float) -> list[tuple[float, float]]:
    """The windows' beginnings and ends, in seconds of the video."""
    return [
        (info.start_s + w.start / info.fps, info.start_s + (w.start + w.length) / info.fps)
        for w in sampling.sliding_windows(info, window_s, stride_s)
    ]


@pytest.mark.parametrize("fps", [12.0, 25.0, 29.97, 60.0])
@pytest.mark.parametrize(("window_s", "stride_s"), [(5.0, 2.5), (5.0, 1.0), (2.0, 2.0), (3.2, 0.7)])
def test_footage_has_the_same_windows_wherever_it_is_cut_off(
    fps: float, window_s: float, stride_s: float
) -> None:
    whole = _spans(replace(INFO, n_frames=2000, fps=fps), window_s, stride_s)
    for (start, _), number in zip(whole, range(len(whole)), strict=True):
        assert start == pytest.approx(number * stride_s)
    for n_frames in range(300, 2000, 17):
        cut = _spans(replace(INFO, n_frames=n_frames, fps=fps), window_s, stride_s)
        end_s = n_frames / fps
        there = [w for w in whole if w[1] <= end_s]
        assert cut[: len(there)] == there
        assert len(cut) - len(there) <= 1, "besides them the end alone"
        assert cut[-1][1] == pytest.approx(end_s, abs=sampling.MIN_FRAMES / fps)
        assert all(b[0] <= a[1] + 1e-9 for a, b in itertools.pairwise(cut)), (
            "nothing between them is left out"
        )


@pytest.mark.parametrize("start_s", [0.3, 2.5, 4.0, 61.7])
def test_footage_that_begins_late_has_the_windows_of_the_whole(start_s: float) -> None:
    whole = _spans(replace(INFO, n_frames=2000, fps=20.0), 5.0, 2.5)
    late = _spans(replace(INFO, n_frames=2000 - round(20 * start_s), fps=20.0, start_s=start_s), 5.0, 2.5)
    assert late[0][0] == pytest.approx(start_s), "what there is of the first"
    assert 2.5 < late[0][1] - late[0][0] <= 5.0
    np.testing.assert_allclose(late[1:], whole[-len(late) + 1 :])


@pytest.mark.parametrize(("n_frames", "rest"), [(400, 0), (401, 0), (407, 0), (408, 8), (420, 20)])
def test_what_is_left_over_is_a_window_from_eight_frames_on(n_frames: int, rest: int) -> None:
    windows = sampling.sliding_windows(replace(INFO, n_frames=n_frames), 5.0, 5.0)
    assert [w.length for w in windows] == [100.0] * 4 + ([rest] if rest else [])


@pytest.mark.parametrize(("n_frames", "first", "last"), [(100, 30, 70), (30, 0, 30)])
def test_the_middle_of_a_window_is_looked_at_alone_and_all_of_a_shorter_one(
    n_frames: int, first: int, last: int
) -> None:
    info = decode.VideoInfo(n_frames=n_frames, fps=20.0, width=64, height=48, codec="")
    config = replace(FeatureConfig(), streams=("rgb",), frames=10, span_s=2.0)
    window = sampling.middle_window(info, 5.0)
    base = sampling.sample(info, window, augment.Draw(), config).base
    np.testing.assert_array_equal(base, sampling.sample_indices(n_frames, 10, first, last - first))


@pytest.mark.parametrize(
    ("n_frames", "views", "seen"), [(100, 1, (30, 69)), (100, 3, (0, 99)), (70, 3, (0, 69)), (30, 3, (0, 29))]
)
def test_three_views_of_a_part_of_a_window_see_all_of_it(
    n_frames: int, views: int, seen: tuple[int, int]
) -> None:
    info = decode.VideoInfo(n_frames=n_frames, fps=20.0, width=64, height=48, codec="")
    config = replace(FeatureConfig(), streams=("rgb",), frames=40, span_s=2.0)
    window = sampling.middle_window(info, 5.0)
    draws = [augment.draw(0, "clip", name) for name in augment.variant_names(augment.VIEW, views)]
    frames = np.concatenate(
        [
            sampling.sample(info, window, replace(d, window_start=0.0, window_length=1.0), config).base
            for d in draws
        ]
    )
    assert (frames.min(), frames.max()) == seen


def test_where_a_view_looks_changes_nothing_for_a_backbone_that_looks_at_all_of_a_window() -> None:
    window = sampling.middle_window(INFO, 5.0)
    config = replace(FeatureConfig(), streams=("rgb",), frames=10)
    first, last = (sampling.sample(INFO, window, augment.Draw(place=p), config).base for p in (0.0, 1.0))
    np.testing.assert_array_equal(first, last)
