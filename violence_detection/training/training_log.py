"""An epoch in training_log.csv, and as a line for people."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

COLUMNS = (
    "epoch", "loss", "accuracy", "auc", "selection_loss", "selection_accuracy", "selection_auc", "learning_rate",
)  # fmt: skip


def on_selection(labels: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """The columns of the selection part by P(fight) `p` (N,) of its clips; none where it has no clip."""
    from sklearn.metrics import log_loss, roc_auc_score

    if not len(labels):
        return {}
    return {
        "selection_loss": float(log_loss(labels, p, labels=[0, 1])),
        "selection_accuracy": float(np.mean((p >= 0.5) == (labels == 1))),
        "selection_auc": float(roc_auc_score(labels, p)),
    }


def line(architecture: str, row: Mapping[str, float], last_epoch: int) -> str:
    """The row of an epoch, in words."""
    selection = (
        f"selection loss {row['selection_loss']:.4f}  acc {row['selection_accuracy']:.4f}  "
        f"auc {row['selection_auc']:.4f} | "
        if "selection_loss" in row
        else ""
    )
    return (
        f"{architecture} epoch {row['epoch']}/{last_epoch}  loss {row['loss']:.4f}  "
        f"acc {row['accuracy']:.4f}  auc {row['auc']:.4f} | {selection}lr {row['learning_rate']:.2e}"
    )
