"""What a cross-validation has left in its folder, where it is of the same clips and settings and as it was written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.ensemble.cross_validation import (
    COMMAND_KEY,
    RECORD_NAME,
    TEMPERATURES_KEY,
    CrossValidation,
    HeldOut,
)
from violence_detection.errors import UserError
from violence_detection.evaluation import calibrate, held_out_table
from violence_detection.evaluation.calibrate import CalibrationBasis
from violence_detection.evaluation.held_out_table import AnotherTableError
from violence_detection.models import averaging
from violence_detection.models.averaging import Averaging
from violence_detection.training import run_folder

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
_ANEW = "%s. The folds are judged anew"


def judged_before(plan: CrossValidation) -> tuple[HeldOut, dict[str, Any]] | None:
    """The predictions and figures that cross_validation.finish has written for the same plan; None if it has not.

    Also None, with a warning, where one of the files that it has written is gone or not as it was.
    """
    record = _record_there(plan.folder / RECORD_NAME)
    held_out = _judged(plan, record)
    if held_out is None:
        return None
    return held_out, {name: value for name, value in record.items() if name not in _ASKED}


def left_out_before(plans: Sequence[CrossValidation], folder: Path) -> list[HeldOut] | None:
    """What the models of data sets left out said, plan by plan, as leave_one_out.finish has written it into `folder`.

    None where that was not of the same plans or is not as it was written, as with `judged_before`.
    """
    record = _record_there(folder / run_folder.LEFT_OUT_NAME)
    all_jobs, all_temperatures = record.get("jobs"), record.get(TEMPERATURES_KEY)
    tables, labels = record.get(held_out_table.SHA256_KEY), record.get(run_folder.LABELS_KEY)
    if not (isinstance(all_jobs, list) and isinstance(all_temperatures, list) and isinstance(tables, dict)):
        return None
    if not (labels and len(all_jobs) == len(all_temperatures) == len(plans)):  # an earlier version's has none
        return None
    found = []
    for plan, jobs, temperatures in zip(plans, all_jobs, all_temperatures, strict=True):
        of_plan = {
            **record,
            "jobs": jobs,
            TEMPERATURES_KEY: temperatures,
            held_out_table.SHA256_KEY: tables.get(plan.folder.name),
        }
        if (held_out := _judged(plan, of_plan)) is None:
            return None
        found.append(held_out)
    return found


def _record_there(path: Path) -> dict[str, Any]:
    """The record; empty where there is none, or with a warning a damaged one."""
    if not path.is_file():
        return {}
    try:
        return run_folder.read_object(path)
    except UserError as e:
        log.warning(_ANEW, str(e).partition(". Copy it again")[0])
        return {}


def _judged(plan: CrossValidation, record: Mapping[str, Any]) -> HeldOut | None:
    """What the plan's models said, where the record is of it and the files are as they were written."""
    ensembles = [plan.folder / fold.name / run_folder.ENSEMBLE_NAME for fold in plan.folds]
    if not all(file.is_file() for file in ensembles):
        return None
    same = "jobs" in record and plan.made(record) and record.get("views") == plan.views
    if (
        not same
        or record.get(averaging.CLOSER_LOOK_KEY, False) != plan.closer_look
        or not _averages_so(record, plan.averaged)
    ):
        return None
    try:
        predictions = _read(plan, record)
        for file in ensembles:  # they are read when other things are gone already
            if not isinstance(run_folder.read_object(file).get("members"), list):
                raise run_folder.damaged(file, "it lists no members")
    except (AnotherTableError, UserError) as e:
        log.warning(_ANEW, str(e).partition(". Copy it again")[0].rstrip("."))
        return None
    return HeldOut(
        predictions,
        record.get(TEMPERATURES_KEY),
        record.get(held_out_table.SHA256_KEY, ""),
        str(record.get(COMMAND_KEY, "")),
    )


#: What of the record is not a figure.
_ASKED = (
    "jobs", run_folder.LABELS_KEY, "views", "members", averaging.EARLY_EXIT_KEY, averaging.CLOSER_LOOK_KEY,
    held_out_table.SHA256_KEY, "generated_samples",
)  # fmt: skip


def _read(plan: CrossValidation, record: Mapping[str, Any]) -> pd.DataFrame:
    """The plan's predictions. Raises AnotherTableError where they are not those that the record is of."""
    return held_out_table.read(plan.predictions_path, record, [fold.held_out for fold in plan.folds])


def held_out_before(plan: CrossValidation) -> HeldOut:
    """What cross_validation.finish has written for the same plan, which it must have."""
    known = judged_before(plan)
    assert known, "these folds have been judged"
    return known[0]


def _averages_so(record: Mapping[str, Any], averaged: Averaging) -> bool:
    """Whether the members' average in the record of a cross-validation is this one."""
    in_logits = record.get(TEMPERATURES_KEY) is not None
    return averaged.in_logits == in_logits and record.get(averaging.EARLY_EXIT_KEY) == averaged.exit_record()


def by_all_members(
    folder: Path, folds: Sequence[str], predictions: pd.DataFrame, averaged: Averaging
) -> np.ndarray | None:
    """The averages (n,) that `predictions` would have without the early exit; None if there is none.

    `folds`: their names in `folder`, by the number that `predictions` have. Of each fold with the weights that its
    members have in its ensemble.json.
    """
    if averaged.early_exit is None:
        return None
    found = np.full(len(predictions), np.nan)
    for number in sorted(set(predictions.fold)):
        rows = (predictions.fold == number).to_numpy()
        listed = run_folder.read_object(folder / folds[number] / run_folder.ENSEMBLE_NAME)["members"]
        by_member = {m["name"]: predictions.loc[rows, f"p_{m['name']}"].to_numpy(float) for m in listed}
        weights = [m["weight"] for m in listed]
        found[rows] = averaging.together(by_member, weights, averaged.without_exit())
    return found


def out_of_fold(folder: Path, plan: Callable[[int, tuple[str, ...]], CrossValidation]) -> pd.DataFrame | None:
    """The out-of-fold predictions in `folder` if they were made with the clips and settings of `plan`(k, members).

    Raises UserError where they are gone or not as they were written.
    """
    if not (folder / RECORD_NAME).is_file():
        return None
    record = run_folder.read_object(folder / RECORD_NAME)
    try:
        wanted = plan(len(record["folds"]), tuple(record["members"]))
        made = wanted.made(record)
    except (KeyError, TypeError) as e:
        why = f"it lacks {e}" if isinstance(e, KeyError) else str(e)
        raise run_folder.damaged(folder / RECORD_NAME, why) from e
    except UserError:  # so many folds cannot be cut of these clips
        made = False
    if not made:  # whatever views judged the clips
        log.info("%s was made with other clips or settings", folder / RECORD_NAME)
        return None
    try:
        return _read(wanted, record)
    except AnotherTableError as e:
        raise UserError(
            f"{e}, so nothing can be calibrated on it. --cross-validate {len(wanted.folds)} judges the folds anew and "
            "trains none that is there"
        ) from e


def calibration_basis(
    folder: Path,
    plan: Callable[[int, tuple[str, ...]], CrossValidation],
    members: tuple[str, ...],
    averaged: Averaging = averaging.PLAIN,
) -> CalibrationBasis | None:
    """The out-of-fold predictions in `folder`, if they are of the clips and settings of `plan` and of these members.

    `averaged`: how these members are averaged.
    """
    predictions = out_of_fold(folder, plan)
    if predictions is None:
        return None
    record = run_folder.read_object(folder / RECORD_NAME)
    if tuple(record["members"]) != members:
        log.info("%s is of other members: the selection part calibrates", folder / RECORD_NAME)
        return None
    own = record.get(TEMPERATURES_KEY)
    if record.get(averaging.CLOSER_LOOK_KEY):  # an ensemble that is no final fit takes none
        log.info("%s is of closer looks: the selection part calibrates", folder / RECORD_NAME)
        return None
    if not _averages_so(record, averaged):
        log.info("%s averages members otherwise: the selection part calibrates", folder / RECORD_NAME)
        return None
    names = [f"fold_{i}" for i in range(len(record["folds"]))]
    return calibrate.out_of_fold(
        predictions,
        len(names),
        int(record.get("views", 1)),
        own,
        averaged,
        by_all_members(folder, names, predictions, averaged),
    )
