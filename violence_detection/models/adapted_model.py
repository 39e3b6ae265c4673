"""A model folder whose kernel head was adapted to footage; the other members are copied unchanged.

<folder>/adapted.json     what it was adapted to
<folder>/trained_on.csv   also has the footage, in short parts, by which an evaluation recognises clips taken from it

All else is as in the original model, except for the figures measured on that model, which are left out: operating
points, cross-validation, left-out data sets and the head's selection accuracy. The temperature is kept, but counts as
not checked.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.errors import UserError
from violence_detection.models import calibration, model_files
from violence_detection.models.light_heads import KernelHead, kernel_head
from violence_detection.system import disks, locks, storage, tensorflow_start
from violence_detection.training import model_record, run_folder, trained_clips
from violence_detection.training.config import KERNEL

RECORD_NAME = "adapted.json"
#: The data set of footage in trained_on.csv.
FOOTAGE = "footage"
_SELECTION = "selection_accuracy"
WHY_NO_POINTS = "it was adapted to footage without labels, on which no operating point was measured"


@dataclass(frozen=True)
class KernelMember:
    """The kernel head of a model, with its file and its record (config.json)."""

    file: Path
    head: KernelHead
    record: Mapping[str, Any]


@dataclass(frozen=True)
class FootagePart:
    """A short part of a video of the footage, a row of trained_on.csv.

    `clip_id`: its id, like those of clips. `video`: a hash of the video file. `fingerprint`: of the part's beginning.
    """

    clip_id: str
    video: str
    fingerprint: str


def kernel_of(model: Path) -> KernelMember:
    """The kernel head of a model folder that has exactly one.

    Raises UserError if `model` is not a folder, has no kernel head or several, or its kernel head cannot be read.
    """
    if not model.is_dir():
        raise UserError(f"{model} is not a model folder. --adapt needs the whole folder of a model")
    found = []
    for _, file, _ in model_files.listed(model):
        record = model_record.read(model_files.record_path(file))
        if record["architecture"] == KERNEL:
            found.append(KernelMember(file, _read(file, record), record))
    if len(found) != 1:
        raise UserError(
            f"--adapt needs a model with exactly one kernel head, and {model} has {len(found) or 'none'}. The shipped "
            "model accurate has one, and train_ensemble_models.py --members kernel trains one"
        )
    return found[0]


def _read(file: Path, record: Mapping[str, Any]) -> KernelHead:
    """Read a kernel head. Raises UserError if the file is damaged or in the format of an earlier version."""
    from violence_detection.training import saved_heads  # Keras

    if head := kernel_head(file, record):
        return head
    saved_heads.load(file)  # raises the error that says what is wrong
    raise UserError(
        f"--adapt needs {run_folder.weights_of(file)}, which is missing. Run the command that trained the model again: "
        "it writes that file without training again"
    )


def check_place(model: Path, to: Path) -> None:
    """Raise UserError where `to` exists, is inside `model` or cannot be written."""
    if to.exists():
        raise UserError(f"{to} already exists. Give --save-model a folder that does not")
    if to.resolve().is_relative_to(model.resolve()):
        raise UserError(
            f"--save-model {to} is inside {model}, the model to be adapted. Give a folder elsewhere"
        )
    disks.check_can_write(to.absolute().parent, "--save-model")


@contextlib.contextmanager
def place(model: Path, to: Path) -> Iterator[None]:
    """A context in which no other run can write an adapted model to `to`. A killed run's lock file blocks nobody.

    Raises UserError if another run has the lock, or as `check_place` does.
    """
    check_place(model, to)
    lock = to.with_name(f".{to.name}.lock")
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locks.locked(lock, wait=False))
        except locks.LockTaken as e:
            raise UserError(
                f"another run is writing {to}. Wait until it ends, or give --save-model another folder"
            ) from e
        # Whoever had the lock until now may have written the model. The lock file is removed only once the model is
        # there, so that this check refuses any run that takes the lock later.
        check_place(model, to)
        yield
        lock.unlink(missing_ok=True)


def write(
    model: Path,
    member: KernelMember,
    head: KernelHead,
    to: Path,
    made_from: Mapping[str, Any],
    footage: Sequence[FootagePart] = (),
) -> None:
    """Write the model, with `head` as its kernel head, to the folder `to`, which must not exist yet.

    Call it inside `place(model, to)`. `made_from`: the content of adapted.json. `footage`: added to trained_on.csv.
    """
    making = to.with_name(f".{to.name}.making")
    shutil.rmtree(making, ignore_errors=True)
    for _, file, _ in model_files.listed(model):
        there = making / file.parent.relative_to(model)
        there.mkdir(parents=True, exist_ok=True)
        for name in (file.name, *run_folder.BESIDE):
            if (file.parent / name).is_file():
                shutil.copyfile(file.parent / name, there / name)
    if (model / run_folder.CLIPS_NAME).is_file():
        shutil.copyfile(model / run_folder.CLIPS_NAME, making / run_folder.CLIPS_NAME)
    _write_head(member, head, making / member.file.relative_to(model))
    _write_clips(model, making, footage)
    _write_record(model, member, making)
    storage.write_json(making / RECORD_NAME, dict(made_from))
    if model_files.is_shipped(model):
        model_files.write_sums(making)
    making.rename(to)


def _write_head(member: KernelMember, head: KernelHead, file: Path) -> None:
    """Write the weights of `head` and the member's record with the new number of landmarks."""
    from violence_detection.training import heads, saved_heads  # Keras

    tensorflow_start.gpus()  # must come before anything else looks at the devices
    record = {**member.record, "head": {**member.record["head"], "landmarks": len(head.kernel)}}
    built = heads.of_record(record)
    for name, vectors in head.vectors.items():
        built.get_layer(f"{name}.similarity").set_weights([vectors, head.gammas[name].reshape(1)])
    built.get_layer("logits").set_weights([head.kernel[:, None], head.bias.reshape(1)])
    saved_heads.save_weights(built, file)
    storage.write_json(file.parent / run_folder.CONFIG_NAME, record)
    result = file.parent / run_folder.RESULT_NAME
    if result.is_file():
        storage.write_json(result, {**run_folder.read_object(result), _SELECTION: None})


def _write_clips(model: Path, making: Path, footage: Sequence[FootagePart]) -> None:
    """Write the model's table of clips with the footage added."""
    import pandas as pd

    known = trained_clips.read(model)
    holds_all = model_files.is_shipped(model) or not (model / run_folder.ENSEMBLE_NAME).is_file()
    if known is None and holds_all:
        return  # what it was trained on is not known; a table of the footage alone would hide that
    rows = pd.DataFrame(
        {
            "clip_id": [s.clip_id for s in footage],
            "source_group": [f"{FOOTAGE}:{s.video}" for s in footage],
            "fingerprint": [s.fingerprint for s in footage],
            "dataset": FOOTAGE,
        }
    )
    if known is not None:
        rows = rows[~rows.clip_id.isin(known.clip_id)]
    trained_clips.write(making, {trained_clips.ADAPTED: rows}, [model])


def _write_record(model: Path, member: KernelMember, making: Path) -> None:
    """Write the record of the ensemble or the single model, without the figures measured on the original model."""
    for name in (run_folder.ENSEMBLE_NAME, run_folder.CONFIG_NAME):
        if not (model / name).is_file():
            continue
        there = making / name
        record = run_folder.read_object(there if there.is_file() else model / name)
        if record.pop(run_folder.FINAL_KEY, None):  # its figures were measured on the original model
            record[run_folder.EVERY_CLIP_KEY] = True
        if name == run_folder.ENSEMBLE_NAME:
            kernel = member.file.relative_to(model).parent.as_posix()
            record["members"] = [
                {**m, _SELECTION: None} if Path(m["model"]).parent.as_posix() == kernel else m
                for m in record["members"]
            ]
        stored = record.get(run_folder.CALIBRATION_KEY)
        if isinstance(stored, dict):
            record[run_folder.CALIBRATION_KEY] = {
                **stored,
                "rests_on": {**stored["rests_on"], calibration.BEFORE_ADAPTING: True},
                "operating_points": {},
                "why_not": WHY_NO_POINTS,
            }
        storage.write_json(there, record)
