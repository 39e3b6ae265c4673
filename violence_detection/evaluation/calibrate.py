"""Calibrate a trained model: fit its temperature and thresholds to predictions for clips not used to train it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.constants import CLASS_NAMES
from violence_detection.evaluation import metrics, operating_points, scoring, temperature
from violence_detection.models import trained_model
from violence_detection.models.averaging import EARLY_EXIT_KEY, PLAIN, Averaging, EarlyExit
from violence_detection.models.calibration import TEMPERATURE_FROM, VIEWS, Calibration
from violence_detection.models.run_records import MemberRecord
from violence_detection.system import storage
from violence_detection.system.figures import number
from violence_detection.training import run_folder
from violence_detection.training.training_data import Samples

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
#: Number of sources that calibration needs; choosing an ensemble's weights needs as many.
FEWEST_SOURCES = 10
_LIKE_THESE = "videos come from sources like these"


@dataclass(frozen=True)
class CalibrationBasis:
    """Predictions to calibrate on. `rows`: clip_id, source_group, label; `p_fight` (n,): the members' averages.

    `what` names the predictions. `assumes` says what must be true for the calibration to hold for the model. `views`:
    how many views of a clip were averaged. `member_temperatures`: member -> temperature to store with the model; given
    if logits were averaged and the temperatures are known from making these predictions. `exiting`: what the early exit
    did, if the model has one.
    """

    rows: pd.DataFrame
    p_fight: np.ndarray
    what: str
    assumes: str
    views: int = 1
    member_temperatures: Mapping[str, float] | None = None
    exiting: Exiting | None = None


@dataclass(frozen=True)
class Exiting:
    """What the early exit `exits` did: `settled` (n,) bool, the clips whose probability is that of its member alone.

    That probability is at the member's own temperature; the ensemble's is not applied to it. `p_by_all` (n,): the
    averages of all members, as without the exit.
    """

    exits: EarlyExit
    settled: np.ndarray
    p_by_all: np.ndarray

    @classmethod
    def of(
        cls, averaged: Averaging, by_member: Mapping[str, np.ndarray], p_by_all: np.ndarray | None
    ) -> Exiting | None:
        """From each member's P(fight), (n,), at its own temperature; None without an early exit.

        With an early exit, `p_by_all` must be given.
        """
        settled = averaged.settled(by_member)
        if averaged.early_exit is None or settled is None:
            return None
        assert p_by_all is not None
        return cls(averaged.early_exit, settled, p_by_all)

    def sorted(self, order: np.ndarray) -> Exiting:
        """Return a copy with the clips reordered by the indices `order` (n,)."""
        return replace(self, settled=self.settled[order], p_by_all=np.asarray(self.p_by_all, float)[order])


def on_selection(
    rows: pd.DataFrame, p_fight: np.ndarray, chosen: Sequence[str], exiting: Exiting | None = None
) -> CalibrationBasis:
    """Calibrate on the selection part, which the model was not trained on. `chosen`: what was chosen on it."""
    chose = " and ".join(chosen)
    what, too_good = (
        "the selection part",
        f"; having chosen {chose} on the same clips makes it somewhat too good",
    )
    return CalibrationBasis(
        rows,
        p_fight,
        f"{what}, which also chose {chose}" if chosen else what,
        f"{_LIKE_THESE}{too_good if chosen else ''}",
        exiting=exiting,
    )


def epoch_chosen(models: Iterable[Path]) -> list[str]:
    """Return ["the epoch"] if the selection part chose the epoch of any of these model files, else []."""
    return ["the epoch"] if any(MemberRecord.of_file(model).chose_epoch for model in models) else []


def out_of_fold(
    predictions: pd.DataFrame,
    n_folds: int,
    views: int,
    member_temperatures: Mapping[str, float] | None = None,
    averaged: Averaging = PLAIN,
    p_by_all: np.ndarray | None = None,
    by_dataset: bool = False,
) -> CalibrationBasis:
    """Calibrate on predictions for held-out clips, by models with the same clips, settings and members.

    `predictions`: as for `metrics`. `views`: how many views of a clip were averaged. `averaged`: how the members were
    combined; if it has an early exit, `p_by_all` (n,) must be the averages without it. `by_dataset`: each of the
    `n_folds` folds held out a whole data set.
    """
    by_member = {name: predictions[f"p_{name}"].to_numpy(float) for name in metrics.member_names(predictions)}
    what = f"out-of-fold predictions of {n_folds} folds"
    assumes = f"{_LIKE_THESE}; the model is as good as those of the folds, which were trained on fewer clips"
    if by_dataset:
        what = f"predictions of {n_folds} data sets, each by models that were trained on the others"
        assumes = (
            "videos come from places as new to the model as each data set was to models of the others; the model is as "
            "good as those, which were trained on fewer"
        )
    if views > 1:
        assumes += f"; what is judged is the mean of {views} views, as by --tta {views}"
    return CalibrationBasis(
        predictions,
        predictions.p_violent.to_numpy(float),
        what,
        assumes,
        views,
        member_temperatures,
        Exiting.of(averaged, by_member, p_by_all),
    )


def member_temperatures(rows: pd.DataFrame, p_fight: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Fit a temperature to each member's P(fight), (n,), of the clips `rows`. 1 for all members if any fit fails.

    Divided by its temperature, each member's logit is calibrated on these clips, so that the logits can be averaged.
    """
    is_fight = (rows.label == CLASS_NAMES[1]).to_numpy()
    n_groups = rows.source_group.nunique()
    if n_groups < FEWEST_SOURCES:
        log.info(
            "members' logits are averaged unscaled: %d sources are too few to fit temperatures", n_groups
        )
        return dict.fromkeys(p_fight, 1.0)
    found = {name: temperature.fit(is_fight, p) for name, p in p_fight.items()}
    if untold := {name: why_not for name, (value, why_not) in found.items() if value is None}:
        name, why_not = next(iter(untold.items()))
        log.info("members' logits are averaged unscaled: no temperature for %s, because %s", name, why_not)
        return dict.fromkeys(p_fight, 1.0)
    return {name: float(value) for name, (value, _) in found.items() if value is not None}


def fit(basis: CalibrationBasis, seed: int) -> Calibration:
    """Fit the temperature and the operating points.

    With fewer than FEWEST_SOURCES sources, or clips of one class only, neither is fitted; `why_not` says why. Where
    the early exit would decide at a point's threshold, that point is chosen on the averages of all members, at a
    temperature fitted to these averages: with the exit, one member alone would decide which clips are above it.
    """
    # sorted, so that `seed` draws the same clips whatever the order of the rows
    order = np.argsort(basis.rows.clip_id.to_numpy(str), kind="stable")
    rows, p = basis.rows.iloc[order], np.asarray(basis.p_fight, float)[order]
    is_fight, groups = (rows.label == CLASS_NAMES[1]).to_numpy(), rows.source_group.astype(str).to_numpy()
    n_groups = len(np.unique(groups))
    rests_on = {
        "what": basis.what,
        "n": len(rows),
        "n_groups": n_groups,
        VIEWS: basis.views,
        "assumes": basis.assumes,
    }
    if n_groups < FEWEST_SOURCES or is_fight.all() or not is_fight.any():
        few = f"{n_groups} sources in {basis.what} are too few ({FEWEST_SOURCES} are needed, of both classes)"
        none = Calibration(None, rests_on, why_not=few)
        return replace(none, without_exit=none) if basis.exiting else none
    if basis.exiting is None:
        fitted = _with_temperature(is_fight, p, rests_on)
        points = operating_points.choose(is_fight, p, groups, fitted.apply, seed)
        return replace(fitted, operating_points=points)
    return _fit_exiting(is_fight, p, groups, basis.exiting.sorted(order), rests_on, seed)


def _with_temperature(is_fight: np.ndarray, p: np.ndarray, rests_on: Mapping[str, Any]) -> Calibration:
    found, why_not = temperature.fit(is_fight, p)
    return Calibration(found, rests_on, why_not=why_not)


def _fit_to_remaining(
    is_fight: np.ndarray, p: np.ndarray, groups: np.ndarray, rests_on: Mapping[str, Any]
) -> Calibration:
    """Fit the temperature to the clips that the early exit leaves; too few sources: none, and `why_not` says why."""
    n_groups = len(np.unique(groups))
    if n_groups < FEWEST_SOURCES:
        few = f"the early exit leaves clips of {n_groups} sources, too few ({FEWEST_SOURCES} are needed)"
        return Calibration(None, rests_on, why_not=few)
    return _with_temperature(is_fight, p, {**rests_on, TEMPERATURE_FROM: {"n": len(p), "n_groups": n_groups}})


def _fit_exiting(
    is_fight: np.ndarray,
    p: np.ndarray,
    groups: np.ndarray,
    exiting: Exiting,
    rests_on: Mapping[str, Any],
    seed: int,
) -> Calibration:
    remaining = ~exiting.settled
    fitted = _fit_to_remaining(is_fight[remaining], p[remaining], groups[remaining], rests_on)
    without = _with_temperature(is_fight, exiting.p_by_all, rests_on)
    p = np.where(remaining, fitted.apply(p), p)
    points = operating_points.choose(is_fight, p, groups, np.asarray, seed)
    if any(exiting.exits.decides_at(point["threshold"]) for point in points.values()):
        by_all = operating_points.choose(is_fight, exiting.p_by_all, groups, without.apply, seed)
        points = {
            name: {**by_all[name], EARLY_EXIT_KEY: False}
            if exiting.exits.decides_at(point["threshold"])
            else point
            for name, point in points.items()
        }
    return replace(fitted, operating_points=points, without_exit=without)


def calibrate_model(folder: Path, selection: Samples, seed: int) -> Calibration:
    """Calibrate the single model in `folder` on the selection part, and store the result in its config.json.

    Raises UserError if a probability is not finite.
    """
    model = trained_model.load(folder)
    p = model.uncalibrated(scoring.judge_view(model, selection))
    scoring.require_finite(p, selection.rows, str(folder))
    found = fit(on_selection(selection.rows, p, epoch_chosen([folder / run_folder.BEST_NAME])), seed)
    path = folder / run_folder.CONFIG_NAME
    record = run_folder.read_object(path)
    if record.get(run_folder.CALIBRATION_KEY) != found.record():
        storage.write_json(path, {**record, run_folder.CALIBRATION_KEY: found.record()})
    say(folder, found)
    return found


def say(folder: Path, found: Calibration) -> None:
    """Log the calibration of the model in `folder`: its temperature, then each operating point."""
    log.info("%s: %s", folder, found.described())
    for name, point in found.operating_points.items():
        how = "" if point.get(EARLY_EXIT_KEY, True) else " without the early exit"
        threshold = number(point["threshold"], 4)
        log.info("  %-16s threshold %s%s: %s", name, threshold, how, point["guarantee"]["text"])
