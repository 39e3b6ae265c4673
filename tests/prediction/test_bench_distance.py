"""Clips placed in a still scene: at the size and the place that were asked for, and nothing else moves."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import small_videos

from benchmarks import bench_distance
from violence_detection.errors import UserError
from violence_detection.video import decode, pictures


@pytest.mark.parametrize(("size", "found"), [(0.5, 0.5), (0.25, 0.25)])
def test_a_clip_is_laid_where_it_alone_moves(tmp_path: Path, size: float, found: float) -> None:
    video = small_videos.write(tmp_path / "clip.avi", 3, n_frames=30, width=160, height=120)
    scene = np.full((90, 120, 3), 100, np.uint8)
    laid = bench_distance.laid_in([video], scene, size, np.array([[1.0, 0.0]]), tmp_path / "laid.mp4")
    before, after = decode.probe(video), decode.probe(laid)
    assert (after.width, after.height) == (160 / size, 120 / size)
    assert (after.n_frames, after.fps) == (before.n_frames, before.fps)
    frames = [frame for _, frame in decode.moments(laid, after, range(after.n_frames))]
    original = [frame for _, frame in decode.moments(video, before, range(before.n_frames))]
    for shown, frame in zip(frames, original, strict=True):
        off = shown[:120, -160:].astype(int) - frame
        assert np.abs(off).mean() < 6
        assert np.abs(shown[:, :-170].astype(int) - 100).max() < 12
    square = pictures.closer_square([pictures.NearFrame(frame) for frame in frames])
    assert square
    assert square.side == pytest.approx(found, abs=0.06)
    assert (square.x, square.y) == pytest.approx((1.0, 0.0), abs=0.15)


def test_another_clip_is_laid_in_the_farthest_corner_and_goes_there_and_back(tmp_path: Path) -> None:
    video = small_videos.write(tmp_path / "clip.avi", 3, n_frames=30, width=160, height=120)
    short = small_videos.write(tmp_path / "short.avi", 5, n_frames=8, width=80, height=60)
    scene = np.full((90, 120, 3), 100, np.uint8)
    places = np.array([[1.0, 0.0], [0.0, 1.0]])
    laid = bench_distance.laid_in([video, short], scene, 0.25, places, tmp_path / "laid.mp4")
    after, before = decode.probe(laid), decode.probe(short)
    assert after.n_frames == 30
    frames = [frame for _, frame in decode.moments(laid, after, range(30))]
    passing = [frame for _, frame in decode.moments(short, before, range(8))]
    for number, shown in enumerate(frames):
        at = number % 14
        wanted = cv2.resize(passing[min(at, 14 - at)], (160, 120))
        assert np.abs(shown[-120:, :160].astype(int) - wanted).mean() < 8
        assert np.abs(shown[:, 200:440].astype(int) - 100).max() < 12
    square = pictures.closer_square([pictures.NearFrame(frame) for frame in frames])
    assert square
    assert square.side == pytest.approx(0.25, abs=0.06)


@pytest.mark.parametrize(
    ("begun", "now", "said"),
    [
        (["--models", "a"], ["--models", "a", "--passers-by"], "passers-by"),
        (["--models", "a", "--passers-by"], ["--models", "a"], "passers-by"),
        (["--models", "a"], ["--models", "b"], "models"),
        (["--models", "a"], ["--models", "a", "--every", "8"], "every"),
    ],
)
def test_what_was_judged_otherwise_is_not_mixed_with_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[str], now: list[str], said: str
) -> None:
    """Rows of other models, of a subset of the clips or with passers-by once went into the same file and figures."""
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        Path(name, "seed_0", "without_set").mkdir(parents=True)
    monkeypatch.setattr(bench_distance.model_files, "identity", lambda folder: folder.parts[0])
    row = dict.fromkeys(bench_distance.COLUMNS[:9], 0) | {"label": "fight", "size": 0.33}
    monkeypatch.setattr(bench_distance, "_judged", lambda args, known: iter([] if known else [row]))
    monkeypatch.setattr(bench_distance, "summarised", len)
    flags = ["bench_distance.py", "--data-root", "x", "--output", "judged.csv", "--sizes", "0.33"]
    # the second time, the same command resumes
    for _ in range(2):
        monkeypatch.setattr(sys, "argv", [*flags, *begun])
        assert bench_distance.main() == 0
    monkeypatch.setattr(sys, "argv", [*flags, *now])
    with pytest.raises(
        UserError, match=rf"judged\.csv was judged with a different --{said}: name another --output"
    ):
        bench_distance.main()


def test_figures_are_of_each_data_set_and_their_mean() -> None:
    rows = pd.DataFrame(
        {
            "dataset": ["a"] * 4 + ["b"] * 4,
            "label": ["fight", "fight", "nonfight", "nonfight"] * 2,
            "size": 0.5,
            "whole": [0.9, 0.2, 0.1, 0.3, 0.4, 0.2, 0.1, 0.3],
            "closer": [0.9, 0.7, 0.6, 0.3, 0.8, 0.7, 0.1, 0.3],
            "square": [0, 1, 1, 1, 1, 1, 1, 1],
        }
    )
    found = bench_distance.summarised(rows)["0.5"]
    assert found["whole"]["a"] == {"accuracy": 0.75, "roc_auc": 0.75, "found": 0.5, "false_alarms": 0.0}
    assert found["closer"]["b"] == {"accuracy": 1.0, "roc_auc": 1.0, "found": 1.0, "false_alarms": 0.0}
    assert found["closer"]["mean"]["found"] == 1.0
    assert found["closer"]["mean"]["false_alarms"] == 0.25
    assert (found["square"], found["n"]) == (0.875, 8)
