"""Brightness and motion as measured on a few pictures, and the reason that is given for what cannot be read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import small_videos

from violence_detection.video import appearance


def _still(path: Path, level: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"XVID"), 12.0, (96, 64))
    for _ in range(24):
        writer.write(np.full((64, 96, 3), level, np.uint8))
    writer.release()
    return path


def test_brightness_is_the_pictures_mean_and_what_stands_still_does_not_move(tmp_path: Path) -> None:
    dark, light = (appearance.look(_still(tmp_path / f"{n}.avi", n), 5.0) for n in (40, 200))
    assert dark.brightness == pytest.approx(40 / 255, abs=0.02)
    assert light.brightness == pytest.approx(200 / 255, abs=0.02)
    assert dark.motion == pytest.approx(0, abs=0.002)
    moving = appearance.look(small_videos.write(tmp_path / "moving.avi", 3), 5.0)
    assert moving.motion is not None
    assert moving.motion > 0.02


def test_a_long_clip_is_looked_at_in_its_middle_as_it_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "long.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"XVID"), 12.0, (96, 64))
    for i in range(120):  # 10 s; bright from 4 to 6 s
        writer.write(np.full((64, 96, 3), 220 if 48 <= i < 72 else 20, np.uint8))
    writer.release()
    assert appearance.look(path, 1.5).brightness == pytest.approx(220 / 255, abs=0.03)


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "no video.avi").write_bytes(b"no video")
    seen = appearance.look(tmp_path / "no video.avi", 5.0)
    assert (seen.brightness, seen.motion) == (None, None)
    assert "FFmpeg" in seen.reason
