"""Write what TensorBoard shows of a training run: curves, PR curve, confusion matrix, hyper-parameters and config.

tensorboard_logs/train/, tensorboard_logs/selection/     loss, accuracy, auc and learning_rate by epoch
tensorboard_logs/train/                                  also training speed and GPU use by epoch
tensorboard_logs/selection/                              PR curve and confusion matrix of the best epoch so far
tensorboard_logs/                                        config (text), hyper-parameters, figures of the best epoch

A run without a selection part writes nothing to selection/.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from violence_detection.constants import CLASS_NAMES

#: Seconds between two sets of pictures, at least. The best epoch always gets its pictures at the end.
_PICTURES_EVERY_S = 60.0
#: Points of the PR curve.
_THRESHOLDS = 101


class Board:
    """Writes event files below `folder`. Its `with` block closes them at the end. `record`: the run's config.json."""

    def __init__(self, folder: Path, record: Mapping[str, Any]):
        self._folder = folder = folder.absolute()  # errors of a full disk name this path
        self._train, self._selection, self._run = (
            tf.summary.create_file_writer(str(path))
            for path in (folder / "train", folder / "selection", folder)
        )
        self._pictured = -_PICTURES_EVERY_S
        with self._run.as_default():
            tf.summary.text("config", f"```\n{json.dumps(record, indent=2, sort_keys=True)}\n```", step=0)
        self._hyper_parameters(record)

    def scalars(self, row: Mapping[str, float], extra: Mapping[str, float]) -> None:
        """Write the curves' points for a row of training_log.csv. `extra`: further figures, by tag."""
        _write_points(self._train, "", row)
        _write_points(self._selection, "selection_", row)
        with self._train.as_default():
            for name, value in extra.items():
                tf.summary.scalar(name, value, step=int(row["epoch"]))

    def make_whole(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Write the curves' points that the event files lack for `rows` of training_log.csv, as after a killed run."""
        if not rows:
            return
        for writer, part, prefix in (
            (self._train, "train", ""),
            (self._selection, "selection", "selection_"),
        ):
            there = _points(self._folder / part)
            for row in rows:
                _write_points(writer, prefix, row, there)

    def pictures(self, labels: np.ndarray, p_fight: np.ndarray, epoch: int, last: bool = False) -> None:
        """Write PR curve and confusion matrix of the selection clips: labels (N,) of 0 and 1, p_fight (N,) in [0, 1].

        Does nothing without clips, or, unless `last`, if the previous pictures are too recent.
        """
        if not len(labels):
            return
        if not last and time.monotonic() - self._pictured < _PICTURES_EVERY_S:
            return
        self._pictured = time.monotonic()
        with self._selection.as_default():
            tf.summary.experimental.write_raw_pb(pr_curve(labels, p_fight), step=epoch)
            tf.summary.image("confusion_matrix", confusion_picture(labels, p_fight)[None], step=epoch)
        self._selection.flush()

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in (self._train, self._selection, self._run):
            writer.close()

    def best(self, selection_accuracy: float | None, selection_loss: float | None, epoch: int) -> None:
        """Write the best epoch's figures, the metrics of TensorBoard's table of hyper-parameters."""
        with self._run.as_default():
            if selection_accuracy is not None and selection_loss is not None:
                tf.summary.scalar("best/selection_accuracy", selection_accuracy, step=epoch)
                tf.summary.scalar("best/selection_loss", selection_loss, step=epoch)

    def _hyper_parameters(self, record: Mapping[str, Any]) -> None:
        from tensorboard.plugins.hparams import api

        flat = {"architecture": record["architecture"], "augment": record["augment"]}
        for group in ("features", "head", "train"):
            flat |= {
                f"{group}.{k}": v if isinstance(v, bool | int | float | str) else str(v)
                for k, v in record[group].items()
            }
        metrics = [api.Metric("best/selection_accuracy"), api.Metric("best/selection_loss")]
        with self._run.as_default():
            api.hparams_config([api.HParam(name) for name in sorted(flat)], metrics)
            api.hparams(flat)
        self._run.flush()


def _write_points(
    writer: Any, prefix: str, row: Mapping[str, float], there: Collection[tuple[str, int]] = ()
) -> None:
    """Write the points of a row's columns with this prefix, if it has any. `there`: (tag, epoch) of those to skip."""
    if f"{prefix}loss" not in row:
        return
    step = int(row["epoch"])
    values = {name: row[prefix + name] for name in ("loss", "accuracy", "auc")}
    with writer.as_default():
        for name, value in {**values, "learning_rate": row["learning_rate"]}.items():
            if (name, step) not in there:
                tf.summary.scalar(name, value, step=step)
    writer.flush()


def _points(folder: Path) -> set[tuple[str, int]]:
    """(tag, epoch) of every point in a folder's event files. A file that was cut off is read up to there."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return {
        (value.tag, event.step)
        for path in sorted(folder.glob("events.out.*"))
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    }


def pr_curve(labels: np.ndarray, p_fight: np.ndarray) -> bytes:
    """Make TensorBoard's PR-curve summary, serialised. labels (N,) of 0 and 1, p_fight (N,) in [0, 1]."""
    from tensorboard.plugins.pr_curve import summary

    thresholds = np.linspace(0, 1, _THRESHOLDS)
    fight, said = labels == 1, p_fight[None] >= thresholds[:, None]  # (N,), (thresholds, N)
    tp, fp = (said & fight).sum(1), (said & ~fight).sum(1)
    fn, tn = fight.sum() - tp, (~fight).sum() - fp
    precision, recall = tp / np.maximum(tp + fp, 1), tp / np.maximum(tp + fn, 1)
    return summary.raw_data_pb(
        "pr_curve", tp, fp, tn, fn, precision, recall, num_thresholds=_THRESHOLDS
    ).SerializeToString()


def confusion_picture(labels: np.ndarray, p_fight: np.ndarray) -> np.ndarray:
    """Draw the confusion matrix at threshold 0.5 as an RGB picture (H, W, 3) uint8.

    labels (N,) of 0 and 1, p_fight (N,) in [0, 1].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = np.zeros((2, 2), int)
    np.add.at(counts, (labels.astype(int), (p_fight >= 0.5).astype(int)), 1)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(3.6, 3.2), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i in range(2):
        for j in range(2):
            axes.text(j, i, f"{counts[i, j]}\n{share[i, j]:.0%}", ha="center", va="center",
                      color="white" if share[i, j] > 0.5 else "black")  # fmt: skip
    axes.set(xticks=(0, 1), yticks=(0, 1), xticklabels=CLASS_NAMES, yticklabels=CLASS_NAMES,
             xlabel="verdict", ylabel="label")  # fmt: skip
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return tf.io.decode_png(buffer.getvalue(), channels=3).numpy()
