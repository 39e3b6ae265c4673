"""Cuts are found, and what only looks like a cut is not; a window with a cut is judged on one shot."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from violence_detection.features.config import FeatureConfig
from violence_detection.prediction.window_stream import WindowStream
from violence_detection.video import decode, sampling, shots, window_pictures, writer
from violence_detection.video.augment import CLOSER, PLAIN
from violence_detection.video.sampling import Sampling, Window
from violence_detection.video.sources import TimedFrame
from violence_detection.video.window_pictures import Viewer

FPS = 25.0
VIEWS = (PLAIN, CLOSER)


def _scene(seed: int, count: int, speed: float = 3.0) -> list[np.ndarray]:
    """Frames (120, 160, 3) of a room in which two figures walk, with sensor noise. Each seed is a different room."""
    rng = np.random.default_rng(seed)
    room = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (160, 120), interpolation=cv2.INTER_CUBIC)
    colours = rng.integers(0, 255, (2, 3)).tolist()
    frames = []
    for t in range(count):
        frame = room.copy()
        for i, colour in enumerate(colours):
            left = int(20 + 60 * i + speed * t) % 150
            cv2.rectangle(frame, (left, 40), (left + 18, 110), colour, cv2.FILLED)
        noise = rng.normal(0, 3, frame.shape)
        frames.append(np.clip(frame + noise, 0, 255).astype(np.uint8))
    return frames


def _cuts(frames: list[np.ndarray], every: int = 2) -> list[int]:
    return [every * i for i in shots.cuts([shots.small(frame) for frame in frames[::every]])]


@pytest.mark.parametrize("seed", range(6))
def test_a_cut_is_found_where_it_is(seed: int) -> None:
    assert _cuts([*_scene(seed, 40), *_scene(seed + 100, 40)]) == [40]
    three = [*_scene(seed, 30), *_scene(seed + 100, 30), *_scene(seed + 200, 30)]
    assert _cuts(three) == [30, 60]


def _flash(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [np.full_like(f, 250) if t in (30, 31, 32) else f for t, f in enumerate(frames)]


def _swept(count: int) -> list[np.ndarray]:
    """A camera that pans over a wide room, faster and faster, in the end by a tenth of the picture per frame."""
    wide = cv2.resize(_scene(1, 1)[0], (1600, 120), interpolation=cv2.INTER_CUBIC)
    at = np.minimum(np.cumsum(np.linspace(1, 16, count)), 1400).astype(int)
    return [wide[:, x : x + 160] for x in at]


def _slow(frames: list[np.ndarray], each: int) -> list[np.ndarray]:
    """The frames as a camera with a low rate sends them: one picture stays for `each` frames."""
    return [frames[t - t % each] for t in range(len(frames))]


@pytest.mark.parametrize(
    "frames",
    [
        _scene(0, 80),
        _scene(0, 80, speed=25),
        [_scene(0, 1)[0]] * 80,
        _flash(_scene(0, 80)),
        _swept(80),
        _slow(_scene(0, 80, speed=25), 8),
        _slow(_swept(80), 8),
    ],
    ids=["walk", "run", "still", "flash", "swing", "slow camera", "slow camera swings"],
)
def test_what_moves_is_no_cut(frames: list[np.ndarray]) -> None:
    assert _cuts(frames) == []


@pytest.mark.parametrize(("count", "cuts"), [(0, []), (1, []), (2, [1])])
def test_a_cut_needs_two_frames_and_no_neighbours_beside_them(count: int, cuts: list[int]) -> None:
    assert _cuts([*_scene(0, 1), *_scene(9, 1)][:count], every=1) == cuts


def test_cuts_are_looked_for_in_the_frames_of_the_densest_and_beyond_them() -> None:
    dense = Sampling(sampling.sample_indices(1000, 32, 130.0, 65.0), np.empty((0, 4), np.int64))
    sparse = Sampling(sampling.sample_indices(1000, 10, 100.0, 125.0), np.empty((0, 4), np.int64))
    numbers = shots.compared(FPS, [sparse, dense])
    assert set(dense.base) <= set(numbers)
    assert abs(numbers[0] - sparse.base[0]) <= 1
    assert abs(numbers[-1] - sparse.base[-1]) <= 1
    assert np.diff(numbers).max() <= 3
    np.testing.assert_array_equal(shots.compared(FPS, [dense]), dense.base)
    of_sparse = shots.compared(FPS, [sparse])
    assert set(np.diff(of_sparse)) == {2}
    assert of_sparse[0] == sparse.base[0]
    assert 0 <= sparse.base[-1] - of_sparse[-1] < 2


def test_the_shot_in_the_middle_is_taken() -> None:
    numbers = list(range(0, 126, 2))
    for at, expected in ((20, (20, None)), (50, (50, None)), (76, (0, 76)), (100, (0, 100))):
        frames = [*_scene(3, at), *_scene(4, 126 - at)]
        shot = shots.middle_shot(numbers, [shots.small(frames[n]) for n in numbers], Window(0.0, 125.0))
        assert shot is not None
        assert shot[0] == expected[0]
        assert shot[1] == expected[1] or (expected[1] is None and shot[1] > 10**9)
    same = _scene(3, 126)
    assert shots.middle_shot(numbers, [shots.small(same[n]) for n in numbers], Window(0.0, 125.0)) is None


def test_a_window_of_flickering_shots_is_left_as_it_is() -> None:
    frames = [f for seed in range(13) for f in _scene(seed, 10)][:126]
    numbers = list(range(0, 126, 2))
    assert len(_cuts(frames)) > 3
    assert shots.middle_shot(numbers, [shots.small(frames[n]) for n in numbers], Window(0.0, 125.0)) is None


def test_frames_of_the_shot_stand_for_the_others() -> None:
    base = np.arange(0, 80, 10)
    motion = base[:, None] + np.arange(4)
    plain = Sampling(base, np.empty((0, 4), np.int64))
    assert shots.within(plain, (35, 1000)).base.tolist() == [40, 40, 50, 50, 60, 60, 70, 70]
    assert shots.within(plain, (0, 35)).base.tolist() == [0, 0, 10, 10, 20, 20, 30, 30]
    kept = shots.within(Sampling(base, motion), (0, 32))
    assert kept.base.tolist() == [0, 0, 10, 10, 20, 20, 30, 30]
    assert kept.motion[:, 0].tolist() == [0, 0, 0, 10, 10, 20, 20, 20], "that of 30 looks behind the cut"
    assert shots.within(plain, (35, 1000), burst=4).base.tolist() == [40, 50, 60, 70, 40, 50, 60, 70]
    assert shots.within(plain, (200, 300)).base.tolist() == base.tolist(), "it looks at nothing of it"


def _video(path: Path, *scenes: list[np.ndarray]) -> Path:
    writer.write(path, FPS, (frame for scene in scenes for frame in scene), "mp4v")
    return path


CONFIG = replace(FeatureConfig(), streams=("rgb",), window_s=2.0)
VIEWERS = [
    Viewer(32, replace(CONFIG, frames=16)),
    Viewer(48, replace(CONFIG, frames=4, letterbox=True), closer_look=True),
    Viewer(32, replace(CONFIG, frames=16), one_shot=False),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A dark scene, then a light one."""
    dark, light = [f // 4 for f in _scene(5, 60)], [255 - f // 4 for f in _scene(6, 60)]
    return _video(tmp_path / "cut.mp4", dark, light)


def test_a_stream_that_was_cut_is_looked_at_as_the_file_is(path: Path) -> None:
    info = decode.probe(path)
    windows = sampling.sliding_windows(info, 2.0, 1.0)
    of_file = list(window_pictures.of_file(path, info, windows, VIEWERS, "stream", VIEWS))
    stream = WindowStream(VIEWERS, 2.0, 1.0, stated_fps=FPS, variants=VIEWS)
    frames = [TimedFrame(*frame) for frame in decode.played(path, info)]
    of_stream = [w for frame in frames for w in stream.push(frame)] + stream.finish()
    assert len(of_stream) == len(of_file) == len(windows)
    for seen, same in zip(of_stream, of_file, strict=True):
        for n, v in itertools.product(range(len(VIEWERS)), VIEWS):
            np.testing.assert_array_equal(seen.pictures(n, v)["rgb"], same.pictures(n, v)["rgb"])


def test_a_window_of_a_recording_shows_one_shot_and_a_clip_all_of_it(path: Path) -> None:
    info = decode.probe(path)

    def means(windows: list[Window]) -> list[list[float]]:
        seen = window_pictures.of_file(path, info, windows, VIEWERS, "", VIEWS)
        return [
            [float(f.max()) for n in (0, 1) for v in VIEWS for f in s.pictures(n, v)["rgb"]] for s in seen
        ]

    grid = sampling.sliding_windows(info, 2.0, 1.0)
    every = means(grid)
    assert [all(m > 150 for m in of) or all(m < 120 for m in of) for of in every] == [True] * len(grid)
    assert max(every[0]) < 120 < 150 < min(every[-1])
    (clip,) = means([sampling.middle_window(info, 10.0)])
    assert min(clip) < 120 < 150 < max(clip)


def test_a_viewer_that_minds_no_cut_sees_all_of_the_window(path: Path) -> None:
    info = decode.probe(path)
    windows = sampling.sliding_windows(info, 2.0, 1.0)
    alone = list(window_pictures.of_file(path, info, windows, VIEWERS[2:], "", [PLAIN]))
    seen = list(window_pictures.of_file(path, info, windows, VIEWERS, "", [PLAIN]))
    cut = 0
    for of_three, of_one in zip(seen, alone, strict=True):
        plain = of_three.pictures(2, PLAIN)["rgb"]
        np.testing.assert_array_equal(plain, of_one.pictures(0, PLAIN)["rgb"])
        brightest = plain.max(axis=(1, 2, 3))
        cut += bool(brightest.min() < 120 < 150 < brightest.max())
    assert cut >= 1
    draws = [viewer.draws("", [PLAIN]) for viewer in VIEWERS]
    plans = [
        window_pictures.WindowPlan(windows[1], info, v, d)
        for v, d in ((VIEWERS, draws), (VIEWERS[2:], draws[2:]))
    ]
    more = [plan.frames - frozenset[int]().union(*plan.by_viewer) for plan in plans]
    assert more[0]
    assert not more[1], "where nobody minds cuts none are looked for"
