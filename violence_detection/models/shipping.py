"""Making a final fit into a shipped model: small, complete in one folder, and refused if a file of it has changed.

<name>/ensemble.json                   members and their weights, temperature, thresholds, the folds' figures
<name>/<member>/config.json            how the member's input is prepared, its architecture and settings
<name>/<member>/best_model.safetensors its weights, as small as MOST_CHANGE allows: in half precision, or for a whole
                                       network as the difference from the published weights
<name>/<member>/activation_ranges.json for a whole network, to judge in 8 bits (training/activation_ranges.py)
<name>/trained_on.csv                  the clips that the model was trained on, one table for all members
<name>/README.md, SHA256SUMS           its card; the hash of every file, compared whenever the model is used
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.backbones import registry
from violence_detection.errors import UserError
from violence_detection.features.key import Inputs
from violence_detection.models import (
    adapted_model,
    model_card,
    model_files,
    run_records,
    shipped,
    trained_model,
)
from violence_detection.models.trained_model import TrainedModel
from violence_detection.system import disks, storage
from violence_detection.training import activation_ranges, run_folder, saved_heads
from violence_detection.training.config import PICTURES_OF

log = logging.getLogger(__name__)
#: The probabilities of a shipped model differ from those of the final fit by less than this.
MOST_CHANGE = 1e-3
#: The same for a model with a whole network among its members.
MOST_CHANGE_OF_NETWORKS = 2e-3
#: Step sizes in which a network's difference may be stored (training/weight_difference.py), in the order of trial.
_STEPS = (0.9, 0.6, 0.4, 0.25)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def check(name: str) -> None:
    """Raise UserError if a model cannot be shipped under this name. May be called before there is a model."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"--ship {name}: a name may contain only a-z, 0-9 and . _ -, and must begin with a letter or a digit"
        )
    target = shipped.home() / name
    if os.path.lexists(target) and not _is_replaced(target):
        raise UserError(
            f"--ship {name}: {target} already exists and was not made by --ship, so it is not replaced. Choose another "
            "name, or move it away"
        )
    disks.check_writable(shipped.home(), "--ship (or $VIOLENCE_MODELS)")


def _is_replaced(target: Path) -> bool:
    """Whether the folder is a shipped model, which may be replaced, and not one that was adapted to footage."""
    return model_files.is_shipped(target) and not (target / adapted_model.RECORD_NAME).is_file()


def ship(model: Path, name: str, inputs: Inputs, published: Path | None = None) -> Path:
    """Make the final fit in the folder `model` into the shipped model `name`; an earlier one of that name is replaced.

    `inputs`: clips to compare probabilities on, input name -> (N, T, C). `published`: a file of the weights that a
    whole network among the members started from; by default it is found or fetched. Returns the folder of the shipped
    model, `shipped.home()`/`name`.

    Raises UserError if the model is not a final fit, or if the name is invalid or belongs to something that was not
    shipped.
    """
    check(name)
    if not run_records.read(model).final_fit:
        raise UserError(
            f"{model} is not a final fit, so it has no figures of how good it is. Make a final fit with "
            "train_ensemble_models.py --final"
        )
    home = shipped.home()
    # On the same disk as the target, to be renamed to it, and of the same name, since the card takes its title from it.
    making, earlier = home / ".making" / name, home / ".making" / f".{name}.earlier"
    copied = earlier.with_name(f"{earlier.name}.copy")
    target = home / name
    if earlier.is_dir() and not target.exists():  # a run was killed between the two renamings below
        earlier.rename(target)
    for left in (making, earlier, copied):
        shutil.rmtree(left, ignore_errors=True)
    change = _write_as_small_as_it_may_be(model, making, inputs, published)
    _measure_ranges(making, inputs, published)
    model_card.write_trained(making)
    model_files.write_sums(making)
    if target.exists():
        _set_aside(target, earlier, copied)
    making.rename(target)
    shutil.rmtree(earlier, ignore_errors=True)
    with contextlib.suppress(OSError):  # another model is being made there
        making.parent.rmdir()
    size = sum(p.stat().st_size for p in target.rglob("*") if p.is_file())
    log.info(
        "%s: %.1f MB; on %d clips no probability differs from the final fit's by more than %.2g",
        target, size / 1e6, len(next(iter(inputs.values()))), change,
    )  # fmt: skip
    return target


def _set_aside(target: Path, earlier: Path, copied: Path) -> None:
    try:
        target.rename(earlier)
    except OSError as e:
        if e.errno != errno.EXDEV:
            raise
        # a folder that is part of a container's image (overlay) cannot be renamed
        shutil.copytree(target, copied)
        copied.rename(earlier)
        # first, so that a half-removed folder is not a shipped model
        (target / model_files.SUMS_NAME).unlink()
        shutil.rmtree(target)


@dataclass(frozen=True)
class _Kept:
    """How a member's weights are stored: as a difference in steps of `step`, in half precision, or unchanged."""

    step: float | None = None
    half: bool = False

    def __str__(self) -> str:
        if self.step:
            return f"a difference in steps of {self.step}"
        return "half precision" if self.half else "no change"


def _ways(architecture: str) -> list[_Kept]:
    """The ways to store a member of this architecture, the smallest first; the last is unchanged."""
    differences = [_Kept(step=step) for step in _STEPS] if architecture in PICTURES_OF else []
    return [*differences, _Kept(half=True), _Kept()]


def _write_as_small_as_it_may_be(model: Path, to: Path, inputs: Inputs, published: Path | None) -> float:
    """Write the model's files, each member as small as MOST_CHANGE allows.

    Returns the largest change of a probability, of a member or of the average.
    """
    loaded = trained_model.load(model)
    before = loaded.predict(inputs)
    ways = {
        m.name: _ways(record["architecture"])
        for m, record in zip(loaded.members, loaded.records, strict=True)
    }
    networks = any(way.step for found in ways.values() for way in found)
    most = MOST_CHANGE_OF_NETWORKS if networks else MOST_CHANGE
    while True:
        shutil.rmtree(to, ignore_errors=True)
        _write(model, to, {name: left[0] for name, left in ways.items()}, published)
        changes = _changes(loaded, before, to, inputs, published)
        largest = max(changes.values())
        small = {name for name, left in ways.items() if len(left) > 1}
        if largest < most or not small:
            return largest
        # Where no member's own change is too large but that of the average is, all members go on to their next way: a
        # temperature below 1 enlarges changes.
        too_large = small & {name for name, change in changes.items() if not change < most} or small
        for name in sorted(too_large):
            log.info("%s: %s changes a probability by %.2g", name, ways[name][0], largest)
            del ways[name][0]


def _write(model: Path, to: Path, kept: Mapping[str, _Kept], published: Path | None) -> None:
    """Write the files of the model, except for its card, the activation ranges and SHA256SUMS."""
    record: dict[str, Any] = run_folder.read_object(model / run_folder.ENSEMBLE_NAME)
    for entry, (name, file, _) in zip(record["members"], model_files.listed(model), strict=True):
        folder = to / name
        folder.mkdir(parents=True)
        for beside in (run_folder.CONFIG_NAME, run_folder.RESULT_NAME):
            if (file.parent / beside).is_file():
                shutil.copyfile(file.parent / beside, folder / beside)
        weights = run_folder.weights_of(folder / run_folder.BEST_NAME)
        head, way = saved_heads.load(file), kept[name]
        if way.step:
            base = registry.get(PICTURES_OF[head.name]).weights_file(published)
            saved_heads.save_difference(head, weights, base, way.step)
        else:
            saved_heads.save_weights(head, weights, way.half)
        entry["model"] = weights.relative_to(to).as_posix()
    for beside in (run_folder.CLIPS_NAME, run_folder.LEFT_OUT_NAME):
        if (model / beside).is_file():
            shutil.copyfile(model / beside, to / beside)
    storage.write_json(to / run_folder.ENSEMBLE_NAME, record)


def _measure_ranges(folder: Path, inputs: Inputs, published: Path | None) -> None:
    """Write what judging in 8 bits needs for each whole network among the members, measured with the stored weights."""
    loaded = trained_model.load(folder, published)
    for member, record in zip(loaded.members, loaded.records, strict=True):
        if record["architecture"] in PICTURES_OF:
            (name,) = record["inputs"]
            clips = inputs[name][:: -(-len(inputs[name]) // activation_ranges.CLIPS)]
            assert member.file
            activation_ranges.write(member.file.parent, member.model, (clip[None] for clip in clips))


def _changes(
    model: TrainedModel, one: Mapping[str, np.ndarray], folder: Path, inputs: Inputs, published: Path | None
) -> dict[str, float]:
    """The largest difference between a probability of the model and of its copy in `folder`.

    By member, and under "" of the members' average. `one`: P(fight) by member as the model gives it. Infinite if the
    copy cannot be loaded, as when a weight is too large for half precision.
    """
    try:
        after = trained_model.load(folder, published)
    except UserError as e:
        log.info("%s", e)
        return {"": np.inf}
    other = after.predict(inputs)
    changes = {name: float(np.abs(one[name] - other[name]).max()) for name in one}
    return {**changes, "": float(np.abs(model.average(one) - after.average(other)).max())}
