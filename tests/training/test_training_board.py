"""The files for TensorBoard contain each panel that the documents name, with the right numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from violence_detection.training import training_board

LABELS = np.array([0, 0, 0, 1, 1, 1, 1])
P = np.array([0.1, 0.2, 0.8, 0.3, 0.7, 0.9, 0.95])
RECORD = {
    "architecture": "gru",
    "augment": 2,
    "features": {"streams": ["rgb"]},
    "head": {"units": 8},
    "train": {"learning_rate": 0.01},
}


def _values(folder: Path) -> dict[str, tuple[str, tf.Tensor]]:
    """Return tag -> (plugin, tensor) of the event files directly in a folder."""
    found = {}
    for path in sorted(folder.glob("events.out.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found[value.tag] = (value.metadata.plugin_data.plugin_name, value.tensor)
    return found


def test_every_promised_panel_is_written(tmp_path: Path) -> None:
    names = (
        "loss",
        "accuracy",
        "auc",
        "selection_loss",
        "selection_accuracy",
        "selection_auc",
        "learning_rate",
    )
    with training_board.Board(tmp_path, RECORD) as board:
        board.scalars(dict.fromkeys(names, 0.5) | {"epoch": 1}, {"samples_per_second": 100.0})
        board.pictures(LABELS, P, 1)
        board.best(0.7, 0.5, 1)
    selection, run = _values(tmp_path / "selection"), _values(tmp_path)
    assert {name: plugin for name, (plugin, _) in selection.items()} == {
        "loss": "scalars", "accuracy": "scalars", "auc": "scalars", "learning_rate": "scalars",
        "pr_curve/pr_curves": "pr_curves", "confusion_matrix": "images",
    }  # fmt: skip
    assert "samples_per_second" in _values(tmp_path / "train")
    assert {plugin for plugin, _ in run.values()} == {"text", "hparams", "scalars"}
    assert b'"learning_rate": 0.01' in tf.make_ndarray(run["config"][1]).item()


def test_points_that_are_lacking_are_written_and_none_twice(tmp_path: Path) -> None:
    names = ("loss", "accuracy", "auc")
    rows = [
        {"epoch": epoch, "learning_rate": 0.1, **dict.fromkeys(names, 0.5 / epoch)}
        | {f"selection_{name}": 0.7 / epoch for name in names}
        for epoch in (1, 2, 3)
    ]
    with training_board.Board(tmp_path, RECORD) as board:
        board.make_whole([])
        board.scalars(rows[0], {})
        board.scalars({k: v for k, v in rows[2].items() if not k.startswith("selection_")}, {})
    (written,) = (tmp_path / "selection").glob("events.out.*")
    with written.open("ab") as f:
        f.write(b"cut off")
    for _ in range(2):
        with training_board.Board(tmp_path, RECORD) as board:
            board.make_whole(rows)
    written.write_bytes(written.read_bytes().removesuffix(b"cut off"))
    for part, first in (("train", 0.5), ("selection", 0.7)):
        read: dict[str, dict[int, float]] = {}
        for path in sorted((tmp_path / part).glob("events.out.*")):
            for event in tf.compat.v1.train.summary_iterator(str(path)):
                for value in event.summary.value:
                    points = read.setdefault(value.tag, {})
                    assert event.step not in points
                    points[event.step] = float(tf.make_ndarray(value.tensor))
        assert read.keys() == {*names, "learning_rate"}
        for name in names:
            assert read[name] == {epoch: pytest.approx(first / epoch) for epoch in (1, 2, 3)}


def test_pr_curve_has_precision_and_recall_at_each_threshold() -> None:
    summary = tf.compat.v1.Summary.FromString(training_board.pr_curve(LABELS, P))
    tp, fp, tn, fn, precision, recall = tf.make_ndarray(summary.value[0].tensor)
    at = 50  # threshold 0.5: the fights with 0.7, 0.9 and 0.95 are found, and 0.8 is a false alarm
    assert (tp[at], fp[at], tn[at], fn[at]) == (3, 1, 2, 1)
    assert (precision[at], recall[at]) == (pytest.approx(0.75), pytest.approx(0.75))


def test_confusion_picture_is_darker_where_more_clips_are() -> None:
    perfect = training_board.confusion_picture(LABELS, LABELS.astype(float))
    wrong = training_board.confusion_picture(LABELS, 1.0 - LABELS)
    assert perfect.dtype == np.uint8
    assert perfect.shape == wrong.shape
    height, width = perfect.shape[:2]
    # the cell of clips whose label and verdict are both nonfight
    corner = (slice(height // 8, height // 4), slice(int(width * 0.3), int(width * 0.4)))
    assert perfect[corner].mean() < wrong[corner].mean() - 50
