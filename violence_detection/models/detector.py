"""A trained model with all that is needed to use it: its members, weights, and its own preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np

from violence_detection.backbones import registry
from violence_detection.errors import UserError
from violence_detection.features import cache
from violence_detection.features.config import FeatureConfig
from violence_detection.system import storage
from violence_detection.training import heads, trainer
from violence_detection.training.training_data import Inputs

ENSEMBLE_NAME = "ensemble.json"
DEFAULT_THRESHOLD = 0.5
_SMALL = 32


@dataclass(frozen=True)
class Member:
    """One trained head and its share in the average."""

    name: str
    model: keras.Model
    weight: float


@dataclass(frozen=True)
class Detector:
    """One or several heads on the same features. `folder` and `record` (config.json) are the first member's.

    `folders`: where each member lies, with the list of the clips it was trained on.
    """

    folder: Path
    folders: tuple[Path, ...]
    members: tuple[Member, ...]
    features: FeatureConfig
    record: Mapping[str, Any]
    threshold: float = DEFAULT_THRESHOLD

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """P(fight) of each member, name -> (N,) in [0, 1], for inputs name -> (N, T, C)."""
        if len(next(iter(inputs.values()))) <= _SMALL:  # spares the pipeline that `predict` sets up
            batch = {m.name: np.asarray(m.model.predict_on_batch(inputs)) for m in self.members}
            return {name: p[:, 0].astype(np.float64) for name, p in batch.items()}
        return {m.name: trainer.predict(m.model, inputs) for m in self.members}

    def average(self, by_member: Mapping[str, np.ndarray]) -> np.ndarray:
        """The members' weighted mean, (N,)."""
        weights = [m.weight for m in self.members]
        return np.average([by_member[m.name] for m in self.members], axis=0, weights=weights)

    def trained_with(self, backbone: str) -> list[str]:
        """The engines that may have made a backbone's features for training, of any member."""
        made_by = self.record["feature_engines"]
        return sorted(
            {e for name, engines in made_by.items() if name.startswith(f"{backbone}.") for e in engines}
        )

    @property
    def trained_on_samples(self) -> bool:
        return bool(self.record.get("generated_samples"))


def load(path: Path, **how: Any) -> Detector:
    """Load a `.keras` file, a model folder or an ensemble folder. `how`: engine, backbone_weights.

    Raises UserError, with the command that makes one, if there is no model, or its record is missing.
    """
    if (path / ENSEMBLE_NAME).is_file():
        listed = storage.read_json(path / ENSEMBLE_NAME)["members"]
        files = [(m["name"], path / m["model"], float(m["weight"])) for m in listed]
    else:
        file = path if path.suffix == ".keras" else path / trainer.BEST_NAME
        files = [(file.parent.name if path.suffix != ".keras" else file.stem, file, 1.0)]
        if path.suffix != ".keras" and file.is_file() and not (path / trainer.RESULT_NAME).is_file():
            raise UserError(
                f"{path} has not finished training: the same command goes on with it. To use it as it is, give {file}"
            )
    missing = [file for _, file, _ in files if not file.is_file()]
    if missing:
        raise UserError(
            f"no model at {missing[0]}. Train one with runpod_train_ultimate.py or train_ensemble_models.py, and give "
            "its folder, or a .keras file with its config.json beside it"
        )
    records = [_record(file) for _, file, _ in files]
    if any(r["feature_records"] != records[0]["feature_records"] for r in records):
        raise UserError(
            f"the members of {path} were trained on different features; train them again together"
        )
    members = tuple(Member(name, load_model(file), weight) for name, file, weight in files)
    known = {f.name for f in fields(FeatureConfig)}
    stored = {
        k: tuple(v) if isinstance(v, list) else v for k, v in records[0]["features"].items() if k in known
    }
    folders = tuple(file.parent for _, file, _ in files)
    record = {**records[0], "feature_engines": _engines_of_all(records)}
    return Detector(folders[0], folders, members, FeatureConfig(**{**stored, **how}), record)


def _engines_of_all(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        for name, engines in record.get("feature_engines", {}).items():
            found.setdefault(name, set()).update(engines)
    return {name: sorted(engines) for name, engines in found.items()}


def check_weights(detector: Detector, backbone: str, weights: Path) -> None:
    """Raise UserError if the backbone weights here are not those the model was trained on."""
    trained_on = {
        r["weights_sha256"] for r in detector.record["feature_records"].values() if r["backbone"] == backbone
    }
    here = storage.sha256_file(weights)
    if trained_on != {here}:
        raise UserError(
            f"{detector.folder} was trained on {backbone} weights with SHA-256 {', '.join(sorted(trained_on))}, but "
            f"{weights} has {here}. Give the original file with --backbone-weights FILE"
        )


def check_features(detector: Detector, backbone: str, weights: Path) -> None:
    """Raise UserError if features are made differently here than when the model was trained.

    How training clips are augmented may differ: no plain clip is touched by it.
    """
    for trained_on in detector.record["feature_records"].values():
        if trained_on["backbone"] != backbone:
            continue
        here = cache.record(detector.features, backbone, trained_on["stream"], weights)
        keys = (here.keys() | trained_on.keys()) - {"augmentation"}
        if other := [k for k in sorted(keys) if here.get(k) != trained_on.get(k)]:
            raise UserError(
                f"{detector.folder} was trained by another version of these scripts, on features made differently "
                f"({', '.join(f'{k}: {trained_on.get(k)}, now {here.get(k)}' for k in other)}). Train it again, or use "
                "the version that trained it"
            )


def find_weights(detector: Detector) -> dict[str, Path]:
    """The weights file of each backbone the model needs; it, and how features are made, checked to be as in training.

    Raises UserError if not.
    """
    found = {}
    for name in detector.features.backbone:
        found[name] = registry.get(name).weights_file(detector.features.backbone_weights)
        check_weights(detector, name, found[name])
        check_features(detector, name, found[name])
    return found


def _record(model_file: Path) -> dict[str, Any]:
    path = model_file.parent / trainer.CONFIG_NAME
    if not path.is_file():
        raise UserError(f"{model_file} has no {path.name} beside it, which says how its input is prepared. "
                        "Copy it from where the model was trained")  # fmt: skip
    return storage.read_json(path)


def load_model(file: Path) -> keras.Model:
    """One trained head. Raises UserError if the file is damaged."""
    assert heads.ARCHITECTURES  # importing heads registers the layers that the file names
    try:
        return keras.models.load_model(file, compile=False)
    except (ValueError, OSError, TypeError) as e:
        raise UserError(
            f"{file} cannot be loaded ({str(e).splitlines()[0]}). Train it again, or copy it again"
        ) from e
