"""The mistakes that a model was surest of, with its members' probabilities and attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.evaluation import metrics
from violence_detection.models.trained_model import TrainedModel
from violence_detection.training.training_data import Samples

if TYPE_CHECKING:
    import pandas as pd

#: Number of mistakes that a report shows.
SHOWN = 12

#: clip_id -> member -> attention of each of T time steps, summing to 1.
Attention = Mapping[str, Mapping[str, list[float]]]


def attention(model: TrainedModel, samples: Samples, predictions: pd.DataFrame) -> Attention:
    """Attention, in the worst mistakes, of the members that have it; for the plain view of each clip."""
    wrong = set(metrics.worst_mistakes(predictions, model.threshold, SHOWN).clip_id)
    chosen = samples.take(samples.rows.clip_id.isin(wrong).to_numpy())
    if not len(chosen):
        return {}
    by_member = model.attention(chosen.plain())
    return {
        clip_id: {name: shares[i].tolist() for name, shares in by_member.items()}
        for i, clip_id in enumerate(chosen.rows.clip_id)
    }


def records(predictions: pd.DataFrame, threshold: float, attention: Attention) -> list[dict[str, Any]]:
    """The worst mistakes for metrics.json, those that the model was surest of first.

    Each has clip_id, path, source_path (empty if it equals path), dataset, source_group, label, p_violent, `members`
    (name -> P(fight)) and `attention` (name -> the share of each time step; empty if no member has attention).
    """
    members = metrics.member_names(predictions)
    found = []
    for row in metrics.worst_mistakes(predictions, threshold, SHOWN).to_dict("records"):
        published = row.get("source_path", "")
        found.append(
            {
                **{key: str(row[key]) for key in ("clip_id", "path", "dataset", "source_group", "label")},
                "source_path": "" if published == row["path"] else str(published),
                "p_violent": float(row[metrics.ENSEMBLE_COLUMN]),
                "members": {m: float(row[f"p_{m}"]) for m in members if np.isfinite(row[f"p_{m}"])},
                "attention": {
                    name: list(shares) for name, shares in attention.get(row["clip_id"], {}).items()
                },
            }
        )
    return found
