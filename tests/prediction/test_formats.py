"""Formats of verdicts: other programs read them, and their windows are judged again without the videos."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
import time
from datetime import timedelta
from pathlib import Path

import opentimelineio as otio
import pytest
import srt

from violence_detection.errors import DamagedFile, UnreadableVideo, UserError
from violence_detection.prediction import formats, kept_windows
from violence_detection.prediction.clock import minutes, subtitle_time, timecode
from violence_detection.prediction.config import EventConfig, OutputConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.system.own_files import WrittenFiles

PS = (0.1, 0.9, 0.8, 0.1, 0.1, 0.1, 0.6, 0.2)
WINDOWS = tuple(JudgedWindow(3600 + 2.5 * i, 3605 + 2.5 * i, p) for i, p in enumerate(PS))


def _verdict(
    path: str = "night/käse, 1.mp4", fps: float = 29.97, windows: tuple[JudgedWindow, ...] = WINDOWS
) -> Verdict:
    return Verdict(path, windows, EventConfig(), 3622.5, 3622.5, "", True, fps)


def _text(name: str, ending: str, verdict: Verdict) -> str:
    of_video = formats.all_formats()[name].of_video
    assert of_video
    return of_video(verdict)[ending]


def test_formats_are_the_files_of_their_folder() -> None:
    assert list(formats.all_formats()) == ["csv", "edl", "json", "jsonl", "srt", "table"]
    help_text = next(f.metadata["help"] for f in dataclasses.fields(OutputConfig) if f.name == "format")
    assert all(re.search(rf"\b{name}\b", help_text) for name in formats.all_formats()), "--help names them"
    assert [f.name for f in formats.chosen(["srt", "csv", "srt"])] == ["srt", "csv"]
    with pytest.raises(UserError, match=r"no format 'vtt'\. Choose from csv, edl"):
        formats.chosen(["vtt"])


def test_an_edit_list_of_fewer_events_leaves_no_second_part(tmp_path: Path) -> None:
    (edl,) = formats.chosen(["edl"])
    written = {}
    for n in (1000, 1):
        windows = tuple(JudgedWindow(10.0 * i, 10.0 * i + 5, 0.9) for i in range(n))
        formats.write_of_video(edl, WrittenFiles(tmp_path), tmp_path, "v", _verdict(windows=windows))
        written[n] = sorted(path.name for path in tmp_path.glob("*.edl"))
    assert written == {1000: ["v.edl", "v.part2.edl"], 1: ["v.edl"]}


def test_a_file_of_a_video_whose_name_ends_as_a_parts_is_no_leftover(tmp_path: Path) -> None:
    (edl,) = formats.chosen(["edl"])
    written, verdict = WrittenFiles(tmp_path), _verdict("night.part2.mp4")
    formats.write_of_video(edl, written, tmp_path, "night.part2", verdict)
    output = tmp_path / "verdicts.json"
    assert formats.differing_files(edl, output, written, [verdict], []) == []
    other = _verdict("night.part2.mp4", windows=WINDOWS[:1])
    assert [p.name for p in formats.differing_files(edl, output, written, [other], [])] == ["night.part2.edl"]


def test_subtitles_are_read_by_a_library_for_them() -> None:
    verdict = _verdict()
    read = list(srt.parse(_text("srt", ".srt", verdict)))
    assert [(s.start, s.end) for s in read] == [
        (timedelta(seconds=e.start_s), timedelta(seconds=e.end_s)) for e in verdict.events
    ]
    assert [s.index for s in read] == [1, 2]
    assert [s.content for s in read] == ["violent, P 0.90", "violent, P 0.60"]
    assert _text("srt", ".srt", _verdict(windows=WINDOWS[:1])) == ""


@pytest.mark.parametrize(
    ("of_video", "fps"),
    [
        *((fps, fps) for fps in (23.976, 25.0, 29.97, 59.94)),
        *((119.88, 59.94), (144.0, 48.0), (239.76, 59.94), (240.0, 60.0)),
        # halving these does not lead to a whole number of frames that time codes can count
        *((75.0, 25.0), (300.0, 60.0)),
    ],
)
def test_an_edit_list_is_read_as_cmx_3600_and_its_frames_are_the_events(of_video: float, fps: float) -> None:
    """Time codes have two digits for frames: of a phone's slow motion they count only every second or third, say."""
    verdict = _verdict(fps=of_video)
    timeline = otio.adapters.read_from_string(_text("edl", ".edl", verdict), "cmx_3600", rate=round(fps))
    clips = list(timeline.find_clips())
    assert [c.name for c in clips] == ["k_se, 1.mp4"] * 2
    for clip, event in zip(clips, verdict.events, strict=True):
        first, last = clip.source_range.start_time.value, clip.source_range.end_time_inclusive().value
        assert first / fps == pytest.approx(event.start_s, abs=0.51 / fps)
        assert (last + 1) / fps == pytest.approx(event.end_s, abs=0.51 / fps)


def test_a_thousand_events_are_two_edit_lists() -> None:
    windows = tuple(JudgedWindow(10.0 * i, 10.0 * i + 5, 0.9) for i in range(1000))
    of_video = formats.all_formats()["edl"].of_video
    assert of_video
    texts = of_video(_verdict(windows=windows))
    assert list(texts) == [".edl", ".part2.edl"]
    counts = [text.count("FROM CLIP NAME") for text in texts.values()]
    assert counts == [999, 1]


def test_spreadsheets_have_a_row_a_window_and_a_row_an_event() -> None:
    verdict = _verdict()
    windows = list(csv.DictReader(io.StringIO(_text("csv", ".windows.csv", verdict))))
    assert [float(w["p_violent"]) for w in windows] == list(PS)
    assert [w["event"] for w in windows] == ["0", "1", "1", "0", "0", "0", "2", "0"]
    events = list(csv.DictReader(io.StringIO(_text("csv", ".events.csv", verdict))))
    assert [(e["event"], float(e["start_s"]), float(e["peak_s"])) for e in events] == [
        ("1", 3603.75, 3605.0), ("2", 3616.25, 3617.5),
    ]  # fmt: skip
    assert {e["path"] for e in events} == {verdict.path}


def test_json_is_what_stdout_has_and_the_windows() -> None:
    verdict = _verdict()
    found = json.loads(_text("json", ".verdict.json", verdict))
    assert {**verdict.summary(), "fps": 29.97, "windows": found["windows"]} == found
    assert len(found["windows"]) == len(PS)


def test_a_table_has_a_line_a_video_and_an_event() -> None:
    of_run = formats.all_formats()["table"].of_run
    assert of_run
    quiet = Verdict("b\n.avi", WINDOWS[:1], EventConfig(), 40.0, 17.0, "cut short")
    failures = [
        UnreadableVideo("empty.mp4", "holds no frames"),
        UnreadableVideo("b\n.avi", "was judged, but cannot be shown"),
    ]
    assert of_run([_verdict(), quiet], failures)[".txt"].splitlines() == [
        "verdict     P(violent)  when                   video",
        "fight       0.900       3622.5 s               night/käse, 1.mp4",
        "            0.900       1:00:03.8 - 1:00:08.8",
        "            0.600       1:00:16.2 - 1:00:18.8",
        "nonfight    0.100       17.0 of 40.0 s         b\\n.avi",
        "                                               cut short",
        "not judged                                     empty.mp4: holds no frames",
        "                                               b\\n.avi: was judged, but cannot be shown",
    ]


def test_what_is_below_one_is_not_written_as_one() -> None:
    verdict = _verdict(windows=(JudgedWindow(0.0, 5.0, 0.9997),))
    assert "violent, P 0.9997\n" in _text("srt", ".srt", verdict)
    assert "* COMMENT: VIOLENT, P 0.9997\n" in _text("edl", ".edl", verdict)
    of_run = formats.all_formats()["table"].of_run
    assert of_run
    lines = of_run([verdict], [])[".txt"].splitlines()[1:]
    assert [line.split("  ")[0] for line in lines] == ["fight", ""]
    assert all("  0.9997  " in line for line in lines)


def test_times_as_people_subtitles_and_editors_write_them() -> None:
    assert [minutes(s) for s in (0, 59.96, 75.5, 3723.04)] == ["0:00.0", "1:00.0", "1:15.5", "1:02:03.0"]
    assert subtitle_time(3723.4996) == "01:02:03,500"
    assert timecode(30 * 3723 + 29, 29.97) == "01:02:03:29"


def test_each_video_has_a_name_of_its_own() -> None:
    names = formats.names_of(["a/x.mp4", "b/X.avi", "a/y.mp4", "a/verdicts.mp4"], taken="verdicts")
    assert names["a/y.mp4"] == "y"
    assert names["a/x.mp4"].startswith("x~")
    assert names["b/X.avi"].startswith("X~")
    assert names["a/verdicts.mp4"].startswith("verdicts~")
    assert len({name.casefold() for name in names.values()}) == 4
    assert formats.names_of(["a/x.mp4", "b/X.avi"])["a/x.mp4"] == names["a/x.mp4"]


@pytest.mark.parametrize("name", ["csv", "jsonl", "json"])
def test_kept_windows_are_judged_again_as_if_judged_so_at_first(tmp_path: Path, name: str) -> None:
    odd = "odd\udcff.mp4"
    verdicts = [
        _verdict(),
        Verdict(odd, WINDOWS[:3], EventConfig(), 12.0, 9.0, "only 9 of 12 s", False, 25.0),
    ]
    for i, verdict in enumerate(verdicts):
        of_video = formats.all_formats()[name].of_video
        assert of_video
        formats.write(tmp_path, str(i), of_video(verdict))
    settings = EventConfig(0.85, merge_gap_s=9.0)
    found = kept_windows.read(tmp_path, settings)
    assert found == [
        Verdict(v.path, v.windows, settings, v.duration_s, v.judged_s, v.warning, v.calibrated, v.fps)
        for v in verdicts
    ]
    assert [len(v.events) for v in found] == [1, 1]
    assert found[0].label == "fight"
    assert kept_windows.read(tmp_path, EventConfig(0.95))[0].label == "nonfight"


def test_kept_windows_say_what_judged_them_so_that_no_picture_is_made_again(tmp_path: Path) -> None:
    """Annotated videos and clips count as current if the verdict is as it was, including what judged it."""
    verdict = dataclasses.replace(_verdict(), judged_with="openvino-bfloat16")
    of_video = formats.all_formats()["json"].of_video
    assert of_video
    formats.write(tmp_path, "0", of_video(verdict))
    assert kept_windows.read(tmp_path, verdict.events_by) == [verdict]


def test_files_that_hold_no_windows_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file or folder at .*gone"):
        kept_windows.read(tmp_path / "gone", EventConfig())
    with pytest.raises(UserError, match=r"holds no judged windows\. Judge the videos with --output first"):
        kept_windows.read(tmp_path, EventConfig())
    (tmp_path / "verdicts.json").write_text('{"videos": [], "failures": []}')
    with pytest.raises(
        UserError, match=r"verdicts\.json holds no windows .* or the folder that --output named"
    ):
        kept_windows.read(tmp_path / "verdicts.json", EventConfig())
    for name, text in {
        "a.windows.csv": "a,b\n1,2\n",
        "b.windows.jsonl": "[1]\n",
        "c.verdict.json": "{",
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(DamagedFile, match=name):
            kept_windows.read(tmp_path / name, EventConfig())


def test_what_a_newer_file_does_not_say_of_the_same_windows_an_older_one_does(tmp_path: Path) -> None:
    verdict = dataclasses.replace(_verdict(), judged_with="openvino-int8")
    for age_s, name in ((20, "json"), (10, "csv")):
        (chosen,) = formats.chosen([name])
        assert chosen.of_video
        for path in formats.write(tmp_path, "v", chosen.of_video(verdict)):
            os.utime(path, (time.time() - age_s,) * 2)
    assert kept_windows.read(tmp_path / "v.windows.csv", EventConfig())[0].judged_with == ""
    (read,) = kept_windows.read(tmp_path, EventConfig())
    assert read.judged_with == "openvino-int8"
    lower = tuple(dataclasses.replace(w, p_violent=w.p_violent / 2) for w in verdict.windows)
    (chosen,) = formats.chosen(["csv"])
    assert chosen.of_video
    formats.write(tmp_path, "v", chosen.of_video(dataclasses.replace(verdict, windows=lower)))
    (read,) = kept_windows.read(tmp_path, EventConfig())
    assert read.judged_with == "", "of other windows it says nothing"
