"""Frames of a clip for the page: evenly spaced in the judged window, and small."""

from __future__ import annotations

from pathlib import Path

import cv2
import numbered_videos
import numpy as np
import pytest

from violence_detection.errors import UnreadableVideo
from violence_detection.evaluation.report import film_strip


def picture(frame: film_strip.StripFrame) -> np.ndarray:
    decoded = cv2.imdecode(np.frombuffer(frame.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.asarray(decoded)


def test_the_frames_are_the_centres_of_equal_parts_of_the_clip(tmp_path: Path) -> None:
    clip = numbered_videos.write(tmp_path / "clip.avi", n_frames=40, fps=20.0)
    frames = film_strip.clip_frames(clip, 4)
    assert [frame.time_s for frame in frames] == pytest.approx([0.25, 0.75, 1.25, 1.75])
    for frame in frames:
        assert picture(frame).shape == (frame.height, frame.width, 3)


def test_of_a_long_clip_the_judged_window_is_shown(tmp_path: Path) -> None:
    clip = numbered_videos.write(tmp_path / "clip.avi", n_frames=80, fps=20.0)
    times = [frame.time_s for frame in film_strip.clip_frames(clip, 5, window_s=1.0)]
    assert times[0] >= 1.5
    assert times[-1] <= 2.5
    assert len(times) == 5


def test_a_frame_keeps_its_shape_within_the_box_and_its_bytes_within_the_budget() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
    for image in (noise, noise[:, :100], noise[:50]):
        small = film_strip._shrink(image)
        assert small.shape[0] <= 162
        assert small.shape[1] <= 288
        assert small.shape[1] / small.shape[0] == pytest.approx(image.shape[1] / image.shape[0], rel=0.2)
        assert len(film_strip._jpeg(small)) < 40_000
    smooth = cv2.GaussianBlur(noise, (0, 0), 8)
    assert len(film_strip._jpeg(film_strip._shrink(smooth))) <= 16_000


def test_each_frame_stands_for_whole_steps_where_that_is_possible() -> None:
    assert film_strip.frame_count(20) == 5
    assert film_strip.frame_count(16) == 4
    assert film_strip.frame_count(18) == 6
    assert film_strip.frame_count(17) == film_strip.frame_count(0) == 5


def test_a_clip_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(UnreadableVideo):
        film_strip.frames_below(tmp_path)("absent.avi")
