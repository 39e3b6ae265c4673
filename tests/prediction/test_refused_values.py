"""Values given by mistake are refused with a message that helps; unusual ones whose meaning is clear are accepted."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numbered_videos
import numpy as np
import pytest

import test_violence_model
import violence_detection as vd
from violence_detection.errors import DamagedFile, SourceError, UserError
from violence_detection.prediction import (
    annotated_video,
    batch,
    detector,
    formats,
    kept_windows,
    written_outputs,
)
from violence_detection.prediction.config import EventConfig, OutputConfig, PredictConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.prediction.outputs import spreadsheets
from violence_detection.prediction.review import review_media


def _verdict(path: Path | str = "v.mp4", duration_s: float = 3.0) -> Verdict:
    windows = (JudgedWindow(0.0, 2.0, 0.9), JudgedWindow(3.0, 5.0, 0.1), JudgedWindow(6.0, 8.0, 0.9))
    return Verdict(str(path), windows, EventConfig(merge_gap_s=0.0), duration_s, duration_s, fps=10.0)


def test_an_offset_is_held_to_the_threshold_once_that_is_known() -> None:
    config = PredictConfig(operating_point="low-false-alarm", offset=0.6)
    assert config.at(0.85).offset == 0.6
    with pytest.raises(UserError, match=r"offset \(--offset\) must be from 0 to the threshold"):
        config.at(0.5)
    with pytest.raises(UserError, match=r"offset \(--offset\) must be from 0 to the threshold"):
        PredictConfig(offset=0.6)
    assert PredictConfig(profile=Path("p.json"), offset=0.6).offset == 0.6


@pytest.mark.parametrize("name", ["2026.11.28", "outdir.v2"])
def test_a_name_with_a_dot_is_a_folder_unless_it_ends_in_json(name: str, tmp_path: Path) -> None:
    assert batch.output_file(tmp_path / name) == tmp_path / name / batch.OUTPUT_NAME
    assert batch.output_file(tmp_path / f"{name}.json") == tmp_path / f"{name}.json"


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("a.csv", "csv"), ("a.SRT", "srt"), ("a.edl", "edl"), ("a.jsonl", "jsonl"), ("a.txt", "table")],
)
def test_output_named_like_a_file_of_another_format_is_refused_with_the_flag_for_it(
    name: str, chosen: str, tmp_path: Path
) -> None:
    """It would become a folder with that name."""
    with pytest.raises(UserError, match=rf"name a folder, or .*--output FOLDER --format {chosen}$"):
        batch.output_file(tmp_path / name)
    assert {*batch._FORMAT_OF_SUFFIX.values(), "json"} == set(formats.all_formats())
    (tmp_path / name).mkdir()
    assert batch.output_file(tmp_path / name) == tmp_path / name / batch.OUTPUT_NAME


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path: Path) -> None:
    table = tmp_path / "v.windows.csv"
    table.write_text(spreadsheets.spreadsheets(_verdict())[".windows.csv"], encoding="utf-8-sig")
    assert kept_windows.read(table, EventConfig())[0].path == "v.mp4"
    table.write_text("start_s,end_s\n1,2\n")
    with pytest.raises(DamagedFile, match="missing field: 'path'"):
        kept_windows.read(table, EventConfig())


def test_the_panel_of_a_video_that_lasts_no_hundredth_of_a_second() -> None:
    verdict = dataclasses.replace(_verdict(duration_s=0.0), windows=(JudgedWindow(0.0, 0.0, 0.9),))
    assert annotated_video.Panel(verdict, 320).at(0.0).shape[1] == 320


@pytest.mark.parametrize(
    "ending", [".jpg", ".event001.jpg", ".event001.mp4", ".event002.jpg", ".event002.mp4"]
)
def test_what_was_deleted_is_made_again(ending: str, tmp_path: Path) -> None:
    video = numbered_videos.write(tmp_path / "v.mp4", 80, 10.0)
    config = OutputConfig(clips=tmp_path / "clips", timeline=tmp_path / "page")
    names = written_outputs.names_of(config, None, [str(video)])
    show = written_outputs.load_shower(config, names)
    assert show(_verdict(video, 8.0))
    assert not show(_verdict(video, 8.0))
    gone = [f for folder in ("clips", "page/media") if (f := tmp_path / folder / f"v{ending}").exists()]
    assert gone
    for file in gone:
        file.unlink()
        assert show(_verdict(video, 8.0))
        assert file.exists()


def test_a_record_of_what_the_page_shows_that_is_none_is_as_good_as_absent(tmp_path: Path) -> None:
    record = tmp_path / "page" / "media" / "v.made.json"
    record.parent.mkdir(parents=True)
    for text, missing in (("", True), ("[]", True), ("{", True), ('{"made_of": "x"}', False)):
        record.write_text(text)
        found = review_media.read(_verdict(tmp_path / "v.mp4", 8.0), tmp_path / "page", "v")
        assert bool(found.missing) is missing, text
        assert not found.is_copy


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"skip_still": "no"}, "skip_still .* must be True or False"),
        ({"tta": 2.0}, "tta .* must be a whole number"),
        ({"tta": None}, "tta .* must be a whole number.*None"),
        ({"tta": True}, "tta .* must be a whole number"),
        ({"tta": np.int64(0)}, "tta .* must be from 1 to"),
        ({"threshold": None}, "threshold .* must be a number.*None"),
        ({"threshold": True}, "threshold .* must be a number"),
        ({"threshold": np.float32(7)}, "threshold .* must be from 0 to 1"),
        ({"threshold": np.float32("nan")}, "threshold .* must be from 0 to 1"),
        ({"stride_s": np.float32(-1)}, "stride_s .* must be above 0"),
        ({"profile": 3}, "profile .* must be a path"),
    ],
)
def test_a_setting_of_another_kind_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        vd.load("fast", **settings)


def test_a_number_of_numpys_is_taken_as_pythons() -> None:
    given: dict[str, Any] = {"threshold": np.float32(0.75), "offset": np.float64(0.5), "tta": np.int64(2)}
    config = PredictConfig(**given, stride_s=2)
    assert [type(value) for value in (config.threshold, config.offset, config.tta)] == [float, float, int]
    assert (config.threshold, config.offset, config.tta) == (0.75, 0.5, 2)
    assert type(config.stride_s) is int, "what is written in a model's record stays as it is"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: vd.load("fast", treshold=0.5),
            r"violence_detection\.load\(\) .*'treshold'; did you mean threshold\?",
        ),
        (lambda: vd.load("fast", model="x"), r"'model'; did you mean name_or_path\?"),
        (lambda: vd.load("fast", zzz=1), r"'zzz'\. It takes name_or_path, .*operating_point.*tta"),
        (lambda: vd.evaluate("fast", reprt="x"), r"violence_detection\.evaluate\(\) .*did you mean report\?"),
        (lambda: vd.evaluate("fast", output="x"), r"'output'; did you mean report\?"),
    ],
)
def test_a_mistyped_keyword_is_answered_with_those_there_are(call: Callable[[], object], said: str) -> None:
    with pytest.raises(TypeError, match=said) as told:
        call()
    assert "Config" not in str(told.value)


def test_no_model_is_said() -> None:
    with pytest.raises(UserError, match="no model is named"):
        vd.load(None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"models .* must be a path.*None"):
        vd.evaluate(None)  # type: ignore[arg-type]


def test_a_number_is_that_of_a_camera() -> None:
    watched = detector.Detector.__new__(detector.Detector).watch(77)
    with pytest.raises(SourceError, match="camera 77: cannot be opened"):
        next(watched)


def test_an_address_is_no_file_and_a_home_folder_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stream in ("rtsp://u:secret@x/y", "growing:night.ts", "0"):
        with pytest.raises(UserError, match=r"stream, .*: use watch\(ADDRESS\) instead$") as told:
            detector._file(stream)
        assert "secret" not in str(told.value)
    for none in ("file:///a.mp4", "s3://u:secret@bucket/a.mp4", "rtps://u:secret@x/y", "rtsp:/u:secret@x/y"):
        with pytest.raises(
            UserError, match=r"is not the path of a file: give a plain path, not an address$"
        ) as told:
            detector._file(none)
        assert "secret" not in str(told.value)
        assert str(told.value).startswith(none.replace("u:secret@", ""))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert detector._file("~/x.mp4") == tmp_path / "x.mp4"


@pytest.mark.parametrize(
    "given",
    [
        ["growing:v.ts", "--model", "nosuch", "--clips", "clips"],
        ["growing:v.ts", "--mqtt", "ftp://host", "--clips", "clips"],
        ["growing:v.ts", "--timeline", "page"],
        [
            "v.mp4",
            "--model",
            "nosuch",
            "--annotate",
            "a",
            "--clips",
            "c",
            "--timeline",
            "t",
            "--explain",
            "e",
        ],
        ["nosuch.mp4"],
        ["--rejudge", "nosuch"],
    ],
)
def test_a_run_that_is_refused_leaves_no_folder(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    numbered_videos.write(tmp_path / "v.mp4", 20, 10.0)
    with pytest.raises(UserError):
        test_violence_model.main([*given, "--output", "new/out"])
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]


@pytest.mark.parametrize(
    "given",
    [
        ["--model", "nosuch", "--export", "onnx", "new/export"],
        ["--model", "accurate", "--adapt", "nosuch", "--save-model", "new/model"],
    ],
)
def test_neither_does_one_that_makes_a_model(
    given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="nosuch"):
        test_violence_model.main(given)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_clips_is_there_where_nothing_happened(tmp_path: Path) -> None:
    config = OutputConfig(clips=tmp_path / "new" / "clips")
    quiet = Verdict("v.mp4", (JudgedWindow(0.0, 2.0, 0.1),), EventConfig(), 2.0, 2.0)
    with written_outputs.outputs(config, None, ["v.mp4"]) as written:
        assert list(tmp_path.iterdir()) == []
        written.finish([quiet])
    assert list((tmp_path / "new" / "clips").iterdir()) == []


def test_names_of_formats_may_have_spaces(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Received: nonsense$"):
        test_violence_model.main(["--export", "nonsense, openvino", str(tmp_path / "out")])


@pytest.mark.parametrize("to", [">&-", ">/dev/full"])
def test_a_stdout_that_takes_nothing_is_named(to: str) -> None:
    code = "from violence_detection import cli; cli.run_main(lambda: cli.print_summary({}) or 0)"
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "{code}" {to}'], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "cannot be written to stdout" in done.stderr
    assert "Traceback" not in done.stderr
