"""Tiny real video files with pictures that all differ, and altered copies of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def frames(seed: int, n_frames: int = 24, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """Return frames of moving coarse noise, (height, width, 3) uint8 BGR, different for each seed."""
    rng = np.random.default_rng(seed)
    field = rng.integers(0, 255, (8, 8 + n_frames, 3), np.uint8)  # moves by whole cells from frame to frame
    steps = int(rng.integers(1, 3))
    return [
        cv2.resize(np.roll(field, -i * steps, axis=1)[:, :8], (width, height), interpolation=cv2.INTER_CUBIC)
        for i in range(n_frames)
    ]


def write(
    path: Path,
    seed: int,
    *,
    n_frames: int = 24,
    width: int = 96,
    height: int = 64,
    brightness: int = 0,
    mirrored: bool = False,
) -> Path:
    """Write the frames of `seed` at 12 fps. Another size or brightness makes an altered copy of the same clip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {".avi": "XVID", ".mp4": "mp4v"}[path.suffix.lower()]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 12.0, (width, height))
    assert writer.isOpened(), path
    for frame in frames(seed, n_frames):
        frame = np.ascontiguousarray(frame[:, ::-1]) if mirrored else frame
        writer.write(cv2.resize(cv2.convertScaleAbs(frame, beta=brightness), (width, height)))
    writer.release()
    return path
