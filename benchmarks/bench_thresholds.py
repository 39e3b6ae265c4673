"""Whether an operating point's rate holds on a data set that its models have not seen, by thresholds of the others.

    python train_ensemble_models.py --leave-one-dataset-out --all-clips ...       # leave_one_out_predictions.csv
    python benchmarks/bench_thresholds.py --models MODELS --folds MODEL

One JSON line, of each left-out data set as its models judge it. Thresholds and temperature are
    left_out  those that the predictions of the other left-out sets give, as `--final-by left-out` chooses them of all;
              those predictions are by models that were trained on this set too, so that its labels have a part in them
    folds     those of MODEL, an ensemble that was calibrated on folds by source, with the same members and early exit
`false_alarms` and `recall` are means over sources, as the guarantees are; `clips`: of all clips. `ece`: the calibration
error, ten bins, of all of them together. With --write FOLDER each left-out model is put there as it judges its own data
set with the thresholds and the temperature of the others, for bench_recordings.py --operating-points.
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

#: Of a trained member, what judging does without.
_NOT_NEEDED = shutil.ignore_patterns("checkpoint", "final_model*", "tensorboard_logs")


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--models", type=Path, required=True, help="folder of train_ensemble_models.py --output")
    p.add_argument(
        "--folds", type=Path, help="an ensemble calibrated on folds by source: a folder, or a model's name"
    )
    p.add_argument("--seed", type=int, default=0, help="of the left-out models, and of the draws of clips")
    p.add_argument("--write", type=Path, help="folder for the left-out models with what the others give them")
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
    """A copy of the ensemble `model` in the folder `to`, under its own name, with this calibration."""
    made = to / model.name
    shutil.copytree(model, made, ignore=_NOT_NEEDED, dirs_exist_ok=True)
    record = run_folder.read_object(model / run_folder.ENSEMBLE_NAME)
    storage.write_json(
        made / run_folder.ENSEMBLE_NAME, {**record, run_folder.CALIBRATION_KEY: fitted.record()}
    )


def _of_folds(folder: Path, averaged: Averaging) -> Calibration:
    """The calibration of the model there. Raises UserError if it averages otherwise."""
    own = model_files.early_exit(folder)
    if own != averaged.early_exit:
        raise UserError(f"{folder} has the early exit {own}, the left-out models have {averaged.early_exit}")
    return calibration.read(folder)


def _averaged(record: dict[str, Any]) -> Averaging:
    first = record.get(averaging.EARLY_EXIT_KEY)
    exits = EarlyExit(first["member"], first["below"]) if first else None
    return Averaging("members_scaled_by" in record, exits)


def _calibrated(rows: pd.DataFrame, averaged: Averaging, fitted: Calibration) -> np.ndarray:
    """P(fight) (n,): what one member says alone, by its early exit, has its own temperature."""
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
