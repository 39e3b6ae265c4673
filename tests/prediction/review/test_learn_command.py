"""From marks to a camera profile, and from that to other verdicts, with the script."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

import test_violence_model
from violence_detection.errors import UserError
from violence_detection.models import model_files
from violence_detection.prediction import formats
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.prediction.review import marks


def _run(folder: Path) -> tuple[Path, Path]:
    """Write a model, windows that a run of it kept, and marks of them; return the folders of the model and the windows.

    Each of the five videos has a false alarm of 0.6 and a fight of 0.9.
    """
    model = folder / "model"
    model.mkdir()
    for name in ("best_model.keras", "config.json", "result.json"):
        (model / name).write_text("{}")
    (lines,) = formats.chosen(["jsonl"])
    assert lines.of_video
    made = []
    for i in range(5):
        ps = [0.1, 0.6, 0.1, 0.1, 0.9, 0.1]
        windows = tuple(JudgedWindow(5.0 * n, 5.0 * n + 5, p) for n, p in enumerate(ps))
        verdict = Verdict(f"v{i}.mp4", windows, EventConfig(), 30.0, 30.0, fps=25.0)
        formats.write(folder / "kept", f"v{i}", lines.of_video(verdict))
        for event, mark in zip(verdict.events, ("wrong", "right"), strict=True):
            made.append({"path": verdict.path, "start_s": event.start_s, "end_s": event.end_s, "mark": mark})
    saved = {
        "format": marks.FORMAT,
        "version": 1,
        "model": model_files.identity(model),
        "marks": made,
        "reviewed": [],
    }
    (folder / "marks.json").write_text(json.dumps(saved))
    return model, folder / "kept"


def _summary(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert test_violence_model.main([str(a) for a in arguments]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def test_what_is_learnt_changes_later_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model, kept = _run(tmp_path)
    profile = tmp_path / "camera.json"
    learn = (
        "--rejudge",
        kept,
        "--model",
        model,
        "--learn",
        tmp_path / "marks.json",
        "--save-profile",
        profile,
    )
    with caplog.at_level(logging.INFO, logger="violence_detection"):
        learned = _summary(capsys, *learn)
    assert learned["profile"] == str(profile)
    assert learned["before"] == {"threshold": 0.5, "false_events": 5, "missed_fights": 0}
    assert learned["on_others"] == {"false_events": 0, "missed_fights": 0}
    later = _summary(capsys, "--rejudge", kept, "--model", model, "--profile", profile)
    assert [len(v["events"]) for v in later["videos"]] == [1] * 5
    assert {v["threshold"] for v in later["videos"]} == {learned["after"]["threshold"]}
    again = _summary(capsys, *learn, "--profile", profile)
    assert again["profile"] is None
    assert "no other threshold" in again["why_not"]
    with pytest.raises(UserError, match="Name the --model"):
        test_violence_model.main(["--rejudge", str(kept), "--profile", str(profile)])


def test_too_few_marks_are_for_the_user_to_mend(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, kept = _run(tmp_path)
    file = tmp_path / "marks.json"
    saved = json.loads(file.read_text())
    file.write_text(json.dumps({**saved, "marks": saved["marks"][:9]}))
    profile = tmp_path / "camera.json"
    given = ("--rejudge", kept, "--model", model, "--learn", file, "--save-profile", profile)
    with pytest.raises(
        UserError,
        match=r"camera\.json was not written: too few marks: 9 in 5 videos; at least 10 in 3 .* Mark",
    ):
        test_violence_model.main([str(a) for a in given])
    assert json.loads(capsys.readouterr().out)["marks"] == 9
    assert not profile.exists()


def test_the_marks_are_not_replaced_by_the_profile(tmp_path: Path) -> None:
    model, kept = _run(tmp_path)
    marked = tmp_path / "marks.json"
    before = marked.read_bytes()
    with pytest.raises(
        UserError, match=r"--save-profile .*marks\.json already exists and is not a camera profile"
    ):
        test_violence_model.main(
            [
                "--rejudge",
                str(kept),
                "--model",
                str(model),
                "--learn",
                str(marked),
                "--save-profile",
                str(marked),
            ]
        )
    assert marked.read_bytes() == before
