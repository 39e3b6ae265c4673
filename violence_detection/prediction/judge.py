"""Judge new videos with a trained model and the model's own preprocessing.

A video of up to one window is judged as a training clip is; a longer one in overlapping windows, and windows above
the threshold that touch become events. The video's probability is that of its most violent window.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.backbones import engines, registry
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.evaluation import scoring
from violence_detection.features import cache
from violence_detection.features.config import FeatureConfig
from violence_detection.models import detector
from violence_detection.prediction.config import PredictConfig
from violence_detection.system import console, storage
from violence_detection.training.training_data import Inputs
from violence_detection.video import augment, decode, pictures, sampling

log = logging.getLogger(__name__)

_WINDOWS_AT_ONCE = 16  # bounds the memory of a long video


@dataclass(frozen=True)
class Verdict:
    """What was found in one video. `windows`: (start_s, end_s, p_violent) in order."""

    path: str
    windows: list[tuple[float, float, float]]
    threshold: float

    @property
    def p_violent(self) -> float:
        return max(p for _, _, p in self.windows)

    def events(self) -> list[dict[str, float]]:
        """Runs of overlapping or touching windows at or above the threshold."""
        found: list[dict[str, float]] = []
        for start_s, end_s, p in self.windows:
            if p < self.threshold:
                continue
            if found and start_s <= found[-1]["end_s"]:
                found[-1]["end_s"] = end_s
                found[-1]["p_violent"] = max(found[-1]["p_violent"], p)
            else:
                found.append({"start_s": start_s, "end_s": end_s, "p_violent": p})
        return found

    def summary(self) -> dict[str, Any]:
        label = "fight" if self.p_violent >= self.threshold else "nonfight"
        return {"path": self.path, "label": label, "p_violent": self.p_violent, "events": self.events()}


def find_videos(given: Sequence[Path]) -> list[Path]:
    """Files as given, and the video files below folders, sorted. Raises UserError for a wrong or empty path."""
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if p.suffix.lower() in decode.VIDEO_SUFFIXES and p.is_file()
            )
            if not inside:
                raise UserError(
                    f"no video files below {path} (looked for {', '.join(sorted(decode.VIDEO_SUFFIXES))})"
                )
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"no file or folder at {path}")
    return list(dict.fromkeys(found))


class Predictor:
    """A detector with its backbones running."""

    def __init__(self, config: PredictConfig):
        if config.tta < 1 or config.stride_s <= 0 or not 0 <= config.threshold <= 1:
            raise UserError("--tta must be at least 1, --stride-s above 0, --threshold from 0 to 1")
        self.config = config
        self.model = detector.load(
            config.model, engine=config.engine, backbone_weights=config.backbone_weights
        )
        self.views = augment.variant_names("t", config.tta)
        self.engines = {
            name: engines.create(
                config.engine,
                registry.get(name),
                weights,
                self._settings(name).frames,
                trained_with=self.model.trained_with(name),
            )
            for name, weights in detector.find_weights(self.model).items()
        }

    def _settings(self, backbone: str) -> FeatureConfig:
        return registry.settings(self.model.features, backbone)

    def judge(self, path: Path) -> Verdict:
        """Judge one video file. Raises UnreadableVideo naming it."""
        settings = self.model.features
        info = decode.probe(path)
        windows = sampling.sliding_windows(info, settings.window_s, self.config.stride_s)
        probabilities: list[float] = []
        for inputs in self._inputs(path, info, windows):
            by_member = scoring.average_views(self.model, inputs)
            probabilities += [round(float(p), 4) for p in self.model.average(by_member)]
        spans = [(round(w.start / info.fps, 2), round((w.start + w.length) / info.fps, 2)) for w in windows]
        rows = [(start, end, p) for (start, end), p in zip(spans, probabilities, strict=True)]
        return Verdict(str(path), rows, self.config.threshold)

    def _inputs(
        self, path: Path, info: decode.VideoInfo, windows: Sequence[sampling.Window]
    ) -> Iterator[Inputs]:
        """Features of the windows, some at a time: input name -> (N, V, T, C) float16, as the cache holds them."""
        clip_id = storage.sha256_file(path)[:16]
        streams = {
            name: pictures.window_variants(
                path, clip_id, info, windows, self.views, registry.get(name).input_size, self._settings(name)
            )
            for name in self.engines
        }
        for first in range(0, len(windows), _WINDOWS_AT_ONCE):
            count = min(_WINDOWS_AT_ONCE, len(windows) - first)
            out: Inputs = {}
            for name, images in streams.items():
                out |= self._some(name, list(itertools.islice(images, count)))
            yield out

    def _some(self, backbone: str, windows: Sequence[dict[str, dict[str, np.ndarray]]]) -> Inputs:
        """Features of windows' images {variant: {stream: (T, S, S, 3)}} from one backbone."""
        engine = self.engines[backbone]
        jobs = {
            (i, view, stream): engine.submit(images)
            for i, by_view in enumerate(windows)
            for view, by_stream in by_view.items()
            for stream, images in by_stream.items()
        }
        return {
            cache.input_name(backbone, stream): np.array(
                [[jobs[i, v, stream].result() for v in self.views] for i in range(len(windows))], np.float16
            )
            for stream in self._settings(backbone).streams
        }


def judge_all(predictor: Predictor, paths: Sequence[Path]) -> Iterator[Verdict | UnreadableVideo]:
    """A verdict for each video, or the reason why there is none, in order."""
    for path in paths:
        try:
            yield predictor.judge(path)
        except UnreadableVideo as e:
            yield e


def summarise(judged: Iterator[Verdict | UnreadableVideo], count: int) -> dict[str, Any]:
    """Log a line a video; returns `{videos: [...], failures: [...]}`."""
    videos, failures = [], []
    for item in console.progress(judged, total=count, unit="video", desc="judging"):
        if isinstance(item, UnreadableVideo):
            failures.append({"path": item.path, "reason": item.reason})
            log.warning("cannot judge %s: %s", item.path, item.reason)
            continue
        videos.append(item.summary())
        events = ", ".join(f"{e['start_s']:.1f}-{e['end_s']:.1f} s" for e in item.events())
        log.info("%-8s %.3f  %s  %s", videos[-1]["label"], item.p_violent, item.path, events)
    return {"videos": videos, "failures": failures}
