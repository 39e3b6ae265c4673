"""A stand-in for a model, for tests of the code around it: P(violent) of a window is the brightness of its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.system import processes
from violence_detection.video import decode, sampling


def load(config: PredictConfig) -> Callable[[Path, Sequence[JudgedWindow]], Verdict]:
    """Return a function that judges the detector's windows by the brightness, 0 to 1, of their middle pictures."""

    def judge(path: Path, begun: Sequence[JudgedWindow]) -> Verdict:
        info = decode.probe(path)
        windows = sampling.sliding_windows(info, 5.0, config.stride_s)
        middles = [int(w.start + w.length / 2) for w in windows]
        judged = []
        for window, (_, frame) in zip(windows, decode.moments(path, info, middles), strict=True):
            start_s = window.start / info.fps
            p = round(float(np.mean(frame)) / 255, 4)
            judged.append(JudgedWindow(round(start_s, 2), round(start_s + window.length / info.fps, 2), p))
            processes.beat()
        duration_s = round(info.duration_s, 2)
        events_by = config.at(config.threshold)
        return Verdict(str(path), tuple(judged), events_by, duration_s, duration_s, fps=info.fps)

    return judge
