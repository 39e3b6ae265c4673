"""Judge new videos with a trained model and the model's own preprocessing.

A video of up to one window is judged as a training clip is; a longer one in overlapping windows, of which
events.find_events makes events. The video's probability is that of its most violent window.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.backbones import engines
from violence_detection.errors import UnreadableVideo
from violence_detection.models import trained_model
from violence_detection.models.trained_model import BackboneRun, Inputs
from violence_detection.prediction import camera_profile
from violence_detection.prediction.camera_profile import CameraProfile
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.events import JudgedWindow, JudgingNews, Verdict
from violence_detection.system import processes, storage
from violence_detection.video import augment, decode, pictures, sampling

_WINDOWS_AT_ONCE = 16  # bounds the memory of a long video


class Detector:
    """A trained model with its backbones running: it judges video files.

    `model`: the trained model, with its members, their record, and the threshold of the operating point.
    """

    def __init__(self, config: PredictConfig):
        """Load the model and start its backbones.

        Raises UserError if there is no such model, it has no such operating point, its backbone's weights cannot be
        had, or the camera profile is of another model.
        """
        from violence_detection.models import shipped  # needed once, to find the model

        self.config = config
        loaded = trained_model.load(shipped.find(config.model))
        self.model = loaded.at(config.operating_point, config.threshold)
        self.profile: CameraProfile | None = None
        self.events_by = config.at(self.model.threshold)
        if config.profile:
            self.profile = camera_profile.read_for(config.profile, shipped.find(config.model), config)
            self.events_by = self.profile.settings(config)
        self.views = augment.variant_names("t", config.tta)
        self.runs = self.model.backbone_runs(config.backbone_weights)
        self._engines = [
            engines.create(
                config.engine,
                run.backbone,
                run.weights,
                run.config.frames,
                trained_with=self.model.trained_with([b.name for b in run.backbones]),
            )
            for run in self.runs
        ]

    def judge(self, path: Path | str) -> Verdict:
        """Judge one video file. Raises UnreadableVideo naming it."""
        path = Path(path)
        info = decode.probe(path)
        window_s = self.model.features.window_s
        every = sampling.sliding_windows(info, window_s, min(self.config.stride_s, window_s))
        windows = [window for window in every if sampling.shows_movement(info, window)]
        if not windows:
            raise UnreadableVideo(path, sampling.too_still(info, window_s))
        judged: list[JudgedWindow] = []
        for some, inputs in self._inputs(path, info, windows):
            _check_finite(path, inputs)
            probabilities = self.model.average(self.model.average_views(inputs))
            _check_finite(path, {"P(violent)": probabilities})
            new = [_judged(info, window, float(p)) for window, p in zip(some, probabilities, strict=True)]
            if self.profile:
                new = [self.profile.window(window) for window in new]
            judged += new
            processes.tell(JudgingNews(tuple(new), new[-1].end_s, info.duration_s))
        last = windows[-1]
        whole = len(windows) == len(every) and last.start + last.length > info.n_frames - 1
        return Verdict(
            str(path),
            tuple(judged),
            self.events_by,
            duration_s=round(info.duration_s, 2),
            judged_s=round(info.read_s if whole else _judged_s(info, windows), 2),
            warning=info.shortfall()
            or (sampling.too_still(info, window_s) if len(windows) < len(every) else ""),
            calibrated=self.model.calibrated,
            fps=info.fps,
            profile=self.profile.name if self.profile else "",
        )

    def _inputs(
        self, path: Path, info: decode.VideoInfo, windows: Sequence[sampling.Window]
    ) -> Iterator[tuple[Sequence[sampling.Window], Inputs]]:
        """Some windows at a time, with their features: input name -> (N, V, T, C) float16, as the cache holds them."""
        clip_id = storage.sha256_file(path)[:16]
        pictured = [
            pictures.window_variants(
                path, clip_id, info, windows, self.views, run.backbone.input_size, run.config
            )
            for run in self.runs
        ]
        for first in range(0, len(windows), _WINDOWS_AT_ONCE):
            some = windows[first : first + _WINDOWS_AT_ONCE]
            yield some, self.features([list(itertools.islice(images, len(some))) for images in pictured])

    def features(self, by_run: Sequence[Sequence[dict[str, dict[str, np.ndarray]]]]) -> Inputs:
        """Features of windows' images: for each of `runs` the windows' {view: {stream: (T, S, S, 3)}}.

        Returns input name -> (N, V, T, C) float16.
        """
        out: Inputs = {}
        for run, engine, images in zip(self.runs, self._engines, by_run, strict=True):
            out |= self._features(run, engine, images)
        return out

    def _features(
        self, run: BackboneRun, engine: engines.Engine, windows: Sequence[dict[str, dict[str, np.ndarray]]]
    ) -> Inputs:
        """Features of windows' images {variant: {stream: (T, S, S, 3)}} from one run of backbones."""
        jobs = {
            (i, view, stream): engine.submit(images)
            for i, by_view in enumerate(windows)
            for view, by_stream in by_view.items()
            for stream, images in by_stream.items()
        }
        out: Inputs = {}
        for stream in run.config.streams:
            made: list[list[Mapping[str, np.ndarray]]] = [[] for _ in windows]
            for row, view in itertools.product(range(len(windows)), self.views):
                made[row].append(run.by_input(stream, jobs[row, view, stream].result()))
                processes.beat()
            for name in run.inputs(stream):
                with np.errstate(over="ignore"):  # is looked for below
                    out[name] = np.array([[by_name[name] for by_name in row] for row in made], np.float16)
        return out


def _judged(info: decode.VideoInfo, window: sampling.Window, p: float) -> JudgedWindow:
    start_s = info.start_s + window.start / info.fps
    return JudgedWindow(round(start_s, 2), round(start_s + window.length / info.fps, 2), round(p, 4))


def _judged_s(info: decode.VideoInfo, windows: Sequence[sampling.Window]) -> float:
    """Seconds of the video that lie in any of the windows and decode."""
    starts = [info.start_s + window.start / info.fps for window in windows]
    spans = [(s, s + w.length / info.fps) for s, w in zip(starts, windows, strict=True)]
    return decode.overlap_s(spans, [(0.0, info.duration_s)]) - decode.overlap_s(spans, info.lost)


def _check_finite(path: Path, values: Mapping[str, np.ndarray]) -> None:
    """Raise UnreadableVideo naming what is not a number: a verdict would be made of it."""
    for name, array in values.items():
        if not np.isfinite(array).all():
            raise UnreadableVideo(
                path,
                f"{name} of it is not a number (NaN or infinite), so there is no verdict. Report the video",
            )


def load(name_or_path: Path | str, **settings: Any) -> Detector:
    """A detector from a trained folder, a `.keras` file, or the name of a shipped model (see `list_models`).

    `settings`: fields of PredictConfig, such as threshold, operating_point, stride_s, tta, engine, backbone_weights.
    Raises UserError if there is no such model, or TypeError for a setting that there is not.
    """
    return Detector(PredictConfig(model=Path(name_or_path), **settings))
