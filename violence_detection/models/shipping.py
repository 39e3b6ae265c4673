"""A final fit made into a model to ship: small, whole by itself, and used only as it was shipped.

<name>/ensemble.json                   members and their weights, temperature, thresholds, the folds' figures
<name>/<member>/config.json            how its input is prepared, its architecture and settings
<name>/<member>/best_model.safetensors its weights, as small as probabilities allow (MOST_CHANGE): in half precision,
                                       or of a whole network its difference from the published one
<name>/<member>/activation_ranges.json of a whole network, for judging in 8 bits (training/activation_ranges.py)
<name>/trained_on.csv                  the clips that it was trained on, one table for all members
<name>/README.md, SHA256SUMS           its card; the hash of every file, compared whenever it is used
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
#: A probability may be another by less than this in the shipped model: with half precision, and with differences.
MOST_CHANGE, MOST_CHANGE_OF_NETWORKS = 1e-3, 2e-3
#: How coarsely a network's difference is kept, see training/weight_difference.py: what is tried first to last.
_STEPS = (0.9, 0.6, 0.4, 0.25)
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def check(name: str) -> None:
    """Raise UserError where a model of that name cannot be shipped, before any work."""
    if not _NAME.fullmatch(name):
        raise UserError(f"--ship {name}: a name has small letters, digits, and . _ - between them")
    target = shipped.home() / name
    if os.path.lexists(target) and not _is_replaced(target):
        raise UserError(
            f"--ship {name}: {target} is there and is no model that was shipped, so it is not replaced. Choose another "
            "name, or move it away"
        )
    disks.check_writable(shipped.home(), "--ship (or $VIOLENCE_MODELS)")


def _is_replaced(target: Path) -> bool:
    """Whether the folder is a shipped model; one that was adapted to somebody's cameras was not shipped."""
    return model_files.is_shipped(target) and not (target / adapted_model.RECORD_NAME).is_file()


def ship(model: Path, name: str, inputs: Inputs, published: Path | None = None) -> Path:
    """Make the final fit in the folder `model` the shipped model `name`, in the place of an earlier one.

    `inputs`: clips to compare probabilities on, input name -> (N, T, C). `published`: a file of the weights that a
    member with a whole network started from, by default found or fetched. Returns the folder, `shipped.home()`/`name`.

    Raises UserError for a model that is no final fit, for a name that cannot be one, and for one under which something
    stands that was not shipped.
    """
    check(name)
    if not run_records.read(model).final_fit:
        raise UserError(
            f"{model} is no final fit, so it says nothing of what it is worth. Make one with train_ensemble_models.py "
            "--final"
        )
    home = shipped.home()
    # A folder of its own on the same disk, of the same name, which the card has as its title.
    making, earlier = home / ".making" / name, home / ".making" / f".{name}.earlier"
    copied = earlier.with_name(f"{earlier.name}.copy")
    target = home / name
    if earlier.is_dir() and not target.exists():  # killed before the new one stood in its place
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
        "%s: %.1f MB; on %d clips no probability is another by more than %.2g",
        target, size / 1e6, len(next(iter(inputs.values()))), change,
    )  # fmt: skip
    return target


def _set_aside(target: Path, earlier: Path, copied: Path) -> None:
    try:
        target.rename(earlier)
    except OSError as e:
        if e.errno != errno.EXDEV:
            raise
        shutil.copytree(target, copied)  # a folder of a container's image (overlay) cannot be renamed
        copied.rename(earlier)
        (target / model_files.SUMS_NAME).unlink()  # first: what is left of it is no model that was shipped
        shutil.rmtree(target)


@dataclass(frozen=True)
class _Kept:
    """How a member's weights are kept: as a difference in such steps, or in half precision, or as they are."""

    step: float | None = None
    half: bool = False

    def __str__(self) -> str:
        if self.step:
            return f"a difference in steps of {self.step}"
        return "half precision" if self.half else "no change"


def _ways(architecture: str) -> list[_Kept]:
    """The ways to keep such a member, the smallest first."""
    differences = [_Kept(step=step) for step in _STEPS] if architecture in PICTURES_OF else []
    return [*differences, _Kept(half=True), _Kept()]


def _write_as_small_as_it_may_be(model: Path, to: Path, inputs: Inputs, published: Path | None) -> float:
    """Write the model's files, each member as small as it may be; returns the largest change that makes."""
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
        # of all together, where each by itself may be: what divides the logit enlarges changes too
        too_large = small & {name for name, change in changes.items() if not change < most} or small
        for name in sorted(too_large):
            log.info("%s: %s changes a probability by %.2g", name, ways[name][0], largest)
            del ways[name][0]


def _write(model: Path, to: Path, kept: Mapping[str, _Kept], published: Path | None) -> None:
    """The files of the model, but for its card and the sums."""
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
    """Of members with whole networks, as they are kept there, what judging in 8 bits needs."""
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
    """By member, and under "" of all together, the largest difference of a probability that the copy in `folder` makes.

    `one`: what the model gives. Infinite where a weight is too large for what it is kept in.
    """
    try:
        after = trained_model.load(folder, published)
    except UserError as e:
        log.info("%s", e)
        return {"": np.inf}
    other = after.predict(inputs)
    changes = {name: float(np.abs(one[name] - other[name]).max()) for name in one}
    return {**changes, "": float(np.abs(model.average(one) - after.average(other)).max())}
