"""A model folder with an adapted kernel head, beside the other members as they are.

<folder>/adapted.json   what it was adapted to; the rest is as in the model that it was made of, but for figures: what
                        was measured of that model (operating points, cross-validation, left-out sets) is left out
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.errors import UserError
from violence_detection.models import model_files
from violence_detection.models.light_heads import KernelHead, kernel_head
from violence_detection.system import storage
from violence_detection.training import model_record, run_folder
from violence_detection.training.config import KERNEL, HeadConfig

RECORD_NAME = "adapted.json"
WHY_NO_POINTS = "it was adapted to footage without labels, on which no operating point was measured"


@dataclass(frozen=True)
class KernelMember:
    """The kernel head of a model, its file and its record."""

    file: Path
    head: KernelHead
    record: Mapping[str, Any]


def kernel_of(model: Path) -> KernelMember:
    """The one kernel head of a model folder.

    Raises UserError where it has none, or more than one.
    """
    if not model.is_dir():
        raise UserError(f"{model} is no model folder: only a whole one is adapted")
    found = []
    for _, file, _ in model_files.listed(model):
        record = model_record.read(model_files.record_path(file))
        if record["architecture"] == KERNEL and (head := kernel_head(file, record)):
            found.append(KernelMember(file, head, record))
    if len(found) != 1:
        raise UserError(
            f"--adapt changes a kernel head, and {model} has {len(found) or 'none'}. accurate has one; "
            "train_ensemble_models.py --members kernel makes one"
        )
    return found[0]


def write(
    model: Path, member: KernelMember, head: KernelHead, to: Path, made_from: Mapping[str, Any]
) -> None:
    """Write the model with that head in the place of its kernel head to the folder `to`, which is not there yet."""
    making = to.with_name(f".{to.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    for _, file, _ in model_files.listed(model):
        there = making / file.parent.relative_to(model)
        there.mkdir(parents=True, exist_ok=True)
        for name in (file.name, run_folder.CONFIG_NAME, run_folder.RESULT_NAME, run_folder.CLIPS_NAME):
            if (file.parent / name).is_file():
                shutil.copyfile(file.parent / name, there / name)
    if (model / run_folder.CLIPS_NAME).is_file():
        shutil.copyfile(model / run_folder.CLIPS_NAME, making / run_folder.CLIPS_NAME)
    _write_head(member, head, making / member.file.relative_to(model))
    _write_record(model, making)
    storage.write_json(making / RECORD_NAME, dict(made_from))
    if model_files.is_shipped(model):
        model_files.write_sums(making)
    making.rename(to)


def _write_head(member: KernelMember, head: KernelHead, file: Path) -> None:
    """The weights, and the record with as many landmarks as they have."""
    from violence_detection.training import heads, saved_heads  # Keras

    record = {**member.record, "head": {**member.record["head"], "landmarks": len(head.kernel)}}
    shapes = {name: (shape[0], shape[1]) for name, shape in record["inputs"].items()}
    built = heads.build(KERNEL, shapes, HeadConfig(**record["head"]))
    for name, vectors in head.vectors.items():
        built.get_layer(f"{name}.similarity").set_weights([vectors, head.gammas[name].reshape(1)])
    built.get_layer("logits").set_weights([head.kernel[:, None], head.bias.reshape(1)])
    saved_heads.save_weights(built, file)
    storage.write_json(file.parent / run_folder.CONFIG_NAME, record)


def _write_record(model: Path, making: Path) -> None:
    """The ensemble's record, or that of a single model, without what was measured of another one."""
    for name in (run_folder.ENSEMBLE_NAME, run_folder.CONFIG_NAME):
        if not (model / name).is_file():
            continue
        there = making / name
        record = run_folder.read_object(there if there.is_file() else model / name)
        record = {k: v for k, v in record.items() if k != run_folder.FINAL_KEY}
        calibration = record.get(run_folder.CALIBRATION_KEY)
        if isinstance(calibration, dict):
            record[run_folder.CALIBRATION_KEY] = {
                **calibration,
                "operating_points": {},
                "why_not": WHY_NO_POINTS,
            }
        storage.write_json(there, record)
