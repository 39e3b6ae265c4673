"""The final fit: members trained on every labelled clip, with the steps that the folds of a cross-validation chose.

A fold holds out part of the sources, or a whole data set. A model trained without a data set judges it as the fit will
judge videos from places that it has not seen, so left-out data sets give thresholds for such places.

<folder>/final/<member>/         the members
<folder>/final/ensemble.json     the ensemble; `final_fit` has what the folds chose, and their figures

No clip is left to end training, calibrate or measure with. So the folds decide how many steps each member makes, the
members' weights, the temperature and the thresholds, and only the accuracy of the folds is known.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.ensemble import earlier_folds, ensemble
from violence_detection.ensemble.cross_validation import COMMAND_KEY, CrossValidation, HeldOut
from violence_detection.ensemble.folds import Fold
from violence_detection.ensemble.member_jobs import TrainingJob
from violence_detection.evaluation import calibrate, elsewhere
from violence_detection.models import averaging, trained_model
from violence_detection.system import storage
from violence_detection.system.figures import percentage
from violence_detection.training import run_folder, step_plan, trained_clips
from violence_detection.training.config import KERNEL, TrainConfig
from violence_detection.training.run_folder import Trained
from violence_detection.training.step_plan import StepPlan

log = logging.getLogger(__name__)
#: The figures of the folds that ensemble.json keeps: those that describe the model, without paths of the machine that
#: made it, except any in the command. Records of earlier versions have no command.
_FIGURES = (
    "cv_accuracy", "cv_accuracy_ci95", "cv_n", "cv_n_groups", "cv_roc_auc", "cv_average_precision",
    "cv_mean_of_folds", "cv_by_dataset", "cv_members", COMMAND_KEY,
)  # fmt: skip
#: What ensemble.json keeps of each fold.
_OF_A_FOLD = ("fold", "accuracy", "n", "n_groups", "trained_on")


@dataclass(frozen=True)
class FinalFit:
    """Members trained on all clips of the pool of `plan`, into `folder`.

    `trained`: the folds' members, fold by fold. `judged`: their predictions for the clips that they held out. `in_set`:
    the figures of folds by source, where `plan` leaves out data sets and folds by source were made too.
    """

    plan: CrossValidation
    trained: Sequence[Trained]
    folder: Path
    judged: HeldOut
    in_set: Mapping[str, Any] | None = None

    def jobs(self) -> list[TrainingJob]:
        """One job for each member, with the steps that the folds chose for it."""
        plan = self.plan
        jobs = ensemble.jobs(
            plan.members, plan.pool, self._fold(), plan.settings, self.folder, plan.overwrite
        )
        steps = self.steps()
        return [dataclasses.replace(job, plan=steps[job.architecture]) for job in jobs]

    def _fold(self) -> Fold:
        return Fold("final", tuple(sorted(self.plan.pool.frame.clip_id)), (), ())

    def steps(self) -> dict[str, StepPlan]:
        """For each member the median over the folds: steps up to the epoch that was kept, and steps of the schedule.

        `KERNEL`, which is fitted at once, ignores them.
        """
        config, count = self.plan.settings.train, len(self.plan.members)
        return {
            name: step_plan.middle([_steps_made(config, fold) for fold in self.trained[i::count]])
            for i, name in enumerate(self.plan.members)
        }

    def write(self, members: Sequence[Trained]) -> None:
        """Calibrate the fit on the folds' predictions, and write its ensemble.json and trained_on.csv."""
        plan, predictions, own = self.plan, self.judged.predictions, self.judged.temperatures
        names = [fold.name for fold in plan.folds]
        parts = [ensemble.Part.of(n, t) for n, t in zip(plan.members, members, strict=True)]
        found = calibrate.fit(
            calibrate.out_of_fold(
                predictions,
                len(names),
                plan.views,
                averaged=plan.averaged,
                p_by_all=earlier_folds.by_all_members(plan.folder, names, predictions, plan.averaged),
                by_dataset=plan.by_dataset,
            ),
            plan.settings.train.seed,
        )
        calibrate.say(self.folder, found)
        rows = plan.pool.rows(self._fold().train)
        figures = self._figures()
        record = {
            "clips": len(rows),
            "n_groups": int(rows.source_group.nunique()),
            "steps": {n: dataclasses.asdict(s) for n, s in self.steps().items() if n != KERNEL},
            "why": f"median of {len(names)} {'data sets left out' if plan.by_dataset else 'folds by source'}",
            **({run_folder.BY_LEFT_OUT_KEY: True} if plan.by_dataset else {}),
            "cross_validation": figures,
        }
        ensemble.write_listed(
            self.folder,
            parts,
            self._weights(),
            {
                "why": "the mean of each fold's weights, and of each member's temperatures"
                if own
                else "the mean of each fold's weights"
            },
            {trained_clips.TRAIN: rows},
            found,
            {run_folder.FINAL_KEY: record},
            [own[name] for name in plan.members] if own else None,
            plan.averaged,
            plan.closer_look,
        )
        self._bring_left_out()
        log.info(
            "%s: trained on all %d clips of %d sources. Its accuracy can only be estimated, by that of %s: %s %%",
            self.folder, len(rows), record["n_groups"],
            "left-out data sets" if figures.get("by_dataset") else "the folds",
            percentage(figures["cv_accuracy"]),
        )  # fmt: skip

    def _figures(self) -> dict[str, Any]:
        """The figures to keep: those of `in_set` if there are any, else those of the plan's own folds."""
        figures = self.in_set or self.judged.figures(self.plan)
        by_dataset = self.plan.by_dataset and not self.in_set
        return {
            **{k: figures[k] for k in _FIGURES if k in figures},
            "folds": [{key: fold[key] for key in _OF_A_FOLD} for fold in figures["folds"]],
            "views": self.plan.views,
            **({averaging.CLOSER_LOOK_KEY: True} if self.plan.closer_look else {}),
            "members": self.plan.members,
            **({"by_dataset": True} if by_dataset else {}),
        }

    def _weights(self) -> list[float]:
        """Each member's weight: the mean of its weights in the folds; they sum to 1."""
        weights = np.zeros(len(self.plan.members))
        for fold in self.plan.folds:
            listed = run_folder.read_object(self.plan.folder / fold.name / run_folder.ENSEMBLE_NAME)[
                "members"
            ]
            weights += [m["weight"] for m in listed]
        return (weights / weights.sum()).tolist()

    def _bring_left_out(self) -> None:
        """Copy leave_one_dataset_out.json beside the fit, if its models had the same clips, settings and members."""
        own = self.folder / elsewhere.LEFT_OUT_NAME
        own.unlink(missing_ok=True)
        left_out = elsewhere.left_out(self.folder.parent, trained_model.load(self.folder))
        if left_out and left_out["belongs"]:
            with storage.atomic_path(own) as temporary:
                shutil.copyfile(self.folder.parent / elsewhere.LEFT_OUT_NAME, temporary)


def _steps_made(config: TrainConfig, fold: Trained) -> StepPlan:
    """The steps of a fold's member up to the epoch that was kept; those of its record if the record fixes them."""
    record = run_folder.read_object(fold.folder / run_folder.CONFIG_NAME)
    # fixed steps do not depend on the number of clips
    if fixed := step_plan.of_record(record):
        return fixed
    clips = record["clips"]["train"]
    return step_plan.of_epochs(config, step_plan.steps_an_epoch(config, clips), fold.best_epoch)
