"""The state of a training run at the end of an epoch, on disk: model, optimiser, schedule, early stopping and history.

An epoch counts only once the state file, which is written after the model's, says so. The best model is written after
both: if that did not happen for the last epoch, the best model is made again from the checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.errors import UserError
from violence_detection.system import storage
from violence_detection.training import run_folder

if TYPE_CHECKING:
    import keras

_STATE_NAME = "state.json"


@dataclass
class TrainingState:
    """What resuming needs besides the model and its optimiser."""

    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = -1
    parts: int = 1  # into which a device's share of a batch is divided
    samples: int = 0  # clips trained on so far, each as often as it was drawn
    fit_s: float = 0.0  # seconds that training on these samples took
    updates: int = -1  # of the weights so far; -1: unknown, written by an earlier version
    history: list[dict[str, float]] = field(default_factory=list)


def state_of(folder: Path) -> Path:
    """The state file of the run in `folder`, which exists from the end of the first epoch on."""
    return folder / run_folder.CHECKPOINT_FOLDER / _STATE_NAME


def read(folder: Path) -> tuple[TrainingState, Path] | None:
    """The state of the run in `folder` at the end of its last epoch, and the path of the model's file.

    None before the end of the first epoch. Raises UserError if the state cannot be used.
    """
    path = state_of(folder)
    if not path.is_file():
        return None
    saved = run_folder.read_object(path)
    try:
        model = path.with_name(saved.pop("model"))
        state = TrainingState(**{**saved, "parts": int(saved["parts"])})
        epochs = [row["epoch"] for row in state.history] == list(range(1, state.epoch + 1))
        best = 0 <= state.best_epoch < state.epoch and math.isfinite(state.best_loss)
        if not (epochs and best and math.isfinite(state.samples + state.fit_s)):
            raise ValueError("its numbers contradict each other")
        return state, model
    except (KeyError, TypeError, ValueError) as e:
        why = f"missing key: {e}" if isinstance(e, KeyError) else str(e)
        raise UserError(f"{path} cannot be used ({why}). Copy it again from where it was made") from e


def write(folder: Path, state: TrainingState, model: keras.Model) -> None:
    """Write the end of an epoch to disk, in place of the epoch before."""
    checkpoint = folder / run_folder.CHECKPOINT_FOLDER
    name = f"epoch-{state.epoch:05d}.keras"
    with storage.atomic_path(checkpoint / name) as temporary:
        model.save(temporary)
    storage.write_json(checkpoint / _STATE_NAME, {"model": name, **dataclasses.asdict(state)})
    for old in checkpoint.glob("epoch-*.keras"):
        if old.name != name:
            old.unlink()
