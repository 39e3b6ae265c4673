"""Each data set judged by models that were trained, selected and tuned on the others alone, over several seeds.

What a detector is worth on videos from elsewhere: a data set stands for a place that nobody trained on. Clips of val
take no part (but with --all-clips), so that this may steer choices. Which epoch and weights are taken is decided on a
selection part of the other data sets ("training-domain validation set": Gulrajani & Lopez-Paz, "In Search of Lost
Domain Generalization", ICLR 2021), and the threshold is fixed beforehand.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.ensemble import cross_validation
from violence_detection.ensemble.cross_validation import CrossValidation
from violence_detection.evaluation import metrics
from violence_detection.models.trained_model import DEFAULT_THRESHOLD
from violence_detection.system import storage
from violence_detection.training.run_folder import Trained

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

log = logging.getLogger(__name__)
FIGURES_NAME = "leave_one_dataset_out.json"
SELECTED_BY = "a selection part of the other data sets, by source"
THRESHOLD_BY = "fixed at 0.5 before any clip was judged"


def finish(
    plans: Sequence[CrossValidation], trained: Sequence[Trained], in_set: dict[str, Any] | None, folder: Path
) -> dict[str, Any]:
    """Judge each left-out data set with each seed's models and write `<folder>/leave_one_dataset_out.json`.

    `plans`: one a seed; `trained`: their jobs' results, seed by seed; `in_set`: figures of a cross-validation on the
    same clips, to stand beside. Returns {"leave_one_dataset_out": the figures}.
    """
    each = len(trained) // len(plans)
    predictions = [
        cross_validation.judge_held_out(plan, trained[i * each : (i + 1) * each])
        for i, plan in enumerate(plans)
    ]
    figures = {
        "seeds": [plan.settings.train.seed for plan in plans],
        "members": list(plans[0].members),
        "selected_by": SELECTED_BY,
        "threshold": DEFAULT_THRESHOLD,
        "threshold_by": THRESHOLD_BY,
        **summarised(predictions, in_set),
    }
    storage.write_json(folder / FIGURES_NAME, {**figures, "jobs": [plan.keys() for plan in plans]})
    _log(figures)
    return {"leave_one_dataset_out": figures}


def summarised(predictions: Sequence[pd.DataFrame], in_set: dict[str, Any] | None = None) -> dict[str, Any]:
    """Figures of the left-out data sets, the worst first, from predictions (a frame a seed, see evaluation.metrics).

    Of each data set the mean over the seeds with its standard deviation; `ci95` is the mean of the seeds' intervals,
    which know of sources. `accuracy_at_median`: had the threshold been the median of what the data set's own clips get,
    which needs no labels where classes are about even. `in_set`: its figures where it was trained on too.
    """
    names = ["p_violent", *(f"p_{m}" for m in metrics.member_names(predictions[0]))]
    datasets = []
    for dataset in sorted(set(predictions[0].dataset)):
        rows = [frame[frame.dataset == dataset] for frame in predictions]
        found = _over_seeds(rows, "p_violent")
        beside = (in_set or {}).get(dataset)
        datasets.append(
            {
                "dataset": dataset,
                "n": len(rows[0]),
                "n_groups": int(rows[0].source_group.nunique()),
                **found,
                "members": {name.removeprefix("p_"): _over_seeds(rows, name) for name in names[1:]},
                "in_set": {k: beside[k] for k in ("accuracy", "ci95", "roc_auc")} if beside else None,
            }
        )
    datasets.sort(key=lambda d: d["accuracy"])
    members = {
        name.removeprefix("p_"): {
            key: _mean(d["members"][name.removeprefix("p_")][key] for d in datasets)
            for key in ("accuracy", "roc_auc")
        }
        for name in names[1:]
    }
    return {
        "datasets": datasets,
        "mean": {k: _mean(d[k] for d in datasets) for k in ("accuracy", "accuracy_at_median", "roc_auc")},
        "mean_of_members": members,
    }


def _over_seeds(frames: Sequence[pd.DataFrame], column: str) -> dict[str, Any]:
    per_seed = []
    for rows in frames:
        p, is_fight = rows[column].to_numpy(float), (rows.label == metrics.FIGHT).to_numpy()
        result = metrics.score(rows, rows[column], DEFAULT_THRESHOLD)
        per_seed.append(
            {
                **{k: result[k] for k in ("accuracy", "ci95", "balanced_accuracy", "recall", "roc_auc")},
                "false_alarms": float((p[~is_fight] >= DEFAULT_THRESHOLD).mean())
                if (~is_fight).any()
                else None,
                "accuracy_at_median": float(((p >= np.median(p)) == is_fight).mean()),
            }
        )
    out: dict[str, Any] = {key: _mean(seed[key] for seed in per_seed) for key in per_seed[0] if key != "ci95"}
    out["accuracy_sd"] = (
        float(np.std([s["accuracy"] for s in per_seed], ddof=1)) if len(per_seed) > 1 else None
    )
    out["ci95"] = [float(np.mean([s["ci95"][i] for s in per_seed])) for i in range(2)]
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in out.items()}


def _mean(values: Any) -> float | None:
    known = [v for v in values if v is not None]
    return round(float(np.mean(known)), 4) if known else None


def _log(figures: dict[str, Any]) -> None:
    log.info("each data set judged by models of the others; %s, threshold %s", SELECTED_BY, THRESHOLD_BY)
    log.info("%-24s %14s %15s %8s %10s %8s", "left out", "accuracy", "95 %", "AUC", "at median", "in set")
    for d in figures["datasets"]:
        low, high = d["ci95"]
        beside = f"{100 * d['in_set']['accuracy']:.1f}" if d["in_set"] else "-"
        spread = f" +- {100 * d['accuracy_sd']:.1f}" if d["accuracy_sd"] is not None else ""
        log.info(
            "%-24s %14s %7.1f -%6.1f %8s %10.1f %8s", d["dataset"], f"{100 * d['accuracy']:.1f}{spread}", 100 * low,
            100 * high, "-" if d["roc_auc"] is None else f"{d['roc_auc']:.3f}", 100 * d["accuracy_at_median"], beside,
        )  # fmt: skip
    mean = figures["mean"]
    auc = "-" if mean["roc_auc"] is None else f"{mean['roc_auc']:.3f}"
    log.info(
        "%-24s %14.1f %24s %10.1f", "mean", 100 * mean["accuracy"], auc, 100 * mean["accuracy_at_median"]
    )
