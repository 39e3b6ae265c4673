"""Measure whether an operating point's rate holds on a data set on which its models were not trained.

    python train_ensemble_models.py --leave-one-dataset-out --all-clips ...       # leave_one_out_predictions.csv
    python benchmarks/bench_thresholds.py --models MODELS --folds MODEL

Prints one JSON line with figures of each left-out data set, as judged by the models that it was left out of. Thresholds
and temperature are
    left_out  those fitted on the predictions for the other left-out sets, as `--final-by left-out` fits them on all;
              the models of those predictions were trained on this set, too, so that its labels have had some influence
    folds     those of MODEL, an ensemble that was calibrated on folds by source, with the same members and early exit
`false_alarms` and `recall` are means over sources, like the guarantees; `clips` has both for all clips together. `ece`
is the calibration error (ten bins) over the clips of all sets. With --write FOLDER, a copy of each left-out model is
written there, with the thresholds and temperature from the other sets, for bench_recordings.py --operating-points.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pandas as pd

from violence_detection import cli
from violence_detection.ensemble import cross_validation, earlier_folds
from violence_detection.errors import UserError
from violence_detection.evaluation import calibrate, elsewhere, held_out_table, metrics
from violence_detection.evaluation import calibration as errors
from violence_detection.models import averaging, calibration, model_files, shipped
from violence_detection.models.averaging import Averaging, EarlyExit
from violence_detection.models.calibration import Calibration
from violence_detection.system import storage
from violence_detection.training import run_folder

#: What judging does not need from the folder of a trained member.
_NOT_NEEDED = shutil.ignore_patterns("checkpoint", "final_model*", "tensorboard_logs")


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--models", type=Path, required=True, help="output folder of train_ensemble_models.py")
    p.add_argument(
        "--folds", type=Path, help="ensemble calibrated on folds by source: a folder, or a model's name"
    )
    p.add_argument(
        "--seed", type=int, default=0, help="seed of the left-out models, and for the draws of clips"
    )
    p.add_argument(
        "--write", type=Path, help="folder for copies of the left-out models, calibrated on the others"
    )
    args = cli.parse(p)
    folder = args.models / f"seed_{args.seed}"
    table = folder / cross_validation.LEFT_OUT_PREDICTIONS_NAME
    record = run_folder.read_object(args.models / elsewhere.LEFT_OUT_NAME)
    held_out_table.check_left_out(table, record)
    rows = held_out_table.parse(table.read_bytes())
    averaged = _averaged(record)
    names = [f"without_{name}" for name in sorted(set(rows.dataset))]
    by_all = earlier_folds.by_all_members(folder, names, rows, averaged)
    by_folds = _of_folds(shipped.find(args.folds), averaged) if args.folds else None
    found: dict[str, Any] = {}
    p_fight: dict[str, np.ndarray] = {}
    for dataset in sorted(set(rows.dataset)):
        judged = (rows.dataset == dataset).to_numpy()
        others = calibrate.out_of_fold(
            rows[~judged],
            len(names) - 1,
            1,
            averaged=averaged,
            p_by_all=None if by_all is None else by_all[~judged],
            by_dataset=True,
        )
        fitted_elsewhere = calibrate.fit(others, args.seed)
        if args.write:
            write_calibrated(folder / f"without_{dataset}", args.write, fitted_elsewhere)
        ways = {"left_out": fitted_elsewhere, "folds": by_folds}
        found[dataset] = {}
        for way, fitted in ways.items():
            if fitted is None:
                continue
            said = _calibrated(rows[judged], averaged, fitted)
            p_fight.setdefault(way, np.empty(len(rows)))[judged] = said
            all_members = None if by_all is None else by_all[judged]
            found[dataset][way] = _rates(rows[judged], said, all_members, fitted)
    is_fight = (rows.label == metrics.FIGHT).to_numpy()
    ece = {way: round(errors.expected_calibration_error(is_fight, p), 4) for way, p in p_fight.items()}
    cli.print_summary(
        {"datasets": found, "ece": ece, "n": len(rows), "n_groups": int(rows.source_group.nunique())}
    )
    return 0


def write_calibrated(model: Path, to: Path, fitted: Calibration) -> None:
    """Copy the ensemble `model` into the folder `to`, under its own name, with this calibration."""
    made = to / model.name
    shutil.copytree(model, made, ignore=_NOT_NEEDED, dirs_exist_ok=True)
    record = run_folder.read_object(model / run_folder.ENSEMBLE_NAME)
    storage.write_json(
        made / run_folder.ENSEMBLE_NAME, {**record, run_folder.CALIBRATION_KEY: fitted.record()}
    )


def _of_folds(folder: Path, averaged: Averaging) -> Calibration:
    """The calibration of the model in `folder`. Raises UserError if it has another early exit than `averaged`."""
    own = model_files.early_exit(folder)
    if own != averaged.early_exit:
        raise UserError(
            f"{folder} has the early exit {own}, but the left-out models have {averaged.early_exit}. Name an ensemble "
            "with the same early exit: --folds MODEL"
        )
    return calibration.read(folder)


def _averaged(record: dict[str, Any]) -> Averaging:
    first = record.get(averaging.EARLY_EXIT_KEY)
    exits = EarlyExit(first["member"], first["below"]) if first else None
    return Averaging("members_scaled_by" in record, exits)


def _calibrated(rows: pd.DataFrame, averaged: Averaging, fitted: Calibration) -> np.ndarray:
    """Calibrated P(fight) (n,). Where the early exit lets a member judge alone, only its own temperature applies."""
    by_member = {name: rows[f"p_{name}"].to_numpy(float) for name in metrics.member_names(rows)}
    p, settled = rows.p_violent.to_numpy(float), averaged.settled(by_member)
    return fitted.apply(p) if settled is None else np.where(settled, p, fitted.apply(p))


def _rates(
    rows: pd.DataFrame, p_fight: np.ndarray, by_all: np.ndarray | None, fitted: Calibration
) -> dict[str, Any]:
    is_fight = (rows.label == metrics.FIGHT).to_numpy()
    out = {}
    for name, point in fitted.operating_points.items():
        said = p_fight
        if not point.get(averaging.EARLY_EXIT_KEY, True):
            assert by_all is not None
            assert fitted.without_exit
            said = fitted.without_exit.apply(by_all)
        above = said >= point["threshold"]
        out[name] = {
            "threshold": point["threshold"],
            "false_alarms": _by_source(above[~is_fight], rows.source_group[~is_fight]),
            "recall": _by_source(above[is_fight], rows.source_group[is_fight]),
            "clips": [round(float(above[~is_fight].mean()), 4), round(float(above[is_fight].mean()), 4)],
        }
    return out


def _by_source(above: np.ndarray, groups: Sequence[str] | pd.Series) -> float:
    return round(float(pd.Series(above).groupby(np.asarray(groups)).mean().mean()), 4)


if __name__ == "__main__":
    cli.run_main(main)
