"""The figures of an epoch: its row in training_log.csv, and its line in the log."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

COLUMNS = (
    "epoch", "loss", "accuracy", "auc", "selection_loss", "selection_accuracy", "selection_auc", "learning_rate",
)  # fmt: skip


def on_selection(labels: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """The figures of the selection part, by column; empty without selection clips.

    `labels`: (N,) of 0 and 1. `p`: P(fight) of each clip, (N,).
    """
    from sklearn.metrics import log_loss, roc_auc_score

    if not len(labels):
        return {}
    return {
        "selection_loss": float(log_loss(labels, p, labels=[0, 1])),
        "selection_accuracy": float(np.mean((p >= 0.5) == (labels == 1))),
        "selection_auc": float(roc_auc_score(labels, p)),
    }


def line(architecture: str, row: Mapping[str, float], last_epoch: int) -> str:
    """The log line for an epoch's row. `last_epoch`: the number of the epoch that training ends with at the latest."""
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
