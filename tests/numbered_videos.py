"""Tiny real videos whose frames carry their own number as black and white blocks, legible after compression."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

BLOCK = 16
BITS = 8


def frame(number: int) -> np.ndarray:
    """(32, 128, 3) uint8: the number's bits across the upper half, the middle grey below."""
    picture = np.full((2 * BLOCK, BITS * BLOCK, 3), 128, np.uint8)
    for bit in range(BITS):
        picture[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 if number >> bit & 1 else 0
    return picture


def number_of(picture: np.ndarray) -> int:
    """The number that a decoded frame carries."""
    centres = picture[BLOCK // 2, BLOCK // 2 :: BLOCK].mean(axis=-1)
    return sum(1 << bit for bit, level in enumerate(centres) if level > 128)


def write(path: Path, n_frames: int = 40, fps: float = 20.0, still: bool = False) -> Path:
    """A Motion JPEG `.avi` or MPEG-4 `.mp4`; `still` repeats frame 5 throughout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {".avi": "MJPG", ".mp4": "mp4v"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (BITS * BLOCK, 2 * BLOCK))
    assert writer.isOpened(), path
    for number in range(n_frames):
        writer.write(frame(5 if still else number))
    writer.release()
    return path


def claim_frames(path: Path, n_frames: int) -> None:
    """Make an AVI's header state another number of frames, in the main and in the stream header."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, n_frames)  # dwTotalFrames
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, n_frames)  # dwLength
    path.write_bytes(data)
