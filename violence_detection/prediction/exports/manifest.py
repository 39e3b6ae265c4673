"""The content of an export's manifest.json: the model's inputs, how their pictures are made, what the outputs mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from violence_detection.constants import BALANCED, OPERATING_POINTS, __version__
from violence_detection.models.averaging import CLOSER_LOOK_KEY, EARLY_EXIT_KEY
from violence_detection.models.calibration import key_of
from violence_detection.models.trained_model import TrainedModel
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.exports.converters import FORMATS
from violence_detection.prediction.exports.whole_graph import LOGITS, OUTPUT, PictureInput
from violence_detection.system import storage
from violence_detection.video import pictures
from violence_detection.video.decode import MIN_FRAMES

#: Settings of sampling that video_windows.py reads.
_SAMPLING = ("frames", "window_s", "span_s", "burst", "burst_spacing_s", "motion_spacing_s", "motion_gain")


def of_model(
    model: TrainedModel, identity: str, name: str, inputs: Sequence[PictureInput], config: PredictConfig
) -> dict[str, Any]:
    """Describe all but the files. `identity`, `name`: of the model. `config`: with the stride used in judging."""
    window_s = model.features.window_s
    return {
        "made_by": f"violence_detection {__version__}",
        "model": name,
        "model_identity": identity,
        "members": [
            {"name": m.name, "weight": m.weight, "temperature": m.temperature} for m in model.members
        ],
        "judging": {
            "in_logits": model.averaged.in_logits,
            EARLY_EXIT_KEY: model.averaged.exit_record(),
            "temperature": (model.applied.temperature if model.applied else None) or 1.0,
        },
        CLOSER_LOOK_KEY: model.closer_look,
        "inputs": [_described(i) for i in inputs],
        "output": {"name": OUTPUT, "shape": [1], "dtype": "float32", "meaning": "P(violent) of the window"},
        "other_output": {
            "name": LOGITS,
            "shape": [len(model.members)],
            "dtype": "float32",
            "meaning": "the members' logits before any temperature",
        },
        "normalisation": "in the model: pictures are RGB, 0 to 255",
        "windows": {
            "window_s": window_s,
            "stride_s": config.stride_s,
            "min_frames": MIN_FRAMES,
        },
        "threshold": model.threshold,
        "operating_point": config.operating_point,
        "thresholds": _thresholds(model, config),
        "calibrated": model.calibrated,
        "calibration": model.applied.described() if model.applied else "not calibrated",
        **({EARLY_EXIT_KEY: model.exits is not None} if model.early_exit else {}),
        "generated_samples": model.trained_on_samples,
        "backbones": _backbones(inputs),
    }


def of_files(format_name: str, folder: Path) -> dict[str, Any]:
    """Describe the files of one format: their SHA-256, and the versions of the packages that made them."""
    import keras
    import tensorflow as tf

    traced_with = {"keras": keras.__version__, "tensorflow": tf.__version__}
    return {
        "files": {name: storage.sha256_file(folder / name) for name in FORMATS[format_name].files},
        "made_with": traced_with
        | {pip: metadata.version(pip) for pip in FORMATS[format_name].packages.values()},
    }


def _described(given: PictureInput) -> dict[str, Any]:
    config = given.run.config
    sides = [pictures.frame_side(given.size, config)]
    if given.stream == "crop":
        sides.append(pictures.crop_side(given.size, config))
    return {
        "name": given.name,
        "stream": given.stream,
        "shape": list(given.shape),
        "dtype": "uint8",
        "colours": "RGB",
        "backbones": [backbone.name for backbone in given.run.backbones],
        "kept_sides": sides,
        "letterbox": config.letterbox,
        "one_shot": given.run.backbone.sampling.one_shot,
        "sampling": {name: getattr(config, name) for name in _SAMPLING},
    }


def _thresholds(model: TrainedModel, config: PredictConfig) -> dict[str, float]:
    """Thresholds of balanced and of the other points that agree with the graph on taking the early exit, by point."""
    stored: Mapping[str, Any] = model.calibration.operating_points if model.calibration else {}
    balanced = config.threshold if config.operating_point == BALANCED else model.at(BALANCED).threshold
    return {BALANCED: balanced} | {
        point: float(stored[key_of(point)]["threshold"])
        for point in OPERATING_POINTS
        if point != BALANCED and key_of(point) in stored and model.at(point).by_all == model.by_all
    }


def _backbones(inputs: Sequence[PictureInput]) -> list[dict[str, Any]]:
    """Describe each backbone once: licence, weights file and its SHA-256."""
    found: dict[str, dict[str, Any]] = {}
    for given in inputs:
        for backbone in given.run.backbones:
            found[backbone.name] = {
                "name": backbone.name,
                "licence": backbone.licence,
                "weights_file": given.run.weights.name,
                "weights_sha256": storage.sha256_file(given.run.weights),
            }
    return list(found.values())
