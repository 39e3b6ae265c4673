"""Contact sheets that show people what a backbone sees: a row per variant and stream, a column per frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from violence_detection.errors import UnreadableVideo
from violence_detection.system import storage
from violence_detection.video import pictures, writer
from violence_detection.video.config import ClipConfig

_THUMB = 96  # side of a picture in pixels
_MARGIN = 84  # width in pixels of the names on the left
_GAP = 2  # pixels between pictures


def write_all(
    folder: Path, clips: Sequence[tuple[str, Path]], variants: Sequence[str], config: ClipConfig, size: int
) -> tuple[list[Path], list[dict[str, str]]]:
    """Write `<folder>/<clip_id>.png` for each (clip_id, path), as a backbone of input size `size` sees the clip.

    Returns the paths written, and the clips that could not be read. Raises OSError if a sheet cannot be written.
    """
    written, failures = [], []
    for clip_id, clip in clips:
        try:
            rows = dict(pictures.clip_variants(clip, clip_id, variants, size, config))
        except UnreadableVideo as e:
            failures.append(e.failure())
            continue
        path = folder / f"{clip_id}.png"
        with storage.atomic_path(path) as temporary:
            writer.picture(temporary, cv2.cvtColor(sheet(rows), cv2.COLOR_BGR2RGB))
        written.append(path)
    return written, failures


def sheet(rows: Mapping[str, Mapping[str, np.ndarray]]) -> np.ndarray:
    """Draw {variant: {stream: (T, S, S, 3) uint8 RGB}} as one sheet: (H, W, 3) uint8 BGR, with names on the left."""
    lines = [
        (f"{variant} {stream}", images)
        for variant, streams in rows.items()
        for stream, images in streams.items()
    ]
    most = max(len(images) for _, images in lines)
    cell = _THUMB + _GAP
    out = np.full((len(lines) * cell, _MARGIN + most * cell, 3), 255, np.uint8)
    for row, (name, images) in enumerate(lines):
        top = row * cell
        cv2.putText(
            out, name, (4, top + _THUMB // 2), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA
        )
        for column, image in enumerate(images):
            left = _MARGIN + column * cell
            small = cv2.resize(image, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA)
            out[top : top + _THUMB, left : left + _THUMB] = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    return out
