"""Fine-tune the members on hard clips: train clips that models not trained on them misjudge.

Hard clips are found by out-of-fold predictions, since its own training clips look easy to a model. Every other train
clip is still drawn once an epoch, so that nothing is forgotten. The ensemble in `<folder>/hard` has a tuned member only
if its selection loss is below the original's. Both stay on disk, `<folder>/<member>` and `<folder>/hard/<member>`, to
be compared.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.ensemble import ensemble, folds
from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.ensemble.folds import Fold
from violence_detection.ensemble.member_jobs import Settings, TrainingJob
from violence_detection.ensemble.pool import Pool
from violence_detection.evaluation import calibrate, intervals, metrics, scoring
from violence_detection.evaluation.influence import Figure, ratio
from violence_detection.models import trained_model
from violence_detection.models.trained_model import TrainedModel
from violence_detection.system.figures import percentage
from violence_detection.training import plain_views, run_folder
from violence_detection.training.config import TrainConfig
from violence_detection.training.run_folder import Trained
from violence_detection.training.training_data import Samples

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
FOLDER = run_folder.TUNED_FOLDER
#: Key in figures of the selection part: these clips chose between tuned and original members.
CHOSE_KEY = "chose_members"


def mine(oof: pd.DataFrame, clip_ids: Sequence[str], below: float) -> np.ndarray:
    """Which clips get less than `below` for their true class out of fold: (n,) bool; False for clips not in `oof`."""
    is_fight = oof.label == metrics.FIGHT
    p_true = oof.p_violent.where(is_fight, 1 - oof.p_violent)
    hard = set(oof.clip_id[p_true < below])
    return np.array([clip_id in hard for clip_id in clip_ids])


def train_config(train: TrainConfig, config: EnsembleConfig) -> TrainConfig:
    """Settings of fine-tuning: few epochs, and a small learning rate that falls from the second epoch on."""
    return dataclasses.replace(
        train,
        epochs=config.hard_epochs,
        schedule_epochs=config.hard_epochs,
        warmup_epochs=1,
        learning_rate=config.hard_learning_rate,
        patience=max(config.hard_epochs // 4, 2),
    )


def fine_tune(
    config: EnsembleConfig,
    pool: Pool,
    fold: Fold,
    settings: Settings,
    oof: pd.DataFrame,
    folder: Path,
    run: Callable[[Sequence[TrainingJob], Callable[[], None]], list[Trained]],
    overwrite: bool,
) -> dict[str, Any]:
    """Fine-tune the members in `folder` and write `<folder>/hard/ensemble.json`; return what it gained.

    `val` of the figures returned is None unless `config` shows val. If no clip is hard, nothing is written, and `model`
    and `selection` are None too. `run`: called with jobs to train and a function to call before, see member_jobs.run.
    """
    hard_fold, n_hard = _with_hard_clips(config, fold, oof)
    if not n_hard:
        _say_nothing_is_hard(config, folder / FOLDER)
        return {
            "model": None,
            "hard_clips": 0,
            "train_clips": len(fold.train),
            "members": [],
            "selection": None,
            "val": None,
        }
    tuning = dataclasses.replace(settings, train=train_config(settings.train, config))
    written_last = folder / FOLDER / run_folder.ENSEMBLE_NAME
    starts = [folder / name / run_folder.BEST_NAME for name in config.members]
    trained = run(
        [
            TrainingJob(name, folder / FOLDER / name, pool, hard_fold, tuning, start, overwrite)
            for name, start in zip(config.members, starts, strict=True)
        ],
        lambda: written_last.unlink(missing_ok=True),
    )
    selection = pool.plain(fold.selection)
    chosen = [
        _better(name, start, tuned.model_path, selection)
        for name, start, tuned in zip(config.members, starts, trained, strict=True)
    ]
    mined = pool.frame[pool.frame.clip_id.isin(set(oof.clip_id))]
    ensemble.write(
        folder / FOLDER,
        [part for part, _ in chosen],
        selection,
        settings.train.seed,
        mined,
        calibrated=True,
        averaged=config.averaged,
    )
    return {
        "model": str(folder / FOLDER),
        "hard_clips": n_hard,
        "train_clips": len(fold.train),
        "members": [figures for _, figures in chosen],
        "selection": {**_compare(folder, selection, selection), CHOSE_KEY: True},
        "val": _compare(folder, pool.plain(fold.held_out), selection) if config.show_val else None,
    }


def _with_hard_clips(config: EnsembleConfig, fold: Fold, oof: pd.DataFrame) -> tuple[Fold, int]:
    """The fold with its hard clips drawn more often, and the number of hard clips."""
    is_hard = mine(oof, fold.train, config.hard_below)
    n_hard = int(is_hard.sum())
    if not n_hard:
        return fold, 0
    repeated = folds.with_repeats(fold, is_hard, config.hard_share)
    log.info("%d of %d train clips are hard; %d draws an epoch", n_hard, len(fold.train), len(repeated.train))
    if len(repeated.train) == len(fold.train):
        log.warning(
            "--hard-share %g changes nothing: %d of %d train clips are hard, which is that share or more, so all clips "
            "are drawn once an epoch, as in training. With a --hard-below lower than %g, fewer clips count as hard",
            config.hard_share, n_hard, len(fold.train), config.hard_below,
        )  # fmt: skip
    return repeated, n_hard


def _say_nothing_is_hard(config: EnsembleConfig, folder: Path) -> None:
    earlier = (
        f". {folder} is left over from an earlier run"
        if (folder / run_folder.ENSEMBLE_NAME).is_file()
        else ""
    )
    log.warning(
        "--fine-tune-hard: no train clip gets less than %g for its class out of fold, so no clip is hard and there is "
        "nothing to tune. With a higher --hard-below, more clips count as hard%s",
        config.hard_below, earlier,
    )  # fmt: skip


def _better(name: str, start: Path, tuned: Path, selection: Samples) -> tuple[ensemble.Part, dict[str, Any]]:
    """The tuned member if its selection loss is lower, else the original; and the figures of both."""
    before, after = (_selection_figures(file, selection) for file in (start, tuned))
    kept = after["loss"] < before["loss"]
    part = ensemble.Part(name, tuned if kept else start, (after if kept else before)["accuracy"])
    return part, {"name": name, "kept": kept, "selection_before": before, "selection_after": after}


def _selection_figures(model: Path, selection: Samples) -> dict[str, float]:
    from sklearn.metrics import log_loss

    p = plain_views.predict(trained_model.load_model(model), selection)
    scoring.require_finite(p, selection.rows, str(model))
    right = (p >= trained_model.DEFAULT_THRESHOLD) == (selection.labels == 1)
    return {"loss": float(log_loss(selection.labels, p, labels=[0, 1])), "accuracy": float(right.mean())}


def _compare(folder: Path, samples: Samples, selection: Samples) -> dict[str, Any]:
    """Accuracy of both ensembles on the same clips, and the gain with its 95 % interval over sources.

    Where logits are averaged, the members' own temperatures in both ensembles are fitted to the selection part. Those
    stored with the original ensemble may come from folds, which have none for tuned members.
    """
    right = []
    for model in (
        _with_fitted_temperatures(trained_model.load(folder), selection),
        trained_model.load(folder / FOLDER),
    ):
        p = model.average(scoring.judge_view(model, samples))
        scoring.require_finite(p, samples.rows, str(model.folder))
        right.append((p >= model.threshold) == (samples.labels == 1))
    before, after = right
    return compared(before, after, samples.rows.source_group.astype(str).to_numpy())


def _with_fitted_temperatures(model: TrainedModel, selection: Samples) -> TrainedModel:
    """The model with its members' own temperatures, if it averages logits, fitted to the selection part."""
    if not model.averaged.in_logits:
        return model
    without = model.with_own({member.name: 1.0 for member in model.members})
    return model.with_own(
        calibrate.member_temperatures(selection.rows, scoring.judge_view(without, selection))
    )


def compared(before: np.ndarray, after: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
    """The figures of `_compare`.

    `before`, `after`: which clips were judged rightly, (n,) bool; `groups` (n,): their sources. `gain_ci95` is None if
    all clips are of one source.
    """

    def figure(right: np.ndarray) -> Figure:
        made = ratio(right, np.ones(len(right)))
        assert made is not None
        return made

    _, interval, _ = intervals.difference(
        figure(after), figure(before), intervals.numbered(groups), imagined=1
    )
    return {
        "before": round(float(before.mean()), 4),
        "after": round(float(after.mean()), 4),
        "gain": round(float(after.mean() - before.mean()), 4),
        "gain_ci95": interval and [round(x, 4) for x in interval],
        "n": len(before),
    }


def log_figures(figures: dict[str, Any]) -> None:
    """Log what fine-tuning gained on the selection part and, if it was measured, on val."""
    for part in ("selection", "val"):
        if (f := figures[part]) is None:
            continue
        said = "no interval"
        if f["gain_ci95"]:
            said = "95 % interval {:+.1f} to {:+.1f}".format(*(100 * x for x in f["gain_ci95"]))
        log.info(
            "fine-tuned on hard clips, %s: %s -> %s %% (gain %+.1f points, %s)%s",
            part, percentage(f["before"]), percentage(f["after"]), 100 * f["gain"], said,
            ", on the clips that chose which members are tuned ones, so it measures nothing" if CHOSE_KEY in f else "",
        )  # fmt: skip
