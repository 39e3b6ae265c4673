"""The pictures that one run of backbones sees of a file's windows, for comparison with what training saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from violence_detection.video import decode, sampling, window_pictures
from violence_detection.video.config import ClipConfig


def windows_of(
    path: Path,
    info: decode.VideoInfo,
    windows: Sequence[sampling.Window],
    variants: Sequence[str],
    size: int,
    config: ClipConfig,
) -> Iterator[dict[str, dict[str, np.ndarray]]]:
    """Yield {variant: {stream: (T, S, S, 3) uint8}} for each window."""
    viewers = [window_pictures.Viewer(size, config)]
    for seen in window_pictures.of_file(path, info, windows, viewers, "id", variants):
        yield {variant: seen.pictures(0, variant) for variant in variants}
