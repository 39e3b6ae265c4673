"""Tiny real videos whose frames show their own number as black and white blocks, which survive compression."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

BLOCK = 16
BITS = 8


def frame(number: int) -> np.ndarray:
    """Return a frame (32, 128, 3), uint8: the bits of its number across the upper half, and grey below."""
    picture = np.full((2 * BLOCK, BITS * BLOCK, 3), 128, np.uint8)
    for bit in range(BITS):
        picture[:BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 if number >> bit & 1 else 0
    return picture


def number_of(picture: np.ndarray) -> int:
    """Return the number that a decoded frame shows."""
    centres = picture[BLOCK // 2, BLOCK // 2 :: BLOCK].mean(axis=-1)
    return sum(1 << bit for bit, level in enumerate(centres) if level > 128)


def write(path: Path, n_frames: int = 40, fps: float = 20.0, still: bool = False) -> Path:
    """Write a Motion JPEG `.avi` or an MPEG-4 `.mp4`. With `still`, every frame is frame 5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    codec = {".avi": "MJPG", ".mp4": "mp4v"}[path.suffix]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (BITS * BLOCK, 2 * BLOCK))
    assert writer.isOpened(), path
    for number in range(n_frames):
        writer.write(frame(5 if still else number))
    writer.release()
    return path


def claim_frames(path: Path, n_frames: int) -> None:
    """Make an AVI's headers state another number of frames, in the main header and in the stream's."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, n_frames)  # dwTotalFrames
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, n_frames)  # dwLength
    path.write_bytes(data)
