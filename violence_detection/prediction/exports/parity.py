"""Whether an exported model says what this package says of the same pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from violence_detection.backbones import engines
from violence_detection.errors import UnreadableVideo
from violence_detection.models import averaging
from violence_detection.prediction.exports.runtimes import ExportedModel
from violence_detection.prediction.exports.whole_graph import PictureInput
from violence_detection.video import augment, decode, pictures, sampling, window_pictures
from violence_detection.video.window_pictures import Viewer

if TYPE_CHECKING:
    from violence_detection.models.trained_model import BackboneRun, TrainedModel

#: P(violent) of an exported model may differ by so much.
LIMIT = 1e-3
#: And its logit, where P tells of it: as strict as LIMIT is where P is 0.5, whose slope is a quarter of the logit's.
LOGIT_LIMIT = 4 * LIMIT
#: What P(violent) is at least, and below one at most, where it tells of its logit: nearer to one float32 lacks digits,
#: and nearer to either P hardly changes whatever the network says.
TELLING = 1e-4
#: Windows that are made up, and those of each video that are compared.
MADE_WINDOWS, WINDOWS_A_VIDEO = 4, 4
_SHAPES, _LARGEST_STEP = 6, 9

#: Pictures of one window by the name of the graph's input.
Window = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ComparedWindow:
    """P(violent) of one window by this package and by the exported model. `source`: whose pictures they were."""

    source: str
    p_package: float
    p_export: float

    @property
    def difference(self) -> float:
        """How far apart they are; infinite where one is no number."""
        difference = abs(self.p_package - self.p_export)
        return difference if np.isfinite(difference) else float("inf")

    @property
    def telling(self) -> bool:
        """Whether this package's P(violent) is not so near to 0 or 1 that any network would agree."""
        return TELLING <= self.p_package <= 1 - TELLING

    @property
    def logit_difference(self) -> float:
        """How far apart their logits are: four times as far as P where P is 0.5, and farther elsewhere."""
        if not np.isfinite(self.difference):
            return self.difference
        here, there = averaging.logit(np.array([self.p_package, self.p_export]))
        return float(abs(here - there))


class Reference:
    """The package's own way from pictures to P(violent): its engines, float16 features, heads and calibration."""

    def __init__(self, model: TrainedModel, runs: Sequence[BackboneRun], engine: str):
        self._model, self._runs = model, runs
        self._engines = [
            engines.create(
                engine,
                run.backbone,
                run.weights,
                run.config.frames,
                trained_with=model.trained_with([b.name for b in run.backbones]),
            )
            for run in runs
        ]

    @property
    def engines(self) -> list[str]:
        """What ran the backbones."""
        return sorted({engine.name for engine in self._engines})

    def __call__(self, window: Window, inputs: Sequence[PictureInput]) -> float:
        """P(violent) for the pictures of one window."""
        features: dict[str, np.ndarray] = {}
        for run, engine in zip(self._runs, self._engines, strict=True):
            given = {i.stream: window[i.name] for i in inputs if i.run is run}
            for stream in run.config.streams:
                images = pictures.without_still(given["rgb"]) if stream == "moving" else given[stream]
                features |= run.by_input(stream, engine.submit(images).result())
        views = {name: values.astype(np.float16)[None, None] for name, values in features.items()}
        return float(self._model.average(self._model.average_views(views))[0])


def compare(reference: Sequence[tuple[str, Window, float]], exported: ExportedModel) -> list[ComparedWindow]:
    """Each window with what the exported model says. `reference`: source, pictures, and the package's P(violent)."""
    return [ComparedWindow(source, p, exported(window)) for source, window, p in reference]


def report(compared: Sequence[ComparedWindow]) -> dict[str, Any]:
    """As parity.json has it. Passed: P differs by LIMIT at most, its logit by LOGIT_LIMIT, and a window tells of it."""
    worst = max(window.difference for window in compared)
    telling = [window for window in compared if window.telling]
    worst_logit = max((window.logit_difference for window in telling), default=None)
    said = [window.p_package for window in compared]
    return {
        "max_difference": worst,
        "limit": LIMIT,
        "max_logit_difference": worst_logit,
        "logit_limit": LOGIT_LIMIT,
        "p_package": {
            "lowest": min(said),
            "highest": max(said),
            "windows": len(said),
            "telling": len(telling),
        },
        "passed": worst <= LIMIT and worst_logit is not None and worst_logit <= LOGIT_LIMIT,
        "windows": [
            {**asdict(w), "difference": w.difference, "logit_difference": w.logit_difference}
            for w in compared
        ],
    }


def failure(of_format: Mapping[str, Any]) -> str | None:
    """Why a report is not passed, for people; None where it is."""
    if of_format["passed"]:
        return None
    if of_format["max_logit_difference"] is None and of_format["max_difference"] <= LIMIT:
        return (
            f"P(violent) of all windows is within {TELLING:g} of 0 or 1, where any network would agree, so nothing was "
            "checked. Give videos whose windows are less certain"
        )
    by_logit = of_format["max_logit_difference"] or 0.0
    return (
        f"P(violent) differs by {of_format['max_difference']:.3g} from this package's, its logit by {by_logit:.3g}; "
        f"the limits are {LIMIT:g} and {LOGIT_LIMIT:g}"
    )


def made_windows(inputs: Sequence[PictureInput], seed: int = 0) -> Iterator[tuple[str, Window]]:
    """Windows of made-up pictures: rectangles that move over a gradient, quicker from window to window."""
    for number in range(MADE_WINDOWS):
        rng = np.random.default_rng([seed, number])
        yield f"made {number}", {i.name: _made(rng, i.shape, number) for i in inputs}


def _made(rng: np.random.Generator, shape: tuple[int, int, int, int], speed: int) -> np.ndarray:
    frames, size = shape[:2]
    ramp = np.linspace(0, 255, size)
    weights = rng.uniform(0, 1, (2, 3))
    ground = ramp[:, None, None] * weights[0] + ramp[None, :, None] * (1 - weights[0]) * weights[1]
    made = np.empty(shape, np.uint8)
    made[:] = np.clip(ground, 0, 255)
    places, steps = rng.uniform(0, 1, (_SHAPES, 2)), rng.uniform(-1, 1, (_SHAPES, 2))
    colours, sides = rng.integers(0, 256, (_SHAPES, 3)), rng.uniform(0.05, 0.3, (_SHAPES, 2))
    for t, picture in enumerate(made):
        for place, step, colour, side in zip(places, steps, colours, sides, strict=True):
            x, y = ((place + t * speed * step / _LARGEST_STEP / frames * 4) % 1 * size).astype(int)
            w, h = np.maximum((side * size).astype(int), 1)
            cv2.rectangle(picture, (int(x), int(y)), (int(x + w), int(y + h)), colour.tolist(), cv2.FILLED)
    return made


def windows_of_video(
    path: Path, model: TrainedModel, inputs: Sequence[PictureInput], stride_s: float
) -> Iterator[tuple[str, Window]]:
    """Some windows of a video, evenly chosen, as the package sees them. Raises UnreadableVideo."""
    info = decode.probe(path)
    window_s = model.features.window_s
    every = sampling.sliding_windows(info, window_s, min(stride_s, window_s))
    shown = [window for window in every if sampling.shows_movement(info, window)]
    if not shown:
        raise UnreadableVideo(path, sampling.too_still(info, window_s))
    chosen = [
        shown[i] for i in sorted(set(np.linspace(0, len(shown) - 1, WINDOWS_A_VIDEO, dtype=int).tolist()))
    ]
    runs = list({id(i.run): i.run for i in inputs}.values())
    given = [[i for i in inputs if i.run is run] for run in runs]
    viewers = [
        Viewer(mine[0].size, replace(run.config, streams=tuple(i.stream for i in mine)))
        for run, mine in zip(runs, given, strict=True)
    ]
    for seen in window_pictures.of_file(path, info, chosen, viewers, "", [augment.PLAIN]):
        by_viewer = [seen.pictures(viewer, augment.PLAIN) for viewer in range(len(viewers))]
        found = {i.name: of[i.stream] for of, mine in zip(by_viewer, given, strict=True) for i in mine}
        yield f"{path} {seen.window.start / info.fps:.2f} s", found
