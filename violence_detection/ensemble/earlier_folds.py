"""Read the results that an earlier cross-validation left in its folder.

They are used only if they come from the same clips and settings and the files are as they were written.
"""

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
from violence_detection.errors import UnusableRecord, UserError
from violence_detection.evaluation import calibrate, held_out_table
from violence_detection.evaluation.calibrate import CalibrationBasis
from violence_detection.evaluation.held_out_table import AnotherTableError
from violence_detection.models import averaging
from violence_detection.models.averaging import Averaging
from violence_detection.training import run_folder

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
_JUDGED_AGAIN = "%s. The folds are judged again"


def judged_before(plan: CrossValidation) -> tuple[HeldOut, dict[str, Any]] | None:
    """The predictions and figures that cross_validation.finish wrote for the same plan in an earlier run.

    None if it wrote none, or if one of its files is gone, damaged or changed. A warning is logged if
    cross_validation.json or an ensemble.json is damaged, or the table of predictions is missing or changed.
    """
    record = _record_there(plan.folder / RECORD_NAME)
    held_out = _judged(plan, record)
    if held_out is None:
        return None
    return held_out, {name: value for name, value in record.items() if name not in _NOT_FIGURES}


def left_out_before(plans: Sequence[CrossValidation], folder: Path) -> list[HeldOut] | None:
    """The predictions for left-out data sets, plan by plan, that leave_one_out.finish wrote in an earlier run.

    `folder`: where it wrote leave_one_dataset_out.json. None if that is not from the same plans, or if a file is gone,
    damaged or changed, with the same warnings as `judged_before`.
    """
    record = _record_there(folder / run_folder.LEFT_OUT_NAME)
    all_jobs, all_temperatures = record.get("jobs"), record.get(TEMPERATURES_KEY)
    tables, labels = record.get(held_out_table.SHA256_KEY), record.get(run_folder.LABELS_KEY)
    if not (isinstance(all_jobs, list) and isinstance(all_temperatures, list) and isinstance(tables, dict)):
        return None
    # records of earlier versions have no hash of the labels
    if not (labels and len(all_jobs) == len(all_temperatures) == len(plans)):
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
    """The record in `path`; empty if there is none or, with a warning, if it is damaged."""
    if not path.is_file():
        return {}
    try:
        return run_folder.read_object(path)
    except UnusableRecord as e:
        log.warning(_JUDGED_AGAIN, e.fault)
        return {}


def _judged(plan: CrossValidation, record: Mapping[str, Any]) -> HeldOut | None:
    """The plan's predictions; None if `record` is of another plan, or if a file is gone, damaged or changed."""
    ensembles = [plan.folder / fold.name / run_folder.ENSEMBLE_NAME for fold in plan.folds]
    if not all(file.is_file() for file in ensembles):
        return None
    same = "jobs" in record and plan.is_described_by(record) and record.get("views") == plan.views
    if (
        not same
        or record.get(averaging.CLOSER_LOOK_KEY, False) != plan.closer_look
        or not _averages_so(record, plan.averaged)
    ):
        return None
    try:
        predictions = _read(plan, record)
        # checked now, since they are used only after other files of that run have been removed
        for file in ensembles:
            if not isinstance(run_folder.read_object(file).get("members"), list):
                raise run_folder.damaged(file, "it lists no members")
    except (AnotherTableError, UnusableRecord) as e:
        log.warning(_JUDGED_AGAIN, e.fault if isinstance(e, UnusableRecord) else e)
        return None
    return HeldOut(
        predictions,
        record.get(TEMPERATURES_KEY),
        record.get(held_out_table.SHA256_KEY, ""),
        str(record.get(COMMAND_KEY, "")),
    )


#: Keys of the record whose values are not fields of the summary.
_NOT_FIGURES = (
    "jobs", run_folder.LABELS_KEY, "views", "members", averaging.EARLY_EXIT_KEY, averaging.CLOSER_LOOK_KEY,
    held_out_table.SHA256_KEY, "generated_samples",
)  # fmt: skip


def _read(plan: CrossValidation, record: Mapping[str, Any]) -> pd.DataFrame:
    """The plan's predictions. Raises AnotherTableError if the table is missing or is not the one `record` describes."""
    return held_out_table.read(plan.predictions_path, record, [fold.held_out for fold in plan.folds])


def held_out_before(plan: CrossValidation) -> HeldOut:
    """The predictions that cross_validation.finish wrote for the same plan; it must have done so."""
    known = judged_before(plan)
    assert known, "these folds have been judged"
    return known[0]


def _averages_so(record: Mapping[str, Any], averaged: Averaging) -> bool:
    """Whether the folds in `record` averaged logits or probabilities, and had the early exit, as `averaged` says."""
    in_logits = record.get(TEMPERATURES_KEY) is not None
    return averaged.in_logits == in_logits and record.get(averaging.EARLY_EXIT_KEY) == averaged.exit_record()


def by_all_members(
    folder: Path, folds: Sequence[str], predictions: pd.DataFrame, averaged: Averaging
) -> np.ndarray | None:
    """The averages (n,) that `predictions` would have without the early exit; None if `averaged` has none.

    `folds`: names of the folds' folders below `folder`, in the order of the fold numbers in `predictions`. Each fold's
    members are weighted as its ensemble.json says.
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
    """The out-of-fold predictions in `folder` if they were made with the clips and settings of `plan`; None otherwise.

    `plan`: makes the cross-validation of a number of folds and of members; called with those that the record names.
    Raises UserError if the record is damaged, or if the table of predictions is missing or changed.
    """
    if not (folder / RECORD_NAME).is_file():
        return None
    record = run_folder.read_object(folder / RECORD_NAME)
    try:
        wanted = plan(len(record["folds"]), tuple(record["members"]))
        made = wanted.is_described_by(record)
    except (KeyError, TypeError) as e:
        why = f"missing key: {e}" if isinstance(e, KeyError) else str(e)
        raise run_folder.damaged(folder / RECORD_NAME, why) from e
    except UserError:
        # these clips cannot be cut into that many folds
        made = False
    # the number of views does not matter
    if not made:
        log.info("%s was made with other clips or settings and is not used", folder / RECORD_NAME)
        return None
    try:
        return _read(wanted, record)
    except AnotherTableError as e:
        raise UserError(
            f"{e}. The predictions of the folds are needed: add --cross-validate {len(wanted.folds)}, which judges the "
            "folds again without retraining those that are there"
        ) from e


def calibration_basis(
    folder: Path,
    plan: Callable[[int, tuple[str, ...]], CrossValidation],
    members: tuple[str, ...],
    averaged: Averaging = averaging.PLAIN,
) -> CalibrationBasis | None:
    """The out-of-fold predictions in `folder`, to calibrate an ensemble on; None if they do not fit it.

    They fit if they were made with the clips and settings of `plan`, by these `members`, averaged as `averaged` says,
    and without closer looks. Raises UserError as `out_of_fold` does.
    """
    predictions = out_of_fold(folder, plan)
    if predictions is None:
        return None
    record = run_folder.read_object(folder / RECORD_NAME)
    if tuple(record["members"]) != members:
        log.info("%s lists other members, so the selection part is used to calibrate", folder / RECORD_NAME)
        return None
    own = record.get(TEMPERATURES_KEY)
    # only final fits take closer looks, and this calibrates another ensemble
    if record.get(averaging.CLOSER_LOOK_KEY):
        log.info(
            "%s was made with closer looks, so the selection part is used to calibrate", folder / RECORD_NAME
        )
        return None
    if not _averages_so(record, averaged):
        log.info(
            "%s averages members differently, so the selection part is used to calibrate",
            folder / RECORD_NAME,
        )
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
