"""K-fold cross-validation by source: every clip is judged by models that saw neither it nor anything of its source.

<folder>/fold_<i>/<member>/         the fold's models, with an ensemble.json beside them
<folder>/folds/ensemble.json        all of them as one ensemble
<folder>/oof_predictions.csv        out-of-fold P(fight) of every clip, with the fold that held it out
<folder>/cross_validation.json      figures and the jobs they rest on, written last
With a data set left out in each fold: without_<data set>/, leave_one_out_predictions.csv (see leave_one_out.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.ensemble import ensemble
from violence_detection.ensemble.folds import Fold
from violence_detection.ensemble.member_jobs import Settings, TrainingJob
from violence_detection.ensemble.member_weights import Weights
from violence_detection.ensemble.pool import Pool
from violence_detection.errors import UserError
from violence_detection.evaluation import calibrate, held_out_table, metrics, scoring
from violence_detection.evaluation.calibrate import CalibrationBasis
from violence_detection.evaluation.held_out_table import AnotherTableError
from violence_detection.models import averaging, trained_model
from violence_detection.models.averaging import Averaging
from violence_detection.system import storage
from violence_detection.training import run_folder, trained_clips
from violence_detection.training.run_folder import Trained

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
RECORD_NAME, PREDICTIONS_NAME = run_folder.FOLDS_RECORD_NAME, "oof_predictions.csv"
TEMPERATURES_KEY = run_folder.FOLD_TEMPERATURES_KEY
_LABELS = run_folder.LABELS_KEY
LEFT_OUT_PREDICTIONS_NAME = "leave_one_out_predictions.csv"


@dataclass(frozen=True)
class CrossValidation:
    """Members to train on each fold, below `folder`. `views`: of a held-out clip, averaged to judge it, with the closer
    look beside them if it is taken.

    `by_dataset`: each fold holds out a data set. `averaged`: how the members are averaged.
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

    @property
    def predictions_path(self) -> Path:
        return self.folder / (LEFT_OUT_PREDICTIONS_NAME if self.by_dataset else PREDICTIONS_NAME)

    def jobs(self) -> list[TrainingJob]:
        """All folds' jobs, fold by fold."""
        return [job for fold in self.folds for job in self._fold_jobs(fold)]

    def _fold_jobs(self, fold: Fold) -> list[TrainingJob]:
        folder = self.folder / fold.name
        return ensemble.jobs(self.members, self.pool, fold, self.settings, folder, self.overwrite)

    def discard(self) -> None:
        """Remove the records of an earlier cross-validation in this folder: they are written last."""
        if not self.by_dataset:
            (self.folder / RECORD_NAME).unlink(missing_ok=True)
        for name in (*(fold.name for fold in self.folds), "folds"):
            (self.folder / name / run_folder.ENSEMBLE_NAME).unlink(missing_ok=True)

    def keys(self) -> list[str]:
        return [job.key for job in self.jobs()]

    def made(self, record: Mapping[str, Any]) -> bool:
        """Whether the record is of these jobs, and of clips that were taken for the same as now."""
        labels = self.pool.judged_sha256(self.folds)
        return record["jobs"] == self.keys() and record.get(_LABELS, labels) == labels


#: Told of plans whose held-out clips are judged, for what, and the figures, before these are written or logged.
Seen = Callable[[Sequence[CrossValidation], str, Mapping[str, Any]], None]


def finish(plan: CrossValidation, trained: Sequence[Trained], seen: Seen | None = None) -> dict[str, Any]:
    """Predict every fold's held-out clips and write the files above. Returns the summary's fields.

    `seen` is told what was seen before anybody is shown it.
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
            "jobs": plan.keys(),
            _LABELS: plan.pool.judged_sha256(plan.folds),
            held_out_table.SHA256_KEY: judged.sha256,
        },
    )
    _log(figures)
    return figures


@dataclass(frozen=True)
class HeldOut:
    """`predictions`: rows as evaluation.metrics has them, by clip id, with their `fold`. `temperatures`: by member the
    geometric mean over the folds of its own; None where probabilities are averaged. `sha256`: of the table.
    """

    predictions: pd.DataFrame
    temperatures: dict[str, float] | None
    sha256: str = ""

    def figures(self, plan: CrossValidation) -> dict[str, Any]:
        """The summary's fields, with the temperatures."""
        return {**_figures(plan, self.predictions), TEMPERATURES_KEY: self.temperatures}


@dataclass(frozen=True)
class _Judged:
    """What the models of a fold say of its held-out clips: member -> (V, N) in `each_view`, before any temperature."""

    parts: list[ensemble.Part]
    weights: Weights
    selection: pd.DataFrame
    model: trained_model.TrainedModel
    rows: pd.DataFrame
    each_view: dict[str, np.ndarray]


def judge_held_out(plan: CrossValidation, trained: Sequence[Trained]) -> HeldOut:
    """Every fold's held-out clips judged by its models; written as the plan's predictions."""
    import pandas as pd

    count = len(plan.members)
    judged = [_judge(plan, fold, trained[i * count : (i + 1) * count]) for i, fold in enumerate(plan.folds)]
    own = _told_by_the_others(plan, judged) if plan.averaged.in_logits else None
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
    with storage.atomic_path(plan.predictions_path) as temporary:
        oof.to_csv(temporary, index=False, errors=storage.NAME_ERRORS)
        sha256 = storage.sha256_file(temporary)
    return HeldOut(oof, _middle(own) if own else None, sha256)


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


def _told_by_the_others(plan: CrossValidation, judged: Sequence[_Judged]) -> list[dict[str, float]]:
    """For each fold its members' temperatures, told by what the other folds' models say of their held-out clips.

    So no label of a held-out clip has a part in how it is judged.
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
        log.info("%s: temperatures of the members, from the other folds: %s", plan.folder / fold.name, said)
    return found


def _middle(own: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """By member the geometric mean."""
    return {name: float(np.exp(np.mean([np.log(fold[name]) for fold in own]))) for name in own[0]}


def judged_before(plan: CrossValidation) -> tuple[HeldOut, dict[str, Any]] | None:
    """The predictions and figures that `finish` has written for the same plan; None if it has not.

    Also None, with a warning, where the table of predictions is gone or not as it was written.
    """
    path = plan.folder / RECORD_NAME
    ensembles = [plan.folder / fold.name / run_folder.ENSEMBLE_NAME for fold in plan.folds]
    if not all(file.is_file() for file in (path, *ensembles)):
        return None
    record = run_folder.read_object(path)
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
            run_folder.read_object(file)
    except (AnotherTableError, UserError) as e:
        log.warning("%s. The folds are judged anew", str(e).rstrip("."))
        return None
    figures = {name: value for name, value in record.items() if name not in _ASKED}
    return HeldOut(predictions, record.get(TEMPERATURES_KEY)), figures


#: What of the record is not a figure.
_ASKED = (
    "jobs", _LABELS, "views", "members", averaging.EARLY_EXIT_KEY, averaging.CLOSER_LOOK_KEY,
    held_out_table.SHA256_KEY,
)  # fmt: skip


def _read(plan: CrossValidation, record: Mapping[str, Any]) -> pd.DataFrame:
    """The plan's predictions. Raises AnotherTableError where they are not those that the record is of."""
    return held_out_table.read(plan.predictions_path, record, [fold.held_out for fold in plan.folds])


def held_out_before(plan: CrossValidation) -> HeldOut:
    """What `finish` has written for the same plan, which it must have."""
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


def read_predictions(path: Path) -> pd.DataFrame:
    """Out-of-fold predictions as they were written."""
    return held_out_table.parse(path.read_bytes())


def earlier(folder: Path, plan: Callable[[int, tuple[str, ...]], CrossValidation]) -> pd.DataFrame | None:
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
        raise UserError(
            f"{folder / RECORD_NAME} cannot be used ({e!r}). Remove it, and it is made again"
        ) from e
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
    predictions = earlier(folder, plan)
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


#: Figures by rank, which folds give each on a scale of its own.
_RANKED = ("roc_auc", "average_precision")


def _figures(plan: CrossValidation, oof: pd.DataFrame) -> dict[str, Any]:
    result = metrics.figures(oof, trained_model.DEFAULT_THRESHOLD)
    folds, ranked = [], []
    for i, fold in enumerate(plan.folds):
        rows = oof[oof.fold == i]
        right = (rows.p_violent >= trained_model.DEFAULT_THRESHOLD) == (rows.label == metrics.FIGHT)
        ranked.append(_ranked(rows))
        folds.append(
            {
                "fold": i,
                "model": str(plan.folder / fold.name),
                "accuracy": round(float(right.mean()), 4),
                "n": len(rows),
                "n_groups": int(rows.source_group.nunique()),
                "trained_on": len(fold.train),
                **ranked[-1][metrics.ENSEMBLE_COLUMN],
            }
        )
    return {
        "folds": folds,
        "cv_accuracy": round(result["accuracy"], 4),
        "cv_accuracy_ci95": [round(x, 4) for x in result["ci95"]],
        "cv_n": result["n"],
        "cv_n_groups": result["n_groups"],
        "cv_roc_auc": result["roc_auc"],
        "cv_average_precision": result["average_precision"],
        "cv_mean_of_folds": _mean_of_folds(ranked, metrics.ENSEMBLE_COLUMN),
        "cv_by_dataset": {
            name: {k: r[k] for k in ("accuracy", "ci95", "n", "n_groups", "roc_auc")}
            for name, r in result["by_dataset"].items()
        },
        "cv_members": [
            {
                **{k: m[k] for k in ("name", "accuracy", "ci95", *_RANKED)},
                "mean_of_folds": _mean_of_folds(ranked, f"p_{m['name']}"),
            }
            for m in result["members"]
        ],
        "oof_predictions": str(plan.predictions_path),
    }


def _ranked(rows: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """Column -> the figures by rank of a fold; None where it has one class."""
    is_fight = (rows.label == metrics.FIGHT).to_numpy()
    out = {}
    for column in (metrics.ENSEMBLE_COLUMN, *(f"p_{m}" for m in metrics.member_names(rows))):
        found = metrics.measured(is_fight, rows[column].to_numpy(float), trained_model.DEFAULT_THRESHOLD)
        out[column] = {n: None if (f := found[n]) is None else round(f.value, 4) for n in _RANKED}
    return out


def _mean_of_folds(
    ranked: Sequence[Mapping[str, Mapping[str, float | None]]], column: str
) -> dict[str, float | int | None]:
    """Means over the folds that have both classes, with their number.

    Models of different folds need not agree on what 0.7 means, which lowers the figure of all clips pooled (Forman &
    Scholz 2010, "Apples-to-apples in cross-validation studies", SIGKDD Explorations 12).
    """
    out: dict[str, float | int | None] = {}
    for name in _RANKED:
        known = [fold[column][name] for fold in ranked]
        values = [v for v in known if v is not None]
        out |= {name: round(sum(values) / len(values), 4) if values else None, "folds": len(values)}
    return out


def _log(figures: dict[str, Any]) -> None:
    low, high = figures["cv_accuracy_ci95"]
    log.info(
        "cross-validation: %.1f %% of %d clips from %d sources (95 %% interval %.1f-%.1f)",
        100 * figures["cv_accuracy"], figures["cv_n"], figures["cv_n_groups"], 100 * low, 100 * high,
    )  # fmt: skip
    mean = figures["cv_mean_of_folds"]
    if mean["roc_auc"] is not None:
        shown = (mean["roc_auc"], mean["folds"], figures["cv_roc_auc"])
        log.info("  AUC %.3f, the mean of %d folds; %.3f of all clips pooled", *shown)
    for name, r in figures["cv_by_dataset"].items():
        low, high = r["ci95"]
        log.info(
            "  %-26s %.1f %% of %d (%.1f-%.1f)", name, 100 * r["accuracy"], r["n"], 100 * low, 100 * high
        )
    for m in figures["cv_members"]:
        log.info("  member %-19s %.1f %%", m["name"], 100 * m["accuracy"])
