"""Judging many videos: a bad file, an interruption or a full disk costs no verdict, and the same command resumes."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import judge_stand_in
import pytest
import warm_start

import test_violence_model
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.models import model_files
from violence_detection.prediction import batch, camera_profile, verdict_journal
from violence_detection.prediction.camera_profile import CameraProfile
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.events import Verdict
from violence_detection.system import storage
from violence_detection.system.own_files import WrittenFiles
from violence_detection.video import augment

SCRIPT = Path(judge_stand_in.__file__)


class Place:
    """A folder with a model and videos, and the script run there in a new process (`start`) or a forked one (`run`)."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "model").mkdir(exist_ok=True)
        for name in ("best_model.keras", "config.json", "result.json"):
            (folder / "model" / name).write_text("{}")
        self.seen_file = folder / "seen"
        self.environment = {
            **os.environ,
            judge_stand_in.SEEN: str(self.seen_file),
            "PYTHONPATH": str(SCRIPT.parents[1]),
        }

    def videos(self, texts: Sequence[str]) -> list[str]:
        """Write a stand-in video for each text, numbered in order; return their paths relative to the folder."""
        (self.folder / "videos").mkdir(exist_ok=True)
        names = [f"videos/{i:0{DIGITS}d}.mp4" for i in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            (self.folder / name).write_text(text)
        return names

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), "--model", "model", *arguments],
            cwd=self.folder,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            # processes that a shell starts with & inherit that SIGINT is ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str, code: int, **environment: str) -> tuple[dict[str, Any], str]:
        """Run the script to its end; return its summary (empty if it printed none) and its stderr."""
        more = {judge_stand_in.SEEN: str(self.seen_file), **environment}
        done = warm_start.start(SCRIPT, "--model", "model", *arguments, cwd=self.folder, **more).wait(60)
        assert done.returncode == code, done.stderr
        assert done.stdout.count("\n") <= 1
        return json.loads(done.stdout or "{}"), done.stderr

    def seen(self) -> list[str]:
        """The lines that the stand-in wrote, in order: each loading of the model and the name of each judged file."""
        return self.seen_file.read_text(errors="surrogateescape").split("\n")[:-1]

    def wait_for(self, process: subprocess.Popen[bytes], lines: int) -> None:
        journal = self.folder / "out.json.journal.jsonl"
        while not journal.is_file() or journal.read_bytes().count(b"\n") < lines:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.005)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


#: Number of videos in the test whose runs are killed; ten of 200 crash, hang or are killed themselves.
VIDEOS = int(os.environ.get("VIOLENCE_VIDEOS", "20"))
DIGITS = max(2, len(str(VIDEOS - 1)))
BAD = {3: "crash", 8: "hang", 15: "killed"} | {
    20 * k + 3: ("hang", "crash")[k % 2] for k in range(3, VIDEOS // 20)
}
MANY = [BAD.get(i, f"0.{100 + i}") for i in range(VIDEOS)]


def test_killed_at_random_and_begun_again_it_ends_as_if_undisturbed(place: Place) -> None:
    place.videos(MANY)
    rng = random.Random(0)
    kept = 0
    for _ in range(2):
        process = place.start("videos", "--output", "out.json", STAND_IN_TAKES_S="0.05")
        kept += rng.randrange(2, 5) * VIDEOS // 20
        place.wait_for(process, kept)
        process.kill()
        process.communicate()
        kept = (place.folder / "out.json.journal.jsonl").read_bytes().count(b"\n")
        assert not (place.folder / "out.json").exists()
    disturbed, _ = place.run("videos", "--output", "out.json", code=1)
    judged = [name for name in place.seen() if name != "loading"]
    good = [f"{i:0{DIGITS}d}.mp4" for i in range(VIDEOS) if i not in BAD]
    # each of the two kills costs at most the video that was being judged
    assert sum(judged.count(name) for name in good) <= len(good) + 2

    undisturbed, _ = place.run("videos", "--output", "other.json", code=1)
    assert disturbed == undisturbed == json.loads((place.folder / "out.json").read_text())
    assert (place.folder / "out.json").read_bytes() == (place.folder / "other.json").read_bytes()
    assert [v["path"] for v in disturbed["videos"]] == [f"videos/{name}" for name in good]
    assert [v["p_violent"] for v in disturbed["videos"]] == [float(t) for t in MANY if t not in BAD.values()]
    assert [f["path"] for f in disturbed["failures"]] == [f"videos/{i:0{DIGITS}d}.mp4" for i in BAD]
    crash, hang, killed = (f["reason"] for f in disturbed["failures"][:3])
    assert "SIGABRT" in crash
    assert "no progress for" in hang
    assert "SIGKILL" in killed
    assert "memory" in killed
    csv = (place.folder / "out_failures.csv").read_text()
    assert csv.count("\n") == 1 + len(BAD)
    assert f"videos/{8:0{DIGITS}d}.mp4," in csv


def test_a_second_run_judges_nothing_and_says_the_same(place: Place) -> None:
    videos = place.videos(["0.9", "0.2", "0.7"])
    first, _ = place.run(*reversed(videos), "--output", "out.json", code=0)
    before, seen = (place.folder / "out.json").read_bytes(), place.seen()
    second, said = place.run(*reversed(videos), "--output", "out.json", code=0)
    assert first == second
    assert [v["path"] for v in second["videos"]] == videos[::-1]
    assert (place.folder / "out.json").read_bytes() == before
    assert place.seen() == seen
    assert "3 of 3 videos were judged before" in said


def test_what_changes_a_verdict_has_it_judged_again(place: Place) -> None:
    (video,) = place.videos(["0.6"])

    def judged(*flags: str) -> tuple[bool, dict[str, Any]]:
        before = len(place.seen()) if place.seen_file.exists() else 0
        found, _ = place.run(video, "--output", "out.json", *flags, code=0)
        return len(place.seen()) > before, found["videos"][0]

    assert judged()[0]
    assert not judged()[0]
    assert judged("--stride-s", "1")[0]
    assert judged("--tta", "2")[0]
    again, verdict = judged("--threshold", "0.7")
    assert not again, "a threshold only says what is made of the windows"
    assert verdict["label"] == "nonfight"
    assert verdict["events"] == []
    os.utime(place.folder / video, (1, 1))
    assert judged()[0]
    (place.folder / "model" / "best_model.keras").write_text("trained again")
    assert judged()[0]
    assert not judged()[0]


@pytest.mark.parametrize(("module", "rule"), [(verdict_journal, "VERSION"), (augment, "CLOSER")])
def test_another_rule_of_judging_or_of_the_closer_look_believes_no_old_verdict(
    place: Place, monkeypatch: pytest.MonkeyPatch, module: ModuleType, rule: str
) -> None:
    (video,) = place.videos(["0.6"])
    config = PredictConfig(model=place.folder / "model")

    def key() -> str:
        with verdict_journal.kept(place.folder / "out.journal.jsonl", config) as kept:
            return kept.key(place.folder / video)

    before = key()
    assert key() == before
    monkeypatch.setattr(module, rule, "another")
    assert key() != before


def test_an_operating_point_is_the_models_own_and_needs_no_judging(place: Place) -> None:
    (video,) = place.videos(["0.6"])
    run = (video, "--output", "out.json")
    before, _ = place.run(*run, code=0)
    assert (before["videos"][0]["threshold"], before["videos"][0]["calibrated"]) == (0.5, False)
    seen = place.seen()
    _, said = place.run(*run, "--operating-point", "high-recall", code=2)
    assert (
        "no threshold for the operating point high-recall: it was made before models were calibrated" in said
    )
    _, said = place.run(*run, "--operating-point", "high-recall", "--threshold", "0.3", code=2)
    assert "give one of the two" in said
    assert place.seen() == seen, "told before anything is judged"
    points = {"high_recall": {"threshold": 0.2}, "low_false_alarm": {"threshold": 0.75}}
    rests_on = {"what": "a test", "n": 99, "n_groups": 20}
    record = {"calibration": {"temperature": 1.5, "rests_on": rests_on, "operating_points": points}}
    (place.folder / "model" / "config.json").write_text(json.dumps(record))
    low, _ = place.run(*run, "--operating-point", "low-false-alarm", code=0)
    (verdict,) = low["videos"]
    assert (verdict["threshold"], verdict["label"], verdict["calibrated"]) == (0.75, "nonfight", True)
    seen = place.seen()
    assert len(seen) == 4, "with a temperature it gives other probabilities"
    high, _ = place.run(*run, "--operating-point", "high-recall", code=0)
    assert (high["videos"][0]["threshold"], high["videos"][0]["label"]) == (0.2, "fight")
    assert place.seen() == seen, "a threshold only says what is made of the windows"


def test_a_failure_is_tried_again_by_the_next_run(place: Place) -> None:
    (video,) = place.videos(["no disk"])
    found, _ = place.run(video, "--output", "out.json", code=1)
    assert found["failures"] == [{"path": video, "reason": "cannot be read: Input/output error"}]
    path = place.folder / video
    times = path.stat()
    path.write_text("0.8")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    found, _ = place.run(video, "--output", "out.json", code=0)
    assert found["videos"][0]["p_violent"] == 0.8
    assert not (place.folder / "out_failures.csv").exists()


def test_a_fault_at_one_video_is_its_own_failure_with_the_traceback_in_the_log(place: Place) -> None:
    found, said = place.run(*place.videos(["0.1", "bug", "unreadable", "0.2"]), code=1)
    assert [v["p_violent"] for v in found["videos"]] == [0.1, 0.2]
    bug, unreadable = (f["reason"] for f in found["failures"])
    assert "KeyError: 'a bug'" in bug
    assert unreadable == "no frames"
    assert "Traceback" in said
    assert 'raise KeyError("a bug")' in said


def test_slow_is_not_stuck(place: Place) -> None:
    found, _ = place.run(*place.videos(["slow"]), code=0)
    assert found["videos"][0]["p_violent"] == 0.5


@pytest.mark.parametrize("output", [("--output", "out.json"), ()])
def test_an_interrupt_prints_what_is_judged_and_how_to_go_on(place: Place, output: tuple[str, ...]) -> None:
    place.videos(["0.9", "0.8", "hang", "0.7"])
    process = place.start("videos", *output)
    while not place.seen_file.exists() or "02.mp4" not in place.seen():
        assert process.poll() is None
        time.sleep(0.01)
    # a terminal sends Ctrl-C to the whole process group
    os.killpg(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert [v["p_violent"] for v in json.loads(out)["videos"]] == [0.9, 0.8]
    goes_on = b"the same command continues from here" in said
    assert goes_on == bool(output)
    assert goes_on or b"With --output FILE" in said
    assert b"Traceback" not in said
    if output:
        seen = len(place.seen())
        found, _ = place.run("videos", *output, code=1)
        assert len(found["videos"]) == 3
        assert "00.mp4" not in place.seen()[seen:]


def test_an_interrupt_at_the_first_video_promises_no_verdicts(place: Place) -> None:
    place.videos(["hang"])
    process = place.start("videos")
    while not place.seen_file.exists() or "00.mp4" not in place.seen():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    out, said = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert b"no video was judged yet. With --output FILE" in said


def test_a_long_video_says_how_far_it_is_and_its_events_as_they_come(place: Place) -> None:
    _, said = place.run(*place.videos(["long"]), code=0)
    lines = [line for line in said.splitlines() if "violent at 2:00.0 - 3:00.0, 0.900 (judged to" in line]
    assert len(lines) == 1
    assert "of 10:00.0)" in lines[0]
    assert said.index(lines[0]) < said.index("fight    0.900")
    assert re.search(r"00\.mp4: +\d+%\|.*of 600 s, \d+\.\d times real time, \d+:\d+ left", said)


def test_a_run_that_was_killed_goes_on_within_a_long_video(place: Place) -> None:
    videos = place.videos(["long", "0.9", "crash"])
    begun = place.folder / "out.json.begun.jsonl"
    process = place.start(*videos, "--output", "out.json", STAND_IN_TAKES_S="0.2")
    while not begun.is_file() or begun.read_bytes().count(b"\n") < 3:
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    known = 16 * begun.read_bytes().count(b"\n")
    with begun.open("ab") as file:
        file.write(b'{"key": "torn')
    before = place.seen()
    found, said = place.run(*videos, "--output", "out.json", code=1)
    went_on = [int(line.split()[1]) for line in place.seen()[len(before) :] if line.startswith("from")]
    assert went_on == list(range(known, 120, 16))
    assert f"00.mp4: judged to {known * 5 // 60}:{known * 5 % 60:04.1f} by an earlier run" in said
    assert not begun.exists(), "all that could be judged is"
    undisturbed, _ = place.run(*videos, "--output", "other.json", code=1)
    assert found == undisturbed


def test_a_folder_of_outputs_is_judged_again_without_the_videos(place: Place) -> None:
    videos = place.videos(["0.9", "0.6"])
    first, said = place.run(*videos, "--output", "night", "--format", "table,csv,srt", code=0)
    assert "0.600       7.5 s" in said
    names = sorted(p.name for p in (place.folder / "night").iterdir() if not p.name.startswith("."))
    assert names == [
        "00.events.csv", "00.srt", "00.windows.csv", "01.events.csv", "01.srt", "01.windows.csv", "verdicts.json",
        "verdicts.json.journal.jsonl", "verdicts.txt",
    ]  # fmt: skip
    assert storage.read_json(place.folder / "night" / "verdicts.json") == first
    for video in videos:
        (place.folder / video).unlink()
    seen = place.seen()
    for kept in ("night", "night/verdicts.json.journal.jsonl"):
        again, said = place.run("--rejudge", kept, code=0)
        assert again == first
        assert "which model judged" not in said
    stricter, _ = place.run(
        "--rejudge", "night", "--threshold", "0.8", "--output", "stricter.json", "--format", "srt", code=0
    )
    assert [v["label"] for v in stricter["videos"]] == ["fight", "nonfight"]
    in_new_folder, _ = place.run("--rejudge", "night", "--threshold", "0.8", "--output", "stricter", code=0)
    assert storage.read_json(place.folder / "stricter" / "verdicts.json") == in_new_folder == stricter
    assert (place.folder / "00.srt").read_text() == (place.folder / "night" / "00.srt").read_text()
    assert (place.folder / "01.srt").read_text() == ""
    assert place.seen() == seen
    _, said = place.run("--rejudge", "night", "--output", "night", code=0)
    assert "by an earlier run" not in said, "they say the same"
    _, said = place.run(
        "--rejudge", "night", "--threshold", "0.8", "--output", "night", "--format", "csv", code=0
    )
    told = "night/01.srt, night/verdicts.txt: written by an earlier run, with other results than this one. --format"
    assert f"{told} csv,srt,table writes" in said
    _, said = place.run("--rejudge", "night", "--operating-point", "high-recall", "--model", "model", code=2)
    assert "no threshold for the operating point high-recall" in said
    (place.folder / "model" / "config.json").write_text("{ }")
    _, said = place.run("--rejudge", "night", code=2)
    assert "journal.jsonl: videos/00.mp4 was judged by another model" in said


def test_what_could_not_be_judged_is_named_where_a_folder_is_judged_again(place: Place) -> None:
    """Judging a folder again must keep its failures file, the only one that names recordings without a verdict."""
    place.videos(["0.9", "unreadable", "0.6 ends after 5 of 7.5 s", "0.2"])
    written = ("--output", "night", "--format", "table,csv")
    first, _ = place.run("videos", *written, code=1)
    failures = place.folder / "night" / "verdicts_failures.csv"
    before = failures.read_text()
    assert "01.mp4,no frames" in before
    (place.folder / "night" / "mine_failures.csv").write_text("name,mine\n")
    for given in ("night", "night/verdicts.json.journal.jsonl"):
        again, said = place.run("--rejudge", given, *written, code=1)
        assert again == first
        assert "videos/01.mp4: no frames" in said
        assert failures.read_text() == before
        assert "not judged" in (place.folder / "night" / "verdicts.txt").read_text()
    elsewhere, _ = place.run("--rejudge", "night", "--output", "stricter", code=1)
    assert elsewhere["failures"] == first["failures"]
    of_one, _ = place.run("--rejudge", "night/00.windows.csv", code=0)
    assert of_one["failures"] == []
    place.videos(["0.9", "0.8", "0.6"])
    place.run("videos", "--output", "night/later.json", code=0)
    mended, _ = place.run("--rejudge", "night", code=0)
    assert mended["failures"] == [], "a later run has judged it"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give videos to judge, or --rejudge PATH"),
        (("videos", "--rejudge", "night"), "--rejudge and videos to judge exclude each other"),
        (("videos", "--format", "srt"), "--format srt needs a place"),
        (("videos", "--format", "vtt", "--output", "o.json"), "no format 'vtt'"),
        (("videos", "--offset", "0.7"), "offset (--offset) must be from 0 to the threshold"),
        (("videos", "--clips", "model/config.json"), "is a file. Name a folder"),
        (("videos", "--learn", "marks.json"), "--learn goes with --rejudge PATH"),
        (("videos", "--profile", "camera.json"), "no camera profile at camera.json"),
        (("videos", "gone.mp4", "--clips", "ev"), "no file or folder at gone.mp4"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_judged(
    place: Place, arguments: tuple[str, ...], said: str
) -> None:
    place.videos(["0.9"])
    found, told = place.run(*arguments, code=2)
    assert found == {}
    assert said in told
    assert not place.seen_file.exists()
    assert not (place.folder / "ev").exists()


@pytest.mark.parametrize("output", ["model/config.json/out.json", "/proc/out.json", "/proc/out"])
def test_an_output_that_cannot_be_written_is_told_before_the_first_video(place: Place, output: str) -> None:
    place.videos(["0.9"])
    found, said = place.run("videos", "--output", output, code=2)
    assert found == {}
    assert str(Path(output).parent) in said
    assert "Traceback" not in said
    assert not place.seen_file.exists()


@pytest.fixture(scope="module")
def with_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place whose one video is judged, with outputs in night/; tests copy it."""
    place = Place(tmp_path_factory.mktemp("with_outputs"))
    place.videos(["0.9"])
    place.run("videos", "--output", "night", "--format", "csv", code=0)
    place.seen_file.unlink()
    return place.folder


MINE = {
    "notes.txt": "mine", "other.mp4": "mine", "list.txt": "videos/00.mp4", "data.json": '{"videos": "mine"}',
    "a_failures.csv": "name,mine", "b.txt": "mine", "page/index.html": "mine", "videos/00.srt": "mine",
    "videos/00.events.csv": "mine",
}  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("videos", "--output", "other.mp4"),
            "other.mp4 has the name of a video. --output takes a folder or a",
        ),
        (("videos", "--output", "videos/00.mp4"), "videos/00.mp4 has the name of a video"),
        (
            ("videos/00.mp4", "--output", "videos/../videos/00.mp4"),
            "a file that this run reads, and would be replaced",
        ),
        (
            ("list.txt", "--output", "list.txt"),
            "list.txt is a file that this run reads, and would be replaced",
        ),
        (("videos", "--output", "new.MTS/"), "new.MTS has the name of a video"),
        (
            ("videos", "--output", "notes.txt"),
            "notes.txt already exists and is not the JSON summary of an earlier run",
        ),
        (
            ("videos", "--output", "data.json"),
            "data.json already exists and is not the JSON summary of an earlier run",
        ),
        (
            ("--rejudge", "night", "--output", "videos/00.mp4"),
            "for the annotated video use --annotate FOLDER",
        ),
        (
            ("--rejudge", "night", "--output", "night/00.windows.csv"),
            "is not the JSON summary of an earlier run",
        ),
        (
            ("videos", "--output", "night.verdict.json"),
            "ends like the files that store a video's windows",
        ),
        (("videos", "--output", "a.json"), "the failures file a_failures.csv already exists"),
        (("videos", "--output", "b.json", "--format", "table"), "--format table: b.txt already exists"),
        (
            ("videos", "--timeline", "page"),
            "--timeline: page/index.html already exists and is not a review page",
        ),
        (
            ("videos", "--output", "videos", "--format", "srt"),
            "--format would replace videos/00.srt. These files were not written for",
        ),
        (
            ("videos", "--output", "videos", "--format", "csv,edl"),
            "would replace videos/00.events.csv. These files were not written for",
        ),
    ],
)
def test_what_would_replace_a_file_of_somebody_else_is_refused(
    with_outputs: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    place = Place(Path(shutil.copytree(with_outputs, tmp_path / "copy")))
    for name, text in MINE.items():
        (place.folder / name).parent.mkdir(exist_ok=True)
        (place.folder / name).write_text(text)
    before = {p: p.read_bytes() for p in place.folder.rglob("*") if p.is_file()}
    found, told = place.run(*arguments, code=2)
    assert found == {}
    assert said in told
    assert not place.seen_file.exists()
    assert {p: p.read_bytes() for p in place.folder.rglob("*") if p.is_file()} == before


def test_an_output_whose_name_its_disk_does_not_take_is_told_before_anything_is_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT disks accept no colon, and scripts put the time of day into file names."""
    named = tempfile.NamedTemporaryFile

    def as_on_fat(**where: Any) -> Any:
        if ":" in where.get("suffix", ""):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return named(**where)

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", as_on_fat)
    batch.check_output(tmp_path / "night.json")
    with pytest.raises(
        UserError, match=r"^--output: .* does not accept a file named 22:15\.json .*give it another name$"
    ):
        batch.check_output(tmp_path / "22:15.json")


def test_a_run_replaces_what_such_a_run_wrote(place: Place) -> None:
    place.videos(["0.9", "unreadable"])
    (place.folder / "night").mkdir()
    (place.folder / "night" / "verdicts.json").touch()
    written = ("--output", "night", "--format", "table,json,jsonl,csv,srt,edl")
    place.run("videos", *written, code=1)
    first = {p.name for p in (place.folder / "night").iterdir()}
    place.videos(["0.1", "0.2"])
    place.run("videos", *written, code=0)
    now = {p.name for p in (place.folder / "night").iterdir()}
    assert first - now == {"verdicts_failures.csv"}
    assert {name[:2] for name in now - first} == {"01"}
    assert (place.folder / "night" / "00.srt").read_text() == ""


def test_files_of_a_video_that_cannot_be_judged_any_more_are_named(place: Place) -> None:
    written = ("--output", "night", "--format", "srt")
    place.videos(["0.9"])
    place.run("videos", *written, code=0)
    place.videos(["unreadable"])
    _, said = place.run("videos", *written, code=1)
    assert "00.srt: written by an earlier run, for videos that this run could not judge" in said


def test_another_video_of_the_name_has_files_of_its_own(place: Place) -> None:
    for day, text in (("day1", "0.9"), ("day2", "0.8")):
        (place.folder / day).mkdir()
        (place.folder / day / "cam1.mp4").write_text(text)

    def judged(day: str) -> tuple[set[str], str]:
        _, said = place.run(f"{day}/cam1.mp4", "--output", "out", "--format", "srt", code=0)
        return {p.name for p in (place.folder / "out").glob("*.srt")}, said

    assert judged("day1")[0] == {"cam1.srt"}
    both, said = judged("day2")
    assert "day2/cam1.mp4: --format out has files named cam1 that do not belong to this video" in said
    (second,) = both - {"cam1.srt"}
    assert [f"P 0.{n}0" in (place.folder / "out" / f).read_text() for n, f in ((9, "cam1.srt"), (8, second))] == [
        True, True,
    ]  # fmt: skip
    assert judged("day1")[0] == judged("day2")[0] == both


def test_a_full_disk_ends_the_run_with_what_is_judged_on_stdout(place: Place) -> None:
    place.videos(["0.9", "0.8"])
    (place.folder / "out.json.journal.jsonl").symlink_to("/dev/full")
    found, said = place.run("videos", "--output", "out.json", code=2)
    assert [v["p_violent"] for v in found["videos"]] == [0.9]
    assert "No space left on device" in said
    assert str(place.folder) in said


def test_a_disk_that_is_full_at_the_end_costs_no_verdict(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place.videos(["0.9"])
    monkeypatch.chdir(place.folder)

    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(storage, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        test_violence_model.main(["--model", "model", "videos", "--output", "out.json"])
    assert json.loads(capsys.readouterr().out)["videos"][0]["p_violent"] == 0.9


def test_a_model_that_takes_its_process_down_is_not_loaded_for_ever(place: Place) -> None:
    place.videos(["0.9", "0.8"])
    _, said = place.run("videos", code=2, **{judge_stand_in.LOADING: "crash"})
    assert "the model cannot be loaded" in said
    assert "SIGABRT" in said
    assert place.seen() == ["loading", "loading"]


def test_what_loading_wants_of_the_user_is_exit_2(place: Place) -> None:
    place.videos(["0.9"])
    found, said = place.run("videos", code=2, **{judge_stand_in.LOADING: "user"})
    assert found == {}
    assert "the weights are not here. Fetch them" in said
    assert "Traceback" not in said


def test_a_warning_is_logged_and_exit_1(place: Place) -> None:
    videos = place.videos(["0.9 ends after 17 of 40 s", "0.1"])
    found, said = place.run(*videos, "--output", "out.json", code=1)
    assert found["videos"][0]["warning"] == "ends after 17 of 40 s"
    assert "warning" not in found["videos"][1]
    assert "videos/00.mp4: ends after 17 of 40 s" in said
    failures = (place.folder / "out_failures.csv").read_text().splitlines()
    assert failures[1:] == ["videos/00.mp4,ends after 17 of 40 s"]


def test_quiet_footage_that_cannot_be_judged_stands_in_the_failures_file(place: Place) -> None:
    place.videos(["0.2", "unreadable", "0.1 ends after 17 of 40 s"])
    flags = ("--calibrate", "videos", "--save-profile", "door.json", "--output", "out")
    found, _ = place.run(*flags, code=1)
    named = [("videos/01.mp4", "no frames"), ("videos/02.mp4", "ends after 17 of 40 s")]
    assert [(f["path"], f["reason"]) for f in found["failures"]] == named
    failures = place.folder / "out" / "verdicts_failures.csv"
    assert failures.read_text().splitlines()[1:] == [",".join(line) for line in named]
    for name in ("01", "02"):
        (place.folder / "videos" / f"{name}.mp4").unlink()
    place.run(*flags, code=0)
    assert not failures.exists()
    failures.write_text("name,mine\n")
    _, said = place.run(*flags, code=2)
    assert "verdicts_failures.csv already exists" in said
    assert failures.read_text() == "name,mine\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_name_that_is_no_utf8_is_judged_printed_and_kept(place: Place, encoding: str) -> None:
    (place.folder / "videos").mkdir()
    name = os.fsdecode("größer".encode() + b"\xff.mp4")
    (place.folder / "videos" / name).write_text("0.9")
    (place.folder / "videos" / os.fsdecode(b"bad\xfe.mp4")).write_text("unreadable")
    for _ in range(2):
        process = place.start("videos", "--output", "out.json", PYTHONIOENCODING=encoding)
        found = json.loads(process.communicate(timeout=60)[0])
        assert process.returncode == 1
        assert found["videos"][0]["path"] == f"videos/{name}"
        assert storage.read_json(place.folder / "out.json") == found
    assert place.seen().count(name) == 1
    assert b"bad\xfe.mp4" in (place.folder / "out_failures.csv").read_bytes()


def test_verdicts_come_one_by_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(judge_stand_in.SEEN, str(place.seen_file))
    paths = [place.folder / v for v in place.videos(["0.9", "unreadable"])]
    judged = batch.judge_all(paths, PredictConfig(model=place.folder / "model"))
    first = next(judged)
    assert isinstance(first, Verdict)
    assert first.path == str(paths[0])
    assert place.seen() == ["loading", "00.mp4"]
    assert isinstance(next(judged), UnreadableVideo)
    assert list(judged) == []


def _verdicts_in(journal: Path) -> list[dict[str, Any]]:
    """The lines of a journal that have a verdict, without those that say a later run took it from the journal."""
    return [entry for line in journal.read_text().splitlines() if "windows" in (entry := json.loads(line))]


def test_a_camera_profile_is_applied_and_judges_nothing_again(place: Place) -> None:
    videos = [place.folder / v for v in place.videos(["0.9", "0.6"])]
    model, profile = place.folder / "model", place.folder / "camera.json"
    journal = verdict_journal.path_for(place.folder / "out.json")
    first = list(batch.judge_all(videos, PredictConfig(model=model), journal))
    kept = _verdicts_in(journal)
    made = CameraProfile(model_files.identity(model), 0.7, -0.5)
    camera_profile.write(profile, made)
    config = PredictConfig(model=model, profile=profile)
    second = [v for v in batch.judge_all(videos, config, journal) if isinstance(v, Verdict)]
    assert second == [made.verdict(v) for v in first if isinstance(v, Verdict)]
    assert [(v.label, v.p_violent, v.profile) for v in second] == [
        ("fight", 0.8452, made.name), ("nonfight", 0.4764, made.name),
    ]  # fmt: skip
    assert _verdicts_in(journal) == kept
    anew = batch.judge_all(videos, config, verdict_journal.path_for(place.folder / "other.json"))
    assert list(anew) == second
    other = _verdicts_in(verdict_journal.path_for(place.folder / "other.json"))
    assert [v["windows"] for v in other] == [v["windows"] for v in kept], "as the model gave them"


def test_a_line_of_another_making_is_not_believed(place: Place) -> None:
    (video,) = (place.folder / v for v in place.videos(["0.9"]))
    config = PredictConfig(model=place.folder / "model")
    journal = verdict_journal.path_for(place.folder / "out.json")
    (verdict,) = batch.judge_all([video], config, journal)
    assert list(batch.judge_all([video], config, journal)) == [verdict]
    (line,) = _verdicts_in(journal)
    for wrong in ([{**line["windows"][0], "p_violent": 2}], []):
        journal.write_text(f'{json.dumps({**line, "windows": wrong})}\n{{"key": "torn')
        assert list(batch.judge_all([video], config, journal)) == [verdict]
        lines = journal.read_text().count('"windows"')
        assert list(batch.judge_all([video], config, journal)) == [verdict]
        assert journal.read_text().count('"windows"') == lines, (
            "the right line stands beside it, and is believed"
        )


def test_two_runs_into_one_output_do_not_mix(place: Place) -> None:
    place.videos(["0.9"])
    config = PredictConfig(model=place.folder / "model")
    with verdict_journal.kept(verdict_journal.path_for(place.folder / "out.json"), config):
        _, said = place.run("videos", "--output", "out.json", code=2)
    assert "another run is writing" in said
    assert "Traceback" not in said


def test_folders_are_searched_in_order_and_files_taken_as_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("b/2.AVI", "a/1.mp4", "a/notes.pdf", "reports/3.dav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    odd = tmp_path / "a" / "notes.pdf"
    with caplog.at_level("INFO", logger="violence_detection"):
        found = batch.find_videos([tmp_path, odd])
    assert found.videos == (
        tmp_path / "a/1.mp4", tmp_path / "b/2.AVI", tmp_path / "reports/3.dav", odd,
    )  # fmt: skip
    assert f"skipped below {tmp_path}: 1 .pdf" in caplog.text


def test_what_a_run_made_of_the_videos_of_a_folder_is_not_judged_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise the same command would judge more files each time, and a resumed run would differ from a full one.

    Such a file is judged if it is given by its own path, or with a folder that does not have the video it was made of.
    """
    video, clips = tmp_path / "night.mp4", tmp_path / "clips"
    video.write_bytes(b"the night")
    for folder, names in ((tmp_path, ["night.annotated.mp4"]), (clips, ["night.event001.mp4", "mine.mp4"])):
        folder.mkdir(exist_ok=True)
        for name in names:
            WrittenFiles(folder).write_text(folder / name, video, name)
    WrittenFiles(clips).write_text(clips / "far.event001.mp4", tmp_path / "elsewhere" / "far.mp4", "far")
    (clips / "mine.mp4").write_text("changed since")
    with caplog.at_level("INFO", logger="violence_detection"):
        found = batch.find_videos([tmp_path])
    assert found.videos == (clips / "far.event001.mp4", clips / "mine.mp4", video)
    assert f"skipped below {tmp_path}: 2 made by earlier runs from videos there" in caplog.text
    assert len(batch.find_videos([clips]).videos) == 3, "by themselves they are videos as others"
    annotated = tmp_path / "night.annotated.mp4"
    assert batch.find_videos([annotated]).videos == (annotated,)


def test_folder_without_videos_and_wrong_path_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no video files below .*it contains no files"):
        batch.find_videos([tmp_path])
    (tmp_path / "a.zip").touch()
    with pytest.raises(UserError, match=r"no video files below .*skipped: 1 \.zip\)\. Unpack archives first"):
        batch.find_videos([tmp_path])
    with pytest.raises(UserError, match=r"no file or folder at .*gone"):
        batch.find_videos([tmp_path / "gone"])


def test_cameras_where_videos_are_asked_for_are_refused_without_their_logins(tmp_path: Path) -> None:
    """--calibrate finds its footage in this way too. An address that became a Path has only one slash left."""
    (tmp_path / "cameras.txt").write_text("front=rtsp://me:geheim@host/1\n")
    for given in ("rtsp://me:geheim@host/1", "front=growing:x.ts", tmp_path / "cameras.txt"):
        with pytest.raises(
            UserError, match="is a camera or stream, but only video files can be judged here"
        ) as e:
            batch.find_videos([given])
        assert "geheim" not in str(e.value)
    with pytest.raises(UserError, match=r"no file or folder at rtsp:/host/1") as e:
        batch.find_videos([Path("rtsp://me:geheim@host/1")])


def test_a_folder_that_cannot_be_listed_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.mp4").touch()
    scandir = os.scandir

    def refused(folder: str) -> Any:
        if folder == str(tmp_path / "locked"):
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refused)
    found = batch.find_videos([tmp_path])
    assert found.videos == (tmp_path / "a.mp4",)
    (failure,) = batch.summary(found.failures)["failures"]
    assert failure["path"] == str(tmp_path / "locked")
    assert "cannot be listed" in failure["reason"]
    assert "Permission denied" in failure["reason"]


def test_a_file_that_several_paths_lead_to_is_one_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "a.mp4").touch()
    (tmp_path / "linked").symlink_to("day")
    (tmp_path / "b.mp4").symlink_to("day/a.mp4")
    monkeypatch.chdir(tmp_path)
    whole = tmp_path / "day" / "a.mp4"
    with caplog.at_level("INFO", logger="violence_detection"):
        assert batch.find_videos(["day/a.mp4", whole]).videos == (Path("day/a.mp4"),)
        assert (
            f"1 path left out, because another one leads to the same video: {whole} is day/a.mp4"
            in caplog.text
        )
        assert batch.find_videos(["linked", "day"]).videos == (Path("linked/a.mp4"),)
    caplog.clear()
    assert batch.find_videos(["b.mp4"]).videos == (Path("b.mp4"),)
    assert not caplog.text
