"""Leave one data set out: judge each data set by models trained, selected and tuned on the others, with several seeds.

This measures what a detector is worth on videos from elsewhere: each data set stands for a place that was not trained
on. Choices may be made by it, since clips of val take no part, except with --all-clips or --final. A selection part of
the other data sets decides on epoch and weights ("training-domain validation set": Gulrajani & Lopez-Paz, "In Search of
Lost Domain Generalization", ICLR 2021); the threshold is fixed beforehand.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.combine import split
from violence_detection.ensemble import cross_validation
from violence_detection.ensemble.cross_validation import CrossValidation, HeldOut
from violence_detection.evaluation import elsewhere, held_out_table, intervals, metrics
from violence_detection.evaluation.influence import Figure
from violence_detection.models import averaging, made_alike
from violence_detection.models.trained_model import DEFAULT_THRESHOLD
from violence_detection.system import storage
from violence_detection.system.figures import number, percentage
from violence_detection.training import run_folder
from violence_detection.training.run_folder import Trained

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

log = logging.getLogger(__name__)
FIGURES_NAME = elsewhere.LEFT_OUT_NAME
SELECTED_BY = "a selection part of the other data sets, by source"
SCALED_BY = "what models of the other left-out data sets give theirs: a temperature a member"
THRESHOLD_BY = "fixed at 0.5 before any clip was judged"


def finish(
    plans: Sequence[CrossValidation],
    trained: Sequence[Trained],
    in_set: dict[str, Any] | None,
    folder: Path,
    seen: cross_validation.Seen | None = None,
    known: Sequence[HeldOut] | None = None,
) -> dict[str, Any]:
    """Judge each left-out data set with each seed's models and write `<folder>/leave_one_dataset_out.json`.

    `plans`: one for each seed. `trained`: the results of their jobs, seed by seed. `in_set`: figures by data set of a
    cross-validation on the same clips, to be set beside. `seen`: called before any figure is written or logged, unless
    `known` is given: each plan's predictions in an earlier run, which are not another look. Returns
    {"leave_one_dataset_out": the figures}.
    """
    each = len(trained) // len(plans)
    judged = known or [
        cross_validation.judge_held_out(plan, trained[i * each : (i + 1) * each])
        for i, plan in enumerate(plans)
    ]
    predictions = [found.predictions for found in judged]
    figures = {
        "seeds": [plan.settings.train.seed for plan in plans],
        "members": list(plans[0].members),
        "selected_by": _selected_by(plans[0]),
        "threshold": DEFAULT_THRESHOLD,
        "threshold_by": THRESHOLD_BY,
        "views": plans[0].views,
        **({averaging.CLOSER_LOOK_KEY: True} if plans[0].closer_look else {}),
        **({"members_scaled_by": SCALED_BY} if plans[0].averaged.in_logits else {}),
        **({averaging.EARLY_EXIT_KEY: exits} if (exits := plans[0].averaged.exit_record()) else {}),
        **summarised(predictions, in_set),
        cross_validation.COMMAND_KEY: judged[0].command,
    }
    if seen and not known:
        n = sum(d["n"] for d in elsewhere.of_both_classes(figures["datasets"]))
        seen(plans, "left-out data sets", {"accuracy": figures["mean"]["accuracy"], "n": n})
    records = [
        run_folder.read_object(t.folder / run_folder.CONFIG_NAME) for t in trained[: len(plans[0].members)]
    ]
    clips = predictions[0]
    frame = plans[0].pool.frame
    added = set(frame.dataset[frame.split == split.TRAIN]) - set(clips.dataset)
    made_with = made_alike.noted(records, clips.clip_id, added)
    storage.write_json(
        folder / FIGURES_NAME,
        {
            **figures,
            "generated_samples": plans[0].pool.generated,
            "made_with": made_with,
            "jobs": [plan.keys() for plan in plans],
            run_folder.LABELS_KEY: plans[0].pool.judged_sha256(plans[0].folds),
            run_folder.FOLD_TEMPERATURES_KEY: [found.temperatures for found in judged],
            held_out_table.SHA256_KEY: {
                plan.folder.name: found.sha256 for plan, found in zip(plans, judged, strict=True)
            },
        },
    )
    _log(figures)
    return {"leave_one_dataset_out": figures}


def _selected_by(plan: CrossValidation) -> str:
    """In words, how the members' epochs were chosen."""
    keep = plan.settings.train.keep
    return elsewhere.left_out_epoch(plan.members, SELECTED_BY if keep == "best" else elsewhere.EPOCH[keep])


def summarised(predictions: Sequence[pd.DataFrame], in_set: dict[str, Any] | None = None) -> dict[str, Any]:
    """Figures of the left-out data sets, the least accurate first, and their means over data sets.

    `predictions`: one frame for each seed, rows as evaluation.metrics defines them. `in_set`: see `finish`.

    A data set's figures are means over the seeds, with the standard deviation between seeds (`accuracy_sd`,
    `roc_auc_sd`). `ci95` and `roc_auc_ci95` count both sources and seeds as draws, see intervals.interval_over_seeds.
    `accuracy_at_median`: with the median P(fight) of the data set's own clips as the threshold, which needs no labels
    if the classes are about even; None for clips of one class. `in_set`: figures of models that were trained on clips
    of the data set too. `n_groups_shared`: how many of its sources have clips in another data set too; those clips are
    not trained on while this data set is left out.
    """
    names = ["p_violent", *(f"p_{m}" for m in metrics.member_names(predictions[0]))]
    datasets = []
    sets_of = predictions[0].groupby("source_group").dataset.nunique()
    shared = set(sets_of.index[sets_of > 1])
    for dataset in sorted(set(predictions[0].dataset)):
        rows = [frame[frame.dataset == dataset] for frame in predictions]
        found = _over_seeds(rows, "p_violent")
        beside = (in_set or {}).get(dataset)
        datasets.append(
            {
                "dataset": dataset,
                "n": len(rows[0]),
                "n_groups": int(rows[0].source_group.nunique()),
                "n_groups_shared": len(shared & set(rows[0].source_group)),
                **found,
                "members": {name.removeprefix("p_"): _over_seeds(rows, name) for name in names[1:]},
                "in_set": {k: beside[k] for k in ("accuracy", "ci95", "roc_auc")} if beside else None,
            }
        )
    datasets.sort(key=lambda d: d["accuracy"])
    counted = elsewhere.of_both_classes(datasets)
    members = {
        name.removeprefix("p_"): {
            key: _mean(d["members"][name.removeprefix("p_")][key] for d in counted)
            for key in ("accuracy", "roc_auc")
        }
        for name in names[1:]
    }
    return {
        "datasets": datasets,
        "mean": elsewhere.mean_of_left_out(datasets),
        "mean_of_members": members,
    }


def _over_seeds(frames: Sequence[pd.DataFrame], column: str) -> dict[str, Any]:
    per_seed, accuracies, aucs = [], [], []
    for rows in frames:
        rows = rows.sort_values("clip_id", kind="stable")
        p, is_fight = rows[column].to_numpy(float), (rows.label == metrics.FIGHT).to_numpy()
        found = metrics.measured(is_fight, p, DEFAULT_THRESHOLD)
        accuracies.append(found["accuracy"])
        aucs.append(found["roc_auc"])
        per_seed.append(
            {
                **{k: _value(found[k]) for k in ("accuracy", "balanced_accuracy", "recall", "roc_auc")},
                "false_alarms": float((p[~is_fight] >= DEFAULT_THRESHOLD).mean())
                if (~is_fight).any()
                else None,
                "accuracy_at_median": float(((p >= np.median(p)) == is_fight).mean())
                if len(set(is_fight)) > 1
                else None,
            }
        )
    groups = intervals.numbered(
        frames[0].sort_values("clip_id", kind="stable").source_group.astype(str).to_numpy()
    )
    out: dict[str, Any] = {key: _mean(seed[key] for seed in per_seed) for key in per_seed[0]}
    out |= _with_seeds("accuracy_sd", "ci95", accuracies, groups)
    out |= _with_seeds("roc_auc_sd", "roc_auc_ci95", aucs, groups)
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in out.items()}


def _with_seeds(
    spread: str, interval: str, figures: Sequence[Figure | None], groups: np.ndarray
) -> dict[str, Any]:
    """Under the two names: the standard deviation between seeds (None for one seed), and the interval over seeds."""
    known = [f for f in figures if f is not None]
    # the figure is not defined for clips of one class
    if not known:
        return {spread: None, interval: None}
    return {
        spread: float(np.std([f.value for f in known], ddof=1)) if len(known) > 1 else None,
        interval: list(intervals.interval_over_seeds(known, groups)),
    }


def _value(figure: Figure | None) -> float | None:
    return None if figure is None else figure.value


def _mean(values: Any) -> float | None:
    known = [v for v in values if v is not None]
    return round(float(np.mean(known)), 4) if known else None


def _log(figures: dict[str, Any]) -> None:
    log.info(
        "each data set judged by models of the others; epoch chosen by %s, threshold %s",
        figures["selected_by"],
        THRESHOLD_BY,
    )
    counted = elsewhere.of_both_classes(figures["datasets"])
    for d in figures["datasets"]:
        if d not in counted:
            log.info("%s has clips of only one class, and does not count in the mean", d["dataset"])
    titles = ("left out", "clips", "accuracy", "95 %", "AUC", "at median", "in set")
    log.info("%-24s %6s %14s %15s %8s %10s %8s", *titles)
    n = sum(d["n"] for d in counted)
    mean = {"dataset": "mean", "n": n, "accuracy_sd": None, "in_set": None, **figures["mean"]}
    for d in (*figures["datasets"], mean):
        low, high = d["ci95"]
        beside = _percent(d["in_set"]["accuracy"] if d["in_set"] else None)
        spread = f" +- {100 * d['accuracy_sd']:.1f}" if d["accuracy_sd"] is not None else ""
        log.info(
            "%-24s %6d %14s %7s -%6s %8s %10s %8s", d["dataset"], d["n"], f"{percentage(d['accuracy'])}{spread}",
            percentage(low), percentage(high), "-" if d["roc_auc"] is None else number(d["roc_auc"]),
            _percent(d["accuracy_at_median"]), beside,
        )  # fmt: skip


def _percent(share: float | None) -> str:
    return "-" if share is None else percentage(share)
