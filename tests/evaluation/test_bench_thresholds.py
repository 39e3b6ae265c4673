"""The benchmark of operating points: thresholds come from the other data sets, rates from the one left out."""

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
from violence_detection.errors import UserError
from violence_detection.evaluation import elsewhere, held_out_table
from violence_detection.models import averaging, calibration, model_files
from violence_detection.models.averaging import EarlyExit
from violence_detection.models.calibration import Calibration
from violence_detection.system import storage
from violence_detection.training import run_folder

SOURCES = 60


def _predictions(surer: float) -> pd.DataFrame:
    """Data sets a, b and c, one clip per source; logits of nonfights in c are higher by `surer`."""
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


def _of_folds(folder: Path) -> Path:
    """The folder of a model whose low-false-alarm threshold is 0.25."""
    point = {"threshold": 0.25, "false_alarm_rate": 0.0, "recall": 1.0, "guarantee": {}}
    rests_on = {"what": "folds", "n": 9, "n_groups": 9}
    calibrated = Calibration(1.0, rests_on, {"low_false_alarm": point}).record()
    member: dict[str, Any] = {"name": "kernel", "model": "kernel/best_model.safetensors", "weight": 1.0}
    (folder / "kernel").mkdir(parents=True)
    (folder / member["model"]).touch()
    record = {"members": [member], run_folder.CALIBRATION_KEY: calibrated}
    storage.write_json(folder / run_folder.ENSEMBLE_NAME, record)
    return folder


def test_with_an_early_exit_points_below_it_are_of_all_members(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _predictions(surer=0.0).assign(fold=lambda f: f.dataset.map({"a": 0, "b": 1, "c": 2}))
    first = (rows.p_kernel * 0.3).where(rows.p_kernel < 0.6, rows.p_kernel)  # low for some fights too
    rows["p_first"] = first
    both = averaging.Averaging(True, EarlyExit("first", 0.3))
    members = [{"name": n, "weight": 0.5} for n in ("kernel", "first")]
    for name in ("without_a", "without_b", "without_c"):
        storage.write_json(tmp_path / "seed_0" / name / run_folder.ENSEMBLE_NAME, {"members": members})
    by_member = {n: rows[f"p_{n}"].to_numpy() for n in ("kernel", "first")}
    rows["p_violent"] = averaging.together(by_member, [0.5, 0.5], both)
    rows.to_csv(tmp_path / "seed_0" / cross_validation.LEFT_OUT_PREDICTIONS_NAME, index=False)
    exits = {"early_exit": both.exit_record(), "members_scaled_by": "the others"}
    storage.write_json(tmp_path / elsewhere.LEFT_OUT_NAME, exits)
    found = _run(tmp_path, monkeypatch, capsys)["datasets"]
    by_all = averaging.together(by_member, [0.5, 0.5], both.without_exit())
    assert not np.allclose(by_all, rows.p_violent)
    for name, ways in found.items():
        point = ways["left_out"]["high_recall"]
        assert point["recall"] >= 0.85
        assert point["threshold"] < 0.3, "where the exit would decide"
        is_fight = (rows.label == "fight") & (rows.dataset == name)
        assert point["recall"] == pytest.approx(point["clips"][1], abs=1e-4), "a clip a source"
        assert is_fight.sum() > 0
    with pytest.raises(UserError, match="early exit"):
        _run(tmp_path, monkeypatch, capsys, "--folds", str(_of_folds(tmp_path / "of_folds")))


def test_a_set_is_judged_by_what_the_others_and_by_what_folds_have_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "seed_0").mkdir()
    rows = _predictions(surer=2.0)
    rows.to_csv(tmp_path / "seed_0" / cross_validation.LEFT_OUT_PREDICTIONS_NAME, index=False)
    storage.write_json(tmp_path / elsewhere.LEFT_OUT_NAME, {"datasets": []})
    other = {"datasets": [], held_out_table.SHA256_KEY: {"seed_0": "0" * 64}}
    storage.write_json(tmp_path / elsewhere.LEFT_OUT_NAME, other)
    with pytest.raises(
        UserError, match=r"leave_one_out_predictions\.csv has changed since it was written.*Make it again"
    ):
        _run(tmp_path, monkeypatch, capsys)
    storage.write_json(tmp_path / elsewhere.LEFT_OUT_NAME, {"datasets": []})
    folds = _of_folds(tmp_path / "of_folds")
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


def test_left_out_models_are_written_with_what_the_other_sets_give_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models, to = tmp_path / "models", tmp_path / "calibrated"
    for name in "abc":
        _of_folds(models / "seed_0" / f"without_{name}")
    _predictions(surer=2.0).to_csv(
        models / "seed_0" / cross_validation.LEFT_OUT_PREDICTIONS_NAME, index=False
    )
    storage.write_json(models / elsewhere.LEFT_OUT_NAME, {"datasets": []})
    for _ in range(2):  # the second run replaces the files of the first
        found = _run(models, monkeypatch, capsys, "--write", str(to))["datasets"]
    for name in "abc":
        written = calibration.read(to / f"without_{name}")
        assert written.threshold("low-false-alarm") == found[name]["left_out"]["low_false_alarm"]["threshold"]
        assert model_files.listed(to / f"without_{name}")[0][1].is_file()
    assert calibration.read(models / "seed_0" / "without_a").threshold("low-false-alarm") == 0.25, "as it was"
