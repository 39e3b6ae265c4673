"""Figures on the data sets that a model was trained on and, separately, on those that it was not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from violence_detection.evaluation import metrics

if TYPE_CHECKING:
    import pandas as pd


def figures(
    predictions: pd.DataFrame, threshold: float, training_datasets: Sequence[str] | None
) -> dict[str, dict[str, Any]] | None:
    """Return `metrics.score` of the clips of the training data sets (`in_set`) and of all others (`out_of_set`).

    Each part also has `datasets`, the names of its data sets with a judged clip. A part without a judged clip is
    omitted. Returns None if `training_datasets` is None, which means unknown. Data sets are compared by name only;
    training_overlap finds copies under other names.
    """
    if training_datasets is None:
        return None
    known = predictions.dataset.isin(set(training_datasets))
    parts = {"in_set": predictions[known], "out_of_set": predictions[~known]}
    return {
        name: {
            "datasets": sorted(set(rows.dataset[rows[metrics.ENSEMBLE_COLUMN].notna()])),
            **metrics.score(rows, rows[metrics.ENSEMBLE_COLUMN], threshold),
        }
        for name, rows in parts.items()
        if rows[metrics.ENSEMBLE_COLUMN].notna().any()
    }
