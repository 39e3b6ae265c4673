"""K-fold cross-validation by source: every clip is judged by models that saw neither it nor its source.

<folder>/fold_<i>/<member>/         the fold's models, with an ensemble.json beside them
<folder>/folds/ensemble.json        the models of all folds as one ensemble
<folder>/oof_predictions.csv        out-of-fold P(fight) of every clip, with the fold that held it out
<folder>/cross_validation.json      the figures, and the keys of the jobs that they rest on; written last

Where each fold holds out a data set (see leave_one_out.py), the folders of folds are called without_<data set>/ and the
predictions leave_one_out_predictions.csv; the other two files are not written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.ensemble import ensemble, fold_figures, member_jobs
from violence_detection.ensemble.folds import Fold
from violence_detection.ensemble.member_jobs import Settings, TrainingJob
from violence_detection.ensemble.member_weights import Weights
from violence_detection.ensemble.pool import Pool
from violence_detection.evaluation import calibrate, held_out_table, scoring
from violence_detection.models import averaging, trained_model
from violence_detection.models.averaging import Averaging
from violence_detection.system import redaction, storage
from violence_detection.training import run_folder, trained_clips
from violence_detection.training.run_folder import Trained

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
RECORD_NAME, PREDICTIONS_NAME = run_folder.FOLDS_RECORD_NAME, "oof_predictions.csv"
TEMPERATURES_KEY = run_folder.FOLD_TEMPERATURES_KEY
COMMAND_KEY = run_folder.FOLD_COMMAND_KEY
LEFT_OUT_PREDICTIONS_NAME = "leave_one_out_predictions.csv"


@dataclass(frozen=True)
class CrossValidation:
    """A plan: the members to train on each fold, below `folder`, and how they judge the clips held out.

    `views`: test-time views of each held-out clip, the plain one included; `closer_look`: whether the closer look is
    added to them. `by_dataset`: whether each fold holds out a data set. `averaged`: how the members are averaged.
    `command`: the command line that asked for the cross-validation.
    """

    members: tuple[str, ...]
    folds: tuple[Fold, ...]
    pool: Pool
    settings: Settings
    folder: Path
    overwrite: bool = False
    views: int = 1
    by_dataset: bool = False
    averaged: Averaging = averaging.PLAIN
    closer_look: bool = False
    command: str = ""

    @property
    def predictions_path(self) -> Path:
        return self.folder / (LEFT_OUT_PREDICTIONS_NAME if self.by_dataset else PREDICTIONS_NAME)

    def jobs(self) -> list[TrainingJob]:
        """The jobs of all folds, fold by fold; within a fold in the order of the members."""
        return [job for fold in self.folds for job in self._fold_jobs(fold)]

    def _fold_jobs(self, fold: Fold) -> list[TrainingJob]:
        folder = self.folder / fold.name
        return ensemble.jobs(self.members, self.pool, fold, self.settings, folder, self.overwrite)

    def discard(self) -> None:
        """Remove an earlier cross-validation's records from this folder: the models they describe may be replaced.

        Unless the folds hold out data sets, also record how many folds were begun.
        """
        if not self.by_dataset:
            storage.write_json(self.folder / run_folder.FOLDS_BEGUN_NAME, {"folds": len(self.folds)})
            (self.folder / RECORD_NAME).unlink(missing_ok=True)
        for name in (*(fold.name for fold in self.folds), "folds"):
            (self.folder / name / run_folder.ENSEMBLE_NAME).unlink(missing_ok=True)

    def keys(self) -> list[str]:
        return [job.key for job in self.jobs()]

    def is_described_by(self, record: Mapping[str, Any]) -> bool:
        """Whether `record` describes these jobs, on clips with the same labels, data sets and source groups as now.

        Records of earlier versions have no hash of the labels; theirs count as the same.
        """
        labels = self.pool.judged_sha256(self.folds)
        return (
            record["jobs"] == self.keys()
            and record.get(run_folder.LABELS_KEY, labels) == labels
            and not any(map(member_jobs.has_other_labels, self.jobs()))
        )


#: Called with the plans whose held-out clips have been judged, the purpose of that look and its figures, before the
#: figures are written or logged.
Seen = Callable[[Sequence[CrossValidation], str, Mapping[str, Any]], None]


def finish(plan: CrossValidation, trained: Sequence[Trained], seen: Seen | None = None) -> dict[str, Any]:
    """Judge every fold's held-out clips and write the files listed at the top; return the summary's fields.

    `trained`: the results of the plan's jobs, in their order. `seen` is called before any figure is written or logged.
    """
    judged = judge_held_out(plan, trained)
    figures = judged.figures(plan)
    if seen:
        kept = {"accuracy": figures["cv_accuracy"], "ci95": figures["cv_accuracy_ci95"], "n": figures["cv_n"]}
        seen([plan], "folds", kept)
    storage.write_json(
        plan.folder / RECORD_NAME,
        {
            **figures,
            averaging.EARLY_EXIT_KEY: plan.averaged.exit_record(),
            "members": plan.members,
            "views": plan.views,
            **({averaging.CLOSER_LOOK_KEY: True} if plan.closer_look else {}),
            "generated_samples": plan.pool.generated,
            "jobs": plan.keys(),
            run_folder.LABELS_KEY: plan.pool.judged_sha256(plan.folds),
            held_out_table.SHA256_KEY: judged.sha256,
        },
    )
    (plan.folder / run_folder.FOLDS_BEGUN_NAME).unlink(missing_ok=True)
    fold_figures.tell(figures)
    return figures


@dataclass(frozen=True)
class HeldOut:
    """Predictions for the clips that the folds of a plan held out.

    `predictions`: rows as evaluation.metrics defines them, sorted by clip id, with the number of their `fold`.
    `temperatures`: for each member the geometric mean of its own temperatures in the folds; None where probabilities
    are averaged. `sha256`: hash of the table of predictions. `command`: the command line that had the clips judged,
    without passwords; empty if unknown.
    """

    predictions: pd.DataFrame
    temperatures: dict[str, float] | None
    sha256: str = ""
    command: str = ""

    def figures(self, plan: CrossValidation) -> dict[str, Any]:
        """The summary's fields, with the temperatures and the command."""
        return {
            **fold_figures.figures(self.predictions, plan.folds, plan.folder),
            "oof_predictions": str(plan.predictions_path),
            TEMPERATURES_KEY: self.temperatures,
            COMMAND_KEY: self.command,
        }


@dataclass(frozen=True)
class _Judged:
    """What a fold's models say of its held-out clips, `rows`.

    `each_view`: member -> P(fight) (V, N) of V views of N clips, before any temperature. `selection`: rows of the clips
    that chose the members' weights.
    """

    parts: list[ensemble.Part]
    weights: Weights
    selection: pd.DataFrame
    model: trained_model.TrainedModel
    rows: pd.DataFrame
    each_view: dict[str, np.ndarray]


def judge_held_out(plan: CrossValidation, trained: Sequence[Trained]) -> HeldOut:
    """Judge every fold's held-out clips with its models, and write the table of predictions.

    `trained`: the results of the plan's jobs, in their order. Also writes the ensemble.json of each fold and, unless
    the folds hold out data sets, of all folds together. Raises UserError for a probability that is not finite.
    """
    import pandas as pd

    count = len(plan.members)
    judged = [_judge(plan, fold, trained[i * count : (i + 1) * count]) for i, fold in enumerate(plan.folds)]
    own = _temperatures_of_other_folds(plan, judged) if plan.averaged.in_logits else None
    predicted, everyone, chose_weights, temperatures = [], [], [], []
    for i, (fold, found) in enumerate(zip(plan.folds, judged, strict=True)):
        folder, model, each_view = plan.folder / fold.name, found.model, found.each_view
        if own:
            model = model.with_own(own[i])
            each_view = {name: averaging.scaled(p, 1 / own[i][name]) for name, p in each_view.items()}
            temperatures += [own[i][part.name] for part in found.parts]
            ensemble.write_listed(
                folder, found.parts, found.weights.values, found.weights.record(),
                {trained_clips.WEIGHTS: found.selection}, temperatures=temperatures[-count:], averaged=plan.averaged,
                closer_look=plan.closer_look,
            )  # fmt: skip
        rows = scoring.rows_of(model, found.rows, found.rows.clip_id, each_view)
        scoring.require_finite(rows.p_violent.to_numpy(float), rows, str(folder))
        chose_weights.append(found.selection)
        predicted.append(rows.assign(fold=i))
        everyone += [
            (ensemble.Part(f"{fold.name}.{p.name}", p.model, p.selection_accuracy), w)
            for p, w in zip(found.parts, found.weights.values, strict=True)
        ]
    oof = pd.concat(predicted).sort_values("clip_id", ignore_index=True)
    if not plan.by_dataset:
        ensemble.write_listed(
            plan.folder / "folds",
            [part for part, _ in everyone],
            [weight for _, weight in everyone],
            {"why": "the weights of each fold"},
            {trained_clips.WEIGHTS: pd.concat(chose_weights)},
            temperatures=temperatures or None,
            closer_look=plan.closer_look,
        )
    sha256, command = _write(plan.predictions_path, oof), redaction.without_secrets(plan.command)
    return HeldOut(oof, _middle(own) if own else None, sha256, command)


def _write(path: Path, predictions: pd.DataFrame) -> str:
    """Write the table of predictions; return its SHA-256."""
    with storage.atomic_path(path) as temporary:
        quoting = storage.quoting_of(predictions)
        predictions.to_csv(temporary, index=False, errors=storage.NAME_ERRORS, quoting=quoting)
        return storage.sha256_file(temporary)


def _judge(plan: CrossValidation, fold: Fold, trained: Sequence[Trained]) -> _Judged:
    folder = plan.folder / fold.name
    parts = [ensemble.Part.of(n, t) for n, t in zip(plan.members, trained, strict=True)]
    selection = plan.pool.plain(fold.selection)
    weights = ensemble.write(
        folder,
        parts,
        selection,
        plan.settings.train.seed,
        averaged=plan.averaged,
        closer_look=plan.closer_look,
    )
    held_out = plan.pool.views(fold.held_out, plan.views, plan.closer_look)
    model = trained_model.load(folder)
    each_view = scoring.judge_views(model, held_out)
    for name, p in each_view.items():
        scoring.require_finite(averaging.over_views(p, plan.closer_look), held_out.rows, f"{folder}, {name}")
    return _Judged(parts, weights, selection.rows, model, held_out.rows, each_view)


def _temperatures_of_other_folds(plan: CrossValidation, judged: Sequence[_Judged]) -> list[dict[str, float]]:
    """For each fold its members' own temperatures, fitted to the predictions that the other folds made out of fold.

    So the label of a held-out clip has no influence on how that clip is judged.
    """
    import pandas as pd

    found = []
    for i, fold in enumerate(plan.folds):
        others = [j for k, j in enumerate(judged) if k != i]
        p = {
            n: np.concatenate([averaging.over_views(j.each_view[n], plan.closer_look) for j in others])
            for n in plan.members
        }
        found.append(calibrate.member_temperatures(pd.concat([j.rows for j in others]), p))
        said = ", ".join(f"{name} {value:.2f}" for name, value in found[-1].items())
        log.info(
            "%s: members' own temperatures, fitted on the other folds: %s", plan.folder / fold.name, said
        )
    return found


def _middle(own: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """For each member the geometric mean of its temperatures in the folds."""
    return {name: float(np.exp(np.mean([np.log(fold[name]) for fold in own]))) for name in own[0]}
