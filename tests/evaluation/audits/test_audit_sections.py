"""Findings of audits are on the report's page, escaped, and in its record; what was not audited has no section."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from violence_detection.evaluation import metrics
from violence_detection.evaluation.report import report
from violence_detection.evaluation.training_overlap import Comparison, Overlap

HOSTILE = "val/fight/<b>x</b>.avi"
CHECKED = {"checked": True, "compared": 8, "found": 0, "not_checked": ""}
FIGURES = {"accuracy": 0.75, "ci95": [0.5, 0.9], "n": 8, "n_groups": 4, "roc_auc": 0.8}
LEAKAGE: dict[str, Any] = {
    "clips": 8,
    "training_clips": 70,
    "same_clip": CHECKED,
    "same_source": {**CHECKED, "checked": False, "found": None, "not_checked": "no names <i>here</i>"},
    "near_copy": CHECKED,
    "by_feature": {
        **CHECKED,
        "found": 1,
        "datasets": [
            {"dataset": "a", "clips": 8, "typical": 0.41, "limit": 0.87, "highest": 0.93, "beyond": 1,
             "measured_on": "all data sets", "measured": 70}
        ],
        "sources_compared": 3,
        "sources": [
            {"source_group": "a:1", "dataset": "a", "clips": 4, "similarity": 0.91, "like": "b:7", "limit": 0.8}
        ],
    },
    "suspicious": 1,
    "suspects": [{"clip_id": "0", "path": HOSTILE, "suspicious": ["same source"], "similarity": None}],
    "whole": FIGURES,
    "without_suspicious": {**FIGURES, "accuracy": 0.714, "n": 7},
    "limit": {"state": "alarm", "name": "Leakage", "text": "one"},
}  # fmt: skip
LABELS: dict[str, Any] = {
    "checked": True,
    "clips": 70,
    "n_groups": 20,
    "listed": 7,
    "noise": {"share": 0.052, "low": 0.013, "high": 0.081, "level": 0.95, "alarm": True},
    "copies_of_other_label": 2,
    "groups_compared": 2,
    "groups_not_compared": "",
    "weak_groups": [
        {"accuracy": 0.6, "ci95": [0.4, 0.7], "accuracy_of_others": 0.9, "n": 30, "n_groups": 9, "fights": 12,
         "datasets": {"a": 30}, "p_holm": 0.0001, "examples": []}
    ],
    "limit": {"state": "alarm", "name": "Labels", "text": "some"},
}  # fmt: skip
SHORTCUTS: dict[str, Any] = {
    "rule": {"alpha": 0.01, "lowest_auc": 0.6, "draws": 4999},
    "checks": {
        "metadata": {
            "done": True,
            "what": "the file",
            "datasets": [
                {**FIGURES, "dataset": "a", "model_roc_auc": 0.9, "p_holm": 0.0008, "verdict": "alarm"},
                {**FIGURES, "dataset": "b", "model_roc_auc": 0.9, "p_holm": 0.0312, "verdict": "none"},
            ],
        }
    },
    "order_of_frames": {"accuracy": 0.75, "accuracy_reordered": 0.7, "ci95_reordered": [0.5, 0.8], "n": 8, "loss": 0.05,
                        "loss_ci95": None, "verdict": "none", "moved": ["features"]},
    "train_too": True,
    "comparisons": 2,
    "too_few": 0,
    "alarms": [{"check": "metadata", "dataset": "a", "roc_auc": 0.8, "p_holm": 0.0008}],
}  # fmt: skip


def written(folder: Path, audits: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    label = np.where(np.arange(8) % 2, "fight", "nonfight")
    frame = pd.DataFrame(
        {
            "clip_id": [str(i) for i in range(8)],
            "path": [f"val/{name}/{i}.avi" for i, name in enumerate(label)],
            "dataset": "a",
            "source_group": [f"a:{i // 2}" for i in range(8)],
            "label": label,
            "p_violent": np.linspace(0.1, 0.9, 8),
        }
    )
    overlap = Overlap(8, 70, 0, Comparison(0, 8), Comparison(0, 8), Comparison(0, 8))
    context = report.ReportContext("python x", "2026-01-02", [], [0], overlap, "val", audits=audits)
    page = report.write_report(folder, metrics.figures(frame, 0.5), frame, context)
    return page.read_text(encoding="utf-8"), json.loads((folder / report.METRICS_NAME).read_text())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    return written(
        tmp_path_factory.mktemp("report"), {"leakage": LEAKAGE, "labels": LABELS, "shortcuts": SHORTCUTS}
    )


@pytest.mark.parametrize(
    "said",
    [
        "1 of 8 clips is suspicious",
        "no: no names &lt;i&gt;here&lt;/i&gt;",
        "without the suspicious ones 71.4",
        "a:1 looks like b:7: 4 clips, similarity 0.91, limit 0.80",
        "About 5.2\u00a0% of the labels seem wrong",
        "1.3–8.1",
        "2 are copies of clips with the other label",
        "12&nbsp;fight, 9&nbsp;sources",
        "<small>p &lt; 0.001</small>",
        "<small>p 0.031</small>",
    ],
)
def test_the_page_says_what_was_found(both: tuple[str, dict[str, Any]], said: str) -> None:
    assert said in both[0].replace("_<wbr>", "_")


def test_clips_of_training_that_are_not_known_are_not_counted_as_none(tmp_path: Path) -> None:
    lost = {**CHECKED, "checked": False, "not_checked": "models has no trained_on.csv"}
    for leakage, said in (
        (LEAKAGE, "8 judged clips against 70 clips that training had."),
        ({**LEAKAGE, "same_clip": lost}, "against 70 clips that training had, as far as they are known."),
        (
            {**LEAKAGE, "same_clip": lost, "training_clips": 0},
            "8 judged clips; which clips training had is not known.",
        ),
    ):
        page, _ = written(tmp_path, {"leakage": leakage})
        assert said in page


def test_sources_that_are_not_shown_are_counted(tmp_path: Path) -> None:
    by_feature = LEAKAGE["by_feature"]
    for more in (10, 12):
        found = {**LEAKAGE, "by_feature": {**by_feature, "sources": by_feature["sources"] * more}}
        assert ("2 more are in metrics.json" in written(tmp_path, {"leakage": found})[0]) == (more == 12)


def test_no_group_that_is_weak_enough_is_not_told_as_none_beyond_chance(tmp_path: Path) -> None:
    page, _ = written(tmp_path, {"labels": {**LABELS, "weak_groups": []}})
    assert "none has, beyond chance, at least 1.5 times the error rate of the others." in page


@pytest.mark.parametrize(
    ("moved", "said"),
    [
        (["features"], "Features are shuffled, not frames: movement within a moment is still seen."),
        (["frames"], "Frames are shuffled, so no movement is left."),
        (
            ["features", "frames"],
            "For whole networks, frames are shuffled, so no movement is left. For other members, features are "
            "shuffled: movement within a moment is still seen.",
        ),
    ],
)
def test_what_changed_places_is_told_as_it_was(tmp_path: Path, moved: list[str], said: str) -> None:
    order = {**SHORTCUTS["order_of_frames"], "moved": moved}
    page, _ = written(tmp_path, {"shortcuts": {**SHORTCUTS, "order_of_frames": order}})
    assert said in page


def test_clips_of_train_are_named_where_small_classifiers_had_them(tmp_path: Path) -> None:
    for train_too in (True, False):
        page, _ = written(tmp_path, {"shortcuts": {**SHORTCUTS, "train_too": train_too}})
        assert ("of each data set, train and judged. Each is asked" in page) == train_too


def test_names_from_outside_are_escaped(both: tuple[str, dict[str, Any]]) -> None:
    assert "<b>x</b>" not in both[0]


def test_the_record_holds_the_sections(both: tuple[str, dict[str, Any]]) -> None:
    assert both[1]["audits"] == {"leakage": LEAKAGE, "labels": LABELS, "shortcuts": SHORTCUTS}


def test_what_was_not_audited_has_no_section(tmp_path: Path) -> None:
    page, _ = written(tmp_path, {})
    assert "h-leakage" not in page
    assert "h-labels" not in page


def test_labels_that_could_not_be_checked_say_why(tmp_path: Path) -> None:
    page, _ = written(tmp_path, {"labels": {"checked": False, "not_checked": "3 clips of a class"}})
    assert "Not checked: 3 clips of a class" in page
