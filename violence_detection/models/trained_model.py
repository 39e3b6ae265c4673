"""A trained model with all that is needed to use it: its members, weights, and its own preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import Any

import keras
import numpy as np

from violence_detection.errors import UserError
from violence_detection.features import key
from violence_detection.features.config import FeatureConfig
from violence_detection.features.key import BackboneRun, Inputs
from violence_detection.system import storage
from violence_detection.training import heads, run_folder

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class Member:
    """One trained head and its share in the average."""

    name: str
    model: keras.Model
    weight: float


@dataclass(frozen=True)
class TrainedModel:
    """One or several heads on the same features. `folder` and `record` (config.json) are the first member's.

    `folders`: those with a table of the clips that it was made with, the ensemble's and each member's. `records`: those
    of all members.
    """

    folder: Path
    folders: tuple[Path, ...]
    members: tuple[Member, ...]
    features: FeatureConfig
    record: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...] = ()
    threshold: float = DEFAULT_THRESHOLD

    def predict(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """P(fight) of each member, name -> (N,) in [0, 1], for inputs name -> (N, T, C)."""
        return {m.name: heads.predict(m.model, inputs) for m in self.members}

    def average(self, by_member: Mapping[str, np.ndarray]) -> np.ndarray:
        """The members' weighted mean, (N,): not finite where any member's is, whatever its weight."""
        weights = [m.weight for m in self.members]
        return np.average([by_member[m.name] for m in self.members], axis=0, weights=weights)

    def trained_with(self, backbones: Sequence[str]) -> list[str]:
        """The engines that may have made the features of these backbones for training, of any member."""
        made_by = self.record["feature_engines"]
        return sorted(
            {e for name, engines in made_by.items() if name.split(".")[0] in backbones for e in engines}
        )

    def average_views(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """P(fight) of each member for inputs name -> (N, V, T, C), the mean over the V views."""
        views = next(iter(inputs.values())).shape[1]
        per_view = [
            self.predict({n: v[:, i].astype(np.float32) for n, v in inputs.items()}) for i in range(views)
        ]
        return {name: np.mean([p[name] for p in per_view], axis=0) for name in per_view[0]}

    def backbone_runs(self, weights_file: Path | None = None) -> list[BackboneRun]:
        """The backbones that make its features, checked to make them as in training.

        Raises UserError if their weights cannot be had, or the features would be others.
        """
        runs = key.backbone_runs(self.features, weights_file)
        for run in runs:
            for backbone in run.backbones:
                check_weights(self, backbone.name, run.weights)
                check_features(self, backbone.name, run.weights)
        return runs

    @property
    def trained_on_samples(self) -> bool:
        return bool(self.record.get("generated_samples"))


def load(path: Path) -> TrainedModel:
    """Load a model file, a model folder or an ensemble folder.

    Raises UserError, with the command that makes one, if there is no model, it is damaged, or its record is missing.
    """
    from violence_detection.training import model_record, saved_heads  # needed once, to load

    if (path / run_folder.ENSEMBLE_NAME).is_file():
        files = _listed(path)
    elif path.is_dir():
        file = run_folder.stored(path / run_folder.BEST_NAME)
        files = [(path.name, file, 1.0)]
        if file.is_file() and not (path / run_folder.RESULT_NAME).is_file():
            raise UserError(
                f"{path} has not finished training: the same command goes on with it. To use it as it is, give {file}"
            )
    else:
        files = [(path.stem, path, 1.0)]
    for _, file, _ in files:
        _check_there(file, path)
    records = [model_record.read(_record_of(file)) for _, file, _ in files]
    if any(r["feature_records"] != records[0]["feature_records"] for r in records):
        raise UserError(
            f"the members of {path} were trained on different features; train them again together"
        )
    members = tuple(Member(name, saved_heads.load(file), weight) for name, file, weight in files)
    known = {f.name for f in fields(FeatureConfig)}
    stored: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in records[0]["features"].items() if k in known
    }
    folders = tuple(file.parent for _, file, _ in files)
    record = {**records[0], "feature_engines": _engines_of_all(records)}
    return TrainedModel(
        folders[0],
        (path, *folders) if (path / run_folder.CLIPS_NAME).is_file() and path not in folders else folders,
        members,
        FeatureConfig(**stored),
        record,
        tuple(records),
    )


def _listed(folder: Path) -> list[tuple[str, Path, float]]:
    """Name, file and weight of each member in ensemble.json. Raises UserError for anything else in it."""
    path = folder / run_folder.ENSEMBLE_NAME
    members = run_folder.read_object(path).get("members")
    if not isinstance(members, list) or not all(isinstance(m, dict) for m in members) or not members:
        raise UserError(f"{path} lists no members. Copy it again from where it was made, or train again")
    files = []
    for member in members:
        name, weight = member.get("name"), member.get("weight")
        is_weight = isinstance(weight, int | float) and not isinstance(weight, bool) and 0 <= weight <= 1
        if not isinstance(name, str) or not is_weight:
            raise UserError(
                f"{path}: each member needs a name and a weight from 0 to 1. Found: {name!r}, {weight!r}"[
                    :500
                ]
            )
        files.append((name, _inside(path, member.get("model")), float(weight)))
    if len({name for name, _, _ in files}) != len(files) or sum(weight for *_, weight in files) <= 0:
        raise UserError(f"{path}: names must differ, and some weight must be above 0. Train again")
    return files


def _inside(listed_in: Path, named: Any) -> Path:
    """The model file of that name below the ensemble's folder. Raises UserError for one that lies elsewhere."""
    folder = listed_in.parent
    if isinstance(named, str) and named and "\0" not in named:
        file = run_folder.stored(folder / named)
        if (
            not PurePath(named).is_absolute()
            and ".." not in PurePath(named).parts
            and file.suffix in (run_folder.WEIGHTS_SUFFIX, run_folder.ARCHIVE_SUFFIX)
            and file.resolve().is_relative_to(folder.resolve())
        ):
            return file
    raise UserError(
        f"{listed_in} names the model {named!r}, which is no model file below {folder}. Copy the members into it; an "
        "ensemble of folds or of tuned members that an earlier version made is written anew by the same "
        "train_ensemble_models.py command, which trains nothing again"
    )


def _check_there(file: Path, asked: Path) -> None:
    """Raise UserError, saying what is there instead, unless a model file is. `asked`: what was to be loaded."""
    how = (
        "Train one with runpod_train_ultimate.py or train_ensemble_models.py, and give its folder, or a .keras or "
        ".safetensors file with its config.json beside it"
    )
    known = (run_folder.WEIGHTS_SUFFIX, run_folder.ARCHIVE_SUFFIX)
    if file.is_file() and file.suffix in known:
        return
    if file.is_file():
        raise UserError(
            f"{file} is there, but a {file.suffix or 'file of that kind'} is not supported: what such a file holds may "
            f"run when it is loaded. {how}"
        )
    kinds = (".h5", ".hdf5", ".pb", *known)
    others = sorted(p for p in asked.iterdir() if p.suffix in kinds) if asked.is_dir() else []
    if others:
        there = ", ".join(p.name for p in others[:5])
        raise UserError(f"no model at {file}; what is there, {there}, is not taken for it. {how}")
    raise UserError(f"no model at {file}. {how}")


def _record_of(model_file: Path) -> Path:
    path = model_file.parent / run_folder.CONFIG_NAME
    if not path.is_file():
        raise UserError(f"{model_file} has no {path.name} beside it, which says how its input is prepared. "
                        "Copy it from where the model was trained")  # fmt: skip
    return path


def _engines_of_all(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        for name, engines in record.get("feature_engines", {}).items():
            found.setdefault(name, set()).update(engines)
    return {name: sorted(engines) for name, engines in found.items()}


def check_weights(model: TrainedModel, backbone: str, weights: Path) -> None:
    """Raise UserError if the backbone weights here are not those the model was trained on."""
    trained_on = {
        r["weights_sha256"] for r in model.record["feature_records"].values() if r["backbone"] == backbone
    }
    here = storage.sha256_file(weights)
    if trained_on != {here}:
        raise UserError(
            f"{model.folder} was trained on {backbone} weights with SHA-256 {', '.join(sorted(trained_on))}, but "
            f"{weights} has {here}. Give the original file with --backbone-weights FILE"
        )


def check_features(model: TrainedModel, backbone: str, weights: Path) -> None:
    """Raise UserError if features are made differently here than when the model was trained.

    How training clips are augmented may differ: no plain clip is touched by it.
    """
    for trained_on in model.record["feature_records"].values():
        if trained_on["backbone"] != backbone:
            continue
        here = key.record(model.features, backbone, trained_on["stream"], weights)
        keys = (here.keys() | trained_on.keys()) - {"augmentation"}
        if other := [k for k in sorted(keys) if here.get(k) != trained_on.get(k)]:
            raise UserError(
                f"{model.folder} was trained by another version of these scripts, on features made differently "
                f"({', '.join(f'{k}: {trained_on.get(k)}, now {here.get(k)}' for k in other)}). Train it again, or use "
                "the version that trained it"
            )


def load_model(file: Path) -> keras.Model:
    """One trained head, from the better of its two files. Raises UserError if it is damaged."""
    from violence_detection.training import saved_heads

    return saved_heads.load(run_folder.stored(file))
