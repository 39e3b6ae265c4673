"""The benchmark of operating points elsewhere: thresholds are of the other data sets, rates of the one left out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import bench_thresholds
from violence_detection.ensemble import cross_validation
from violence_detection.evaluation import elsewhere
from violence_detection.system import storage
from violence_detection.training import run_folder

SOURCES = 60


def _predictions(surer: float) -> pd.DataFrame:
    """Three data sets of one clip a source, of which the last calls peace `surer` logits more violent."""
    rng = np.random.default_rng(0)
    rows = []
    for dataset, more in (("a", 0.0), ("b", 0.0), ("c", surer)):
        for i in range(2 * SOURCES):
            is_fight = i % 2
            logit = rng.normal(2.0 if is_fight else -2.0 + more, 1.0)
            label = ("nonfight", "fight")[is_fight]
            rows.append((f"{dataset}{i:03}", dataset, f"{dataset}-{i}", label, 1 / (1 + np.exp(-logit))))
    columns = ["clip_id", "dataset", "source_group", "label", "p_violent"]
    return pd.DataFrame(rows, columns=columns).assign(p_kernel=lambda f: f.p_violent)


def _run(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *more: str
) -> dict:
    monkeypatch.setattr(sys, "argv", ["bench_thresholds.py", "--models", str(models), *more])
    assert bench_thresholds.main() == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_set_is_judged_by_what_the_others_and_by_what_folds_have_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seed_0").mkdir()
    rows = _predictions(surer=2.0)
    rows.to_csv(tmp_path / "seed_0" / cross_validation.LEFT_OUT_PREDICTIONS_NAME, index=False)
    storage.write_json(tmp_path / elsewhere.LEFT_OUT_NAME, {"datasets": []})
    folds = tmp_path / "of_folds"
    point = {"threshold": 0.25, "false_alarm_rate": 0.0, "recall": 1.0, "guarantee": {}}
    calibrated = {"temperature": 1.0, "rests_on": {}, "operating_points": {"low_false_alarm": point}}
    member: dict[str, Any] = {"name": "kernel", "model": "kernel/best_model.safetensors", "weight": 1.0}
    (folds / "kernel").mkdir(parents=True)
    (folds / member["model"]).touch()
    storage.write_json(
        folds / run_folder.ENSEMBLE_NAME, {"members": [member], run_folder.CALIBRATION_KEY: calibrated}
    )
    found = _run(tmp_path, monkeypatch, capsys, "--folds", str(folds))
    peace = rows[rows.label == "nonfight"]
    for name, ways in found["datasets"].items():
        own = peace[peace.dataset == name].p_violent
        assert ways["folds"]["low_false_alarm"]["false_alarms"] == pytest.approx(
            (own >= 0.25).mean(), abs=1e-4
        )
    rates = {name: ways["left_out"]["low_false_alarm"] for name, ways in found["datasets"].items()}
    assert rates["c"]["false_alarms"] > 0.2, "a and b did not show how sure c is"
    assert max(rates["a"]["false_alarms"], rates["b"]["false_alarms"]) <= 0.05
    assert rates["c"]["threshold"] < min(rates["a"]["threshold"], rates["b"]["threshold"])
    assert 0 < found["ece"]["left_out"] < 0.3
    assert set(_run(tmp_path, monkeypatch, capsys)["ece"]) == {"left_out"}
