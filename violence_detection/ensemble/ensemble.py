"""The ensemble: members trained on the same clips, and averaged.

They weigh the same unless the selection part clearly says otherwise, see member_weights.py.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from violence_detection.ensemble import member_weights
from violence_detection.ensemble.folds import Fold
from violence_detection.ensemble.member_jobs import Settings, TrainingJob
from violence_detection.ensemble.pool import Pool
from violence_detection.evaluation import calibrate, scoring
from violence_detection.evaluation.calibrate import CalibrationBasis, Exiting
from violence_detection.features.config import FeatureConfig
from violence_detection.models import averaging, trained_model
from violence_detection.models.averaging import Averaging
from violence_detection.models.calibration import OF_FOLDS, Calibration
from violence_detection.system import storage
from violence_detection.training import plain_views, run_folder, trained_clips
from violence_detection.training.config import takes
from violence_detection.training.run_folder import Trained
from violence_detection.training.training_data import Samples

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
#: Subfolder of an ensemble's folder for models that were trained in other folders.
_MEMBERS_FOLDER = "members"


@dataclass(frozen=True)
class Part:
    """One model of an ensemble under its name there. `selection_accuracy`: None if it had no selection part."""

    name: str
    model: Path
    selection_accuracy: float | None

    @classmethod
    def of(cls, name: str, trained: Trained) -> Part:
        return cls(name, trained.model_path, trained.selection_accuracy)


def jobs(
    names: Sequence[str], pool: Pool, fold: Fold, settings: Settings, folder: Path, overwrite: bool
) -> list[TrainingJob]:
    """One job for each member, in `<folder>/<name>`, with the features of the backbones that the member takes."""
    everything = settings.features.backbone
    pools = {everything: pool}
    made = []
    for name in names:
        own = replace(settings, features=features_of(name, settings.features))
        looked_at = own.features.backbone
        if looked_at not in pools:
            pools[looked_at] = pool.only(looked_at)
        made.append(TrainingJob(name, folder / name, pools[looked_at], fold, own, overwrite=overwrite))
    return made


def features_of(name: str, features: FeatureConfig) -> FeatureConfig:
    """`features` with only the backbones that the member called `name` takes."""
    return replace(features, backbone=tuple(b for b in features.backbone if takes(name, b)))


def write(
    folder: Path,
    parts: Sequence[Part],
    selection: Samples,
    seed: int,
    mined: pd.DataFrame | None = None,
    *,
    calibrated: bool = False,
    out_of_fold: CalibrationBasis | None = None,
    averaged: Averaging = averaging.PLAIN,
    measured: Collection[str] = (),
    closer_look: bool = False,
) -> member_weights.Weights:
    """Choose the weights on the selection clips and write `<folder>/ensemble.json`.

    `mined`: rows of clips whose out-of-fold predictions decided which train clips are hard. `calibrated`: whether to
    calibrate the ensemble, on `out_of_fold` if given, else on the selection clips; models of folds are not calibrated,
    as the ensemble is calibrated on their predictions. `averaged`: how the members are averaged. If it averages logits,
    the weights are equal, and with `calibrated` each member also gets a temperature of its own: that in `out_of_fold`,
    else one fitted to the selection clips. `measured`: data sets to record as those that select and measure.

    Raises UserError if a member's P(fight) of a selection clip is not finite.
    """
    p_fight = np.array(
        [plain_views.predict(trained_model.load_model(part.model), selection) for part in parts]
    )
    for part, p in zip(parts, p_fight, strict=True):
        scoring.require_finite(p, selection.rows, str(part.model))
    groups = selection.rows.source_group.tolist()
    weights = (
        member_weights.equal(len(parts), "logits are averaged")
        if averaged.in_logits
        else member_weights.choose(p_fight, selection.labels, groups, seed)
    )
    log.info(
        "%s: %s weights (%s)", folder, "equal" if weights.uniform else _shown(parts, weights), weights.why
    )
    tuned_on = {trained_clips.WEIGHTS: selection.rows}
    if mined is not None:
        tuned_on[trained_clips.MINED] = mined
    by_member = {part.name: p for part, p in zip(parts, p_fight, strict=True)}
    found, own = OF_FOLDS, None
    chosen = calibrate.epoch_chosen(part.model for part in parts)
    if mined is not None:
        chosen.append("which members are tuned ones")
    if len(parts) > 1 and not averaged.in_logits:
        chosen.append("the members' weights")
    if calibrated and averaged.in_logits:
        own = out_of_fold.member_temperatures if out_of_fold else None
        if not own:
            own = calibrate.member_temperatures(selection.rows, by_member)
            chosen.append("the members' temperatures")
        by_member = {name: averaging.scaled(p, 1 / own[name]) for name, p in by_member.items()}
    if calibrated:
        basis = out_of_fold or _on_selection(selection, by_member, weights, averaged, chosen)
        found = calibrate.fit(basis, seed)
        calibrate.say(folder, found)
    write_listed(
        folder,
        parts,
        weights.values,
        weights.record(),
        tuned_on,
        found,
        {run_folder.MEASURED_KEY: sorted(measured)} if measured else None,
        temperatures=[own[part.name] for part in parts] if own else None,
        averaged=averaged,
        closer_look=closer_look,
    )
    return weights


def _on_selection(
    selection: Samples,
    by_member: Mapping[str, np.ndarray],
    weights: member_weights.Weights,
    averaged: Averaging,
    chosen: Sequence[str],
) -> CalibrationBasis:
    """The members' averages on the selection part, to calibrate on.

    `by_member`: P(fight) (N,) of each member, already divided by its own temperature if it has one. `chosen`: what the
    selection part was used to choose, in words.
    """
    average = averaging.together(by_member, weights.values, averaged)
    by_all = averaging.together(by_member, weights.values, averaged.without_exit())
    exiting = Exiting.of(averaged, by_member, by_all)
    return calibrate.on_selection(selection.rows, average, chosen, exiting)


def write_listed(
    folder: Path,
    parts: Sequence[Part],
    weights: Sequence[float],
    weighting: dict[str, object],
    tuned_on: Mapping[str, pd.DataFrame],
    calibration: Calibration = OF_FOLDS,
    further: Mapping[str, object] | None = None,
    temperatures: Sequence[float] | None = None,
    averaged: Averaging = averaging.PLAIN,
    closer_look: bool = False,
) -> None:
    """Write ensemble.json, with the keys of `further` added, and trained_on.csv with the clips of `tuned_on`.

    `weighting`: how the weights were chosen. `tuned_on`: rows of the manifest by their role, see trained_clips.py.
    `temperatures`: the members' own, in the order of `parts`, where their logits are averaged. `averaged`: only its
    early exit is written. A model that is in another folder is linked into `<folder>/members`, so that the folder holds
    all that the ensemble needs.
    """
    shutil.rmtree(folder / _MEMBERS_FOLDER, ignore_errors=True)
    members: list[dict[str, object]] = [
        {
            "name": part.name,
            "model": _own_model(folder, part).relative_to(folder).as_posix(),
            "weight": weight,
            "selection_accuracy": part.selection_accuracy,
        }
        for part, weight in zip(parts, weights, strict=True)
    ]
    for member, temperature in zip(members, temperatures or (), strict=bool(temperatures)):
        member[averaging.TEMPERATURE_KEY] = temperature
    trained_clips.write(folder, tuned_on)
    record: dict[str, object] = {"members": members, "weighting": weighting, **(further or {})}
    if exits := averaged.exit_record():
        record[averaging.EARLY_EXIT_KEY] = exits
    if closer_look:
        record[averaging.CLOSER_LOOK_KEY] = True
    record[run_folder.CALIBRATION_KEY] = calibration.record()
    storage.write_json(folder / run_folder.ENSEMBLE_NAME, record)


def _own_model(folder: Path, part: Part) -> Path:
    """The part's model file below `folder`; linked there, with the files that belong to it, if it is elsewhere."""
    if part.model.is_relative_to(folder):
        return part.model
    own = folder / _MEMBERS_FOLDER / part.name
    own.mkdir(parents=True, exist_ok=True)
    for file in (
        part.model,
        run_folder.weights_of(part.model),
        *(part.model.parent / name for name in run_folder.BESIDE),
    ):
        if file.is_file():
            _link(file, own / file.name)
    return own / part.model.name


def _link(file: Path, to: Path) -> None:
    """Hard-link the file, or copy it where that fails. Links are safe: models are replaced, never changed in place."""
    with storage.atomic_path(to) as temporary:
        try:
            os.link(file, temporary)
        except OSError:
            storage.copied(file, temporary)


def _shown(parts: Sequence[Part], weights: member_weights.Weights) -> str:
    return ", ".join(f"{p.name} {w:.2f}" for p, w in zip(parts, weights.values, strict=True))
