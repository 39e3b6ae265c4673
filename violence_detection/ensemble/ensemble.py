"""The ensemble: members trained on the same clips, averaged with weights that the selection part admits."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from violence_detection.ensemble import member_weights
from violence_detection.ensemble.folds import Fold
from violence_detection.ensemble.member_jobs import Settings, TrainingJob
from violence_detection.ensemble.pool import Pool
from violence_detection.models import trained_model
from violence_detection.system import storage
from violence_detection.training import heads, run_folder
from violence_detection.training.run_folder import Trained
from violence_detection.training.training_data import Samples

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """A named share of an ensemble: which model file, and how it did on the selection part."""

    name: str
    model: Path
    selection_accuracy: float

    @classmethod
    def of(cls, name: str, trained: Trained) -> Part:
        return cls(name, trained.model_path, trained.selection_accuracy)


def jobs(
    names: Sequence[str], pool: Pool, fold: Fold, settings: Settings, folder: Path, overwrite: bool
) -> list[TrainingJob]:
    """A job a member, each in `<folder>/<name>`."""
    return [TrainingJob(name, folder / name, pool, fold, settings, overwrite=overwrite) for name in names]


def write(folder: Path, parts: Sequence[Part], selection: Samples, seed: int) -> member_weights.Weights:
    """Choose the weights on the selection clips and write `<folder>/ensemble.json`."""
    inputs = selection.plain()
    p_fight = np.array([heads.predict(trained_model.load_model(part.model), inputs) for part in parts])
    groups = selection.rows.source_group.tolist()
    weights = member_weights.choose(p_fight, selection.labels, groups, seed)
    log.info(
        "%s: %s weights (%s)", folder, "equal" if weights.uniform else _shown(parts, weights), weights.why
    )
    write_listed(folder, parts, weights.values, weights.record())
    return weights


def write_listed(
    folder: Path, parts: Sequence[Part], weights: Sequence[float], weighting: dict[str, object]
) -> None:
    """Write ensemble.json. Models may lie in other folders; they are named from here."""
    members = [
        {
            "name": part.name,
            "model": Path(os.path.relpath(part.model, folder)).as_posix(),
            "weight": weight,
            "selection_accuracy": part.selection_accuracy,
        }
        for part, weight in zip(parts, weights, strict=True)
    ]
    storage.write_json(folder / run_folder.ENSEMBLE_NAME, {"members": members, "weighting": weighting})


def _shown(parts: Sequence[Part], weights: member_weights.Weights) -> str:
    return ", ".join(f"{p.name} {w:.2f}" for p, w in zip(parts, weights.values, strict=True))
