"""The five members of the roadmap's ensemble, trained one after another, and their average."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from violence_detection import detector, storage, training
from violence_detection.training_data import Data

log = logging.getLogger(__name__)

MEMBERS = ("deep_lstm", "bilstm", "gru", "conv_lstm", "attention")


def train_members(
    names: tuple[str, ...],
    record_of: Callable[[str], dict[str, Any]],
    data: Data,
    folder: Path,
    strategy: Any,
    overwrite: bool,
) -> list[training.Trained]:
    """Train each member into `<folder>/<name>`, then write ensemble.json with uniform weights.

    Finished members are kept when the run is repeated; ensemble.json is written last.
    """
    (folder / detector.ENSEMBLE_NAME).unlink(missing_ok=True)
    trained = []
    for i, name in enumerate(names, 1):
        log.info("member %d of %d: %s", i, len(names), name)
        trained.append(training.train(record_of(name), data, folder / name, strategy, overwrite))
    members = [
        {
            "name": name,
            "model": f"{name}/{training.BEST_NAME}",
            "weight": 1.0,
            "selection_accuracy": t.selection_accuracy,
        }
        for name, t in zip(names, trained, strict=True)
    ]
    storage.write_json(folder / detector.ENSEMBLE_NAME, {"members": members})
    return trained
