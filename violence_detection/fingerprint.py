"""Perceptual fingerprints of clips: what is left when one is re-encoded, scaled, cropped, brightened or trimmed.

A few frames at fixed times from the start (so that neither frame rate nor a trimmed end moves them) are reduced
to their lowest spatial frequencies (2D DCT of the luma, the idea of pHash), without the constant term, and scaled
to a common contrast. 24 int8 values a frame, at most 8 frames: at most 192 bytes, written as hex.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from violence_detection import video

N_FRAMES = 8
N_COEFFICIENTS = 24
FIRST_S = 0.1
STEP_S = 0.2
_SIDE = 32
#: Standard deviation of the low-frequency luma (0-255) below which a clip shows nothing to recognise it by.
MIN_TEXTURE = 2.0
_SCALE = 32.0


def sample_plan(info: video.VideoInfo, start: int = 0, length: int | None = None) -> list[int]:
    """Frame numbers a fingerprint needs: up to N_FRAMES, ascending, at fixed times from frame `start`.

    `start` and `length` (in frames) are for a window of a longer video; without them it is the whole clip.
    """
    end = info.n_frames if length is None else min(start + length, info.n_frames)
    times = FIRST_S + STEP_S * np.arange(N_FRAMES)
    frames = start + np.floor(times * info.fps).astype(int)
    return sorted({int(f) for f in frames if f < end})


def shrink(frame: np.ndarray) -> np.ndarray:
    """Reduce an RGB uint8 frame of any size to (32, 32, 3): the `transform` for `video.decode`."""
    return cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)


def from_frames(frames: Sequence[np.ndarray]) -> str:
    """Fingerprint of the frames of `sample_plan`, in its order: RGB uint8 of any size, or through `shrink`.

    Returns lower-case hex, 48 digits a frame. A clip without texture (black, one colour) has no identity: its
    fingerprint is the empty string, which pairs with nothing.
    """
    rows = np.stack([_spectrum(f) for f in frames]) if len(frames) else np.zeros((0, N_COEFFICIENTS))
    rms = float(np.sqrt(np.mean(rows**2))) if rows.size else 0.0
    if rms * np.sqrt(N_COEFFICIENTS) / _SIDE < MIN_TEXTURE:
        return ""
    return np.clip(np.rint(rows / rms * _SCALE), -127, 127).astype(np.int8).tobytes().hex()


def to_array(fingerprint: str) -> np.ndarray:
    """Returns (frames, 24) int8, frames from 0 (no identity) to N_FRAMES. Raises ValueError if it is none."""
    return np.frombuffer(bytes.fromhex(fingerprint), np.int8).reshape(-1, N_COEFFICIENTS)


def of_video(path: Path) -> tuple[video.VideoInfo, str]:
    """Decode a video and fingerprint it. Raises UnreadableVideo."""
    info, frames = video.decode(path, sample_plan, shrink)
    return info, from_frames([frames[i] for i in sample_plan(info)])


def _spectrum(frame: np.ndarray) -> np.ndarray:
    """The lowest spatial frequencies of the luma, (N_COEFFICIENTS,) float32, constant term left out."""
    small = frame if frame.shape[:2] == (_SIDE, _SIDE) else shrink(frame)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return cv2.dct(luma)[_ROWS, _COLUMNS]


def _low_frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the N_COEFFICIENTS lowest frequencies, lowest first."""
    pairs = sorted(
        ((r, c) for r in range(8) for c in range(8) if r + c), key=lambda p: (p[0] ** 2 + p[1] ** 2, p)
    )
    rows, columns = zip(*pairs[:N_COEFFICIENTS], strict=True)
    return np.array(rows), np.array(columns)


_ROWS, _COLUMNS = _low_frequencies()
