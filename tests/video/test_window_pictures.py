"""What several runs of backbones see of a window, of frames that are kept once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from violence_detection.features.config import FeatureConfig
from violence_detection.video import decode, sampling, window_pictures
from violence_detection.video.augment import PLAIN
from violence_detection.video.window_pictures import Viewer, WindowPlan

CONFIG = replace(FeatureConfig(), streams=("rgb",), frames=4, window_s=1.0)


def test_whole_frames_are_the_smallest_that_show_nothing_but_the_video() -> None:
    """Neither a larger crop beside them nor black bars count."""
    viewers = [
        Viewer(16, replace(CONFIG, letterbox=True)),
        Viewer(24, replace(CONFIG, streams=("rgb", "crop"))),
        Viewer(40, CONFIG),
    ]
    info = decode.VideoInfo(25, 25.0, 60, 40, "")
    window = sampling.Window(0.0, 25.0)
    for seen_by, side in ((viewers, 24), (viewers[:1], 16), (viewers[::2], 40)):
        plan = WindowPlan(window, info, seen_by, [v.draws("clip", [PLAIN]) for v in seen_by])
        keep = window_pictures.keeper(seen_by)
        kept = {n: keep(np.full((40, 60, 3), 77, np.uint8)) for n in plan.frames}
        frames = list(plan.seen(kept).whole_frames())
        assert len(frames) == len(plan.frames)
        assert {frame.shape for frame in frames} == {(side, side, 3)}
