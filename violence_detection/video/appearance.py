"""Brightness and amount of motion of a clip, measured on a few small grey pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from violence_detection.errors import UnreadableVideo
from violence_detection.video import decode, sampling, video_files

#: Change this whenever the figures would come out differently: stored figures are found by a key that contains it.
VERSION = "1"
_MOMENTS = 6
_STEP_S = 0.08
_WIDTH_PX = 64


@dataclass(frozen=True)
class Appearance:
    """`brightness`: mean luma, 0 (black) to 1 (white). `motion`: mean absolute change of luma over 0.08 s, 0 to 1.

    If the clip cannot be read, `reason` says why, and both figures are None.
    """

    brightness: float | None = None
    motion: float | None = None
    reason: str = ""


def look(path: Path, window_s: float) -> Appearance:
    """Measure a clip at six evenly spaced moments of its middle `window_s` seconds.

    A clip that cannot be read raises nothing; the result's `reason` says why.
    """
    try:
        info, frames = decode.read(path, lambda info: np.unique(_pairs(info, window_s)).tolist(), _shrunk, 1)
    except UnreadableVideo as e:
        return Appearance(reason=e.reason)
    except OSError as e:
        return Appearance(reason=video_files.cannot_be_read(path, e))
    pairs = _pairs(info, window_s).tolist()
    changes = [float(cv2.absdiff(frames[a], frames[b]).mean()) for a, b in pairs]
    brightness = float(np.mean([frames[a].mean() for a, _ in pairs]))
    return Appearance(round(brightness / 255, 5), round(float(np.mean(changes)) / 255, 6))


def _pairs(info: decode.VideoInfo, window_s: float) -> np.ndarray:
    """Frame numbers (6, 2): each moment, and the frame 0.08 s later (at least one frame later)."""
    window = sampling.middle_window(info, window_s)
    first = sampling.sample_indices(info.n_frames, _MOMENTS, window.start, window.length)
    gap = max(1, round(_STEP_S * info.fps))
    first = np.clip(first, 0, max(info.n_frames - 1 - gap, 0))
    return np.stack([first, np.minimum(first + gap, info.n_frames - 1)], axis=1)


def _shrunk(frame: np.ndarray) -> np.ndarray:
    """Shrink an RGB frame (H, W, 3) uint8 to a grey one, 64 pixels wide."""
    height_px = max(round(frame.shape[0] * _WIDTH_PX / frame.shape[1]), 1)
    return cv2.cvtColor(
        cv2.resize(frame, (_WIDTH_PX, height_px), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
    )
