"""Kept windows: whose they are, whether the model's early exit was taken, and which of several runs counts."""

from __future__ import annotations

import csv
import dataclasses
import logging
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import judge_stand_in
import pytest

import test_violence_model
from violence_detection.errors import DamagedFile, UserError
from violence_detection.models import model_files
from violence_detection.prediction import (
    batch,
    camera_profile,
    formats,
    kept_windows,
    quiet_footage,
    verdict_journal,
    written_outputs,
)
from violence_detection.prediction.camera_profile import CameraProfile
from violence_detection.prediction.config import EventConfig, OutputConfig, PredictConfig, QuietConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.prediction.review import learning
from violence_detection.prediction.review.marks import Mark, Marks
from violence_detection.system import storage

HIGH = "high-recall"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model without weights, of two members; the first may judge alone (early exit), but not at high-recall."""
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


def test_the_rows_of_a_recording_with_many_events_cost_no_more_each() -> None:
    """Each window was once looked up in all events from the first on, so that the cost grew with the square."""

    def cpu_s(number: int) -> float:
        windows = tuple(JudgedWindow(2.0 * i, 2.0 * i + 2, 0.9 if i % 4 == 0 else 0.1) for i in range(number))
        verdict = Verdict("v.mp4", windows, EventConfig(merge_gap_s=0.0), 2.0 * number, 2.0 * number)
        begin_s = time.process_time()
        assert max(row["event"] for row in kept_windows.rows(verdict)) == number // 4
        return time.process_time() - begin_s

    assert min(cpu_s(12_000) for _ in range(3)) < 3 * min(cpu_s(6_000) for _ in range(3))


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
    video = "night\u2028of\u0085the\u2029third\rday.mp4"
    verdict = _verdict(video, True)
    (read,) = kept_windows.read(_keep(tmp_path, name, verdict), EventConfig())
    assert read.path == video
    (chosen,) = formats.chosen([name])
    assert chosen.of_video
    for ending, text in chosen.of_video(verdict).items():
        assert formats._has(tmp_path / f"{Path(video).stem}{ending}", text)


def test_cells_that_a_spreadsheet_left_out_at_the_end_of_a_row_are_empty(tmp_path: Path) -> None:
    columns = kept_windows.COLUMNS[: kept_windows.COLUMNS.index("warning")]
    (row, *_) = kept_windows.rows(_verdict("v.mp4", True))
    cells = ",".join(str(row[name]) for name in columns)
    (tmp_path / "v.windows.csv").write_text(f"{','.join(kept_windows.COLUMNS)}\n{cells}\n")
    (read,) = kept_windows.read(tmp_path, EventConfig())
    assert read.warning == read.model == read.real_path == ""


def test_a_table_of_windows_that_is_none_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "v.windows.csv").write_text('path\n"' + "x" * 200_000)
    with pytest.raises(
        DamagedFile, match=r"v\.windows\.csv holds no windows .*field larger than field limit"
    ):
        kept_windows.read(tmp_path, EventConfig())


@pytest.mark.parametrize("name", ["csv", "jsonl", "json"])
def test_notes_that_macos_leaves_beside_files_are_no_windows(name: str, tmp_path: Path) -> None:
    folder = _keep(tmp_path, name, _verdict("v.mp4", True))
    for file in [*folder.iterdir(), folder / "verdicts_failures.csv"]:
        file.with_name(f"._{file.name}").write_bytes(b"\x00\x05\x16\x07\x00Mac OS X")
    (read,) = kept_windows.read(folder, EventConfig())
    assert not batch.unjudged(folder, [read])
    for file in folder.glob("[!.]*"):
        file.unlink()
    assert not kept_windows.are_at(folder)


def test_failures_of_a_run_whose_output_has_a_hidden_name_are_known(tmp_path: Path) -> None:
    folder = _keep(tmp_path, "csv", _verdict("v.mp4", True))
    batch.write(folder / ".night.json", {"videos": [], "failures": [{"path": "bad.mp4", "reason": "broken"}]})
    (failure,) = batch.unjudged(folder, kept_windows.read(folder, EventConfig()))
    assert failure.path == "bad.mp4"


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
    said = r"kept/v\.\S+: \S*v\.mp4 was judged by another model than the one named\. Name the --model"
    with pytest.raises(UserError, match=said):
        batch.kept(folder, PredictConfig(model=other))
    with pytest.raises(UserError, match=said):
        quiet_footage.run(PredictConfig(model=other), QuietConfig(calibrate=folder), tmp_path / "p.json")
    assert len(batch.kept(folder, PredictConfig())) == 1
    of_csv, of_json = r",model$|,\w{32}$", r', "model": "\w{32}"|"model": "\w{32}",'
    # an earlier version wrote no model
    for file in folder.iterdir():
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
        UserError, match="was judged with the model's early exit, but high-recall is for prob"
    ):
        read(True, operating_point=HIGH)
    with pytest.raises(UserError, match="was judged without the model's early exit, but low-false-alarm is"):
        read(False, operating_point="low-false-alarm")
    camera_profile.write(
        tmp_path / "p.json", CameraProfile(model_files.identity(model), 0.7, early_exit=False)
    )
    assert not read(False, profile=tmp_path / "p.json").early_exit
    with pytest.raises(UserError, match=r"early exit, but \S*p.json is for probabilities without it"):
        read(True, profile=tmp_path / "p.json")
    # a threshold of the user's applies to whatever probabilities there are
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


class _JudgingRuns:
    """Runs the script with the stand-in model of tests/judge_stand_in.py from any folder; its outputs are in `out`."""

    def __init__(self, folder: Path, model: Path):
        self.folder, self.out, self._model = folder, folder / "out", model

    def video(self, path: str, text: str) -> Path:
        """Write a video of this text; it gets the time of any earlier one, for which a journal then takes it."""
        video = self.folder / path
        video.parent.mkdir(exist_ok=True)
        time_s = video.stat().st_mtime if video.exists() else 1.0
        video.write_text(text)
        os.utime(video, (time_s, time_s))
        return video

    def run(self, at: str, *arguments: str, model: Path | None = None) -> None:
        given = ["--model", str(model or self._model), *arguments, "--output", str(self.out)]
        with pytest.MonkeyPatch.context() as place:
            place.chdir(self.folder / at)
            place.setattr(batch, "load_judge", judge_stand_in.load)
            assert test_violence_model.main(given) == 0

    def read(self, ending: str = "") -> list[Verdict]:
        """Read the windows kept in `out`, only from files of this ending if one is given."""
        with tempfile.TemporaryDirectory() as folder:
            for file in self.out.iterdir():
                if file.name.endswith(ending or tuple(kept_windows.ENDINGS)):
                    shutil.copy2(file, folder)
            return kept_windows.read(Path(folder), EventConfig())


@pytest.fixture
def judging(model: Path, tmp_path: Path) -> _JudgingRuns:
    return _JudgingRuns(tmp_path, model)


ALL = ("--format", "csv,jsonl,json")


def test_videos_of_one_name_in_two_folders_are_two_and_one_by_two_paths_is_one(judging: _JudgingRuns) -> None:
    videos = [judging.video("day1/cam.mp4", "0.9"), judging.video("day2/cam.mp4", "0.8")]
    for video in videos:
        judging.run(video.parent.name, "cam.mp4", str(video), *ALL)
    judging.run("day1", "../day1/cam.mp4", *ALL)
    for ending in ("", *kept_windows.ENDINGS):
        found = judging.read(ending)
        assert [(v.path, v.p_violent) for v in found] == [(str(videos[0]), 0.9), (str(videos[1]), 0.8)], (
            ending
        )
        assert quiet_footage.choose(found, EventConfig(), 1.0).hours == pytest.approx(15 / 3600)


def test_a_relative_path_stays_where_it_leads_to_the_video(
    judging: _JudgingRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, other = judging.video("day1/cam.mp4", "0.9"), judging.video("day2/cam.mp4", "0.8")
    judging.run("day1", "cam.mp4")
    monkeypatch.chdir(video.parent)
    assert [v.path for v in judging.read()] == ["cam.mp4"]
    monkeypatch.chdir(other.parent)
    (moved,) = judging.read()
    assert (moved.path, moved.given_as) == (str(video), "cam.mp4"), "cam.mp4 is another file here"
    video.unlink()
    assert [v.path for v in judging.read()] == ["cam.mp4"], "it may have been moved here"


@pytest.mark.parametrize("how", ["settings", "model"])
def test_the_windows_of_the_newest_run_count(how: str, judging: _JudgingRuns, model: Path) -> None:
    """A verdict that a run takes from the journal counts as this run's."""
    other = Path(shutil.copytree(model, judging.folder / "other"))
    (other / "other" / "config.json").write_text("{ }")
    judging.video("v.mp4", "0.9")
    judging.run("", "v.mp4", *ALL)
    judging.video("v.mp4", "0.8")
    if how == "model":
        judging.run("", "v.mp4", *ALL, model=other)
    else:
        judging.run("", "v.mp4", *ALL, "--stride-s", "1")
    for ending in ("", *kept_windows.ENDINGS):
        assert [v.p_violent for v in judging.read(ending)] == [0.8], ending
    # no run reads this text, since the verdict comes from the journal
    judging.video("v.mp4", "0.7")
    judging.run("", "v.mp4")
    for ending in ("", kept_windows.ENDINGS[0]):
        assert [v.p_violent for v in judging.read(ending)] == [0.9], ending
    judging.run("", "v.mp4", *ALL)
    for ending in ("", *kept_windows.ENDINGS):
        assert [v.p_violent for v in judging.read(ending)] == [0.9], ending


@pytest.mark.parametrize("formats_of_first", ["csv", "jsonl", "json"])
def test_in_a_copied_folder_the_newest_run_counts_too(
    formats_of_first: str, judging: _JudgingRuns, tmp_path: Path
) -> None:
    """`cp -r` gives all files the time of the copy, including a table of the first run."""
    judging.video("v.mp4", "0.9")
    judging.run("", "v.mp4", "--format", formats_of_first)
    judging.video("v.mp4", "0.8")
    judging.run("", "v.mp4", "--stride-s", "1")
    copied = Path(shutil.copytree(judging.out, tmp_path / "copied", copy_function=shutil.copy))
    for folder in (judging.out, copied):
        assert [v.p_violent for v in kept_windows.read(folder, EventConfig())] == [0.8]


def test_another_video_of_a_journal_makes_the_windows_of_this_one_no_newer(judging: _JudgingRuns) -> None:
    folder = judging.out
    folder.mkdir()
    judging.video("w.mp4", "0.3")

    def judged(journal: str, video: str, *flags: str) -> list[float]:
        judging.out = folder / journal
        judging.run("", video, *flags)
        return [v.p_violent for v in kept_windows.read(folder, EventConfig()) if v.path.endswith("v.mp4")]

    judging.video("v.mp4", "0.9")
    assert judged("a.json", "v.mp4") == [0.9]
    judging.video("v.mp4", "0.8")
    assert judged("b.json", "v.mp4", "--stride-s", "1") == [0.8]
    assert judged("a.json", "w.mp4") == [0.8]
    assert judged("a.json", "v.mp4") == [0.9]


def test_a_link_to_quiet_footage_is_no_other_hour_of_it(judging: _JudgingRuns, model: Path) -> None:
    video = judging.video("quiet/v.mp4", "0.1")
    (video.parent / "w.mp4").symlink_to(video)
    with pytest.MonkeyPatch.context() as place:
        place.setattr(batch, "load_judge", judge_stand_in.load)
        quiet = QuietConfig(calibrate=video.parent)
        found = quiet_footage.run(PredictConfig(model=model), quiet, judging.folder / "p.json")
    assert found["calibration"]["hours"] == round(7.5 / 3600, 4)


def test_what_an_earlier_version_kept_is_known_by_the_path_as_it_stands(
    judging: _JudgingRuns, tmp_path: Path
) -> None:
    judging.video("v.mp4", "0.9")
    judging.run("", "v.mp4")
    (journal,) = judging.out.glob("*.journal.jsonl")
    journal.write_text(re.sub(r', "(real_path|kept_s)": ("[^"]*"|[\d.]+)', "", journal.read_text()))
    assert "real_path" not in journal.read_text()
    (read,) = judging.read()
    assert (read.path, read.real_path) == ("v.mp4", "")
    (tmp_path / "elsewhere").mkdir()
    with pytest.MonkeyPatch.context() as moved:
        moved.chdir(tmp_path / "elsewhere")
        assert "relative to the folder in which it was judged" in _why_no_clips(read, tmp_path / "clips")
    judging.run("", "v.mp4")
    assert [v.real_path for v in judging.read()] == [str(tmp_path / "v.mp4")], "the next run says it"


def _why_no_clips(verdict: Verdict, clips: Path) -> str:
    """Return the reason why clips of this verdict cannot be written."""
    with written_outputs.outputs(OutputConfig(clips=clips), None, [verdict.path]) as written:
        (failure,) = written.add(verdict)
    return failure.reason


def test_marks_made_in_another_folder_are_those_of_the_video() -> None:
    verdict = dataclasses.replace(
        _verdict("/day1/cam.mp4", True), real_path="/day1/cam.mp4", given_as="cam.mp4"
    )
    other = dataclasses.replace(_verdict("/day2/x.mp4", True), real_path="/day2/x.mp4", given_as="x.mp4")
    mark = Mark(0.0, 5.0, "right")
    given = Marks({"cam.mp4": [mark], "/day2/x.mp4": []}, frozenset({"cam.mp4"}))
    learned = learning.learn([verdict, other], given, EventConfig(), "m")
    assert (learned.figures["marks"], learned.figures["reviewed"], learned.figures["videos"]) == (1, 1, 2)
