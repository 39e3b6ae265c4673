"""Kept windows say whether the model's early exit was taken, and are not read as what they are not."""

from __future__ import annotations

import csv
import dataclasses
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from violence_detection.errors import UserError
from violence_detection.models import model_files
from violence_detection.prediction import (
    batch,
    camera_profile,
    formats,
    kept_windows,
    quiet_footage,
    verdict_journal,
)
from violence_detection.prediction.camera_profile import CameraProfile
from violence_detection.prediction.config import EventConfig, PredictConfig, QuietConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.system import storage

HIGH = "high-recall"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The records of two members of which one may judge alone, but not at high-recall."""
    folder = tmp_path / "model"
    for name in ("first", "other"):
        (folder / name).mkdir(parents=True)
        for file in ("best_model.safetensors", "config.json"):
            (folder / name / file).write_text("{}")
    members = [
        {"name": name, "model": f"{name}/best_model.safetensors", "weight": 0.5}
        for name in ("first", "other")
    ]
    points = {
        "high_recall": {"threshold": 0.07, "early_exit": False},
        "low_false_alarm": {"threshold": 0.6},
    }
    calibration = {
        "temperature": 1.0,
        "rests_on": {"what": "a test", "n": 9, "n_groups": 3},
        "operating_points": points,
        "without_exit": {"temperature": 2.0, "why_not": ""},
    }
    record = {
        "members": members,
        "early_exit": {"member": "first", "below": 0.08},
        "calibration": calibration,
    }
    storage.write_json(folder / "ensemble.json", record)
    return folder


def _verdict(path: str, early_exit: bool) -> Verdict:
    windows = (JudgedWindow(0.0, 5.0, 0.9), JudgedWindow(2.5, 7.5, 0.1))
    return Verdict(path, windows, EventConfig(), 1800.0, 1800.0, early_exit=early_exit)


def _keep(folder: Path, name: str, verdict: Verdict) -> Path:
    (chosen,) = formats.chosen([name])
    assert chosen.of_video
    formats.write(folder, Path(verdict.path).stem, chosen.of_video(verdict))
    return folder


@pytest.mark.parametrize("name", ["csv", "jsonl", "json"])
def test_what_was_judged_without_the_exit_is_read_as_that(name: str, tmp_path: Path) -> None:
    for taken in (True, False):
        folder = _keep(tmp_path / str(taken), name, _verdict("v.mp4", taken))
        text = "".join(f.read_text() for f in folder.iterdir() if "events" not in f.name)
        if name == "csv":
            rows = csv.DictReader(text.splitlines())
            assert {row["early_exit"] for row in rows} == {"" if taken else "False"}
        else:
            assert ("early_exit" in text) == (not taken)
        (read,) = kept_windows.read(folder, EventConfig())
        assert read.early_exit is taken


@pytest.mark.parametrize("name", ["csv", "jsonl", "json"])
def test_a_name_may_have_what_other_programs_take_for_the_end_of_a_line(name: str, tmp_path: Path) -> None:
    video = "night\u2028of\u0085the\u2029third.mp4"
    (read,) = kept_windows.read(_keep(tmp_path, name, _verdict(video, True)), EventConfig())
    assert read.path == video


def test_a_journal_keeps_both_apart(model: Path, tmp_path: Path) -> None:
    video, journal = tmp_path / "v.mp4", tmp_path / "journal.jsonl"
    video.write_bytes(b"")
    with_exit = PredictConfig(model=model)
    without = PredictConfig(model=model, operating_point=HIGH)
    keys = {}
    for config in (with_exit, without):
        with verdict_journal.kept(journal, config) as kept:
            keys[config.operating_point] = key = kept.key(video)
            assert kept.find(key, video) is None
            kept.keep(key, _verdict(str(video), config is with_exit))
    assert keys["balanced"] != keys[HIGH]
    for config in (with_exit, without, PredictConfig(model=model, threshold=0.05)):
        with verdict_journal.kept(journal, config) as kept:
            found = kept.find(kept.key(video), video)
            assert found
            assert found.early_exit is (config is with_exit)
            assert found.calibrated
    named = tmp_path / "kept.journal.jsonl"
    journal.rename(named)
    assert len(kept_windows.read(named, EventConfig())) == 1


@pytest.mark.parametrize("name", ["csv", "jsonl", "json", "journal"])
def test_windows_of_another_model_are_refused_and_those_of_no_known_one_are_taken_with_a_warning(
    name: str, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "v.mp4").write_bytes(b"")
    verdict = _verdict(str(tmp_path / "v.mp4"), early_exit=True)
    config = PredictConfig(model=model)
    folder = tmp_path / "kept"
    if name == "journal":
        with verdict_journal.kept(folder / "v.journal.jsonl", config) as kept:
            kept.keep(kept.key(tmp_path / "v.mp4"), verdict)
    else:
        _keep(folder, name, dataclasses.replace(verdict, model=model_files.identity(model)))
    with caplog.at_level(logging.WARNING):
        assert batch.kept(folder, config)[0].model == model_files.identity(model)
    assert not caplog.messages
    other = Path(shutil.copytree(model, tmp_path / "other"))
    (other / "other" / "config.json").write_text("{ }")
    said = r"kept/v\.\S+: \S*v\.mp4 was judged by another model than the one that is named\. Name the --model"
    with pytest.raises(UserError, match=said):
        batch.kept(folder, PredictConfig(model=other))
    with pytest.raises(UserError, match=said):
        quiet_footage.run(PredictConfig(model=other), QuietConfig(calibrate=folder), tmp_path / "p.json")
    assert len(batch.kept(folder, PredictConfig())) == 1
    of_csv, of_json = r",model$|,\w{32}$", r', "model": "\w{32}"|"model": "\w{32}",'
    for file in folder.iterdir():  # as an earlier version wrote it
        file.write_text(re.sub(f"{of_csv}|{of_json}", "", file.read_text(), flags=re.MULTILINE))
    with caplog.at_level(logging.WARNING):
        assert batch.kept(folder, PredictConfig(model=other))[0].model == ""
    assert "does not say which model judged 1 of its 1 videos" in caplog.text


def test_of_a_video_that_several_models_judged_the_windows_of_the_named_one_count(tmp_path: Path) -> None:
    first, last = (dataclasses.replace(_verdict("v.mp4", early_exit=True), model=name) for name in ("a", "b"))
    for hour, verdict in enumerate((first, last, first, last)):
        (file,) = _keep(tmp_path / str(hour), "jsonl", verdict).iterdir()
        os.utime(file, (3600 * hour, 3600 * hour))
    for name in ("a", "b"):
        assert [v.model for v in kept_windows.read(tmp_path, EventConfig(), name)] == [name]
    assert [v.model for v in kept_windows.read(tmp_path, EventConfig())] == ["b"]


def test_a_point_is_refused_where_the_windows_are_other_probabilities(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = {
        taken: _keep(
            tmp_path / str(taken),
            "jsonl",
            dataclasses.replace(_verdict(f"{taken}.mp4", taken), model=model_files.identity(model)),
        )
        for taken in (True, False)
    }

    def read(taken: bool, **settings: Any) -> Verdict:
        (found,) = batch.kept(kept[taken], PredictConfig(model=model, **settings))
        return found

    assert read(False, operating_point=HIGH).threshold == 0.07
    assert read(True, operating_point="low-false-alarm").threshold == 0.6
    with pytest.raises(
        UserError, match="was judged with the model's early exit, and high-recall is for prob"
    ):
        read(True, operating_point=HIGH)
    with pytest.raises(UserError, match="was judged without the model's early exit, and low-false-alarm is"):
        read(False, operating_point="low-false-alarm")
    camera_profile.write(
        tmp_path / "p.json", CameraProfile(model_files.identity(model), 0.7, early_exit=False)
    )
    assert not read(False, profile=tmp_path / "p.json").early_exit
    with pytest.raises(UserError, match=r"early exit, and \S*p.json is for probabilities without it"):
        read(True, profile=tmp_path / "p.json")
    # a threshold is taken of what is there
    with caplog.at_level(logging.WARNING):
        assert read(True, threshold=0.5).early_exit
        assert not caplog.messages
        assert read(True, threshold=0.05).early_exit
    assert "with the threshold 0.05 the video itself would be judged without it" in caplog.text
    assert len(batch.kept(kept[True], PredictConfig(threshold=0.05))) == 1


def test_a_camera_profile_says_of_which_probabilities_it_is(model: Path, tmp_path: Path) -> None:
    config, path = PredictConfig(model=model, operating_point=HIGH), tmp_path / "p.json"
    footage = _keep(tmp_path / "quiet", "jsonl", _verdict("v.mp4", early_exit=False))
    quiet_footage.run(config, QuietConfig(calibrate=footage), path)
    made = camera_profile.read(path)
    assert (made.early_exit, made.threshold) == (False, 0.9001)
    assert camera_profile.leaves_out_exit(PredictConfig(model=model, profile=path))
    assert made.name != CameraProfile(made.model, made.threshold).name
    _keep(footage, "jsonl", _verdict("w.mp4", early_exit=True))
    with pytest.raises(UserError, match=r"w\.mp4 was judged with the model's early exit, v\.mp4 without"):
        quiet_footage.run(PredictConfig(model=model), QuietConfig(calibrate=footage), path)
