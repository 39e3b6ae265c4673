"""Features of clips' backgrounds, for the audit of shortcuts: does the place alone give the label away?

The background is the pixelwise median of a clip's frames. Whatever covers a pixel in fewer than half of them vanishes,
and no mask remains whose outline could give it away. People who hardly move remain.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from violence_detection.backbones import engines
from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import UnreadableVideo
from violence_detection.evaluation.audits.shortcuts import AuditedClips, Values
from violence_detection.features.key import BackboneRun
from violence_detection.system import console
from violence_detection.video import decode, pictures, sampling, video_files
from violence_detection.video.config import ClipConfig

if TYPE_CHECKING:
    import pandas as pd

#: Most clips of a data set whose backgrounds are examined: half from each class, or more from one if the other has
#: too few.
MOST_LOOKED_AT = 240
#: Frames of a clip that the median is taken over.
_FRAMES = 15


@dataclass(frozen=True)
class Backgrounds:
    """Computes the features of clips' backgrounds.

    `base`: the folder that the clips' paths are relative to. `make_engine`: creates the engine that runs the backbone.
    """

    run: BackboneRun
    base: Path
    workers: int
    make_engine: Callable[[BackboneRun], engines.Engine]

    def __call__(self, clips: AuditedClips) -> tuple[AuditedClips, Values]:
        """Take at most MOST_LOOKED_AT clips of each data set; return them, and a function from rows to (n, C) features.

        Clips that cannot be read are left out.
        """
        rows = _balanced_sample(clips.rows, MOST_LOOKED_AT)
        features = self._features(rows)
        part = replace(clips, rows=rows[rows.clip_id.isin(features.keys())])
        return part, lambda some: np.stack([features[i] for i in some.clip_id])

    def _features(self, rows: pd.DataFrame) -> dict[str, np.ndarray]:
        """The features of each clip's background: clip id -> (C,) float32. Unreadable clips are absent."""
        ids = {str(self.base / p): str(i) for i, p in zip(rows.clip_id, rows.path, strict=True)}
        size = self.run.backbone.input_size
        work = functools.partial(median_picture, size=size, config=self.run.config)
        seen: dict[str, np.ndarray] = {}
        with console.progress(total=len(ids), desc="backgrounds", unit="clip") as bar:
            for path, picture in video_files.map_files(
                work, map(Path, ids), self.workers, lambda p: p, lambda *_: np.empty(0, np.uint8)
            ):
                if picture.size:
                    seen[ids[str(path)]] = picture
                bar.update()
        return self._run(dict(sorted(seen.items())))

    def _run(self, shown: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the pictures, by clip id, through the backbone.

        A batch has as many pictures as the backbone takes frames of a clip; the last one is padded with black.
        """
        frames, ids = self.run.config.frames, list(shown)
        if not ids:
            return {}
        engine = self.make_engine(self.run)
        jobs = []
        for start in range(0, len(ids), frames):
            some = [shown[i] for i in ids[start : start + frames]]
            filling = [np.zeros_like(some[0])] * (frames - len(some))
            jobs.append((start, len(some), engine.submit(np.stack(some + filling))))
        out: dict[str, np.ndarray] = {}
        for start, count, job in jobs:
            features = next(iter(self.run.by_input("rgb", job.result()).values()))
            out |= dict(
                zip(ids[start : start + count], np.asarray(features[:count], np.float32), strict=True)
            )
        return out


def median_picture(path: Path, size: int, config: ClipConfig) -> np.ndarray:
    """The pixelwise median of 15 evenly spaced frames of a clip's middle window, (size, size, 3) uint8 RGB.

    Empty if the clip cannot be read.
    """

    def plan(info: decode.VideoInfo) -> list[int]:
        window = sampling.middle_window(info, config.window_s)
        return sampling.sample_indices(info.n_frames, _FRAMES, window.start, window.length).tolist()

    try:
        _, frames = decode.read(path, plan, pictures.frame_resizer(size, config), 1)
    except (UnreadableVideo, OSError):
        return np.empty(0, np.uint8)
    return np.median(np.stack(list(frames.values())), axis=0).astype(np.uint8)


def _balanced_sample(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    """Draw at most `most` clips of each data set, as evenly from both classes as possible.

    Clip ids are hashes, so the first in their order are a random sample.
    """
    import pandas as pd

    parts = []
    for _, of_set in sorted(rows.groupby("dataset")):
        by_class = [of_set[of_set.label == name].sort_values("clip_id") for name in CLASS_NAMES]
        fewer = min(map(len, by_class))
        parts += [part.head(max(most // 2, most - fewer)) for part in by_class]
    return pd.concat(parts) if parts else rows
