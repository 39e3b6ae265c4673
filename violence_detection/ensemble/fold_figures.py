"""Figures of a cross-validation: of all held-out clips pooled, of each fold, and means over the folds."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.ensemble.folds import Fold
from violence_detection.evaluation import metrics
from violence_detection.models import trained_model
from violence_detection.system.figures import number, percentage

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
#: Figures that depend on the order of the clips alone, whatever the scale of a fold's probabilities.
_RANKED = ("roc_auc", "average_precision")


def figures(oof: pd.DataFrame, folds: Sequence[Fold], folder: Path) -> dict[str, Any]:
    """The summary's fields from out-of-fold predictions.

    `oof`: rows as evaluation.metrics defines them, with their `fold`. `folder`: contains the folders of the folds.
    """
    result = metrics.figures(oof, trained_model.DEFAULT_THRESHOLD)
    rows_of_folds, ranked = [], []
    for i, fold in enumerate(folds):
        rows = oof[oof.fold == i]
        right = (rows.p_violent >= trained_model.DEFAULT_THRESHOLD) == (rows.label == metrics.FIGHT)
        ranked.append(_ranked(rows))
        rows_of_folds.append(
            {
                "fold": i,
                "model": str(folder / fold.name),
                "accuracy": round(float(right.mean()), 4),
                "n": len(rows),
                "n_groups": int(rows.source_group.nunique()),
                "trained_on": len(fold.train),
                **ranked[-1][metrics.ENSEMBLE_COLUMN],
            }
        )
    return {
        "folds": rows_of_folds,
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
    }


def _ranked(rows: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    """For one fold: column -> the figures by rank of its predictions; None where it has clips of only one class."""
    is_fight = (rows.label == metrics.FIGHT).to_numpy()
    out = {}
    for column in (metrics.ENSEMBLE_COLUMN, *(f"p_{m}" for m in metrics.member_names(rows))):
        found = metrics.measured(is_fight, rows[column].to_numpy(float), trained_model.DEFAULT_THRESHOLD)
        out[column] = {n: None if (f := found[n]) is None else round(f.value, 4) for n in _RANKED}
    return out


def _mean_of_folds(
    ranked: Sequence[Mapping[str, Mapping[str, float | None]]], column: str
) -> dict[str, float | int | None]:
    """Means of a column's figures by rank over the folds that have both classes, and `folds`, the number of these.

    The models of different folds need not mean the same by 0.7, which lowers the figure of all clips pooled (Forman &
    Scholz 2010, "Apples-to-apples in cross-validation studies", SIGKDD Explorations 12).
    """
    out: dict[str, float | int | None] = {}
    for name in _RANKED:
        known = [fold[column][name] for fold in ranked]
        values = [v for v in known if v is not None]
        out |= {name: round(sum(values) / len(values), 4) if values else None, "folds": len(values)}
    return out


def tell(figures: Mapping[str, Any]) -> None:
    """Log the figures."""
    low, high = figures["cv_accuracy_ci95"]
    log.info(
        "cross-validation: %s %% of %d clips from %d sources (95 %% interval %s-%s)",
        percentage(figures["cv_accuracy"]), figures["cv_n"], figures["cv_n_groups"], percentage(low), percentage(high),
    )  # fmt: skip
    mean = figures["cv_mean_of_folds"]
    if mean["roc_auc"] is not None:
        shown = (number(mean["roc_auc"]), mean["folds"], number(figures["cv_roc_auc"]))
        log.info("  AUC %s, the mean of %d folds; %s of all clips pooled", *shown)
    for name, r in figures["cv_by_dataset"].items():
        low, high = r["ci95"]
        log.info(
            "  %-26s %s %% of %d (%s-%s)",
            name,
            percentage(r["accuracy"]),
            r["n"],
            percentage(low),
            percentage(high),
        )
    for m in figures["cv_members"]:
        low, high = m["ci95"]
        log.info(
            "  member %-19s %s %% (%s-%s)",
            m["name"],
            percentage(m["accuracy"]),
            percentage(low),
            percentage(high),
        )
