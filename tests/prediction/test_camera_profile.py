"""A camera profile: applied only once, kept apart from the model's probabilities, and refused for another model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from violence_detection.errors import DamagedFile, UserError
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


def _verdict(ps: list[float]) -> Verdict:
    windows = tuple(JudgedWindow(2.5 * i, 2.5 * i + 5, p) for i, p in enumerate(ps))
    return Verdict("v.mp4", windows, EventConfig(smoothing_s=3.0), 20.0, 20.0, fps=25.0)


def test_the_offset_moves_the_logit_and_the_threshold_is_of_what_comes_out() -> None:
    profile = CameraProfile("m", threshold=0.7, logit_offset=-math.log(9))
    assert [profile.probability(p) for p in (0.5, 0.9)] == pytest.approx([0.1, 0.5])
    assert profile.probability(0.0) == pytest.approx(0.0)
    assert profile.probability(1.0) == pytest.approx(1.0)
    shown = profile.verdict(_verdict([0.9, 0.99, 0.2]))
    assert [w.p_violent for w in shown.windows] == [0.5, 0.9167, 0.027]
    assert [w.p_judged for w in shown.windows] == [0.9, 0.99, 0.2]
    assert (shown.threshold, shown.events_by.smoothing_s) == (0.7, 3.0)
    assert shown.summary()["profile"] == profile.name


def test_a_profile_is_applied_once_however_often() -> None:
    verdict = _verdict([0.9, 0.6, 0.0])
    first, second = CameraProfile("m", 0.5, 2.0), CameraProfile("m", 0.9)
    assert first.verdict(first.verdict(verdict)) == first.verdict(verdict)
    assert second.verdict(first.verdict(verdict)).windows == verdict.windows


@pytest.mark.parametrize("ending", [".windows.csv", ".windows.jsonl", ".verdict.json"])
def test_what_is_kept_has_the_models_probabilities(tmp_path: Path, ending: str) -> None:
    verdict = _verdict([0.9, 0.6, 0.0])
    for chosen in formats.chosen(["csv", "json", "jsonl"]):
        assert chosen.of_video
        texts = chosen.of_video(CameraProfile("m", 0.5, 2.0).verdict(verdict))
        formats.write(tmp_path, "v", {end: text for end, text in texts.items() if end == ending})
    (read,) = kept_windows.read(tmp_path, verdict.events_by)
    assert read.windows == verdict.windows


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    profile = CameraProfile("m", 0.8, -1.5, {"what": "marks", "marks": 12}, {"false_events": 3}, {"a": 1.0})
    camera_profile.write(tmp_path / "c.json", profile)
    assert camera_profile.read(tmp_path / "c.json") == profile


@pytest.mark.parametrize(
    "changed",
    [{"threshold": 2}, {"threshold": "0.5"}, {"logit_offset": 1e9}, {"model": ""}, {"figures": []}, {"format": "x"},
     {"version": 2}, {"threshold": None}, {"judging": {"tta": "four"}}],
)  # fmt: skip
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "c.json"
    camera_profile.write(path, CameraProfile("m", 0.8))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))
    with pytest.raises(DamagedFile, match=r"c\.json"):
        camera_profile.read(path)


def test_another_models_profile_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    head = tmp_path / "m.keras"
    head.write_bytes(b"a head")
    (tmp_path / "config.json").write_text("{}")
    path, settings = tmp_path / "c.json", EventConfig(smoothing_s=7.5)
    made = CameraProfile(model_files.identity(head), 0.8, events=camera_profile.other_settings(EventConfig()))
    camera_profile.write(path, made)
    assert camera_profile.read_for(path, head, settings) == made
    assert "smoothing_s 0.0, now 7.5" in caplog.text
    camera_profile.read_for(path, head, EventConfig(offset=0.2))
    assert "other event settings: offset None, now 0.2" in caplog.text
    camera_profile.write(path, replace(made, model="another"))
    with pytest.raises(UserError, match="made for another model"):
        camera_profile.read_for(path, head, settings)
    with pytest.raises(UserError, match="no camera profile at"):
        camera_profile.read(tmp_path / "missing.json")


def _kept(folder: Path, stride_s: float, still: bool = False) -> Path:
    """Write the windows of an hour as a run with --format csv does; return the folder."""
    windows = tuple(
        JudgedWindow.of((stride_s * i, stride_s * i + 5), None if still else 0.1)
        for i in range(int(3600 / stride_s))
    )
    (chosen,) = formats.chosen(["csv"])
    assert chosen.of_video
    verdict = Verdict("v.mp4", windows, EventConfig(), 3600.0, 3600.0, fps=25.0)
    formats.write(folder, "v", chosen.of_video(verdict))
    return folder


def test_windows_that_are_judged_otherwise_than_the_measured_ones_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A threshold measured on windows every 5 s gives twice the promised false events with windows every 2.5 s."""
    (tmp_path / "m.keras").write_bytes(b"a head")
    (tmp_path / "config.json").write_text("{}")
    config, path = PredictConfig(model=tmp_path / "m.keras"), tmp_path / "c.json"
    kept = _kept(tmp_path / "five", 5.0)
    quiet_footage.run(config, QuietConfig(calibrate=kept), path)
    made = camera_profile.read(path)
    assert made.judging == {"stride_s": 5.0}, "files of windows do not say how many views were averaged"
    config = replace(config, profile=path)
    batch.kept(kept, config)
    assert "judged with other settings" not in caplog.text
    batch.kept(_kept(tmp_path / "usual", 2.5), config)
    assert (
        f"{path} was measured on windows that were judged with other settings (stride_s 5.0, now 2.5)"
        in caplog.text
    )
    caplog.clear()
    whole = replace(made, judging={"stride_s": 1 / 3, "tta": 1, "skip_still": False})
    whole.warn_of_other({"stride_s": 0.33, "tta": 4, "skip_still": True}, path)
    assert "(tta 1, now 4; skip_still False, now True)" in caplog.text
    assert camera_profile.judging_of(batch.kept(_kept(tmp_path / "s", 2.5, still=True), config))["skip_still"]
    caplog.clear()
    of_before = {k: v for k, v in json.loads(path.read_text()).items() if k != "judging"}
    path.write_text(json.dumps(of_before))
    batch.kept(tmp_path / "usual", config)
    assert "judged with other settings" not in caplog.text


def test_how_footage_was_judged_is_in_its_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.keras").write_bytes(b"a head")
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setattr(batch, "judge_all", lambda *_: [_verdict([0.1, 0.2, 0.1])])
    quiet = tmp_path / "quiet.avi"
    quiet.write_bytes(b"footage")
    config = PredictConfig(model=tmp_path / "m.keras", tta=2, skip_still=True)
    quiet_footage.run(config, QuietConfig(calibrate=quiet), tmp_path / "c.json")
    judging = camera_profile.read(tmp_path / "c.json").judging
    assert judging == {"stride_s": 2.5, "tta": 2, "skip_still": True}


def test_the_offset_is_measured_by_the_profiles_threshold_where_verdicts_are_kept_too(tmp_path: Path) -> None:
    for name in ("best_model.keras", "config.json", "result.json"):
        (tmp_path / name).write_text("{}")
    made = CameraProfile(model_files.identity(tmp_path), 0.8)
    camera_profile.write(tmp_path / "c.json", made)
    (tmp_path / "v.mp4").write_bytes(b"")
    plain = PredictConfig(model=tmp_path)
    with verdict_journal.kept(tmp_path / "journal.jsonl", plain) as kept:
        key = kept.key(tmp_path / "v.mp4")
        kept.keep(key, _verdict([0.9]))
    config = replace(plain, profile=tmp_path / "c.json", offset=0.6)
    with verdict_journal.kept(tmp_path / "journal.jsonl", config) as kept:
        found = kept.find(key, tmp_path / "v.mp4")
        assert (found and found.events_by) == batch.events_by(config) == EventConfig(0.8, 0.6)
    with pytest.raises(UserError, match=r"from 0 to the threshold, 0\.8"):
        batch.events_by(replace(config, offset=0.9))


def test_a_profile_and_another_threshold_are_too_much() -> None:
    with pytest.raises(UserError, match="threshold of its own"):
        PredictConfig(profile=Path("c.json"), threshold=0.7)
