"""The run of train_ensemble_models.py: ensemble, cross-validation, fine-tuning on hard clips, final fit."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.backbones import engines
from violence_detection.combine import val_ledger
from violence_detection.ensemble import (
    cross_validation,
    earlier_folds,
    ensemble,
    folds,
    hard,
    leave_one_out,
    member_jobs,
    member_processes,
    run_checks,
)
from violence_detection.ensemble import pool as pools
from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.ensemble.cross_validation import CrossValidation
from violence_detection.ensemble.final_fit import FinalFit
from violence_detection.ensemble.folds import Fold
from violence_detection.ensemble.member_jobs import Settings, TrainingJob
from violence_detection.ensemble.pool import Choice, Pool
from violence_detection.errors import UserError
from violence_detection.evaluation import measure, scoring
from violence_detection.evaluation.calibrate import CalibrationBasis
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.key import Inputs
from violence_detection.models import calibration, model_card, shipping
from violence_detection.system import console, processes, storage, tensorflow_start
from violence_detection.training import devices, fine_tuning, run_folder
from violence_detection.training.config import PICTURES_OF, HeadConfig, TrainConfig
from violence_detection.training.run_folder import Trained

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
#: Most clips on which a shipped model is compared with the final fit it was made from.
_MOST_COMPARED_CLIPS = 500
#: Most input values of these clips together. Clips kept as pictures have so many that fewer clips are compared.
_MOST_COMPARED_VALUES = 1 << 28


@dataclass(frozen=True)
class EnsembleRun:
    """One run of the script, its devices set up and its features extracted; made by `prepare`."""

    config: EnsembleConfig
    how: ExtractConfig
    settings: Settings
    output: Path
    overwrite: bool
    pool: Pool
    target: frozenset[str]
    strategy: Any
    command: str = ""

    def run(self) -> dict[str, Any]:
        """Train what was asked for; return the fields of the script's JSON line."""
        config = self.config
        k = config.cross_validate
        if config.final and not config.by_left_out:
            k = k or run_checks.folds_there(self.output)
        asked = self.plan(k, config.members) if k else None
        elsewhere = self._leave_one_out_plans() if config.leave_one_dataset_out else []
        official = [] if config.spends_val or elsewhere else self._official_jobs()
        # earlier results are read before `_discard` removes any
        known = (
            earlier_folds.judged_before(asked)
            if asked and config.final and not _is_to_train(asked.jobs())
            else None
        )
        known_left_out = None
        if elsewhere and not _is_to_train([job for plan in elsewhere for job in plan.jobs()]):
            known_left_out = earlier_folds.left_out_before(elsewhere, self.output)
        basis = self._calibration_basis() if official and not asked else None
        mined = (
            earlier_folds.out_of_fold(self.output, self.plan) if config.fine_tune_hard and not asked else None
        )

        plans = [*([asked] if asked and not known else []), *([] if known_left_out else elsewhere)]
        folds_ = asked.jobs() if asked else []
        jobs = [*official, *folds_, *(job for plan in elsewhere for job in plan.jobs())]
        # all jobs in one call, so that no process idles while the last jobs of one part of the run are trained
        trained = self.train(jobs, lambda: self._discard(official, plans))
        fields: dict[str, Any] = {
            "members": [],
            "ensemble_val_accuracy": None,
            "ensemble_val_accuracy_ci95": None,
            "ensemble_val_n": None,
            "ensemble_val_by_dataset": None,
            "temperature": None,
        }
        first = len(official) + len(folds_)
        of_folds, of_left_out = trained[len(official) : first], trained[first:]
        # folds first: the ensemble is calibrated on their predictions
        judged: Mapping[str, Any] = {}
        if asked and known:
            log.info(
                "%s: these folds were judged by an earlier run", asked.folder / run_folder.FOLDS_RECORD_NAME
            )
            judged = known[1]
        elif asked:
            judged = cross_validation.finish(asked, of_folds, self._note_held_out)
        if official:
            fields = self._write_ensemble(
                trained[: len(official)], self._calibration_basis() if asked else basis
            )
        fields |= judged
        if elsewhere:
            in_set = fields["cv_by_dataset"] if asked else None
            fields |= leave_one_out.finish(
                elsewhere, of_left_out, in_set, self.output, self._note_held_out, known_left_out
            )
        if config.fine_tune_hard:
            fields["fine_tuned"] = self._fine_tune(
                earlier_folds.out_of_fold(self.output, self.plan) if asked else mined
            )
        if config.final and elsewhere and config.by_left_out:
            seed = of_left_out[: len(elsewhere[0].jobs())]
            written = known_left_out or earlier_folds.left_out_before(elsewhere, self.output)
            assert written, "the left-out data sets have been judged"
            fields |= self._fit_finally(
                FinalFit(elsewhere[0], seed, self.final_folder, written[0], judged or None)
            )
        elif config.final and asked:
            there = known[0] if known else earlier_folds.held_out_before(asked)
            fields |= self._fit_finally(FinalFit(asked, of_folds, self.final_folder, there))
        return {**fields, **self._write_cards(), "generated_samples": self.pool.generated}

    def _discard(self, official: Sequence[TrainingJob], plans: Sequence[CrossValidation]) -> None:
        """Remove the records, each written last, of what this run will make again.

        An ensemble whose members are all finished keeps its ensemble.json, so that it can be used while folds train.
        """
        if _is_to_train(official):
            (self.output / run_folder.ENSEMBLE_NAME).unlink(missing_ok=True)
        tuned = self.output / hard.FOLDER
        if _is_to_train([job for job in official if (tuned / job.folder.name).exists()]):
            (tuned / run_folder.ENSEMBLE_NAME).unlink(missing_ok=True)
        for plan in plans:
            plan.discard()
        if any(plan.by_dataset for plan in plans):
            (self.output / leave_one_out.FIGURES_NAME).unlink(missing_ok=True)

    def _write_cards(self) -> dict[str, Any]:
        """Write the model cards, and ship the final fit if asked to; return the field `shipped` if so."""
        for folder in (self.output, self.output / hard.FOLDER, self.output / "folds", self.final_folder):
            if not (folder / run_folder.ENSEMBLE_NAME).is_file():
                continue
            try:
                model_card.write_trained(folder)
            except UserError as e:
                # a damaged ensemble of an earlier run must not cost what this run has made
                log.warning("%s: no new model card was written: %s", folder, e)
        if not self.config.ship:
            return {}
        clips = self._some_clips()
        made = shipping.ship(self.final_folder, self.config.ship, clips, self.pool.backbone_weights)
        return {"shipped": str(made)}

    def _some_clips(self) -> Inputs:
        """Plain clips to compare a shipped model on, evenly spaced among all clips in the order of their ids."""
        ids = sorted(self.pool.frame.clip_id)
        numbers = sum(math.prod(shape) for shape in self.pool.plain(ids[:1]).shapes().values())
        most = max(1, min(_MOST_COMPARED_CLIPS, _MOST_COMPARED_VALUES // numbers))
        return self.pool.plain(ids[:: -(-len(ids) // most)]).plain()

    def train(self, jobs: Sequence[TrainingJob], before: Callable[[], None] = lambda: None) -> list[Trained]:
        """Run the jobs, see member_jobs.run; first log how long whole networks among them will take."""
        jobs = [replace(job, usd_per_hour=self.how.usd_per_hour) for job in jobs]
        whole = [
            job
            for job in jobs
            if job.architecture in PICTURES_OF and not job.given and member_jobs.finished(job) is None
        ]
        if whole:
            here = member_processes.number_at_once(self.config.parallel) if self.how.ray is None else None
            fine_tuning.say_what_it_takes(
                self.settings.head, self.settings.train, len(whole), self.how.usd_per_hour, here
            )
        return member_jobs.run(
            jobs, at_once=self.config.parallel, ray=self.how.ray, strategy=self.strategy, before=before
        )

    @cached_property
    def official(self) -> Fold:
        train = self.settings.train
        return folds.official(self.pool.frame, self.target, train.selection_fraction, train.seed)

    def plan(self, k: int, members: tuple[str, ...], folder: Path | None = None) -> CrossValidation:
        """The cross-validation of this run's clips in k folds, kept in `folder`, by default the output folder."""
        train = self.settings.train
        folds_ = folds.cross_validation(self.pool.frame, self.target, k, train.selection_fraction, train.seed)
        return CrossValidation(
            members,
            tuple(folds_),
            self.pool,
            self.settings,
            folder or self.output,
            self.overwrite,
            self.config.tta,
            averaged=self.config.averaged_of(members),
            closer_look=self.config.closer_look,
            command=self.command,
        )

    @property
    def final_folder(self) -> Path:
        """The folder of the final fit."""
        return self.output / run_folder.FINAL_FOLDER

    def _fit_finally(self, fit: FinalFit) -> dict[str, Any]:
        """Train and write the final fit, after its folds have been judged; return its fields of the JSON line."""
        jobs, written_last = fit.jobs(), fit.folder / run_folder.ENSEMBLE_NAME

        def discard() -> None:
            if _is_to_train(jobs):
                written_last.unlink(missing_ok=True)

        fit.write(self.train(jobs, discard))
        listed = run_folder.read_object(fit.folder / run_folder.ENSEMBLE_NAME)["members"]
        members = [
            {
                "name": m["name"],
                "model": str(fit.folder / m["model"]),
                "weight": round(m["weight"], 4),
                "selection_accuracy": None,
                "val_accuracy": None,
            }
            for m in listed
        ]
        return {
            "members": members,
            "temperature": calibration.read(fit.folder).temperature,
            "final": str(fit.folder),
            "trained_on": len(fit.plan.pool.frame),
        }

    def _leave_one_out_plans(self) -> list[CrossValidation]:
        """One plan for each seed, in which each fold holds out a data set."""
        plans = []
        for folder, train in run_checks.by_seed(self.config, self.settings.train, self.output):
            left_out = folds.leave_one_dataset_out(
                self.pool.frame, self.target, train.selection_fraction, train.seed
            )
            plans.append(
                CrossValidation(
                    self.config.members,
                    tuple(left_out),
                    self.pool,
                    replace(self.settings, train=train),
                    folder,
                    self.overwrite,
                    self.config.tta,
                    by_dataset=True,
                    averaged=self.config.averaged,
                    closer_look=self.config.closer_look,
                    command=self.command,
                )
            )
        return plans

    def _official_jobs(self) -> list[TrainingJob]:
        return ensemble.jobs(
            self.config.members, self.pool, self.official, self.settings, self.output, self.overwrite
        )

    def _calibration_basis(self) -> CalibrationBasis | None:
        config = self.config
        return earlier_folds.calibration_basis(self.output, self.plan, config.members, config.averaged)

    def _write_ensemble(
        self, trained: Sequence[Trained], out_of_fold: CalibrationBasis | None
    ) -> dict[str, Any]:
        """Write the official ensemble, calibrated on `out_of_fold` or, if that is None, on its selection part."""
        parts = [ensemble.Part.of(n, t) for n, t in zip(self.config.members, trained, strict=True)]
        selection = self.pool.plain(self.official.selection)
        weights = ensemble.write(
            self.output,
            parts,
            selection,
            self.settings.train.seed,
            calibrated=True,
            out_of_fold=out_of_fold,
            averaged=self.config.averaged,
            measured=self.target,
        )
        val = self._look_at_val() if self.config.show_val else None
        members = [
            {
                "name": part.name,
                "model": str(part.model),
                "weight": round(weight, 4),
                "selection_accuracy": part.selection_accuracy,
                "val_accuracy": val.by_member[part.name] if val else None,
            }
            for part, weight in zip(parts, weights.values, strict=True)
        ]
        return {
            "members": members,
            "ensemble_val_accuracy": val.accuracy if val else None,
            "ensemble_val_accuracy_ci95": val.ci95 if val else None,
            "ensemble_val_n": val.n if val else None,
            "ensemble_val_by_dataset": val.by_dataset if val else None,
            "temperature": calibration.read(self.output).temperature,
        }

    def _look_at_val(self) -> scoring.QuickScore:
        """Measure the ensemble on val, and note the look in the ledger."""
        held_out = self.official.held_out
        val = scoring.score_samples(self.output, self.pool.plain(held_out))
        seen = {"accuracy": val.accuracy, "ci95": val.ci95, "n": len(held_out)}
        self._note("training", [self.output], held_out, seen)
        return val

    def _note_held_out(
        self, plans: Sequence[CrossValidation], purpose: str, figures: Mapping[str, Any]
    ) -> None:
        """Note a look in the ledger if val's clips were among those held out."""
        if self.config.spends_val:
            val = set(val_ledger.val_of(self._combined))
            judged = {clip_id for plan in plans for fold in plan.folds for clip_id in fold.held_out}
            models = [plan.folder / fold.name for plan in plans for fold in plan.folds]
            self._note(purpose, models, sorted(judged & val), figures)

    @property
    def _combined(self) -> Path:
        return self.how.data_root / "combined_all"

    def _note(
        self, purpose: str, models: Sequence[Path], val_clips: Sequence[str], figures: Mapping[str, Any]
    ) -> None:
        measure.note_look(self._combined, purpose, self.command, models, len(val_clips), figures)

    def _fine_tune(self, oof: pd.DataFrame | None) -> dict[str, Any]:
        if oof is None:
            oof = self._judge_out_of_fold(self.output / hard.FOLDER)
        figures = hard.fine_tune(
            self.config, self.pool, self.official, self.settings, oof, self.output, self.train, self.overwrite
        )
        if val := figures["val"]:
            seen = {
                "accuracy": val["after"],
                "gain": val["gain"],
                "gain_ci95": val["gain_ci95"],
                "n": val["n"],
            }
            self._note("hard clips", [self.output / hard.FOLDER], self.official.held_out, seen)
        hard.log_figures(figures)
        return figures

    def _judge_out_of_fold(self, folder: Path) -> Any:
        """Make out-of-fold predictions with the first member alone, which is enough to find hard clips."""

        def plan(k: int, members: tuple[str, ...]) -> CrossValidation:
            return self.plan(k, members, folder)

        wanted = plan(run_checks.folds_there(self.output), self.config.members[:1])
        log.info("no cross-validation of these clips and settings yet: training %d folds of %s to find hard clips",
                 len(wanted.folds), wanted.members[0])  # fmt: skip
        cross_validation.finish(wanted, self.train(wanted.jobs()))
        return earlier_folds.out_of_fold(folder, plan)


def _is_to_train(jobs: Sequence[TrainingJob]) -> bool:
    return any(member_jobs.finished(job) is None for job in jobs)


def prepare(
    config: EnsembleConfig,
    how: ExtractConfig,
    features: FeatureConfig,
    head: HeadConfig,
    train: TrainConfig,
    output: Path,
    overwrite: bool,
    command: str = "",
) -> EnsembleRun:
    """Check the settings and the data, set up devices, extract missing features, and return the run.

    Devices come before extraction because TensorFlow cannot change them later. Raises UserError for settings, data or
    output folders that cannot work.
    """
    folders = run_checks.check_all(config, how, features, head, train, output)
    if not overwrite:
        run_checks.check_folders(folders, config, how, features, head)
    choice = run_checks.choose(config, how)
    member_jobs.fix_threads()
    strategy = devices.set_up(train)
    if config.parallel != 1:
        member_processes.check(train)
    pool = _open_pool(features, how, train, choice)
    settings = Settings(features, how.augment, head, train)
    target = frozenset(choice.target)
    return EnsembleRun(config, how, settings, output, overwrite, pool, target, strategy, command)


def _open_pool(features: FeatureConfig, how: ExtractConfig, train: TrainConfig, choice: Choice) -> Pool:
    """The chosen clips with their features; missing ones are extracted.

    With TensorFlow on CPUs a process of its own extracts: in this one TensorFlow has been started with the few threads
    that heads are trained with, and their number cannot be changed any more.
    """
    if how.ray is not None or engines.resolved(how.engine) != "tensorflow" or tensorflow_start.gpus():
        return pools.open_pool(features, how, choice)
    task = functools.partial(_open_pool_alone, features, how, train, console.log_files(), console.log.level)
    ((_, pool),) = processes.map_unordered(task, [choice], 1, _was_killed)
    return pool


def _open_pool_alone(
    features: FeatureConfig,
    how: ExtractConfig,
    train: TrainConfig,
    log_files: Sequence[str],
    level: int,
    choice: Choice,
) -> Pool:
    console.log_to(log_files, level)
    # as when a single model is trained, so that features are the same
    devices.set_up(train)
    return pools.open_pool(features, how, choice)


def _was_killed(_: Choice) -> Pool:
    raise UserError(
        "the process that extracted features was killed, most likely because memory ran out. Use a smaller --workers "
        "and run the command again: it continues where it stopped"
    )


def finish(run: EnsembleRun) -> list[dict[str, str]]:
    """Write failures.csv; return its rows."""
    storage.write_failures(run.output / "failures.csv", run.pool.failures)
    return run.pool.failures
