"""The folder of a training run: what stands in it under which name, and whose it is.

<folder>/config.json            settings and preprocessing, written first
<folder>/trained_on.txt         ids of the clips of train and selection
<folder>/training_log.csv       a row an epoch
<folder>/tensorboard_logs/      train/ and selection/
<folder>/checkpoint/            the state at the end of the last epoch
<folder>/best_model.keras       the epoch with the lowest selection loss, or with `--keep last` the last
<folder>/final_model.keras      the last epoch
<folder>/result.json            the completion record, written last
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.errors import UserError
from violence_detection.system import storage

BEST_NAME, FINAL_NAME = "best_model.keras", "final_model.keras"
CONFIG_NAME, RESULT_NAME, LOG_NAME = "config.json", "result.json", "training_log.csv"
CLIPS_NAME = "trained_on.txt"
#: Beside the folders of an ensemble's members: which they are, and their weights.
ENSEMBLE_NAME = "ensemble.json"
BOARD_NAME = "tensorboard_logs"


@dataclass(frozen=True)
class Trained:
    """A finished training run."""

    folder: Path
    selection_accuracy: float
    best_epoch: int
    epochs_run: int
    samples_per_second: float

    @property
    def model_path(self) -> Path:
        return self.folder / BEST_NAME


def finished(folder: Path) -> Trained | None:
    """The result of the run in `folder`; None if it has not come to its end."""
    path = folder / RESULT_NAME
    return Trained(folder=folder, **storage.read_json(path)) if path.is_file() else None


def trained_clips(folder: Path) -> frozenset[str]:
    """The ids of the clips that the model in `folder` was trained or selected on. Raises UserError if they are lost."""
    path = folder / CLIPS_NAME
    if not path.is_file():
        raise UserError(
            f"no {path}, which tells whether clips were trained on. Copy it from where the model was trained"
        )
    return frozenset(path.read_text(encoding="utf-8").split())


def claim_folder(folder: Path, record: Mapping[str, Any], overwrite: bool) -> Trained | None:
    """Start or continue a run in `folder`; the finished run if it is there already."""
    path = folder / CONFIG_NAME
    if path.is_file() and _outcome(storage.read_json(path)) != _outcome(record):
        if not overwrite:
            raise UserError(
                f"{folder} holds a model trained with other settings or data ({path}). "
                "Give another --output, or --overwrite to train anew in its place"
            )
        for stale in (RESULT_NAME, BEST_NAME, FINAL_NAME, "checkpoint/state.json", LOG_NAME):
            (folder / stale).unlink(missing_ok=True)
        for events in sorted((folder / BOARD_NAME).rglob("events.out.*")):
            events.unlink()
    result = folder / RESULT_NAME
    if overwrite or not result.is_file():  # also of a run that goes on: an engine may have joined meanwhile
        storage.write_json(path, record)
    return finished(folder)


def _outcome(record: Mapping[str, Any]) -> str:
    """Hash of what decides a run's outcome. Engines that share a cache are alike: one may join between two starts."""
    return storage.stable_hash({k: v for k, v in record.items() if k != "feature_engines"})
