"""Figures apart for the data sets that training had and for those that it never saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from violence_detection.evaluation import metrics

if TYPE_CHECKING:
    import pandas as pd


def figures(
    predictions: pd.DataFrame, threshold: float, training_datasets: Sequence[str] | None
) -> dict[str, dict[str, Any]] | None:
    """metrics.score of both parts, `in_set` and `out_of_set`, each with the names of its `datasets` that were judged.

    A part without a judged clip is absent. None where the data sets of training are not known. Data sets are compared
    by name; copies under another name are found by training_overlap.
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
