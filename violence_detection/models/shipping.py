"""A final fit made into a model to ship: small, whole by itself, and used only as it was shipped.

<name>/ensemble.json                   members and their weights, temperature, thresholds, the folds' figures
<name>/<member>/config.json            how its input is prepared, its architecture and settings
<name>/<member>/best_model.safetensors its weights, in half precision where that changes no probability by 0.001
<name>/trained_on.csv                  the clips that it was trained on, one table for all members
<name>/README.md, SHA256SUMS           its card; the hash of every file, compared whenever it is used
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.errors import UserError
from violence_detection.features.key import Inputs
from violence_detection.models import model_card, model_files, run_records, shipped, trained_model
from violence_detection.models.trained_model import TrainedModel
from violence_detection.system import storage
from violence_detection.training import run_folder, saved_heads

log = logging.getLogger(__name__)
#: A probability may be another by less than this in the shipped model. Verdicts have four digits.
MOST_CHANGE = 1e-3
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def check(name: str) -> None:
    """Raise UserError where a model of that name cannot be shipped, before any work."""
    if not _NAME.fullmatch(name):
        raise UserError(f"--ship {name}: a name has small letters, digits, and . _ - between them")
    storage.check_writable(shipped.home(), "--ship (or $VIOLENCE_MODELS)")


def ship(model: Path, name: str, inputs: Inputs) -> Path:
    """Make the final fit in the folder `model` the shipped model `name`, in the place of an earlier one.

    `inputs`: clips to compare probabilities on, input name -> (N, T, C). Returns the folder, `shipped.home()`/`name`.

    Raises UserError for a model that is no final fit, and for a name that cannot be one.
    """
    check(name)
    if not run_records.read(model).final_fit:
        raise UserError(
            f"{model} is no final fit, so it says nothing of what it is worth. Make one with train_ensemble_models.py "
            "--final"
        )
    home = shipped.home()
    # A folder of its own on the same disk, of the same name, which the card has as its title.
    making, earlier = home / ".making" / name, home / ".making" / f"{name}.earlier"
    shutil.rmtree(home / ".making", ignore_errors=True)
    change = _write_as_small_as_it_may_be(model, making, inputs)
    model_card.write_trained(making)
    model_files.write_sums(making)
    target = home / name
    if target.exists():
        target.rename(earlier)
    making.rename(target)
    shutil.rmtree(home / ".making")
    size = sum(p.stat().st_size for p in target.rglob("*") if p.is_file())
    log.info(
        "%s: %.1f MB; on %d clips no probability is another by more than %.2g",
        target, size / 1e6, len(next(iter(inputs.values()))), change,
    )  # fmt: skip
    return target


def _write_as_small_as_it_may_be(model: Path, to: Path, inputs: Inputs) -> float:
    """Write the model's files, members in half precision where that may be; returns the largest change it makes."""
    loaded = trained_model.load(model)
    half = {m.name for m in loaded.members}
    while True:
        shutil.rmtree(to, ignore_errors=True)
        _write(model, to, half)
        changes = _changes(loaded, to, inputs)
        largest = max(changes.values())
        if largest < MOST_CHANGE or not half:
            return largest
        # of all together, where each by itself may be: what divides the logit enlarges changes too
        too_large = half & {name for name, change in changes.items() if not change < MOST_CHANGE} or half
        log.info(
            "half precision changes a probability by %.2g: the weights of %s stay as they are",
            largest,
            ", ".join(sorted(too_large)),
        )
        half -= too_large


def _write(model: Path, to: Path, half: Collection[str]) -> None:
    """The files of the model, but for its card and the sums. `half`: members in half precision."""
    record: dict[str, Any] = run_folder.read_object(model / run_folder.ENSEMBLE_NAME)
    for entry, (name, file, _) in zip(record["members"], model_files.listed(model), strict=True):
        folder = to / name
        folder.mkdir(parents=True)
        for kept in (run_folder.CONFIG_NAME, run_folder.RESULT_NAME):
            if (file.parent / kept).is_file():
                shutil.copyfile(file.parent / kept, folder / kept)
        weights = run_folder.weights_of(folder / run_folder.BEST_NAME)
        saved_heads.save_weights(saved_heads.load(file), weights, name in half)
        entry["model"] = weights.relative_to(to).as_posix()
    for kept in (run_folder.CLIPS_NAME, run_folder.LEFT_OUT_NAME):
        if (model / kept).is_file():
            shutil.copyfile(model / kept, to / kept)
    storage.write_json(to / run_folder.ENSEMBLE_NAME, record)


def _changes(before: TrainedModel, folder: Path, inputs: Inputs) -> dict[str, float]:
    """By member, and under "" of all together, the largest difference of a probability that the copy in `folder` makes.

    Infinite where a weight is too large for what it is kept in.
    """
    try:
        after = trained_model.load(folder)
    except UserError as e:
        log.info("%s", e)
        return {"": np.inf}
    one, other = before.predict(inputs), after.predict(inputs)
    changes = {name: float(np.abs(one[name] - other[name]).max()) for name in one}
    return {**changes, "": float(np.abs(before.average(one) - after.average(other)).max())}
