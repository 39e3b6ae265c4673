"""How bright a clip is and how much moves in it, told from a few small grey pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from violence_detection.errors import UnreadableVideo
from violence_detection.video import decode, sampling, video_files

#: To be given another value whenever another number would come out, so that what was kept before is not believed.
VERSION = "1"
_MOMENTS = 6
_STEP_S = 0.08
_WIDTH_PX = 64


@dataclass(frozen=True)
class Appearance:
    """`brightness`: mean luma, 0 (black) to 1 (white). `motion`: mean change of luma over 0.08 s, 0 to 1.

    With a `reason` the clip cannot be read, and both are None.
    """

    brightness: float | None = None
    motion: float | None = None
    reason: str = ""


def look(path: Path, window_s: float) -> Appearance:
    """Appearance at six moments, evenly spaced in the clip's middle `window_s`. A clip that cannot be read says why."""
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
    """Frame numbers (6, 2): a moment, and 0.08 s later (one frame at least)."""
    window = sampling.middle_window(info, window_s)
    first = sampling.sample_indices(info.n_frames, _MOMENTS, window.start, window.length)
    gap = max(1, round(_STEP_S * info.fps))
    first = np.clip(first, 0, max(info.n_frames - 1 - gap, 0))
    return np.stack([first, np.minimum(first + gap, info.n_frames - 1)], axis=1)


def _shrunk(frame: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) uint8 to grey, 64 pixels wide."""
    height_px = max(round(frame.shape[0] * _WIDTH_PX / frame.shape[1]), 1)
    return cv2.cvtColor(
        cv2.resize(frame, (_WIDTH_PX, height_px), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
    )
