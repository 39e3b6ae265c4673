"""Compare what an exported model and this package say of the same pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from violence_detection.backbones import engines
from violence_detection.errors import UnreadableVideo
from violence_detection.models import averaging
from violence_detection.prediction.exports.runtimes import ExportedModel, ModelOutput
from violence_detection.prediction.exports.whole_graph import PictureInput
from violence_detection.video import augment, decode, pictures, sampling, window_pictures
from violence_detection.video.window_pictures import Viewer

if TYPE_CHECKING:
    from violence_detection.models.trained_model import BackboneRun, TrainedModel

#: The largest difference of P(violent) between an exported model and this package.
LIMIT = 1e-3
#: The largest difference of a member's logit. Where P is 0.5, which changes a quarter as fast as the logit, this is as
#: strict as LIMIT.
LOGIT_LIMIT = 4e-3
#: Logits farther from 0 than this are not compared: in float32, P so near 1 has too few digits left to tell them apart.
LARGEST_LOGIT = 9.0
#: How many made-up windows are compared.
MADE_WINDOWS = 4
#: How many windows of each video are compared, at most.
WINDOWS_A_VIDEO = 4
#: Rectangles in a made-up window.
_SHAPES = 6
#: Divides the steps of the rectangles: the larger, the slower they move.
_LARGEST_STEP = 9

#: The pictures of one window, by name of the graph's input.
Window = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class ComparedWindow:
    """What this package and the exported model say of one window. `source`: where its pictures came from."""

    source: str
    package: ModelOutput
    export: ModelOutput

    @property
    def difference(self) -> float:
        """The absolute difference of P(violent); infinite if either is not finite."""
        return _difference(self.package.p, self.export.p)

    def logit_difference(self, member: int) -> float | None:
        """The absolute difference of a member's logits; None if the package's is beyond TELLING and not compared."""
        of_package, of_export = self.package.logits[member], self.export.logits[member]
        return None if abs(of_package) > LARGEST_LOGIT else _difference(of_package, of_export)

    def record(self) -> dict[str, Any]:
        """Return the record of this window in parity.json."""
        return {
            "source": self.source,
            "p_package": self.package.p,
            "p_export": self.export.p,
            "difference": self.difference,
            "logits_package": self.package.logits,
            "logits_export": self.export.logits,
        }


def _difference(of_package: float, of_export: float) -> float:
    return abs(of_package - of_export) if np.isfinite([of_package, of_export]).all() else float("inf")


class Reference:
    """This package's own path from pictures to P(violent): its engines, float16 features, heads and calibration."""

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
        """The names of the engines that run the backbones, sorted."""
        return sorted({engine.name for engine in self._engines})

    def __call__(self, window: Window, inputs: Sequence[PictureInput]) -> ModelOutput:
        """Return P(violent) and the members' logits for the pictures of one window."""
        features: dict[str, np.ndarray] = {}
        for run, engine in zip(self._runs, self._engines, strict=True):
            given = {i.stream: window[i.name] for i in inputs if i.run is run}
            for stream in run.config.streams:
                images = pictures.without_still(given["rgb"]) if stream == "moving" else given[stream]
                features |= run.by_input(stream, engine.submit(images).result())
        views = {name: values.astype(np.float16)[None, None] for name, values in features.items()}
        return self._judged(views)

    def _judged(self, views: Mapping[str, np.ndarray]) -> ModelOutput:
        members = self._model.members
        raw = self._model.average_views(dict(views), [replace(m, temperature=None) for m in members])
        own = {m.name: averaging.scaled(raw[m.name], 1 / (m.temperature or 1.0)) for m in members}
        logits = tuple(float(averaging.logit(raw[m.name])[0]) for m in members)
        return ModelOutput(float(self._model.average(own)[0]), logits)


def compare(
    reference: Sequence[tuple[str, Window, ModelOutput]], exported: ExportedModel
) -> list[ComparedWindow]:
    """Run the exported model on each window. `reference`: source, pictures, and what the package says of them."""
    return [ComparedWindow(source, output, exported(window)) for source, window, output in reference]


def report(compared: Sequence[ComparedWindow], members: Sequence[str]) -> dict[str, Any]:
    """Summarise the comparison of a format as in parity.json. `members`: their names, in order.

    A format has passed if P differs by at most LIMIT, and each member's logit was compared in at least one window and
    differs by at most LOGIT_LIMIT. P alone tells little where it is near 0 or 1, and nothing of members that do not
    count because a member that is sure judges alone.
    """
    worst = max(window.difference for window in compared)
    by_member = {name: _of_member(compared, member) for member, name in enumerate(members)}
    said = [window.package.p for window in compared]
    return {
        "max_difference": worst,
        "limit": LIMIT,
        "p_package": {"lowest": min(said), "highest": max(said)},
        "logit_limit": LOGIT_LIMIT,
        "members": by_member,
        "passed": worst <= LIMIT
        and all(m["windows"] and m["max_logit_difference"] <= LOGIT_LIMIT for m in by_member.values()),
        "windows": [window.record() for window in compared],
    }


def _of_member(compared: Sequence[ComparedWindow], member: int) -> dict[str, Any]:
    found = [d for window in compared if (d := window.logit_difference(member)) is not None]
    return {"max_logit_difference": max(found, default=None), "windows": len(found)}


def failure(of_format: Mapping[str, Any]) -> str | None:
    """Explain to people why a format has not passed; None if it has."""
    found = []
    if of_format["max_difference"] > LIMIT:
        found.append(
            f"P(violent) differs by {of_format['max_difference']:.3g} from this package's (limit {LIMIT:g})"
        )
    for name, of_member in of_format["members"].items():
        if not of_member["windows"]:
            found.append(f"the logits of {name} are beyond {LARGEST_LOGIT:g} in all windows, so it was not compared: "
                         "give videos of which this member is less sure")  # fmt: skip
        elif of_member["max_logit_difference"] > LOGIT_LIMIT:
            found.append(
                f"the logit of {name} differs by {of_member['max_logit_difference']:.3g} (limit {LOGIT_LIMIT:g})"
            )
    return "; ".join(found) or None


def made_windows(inputs: Sequence[PictureInput]) -> Iterator[tuple[str, Window]]:
    """Yield windows of made-up pictures: rectangles over a gradient, still in the first, faster in each of the next."""
    for number in range(MADE_WINDOWS):
        rng = np.random.default_rng([0, number])
        yield f"made {number}", {i.name: _made_up_pictures(rng, i.shape, number) for i in inputs}


def _made_up_pictures(rng: np.random.Generator, shape: tuple[int, int, int, int], speed: int) -> np.ndarray:
    frames, size = shape[:2]
    ramp = np.linspace(0, 255, size)
    weights = rng.uniform(0, 1, (2, 3))
    ground = ramp[:, None, None] * weights[0] + ramp[None, :, None] * (1 - weights[0]) * weights[1]
    images = np.empty(shape, np.uint8)
    images[:] = np.clip(ground, 0, 255)
    places, steps = rng.uniform(0, 1, (_SHAPES, 2)), rng.uniform(-1, 1, (_SHAPES, 2))
    colours, sides = rng.integers(0, 256, (_SHAPES, 3)), rng.uniform(0.05, 0.3, (_SHAPES, 2))
    for t, picture in enumerate(images):
        for place, step, colour, side in zip(places, steps, colours, sides, strict=True):
            x, y = ((place + t * speed * step / _LARGEST_STEP / frames * 4) % 1 * size).astype(int)
            w, h = np.maximum((side * size).astype(int), 1)
            cv2.rectangle(picture, (int(x), int(y)), (int(x + w), int(y + h)), colour.tolist(), cv2.FILLED)
    return images


def windows_of_video(
    path: Path, model: TrainedModel, inputs: Sequence[PictureInput], stride_s: float
) -> Iterator[tuple[str, Window]]:
    """Yield up to WINDOWS_A_VIDEO windows of a video, evenly spaced, as the package sees them.

    Raises UnreadableVideo.
    """
    info = decode.probe(path)
    window_s = model.features.window_s
    every = sampling.sliding_windows(info, window_s, stride_s)
    shown = [window for window in every if sampling.shows_movement(info, window)]
    if not shown:
        raise UnreadableVideo(path, sampling.too_still(info, window_s))
    chosen = [
        shown[i] for i in sorted(set(np.linspace(0, len(shown) - 1, WINDOWS_A_VIDEO, dtype=int).tolist()))
    ]
    runs = list({id(i.run): i.run for i in inputs}.values())
    given = [[i for i in inputs if i.run is run] for run in runs]
    viewers = [
        Viewer(
            mine[0].size,
            replace(run.config, streams=tuple(i.stream for i in mine)),
            one_shot=run.backbone.sampling.one_shot,
        )
        for run, mine in zip(runs, given, strict=True)
    ]
    for seen in window_pictures.of_file(path, info, chosen, viewers, "", [augment.PLAIN]):
        by_viewer = [seen.pictures(viewer, augment.PLAIN) for viewer in range(len(viewers))]
        found = {i.name: of[i.stream] for of, mine in zip(by_viewer, given, strict=True) for i in mine}
        yield f"{path} {seen.window.start / info.fps:.2f} s", found
