"""Calibrate a trained model: its temperature and its thresholds, from predictions that it was not trained on."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from violence_detection.constants import CLASS_NAMES
from violence_detection.evaluation import metrics, operating_points, scoring, temperature
from violence_detection.models import trained_model
from violence_detection.models.averaging import PLAIN, Averaging
from violence_detection.models.calibration import Calibration
from violence_detection.system import storage
from violence_detection.training import run_folder
from violence_detection.training.training_data import Samples

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
#: Sources below which nothing is calibrated, as with an ensemble's weights.
FEWEST_SOURCES = 10
_ELSEWHERE = "videos come from sources like these"


@dataclass(frozen=True)
class CalibrationBasis:
    """Predictions to calibrate on. `rows`: clip_id, source_group, label; `p_fight` (n,): the members' averages.

    `what` names them; `assumes`: what must be true for what is said of them to hold of the model. `views`: of a clip,
    averaged. `member_temperatures`: of its members' own, where their logits are averaged and it has told them already.
    `settled` (n,) bool: which of them one member gave alone, by its own temperature; no other is applied to these.
    """

    rows: pd.DataFrame
    p_fight: np.ndarray
    what: str
    assumes: str
    views: int = 1
    member_temperatures: Mapping[str, float] | None = None
    settled: np.ndarray | None = None


def on_selection(
    rows: pd.DataFrame, p_fight: np.ndarray, chose: str, settled: np.ndarray | None = None
) -> CalibrationBasis:
    """The selection part, which the model was not trained on. `chose`: what of the model it has chosen."""
    return CalibrationBasis(
        rows,
        p_fight,
        f"the selection part, which also chose {chose}",
        f"{_ELSEWHERE}; having chosen {chose} on the same clips makes it somewhat too good",
        settled=settled,
    )


def out_of_fold(
    predictions: pd.DataFrame,
    n_folds: int,
    views: int,
    member_temperatures: Mapping[str, float] | None = None,
    averaged: Averaging = PLAIN,
) -> CalibrationBasis:
    """The out-of-fold predictions of a cross-validation with the model's own clips, settings and members."""
    by_member = {name: predictions[f"p_{name}"].to_numpy(float) for name in metrics.member_names(predictions)}
    return CalibrationBasis(
        predictions,
        predictions.p_violent.to_numpy(float),
        f"out-of-fold predictions of {n_folds} folds",
        f"{_ELSEWHERE}; the model is as good as those of the folds, which were trained on fewer clips",
        views,
        member_temperatures,
        averaged.settled(by_member),
    )


def member_temperatures(rows: pd.DataFrame, p_fight: Mapping[str, np.ndarray]) -> dict[str, float]:
    """By member the temperature of its P(fight), (n,) of the clips `rows`; 1 for all where one cannot be told.

    So their logits may be averaged: each is as sure as it is right on these clips.
    """
    is_fight = (rows.label == CLASS_NAMES[1]).to_numpy()
    n_groups = rows.source_group.nunique()
    if n_groups < FEWEST_SOURCES:
        log.info("members' logits are averaged as they are: %d sources are too few to scale them", n_groups)
        return dict.fromkeys(p_fight, 1.0)
    found = {name: temperature.fit(is_fight, p) for name, p in p_fight.items()}
    if untold := {name: why_not for name, (value, why_not) in found.items() if value is None}:
        name, why_not = next(iter(untold.items()))
        log.info("members' logits are averaged as they are: of %s, %s", name, why_not)
        return dict.fromkeys(p_fight, 1.0)
    return {name: float(value) for name, (value, _) in found.items() if value is not None}


def fit(basis: CalibrationBasis, seed: int) -> Calibration:
    """Temperature and operating points; with too few sources none, and why."""
    order = np.argsort(
        basis.rows.clip_id.to_numpy(str), kind="stable"
    )  # the same clips are drawn in any order
    rows, p = basis.rows.iloc[order], np.asarray(basis.p_fight, float)[order]
    is_fight, groups = (rows.label == CLASS_NAMES[1]).to_numpy(), rows.source_group.astype(str).to_numpy()
    n_groups = len(np.unique(groups))
    rests_on = {
        "what": basis.what,
        "n": len(rows),
        "n_groups": n_groups,
        "views": basis.views,
        "assumes": basis.assumes,
    }
    if n_groups < FEWEST_SOURCES or is_fight.all() or not is_fight.any():
        few = f"{n_groups} sources in {basis.what} are too few ({FEWEST_SOURCES} are needed, of both classes)"
        return Calibration(None, rests_on, why_not=few)
    settled = np.zeros(len(p), bool) if basis.settled is None else basis.settled[order]
    found, why_not = temperature.fit(is_fight[~settled], p[~settled])
    fitted = Calibration(found, rests_on, why_not=why_not)
    if basis.settled is None:
        points = operating_points.choose(is_fight, p, groups, fitted.apply, seed)
    else:
        p = np.where(settled, p, fitted.apply(p))
        points = operating_points.choose(is_fight, p, groups, np.asarray, seed)
    return Calibration(found, rests_on, points, why_not)


def calibrate_model(folder: Path, selection: Samples, seed: int) -> Calibration:
    """Calibrate the single model in `folder` on the selection part, and keep it in its config.json.

    Raises UserError for a probability that is not finite.
    """
    model = trained_model.load(folder)
    p = model.uncalibrated(model.predict(selection.plain()))
    scoring.require_finite(p, selection.rows, str(folder))
    found = fit(on_selection(selection.rows, p, "the epoch"), seed)
    path = folder / run_folder.CONFIG_NAME
    record = run_folder.read_object(path)
    if record.get(run_folder.CALIBRATION_KEY) != found.record():
        storage.write_json(path, {**record, run_folder.CALIBRATION_KEY: found.record()})
    say(folder, found)
    return found


def say(folder: Path, found: Calibration) -> None:
    """Log it."""
    log.info("%s: %s", folder, found.described())
    for name, point in found.operating_points.items():
        log.info("  %-16s threshold %.4f: %s", name, point["threshold"], point["guarantee"]["text"])
