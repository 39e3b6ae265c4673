"""Every clip is scanned once, an unreadable one does not hold up the others, and passing faults are tried again."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import small_videos
import timed_videos
from timed_videos import evenly

from violence_detection.combine import scan
from violence_detection.system import console, storage
from violence_detection.video import video_files

LOOK = scan.scan_file


def _die_once(path: Path) -> scan.Scan:
    tried = path.with_suffix(".tried")
    if path.stem == "heavy" and not tried.exists():
        tried.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return LOOK(path)


def _die(path: Path) -> scan.Scan:
    if path.stem == "heavy":
        os.kill(os.getpid(), signal.SIGKILL)
    return LOOK(path)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {
        f"{n}.avi": small_videos.write(tmp_path / f"{n}.avi", k) for k, n in enumerate(["heavy", "b", "c"])
    }


def known(journal: Path) -> int:
    return len(journal.read_text().splitlines())


def test_a_file_that_is_never_read_to_its_end_is_given_up_and_tried_again_by_the_next_run(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_files, "TIME_LIMIT_S", 4.0)
    files["stuck.avi"] = tmp_path / "stuck.avi"
    os.mkfifo(files["stuck.avi"])
    journal = tmp_path / "journal"
    found = scan.scan_all(files, journal, workers=2)
    assert [name for name, s in found.items() if s.reason] == ["stuck.avi"]
    assert "takes more than" in found["stuck.avi"].reason
    assert "run the same command again" in found["stuck.avi"].reason
    assert known(journal) == 3
    monkeypatch.setattr(scan, "scan_file", None)
    del files["stuck.avi"]
    assert scan.scan_all(files, journal, workers=2) == {k: v for k, v in found.items() if not v.reason}


def test_however_seldom_pictures_come_a_scan_is_made_of_them(tmp_path: Path) -> None:
    """A single file with one picture an hour once ended the scan of all files."""
    found = scan.scan_file(timed_videos.write(tmp_path / "v.mkv", evenly(12, 1 / 3600)))
    assert (found.n_frames, found.duration_s, found.reason) == (12, 43200.0, "")


def _as_before(journal: Path, files: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Return the lines of the journal with the keys that the previous version gave them."""
    keys = {scan.journal_key(n, p): scan.journal_key(n, p, scan._VERSION_BEFORE) for n, p in files.items()}
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    return [{**line, "key": keys[line["key"]]} for line in lines]


def _as_before_time_stamps(journal: Path, files: Mapping[str, Path]) -> None:
    """Rewrite the journal as of the time when a frame's time was computed from its number and the stated frame rate."""
    lines = _as_before(journal, files)
    for line in lines:
        for name in ("duration_s", "by_time", "shortfall"):
            del line[name]
        line["stated_frames"] = line["n_frames"]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_of_the_version_before_what_packets_say_today_stays_known(
    tmp_path: Path,
    files: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two files are read again: one recorded as cut short although its packets are complete, and one recorded with
    another duration. No other is decoded again.
    """
    files["variable.mp4"] = timed_videos.write(
        tmp_path / "variable.mp4", [*evenly(20, 5), *evenly(40, 25, 4.0)]
    )
    journal = tmp_path / "journal"
    whole = scan.scan_all(files, journal, workers=2)
    changed: dict[str, dict[str, Any]] = {
        "heavy.avi": {"shortfall": "only 4.0 of 604.0 s decode"},
        "c.avi": {"duration_s": 0.5},
    }
    names = {scan.journal_key(n, p, scan._VERSION_BEFORE): n for n, p in files.items()}
    lines = [line | changed.get(names[line["key"]], {}) for line in _as_before(journal, files)]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    read: list[str] = []

    def todo(paths: Mapping[Path, str], *_: object) -> Iterator[tuple[str, scan.Scan]]:
        read.extend(paths.values())
        yield from ((name, whole[name]) for name in paths.values())

    monkeypatch.setattr(scan, "_scan_and_record", todo)
    monkeypatch.setattr(console.log, "propagate", True)
    caplog.set_level(logging.INFO, "violence_detection")
    capsys.readouterr()
    assert scan.scan_all(files, journal, workers=2) == whole
    assert sorted(read) == sorted(changed)
    assert "4 files known from an earlier version: checking them against their packets" in caplog.text
    assert "packets: 100%" in capsys.readouterr().err
    caplog.clear()
    scan.scan_all({n: p for n, p in files.items() if n not in changed}, journal, workers=2)
    assert "earlier version" not in caplog.text, "said once"


def test_what_was_known_before_time_stamps_stays_known_where_they_say_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "constant.avi": small_videos.write(tmp_path / "constant.avi", 1),
        "constant.mp4": timed_videos.write(tmp_path / "constant.mp4", evenly(40, 25)),
        "variable.mp4": timed_videos.write(tmp_path / "variable.mp4", [*evenly(20, 5), *evenly(40, 25, 4.0)]),
        "fast.mp4": timed_videos.write(tmp_path / "fast.mp4", evenly(600, 300)),
    }
    journal = tmp_path / "journal"
    whole = scan.scan_all(files, journal, workers=2)
    assert {name: s.by_time for name, s in whole.items()} == {
        "constant.avi": False,
        "constant.mp4": False,
        "variable.mp4": True,
        "fast.mp4": True,
    }
    assert whole["variable.mp4"].duration_s == pytest.approx(5.6, abs=0.1)
    _as_before_time_stamps(journal, files)
    read: list[str] = []

    def todo(paths: Mapping[Path, str], *_: object) -> Iterator[tuple[str, scan.Scan]]:
        read.extend(paths.values())
        yield from ((name, whole[name]) for name in paths.values())

    monkeypatch.setattr(scan, "_scan_and_record", todo)
    assert scan.scan_all(files, journal, workers=2) == whole
    assert sorted(read) == ["fast.mp4", "variable.mp4"]
    read.clear()
    scan.scan_all({n: p for n, p in files.items() if "constant" in n}, journal, workers=2)
    assert read == [], "said once"


def test_the_limit_grows_with_the_file_and_is_minutes_for_a_clip(tmp_path: Path) -> None:
    clip, film = tmp_path / "clip.avi", tmp_path / "film.avi"
    for path, size_bytes in ((clip, 1_000_000), (film, 50_000_000_000)):
        with path.open("wb") as f:
            f.truncate(size_bytes)
    assert video_files.time_limit_s(tmp_path / "gone.avi") == 120
    assert 120 < video_files.time_limit_s(clip) < 180
    assert video_files.time_limit_s(film) == video_files.TIME_LIMIT_S


def test_one_whose_process_was_killed_is_tried_once_more_in_the_same_run(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "scan_file", _die_once)
    found = scan.scan_all(files, tmp_path / "journal", workers=2)
    assert (tmp_path / "heavy.tried").exists()
    assert not any(s.reason for s in found.values())
    assert known(tmp_path / "journal") == 3


def test_a_crash_is_no_fact_for_the_next_run_and_the_log_says_how_many(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(console.log, "propagate", True)
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(scan, "scan_file", _die)
    found = scan.scan_all(files, tmp_path / "journal", workers=2)
    assert found["heavy.avi"].reason == video_files.CRASHED
    assert "1 of them could not be read now; the next run tries them again" in caplog.text
    monkeypatch.setattr(scan, "scan_file", LOOK)
    assert not scan.scan_all(files, tmp_path / "journal", workers=2)["heavy.avi"].reason
    assert "3 files: 2 known, 1 to read" in caplog.text


@pytest.mark.parametrize("reason", [video_files.CRASHED, "cannot be read: Permission denied"])
def test_faults_that_an_earlier_version_remembered_are_not_believed(
    tmp_path: Path, files: dict[str, Path], reason: str
) -> None:
    with storage.appending_journal(tmp_path / "journal") as record:
        record(scan.journal_key("heavy.avi", files["heavy.avi"]), asdict(scan.Scan(reason=reason)))
    assert not scan.scan_all(files, tmp_path / "journal", workers=1)["heavy.avi"].reason


def test_what_the_system_does_not_give_is_not_remembered_and_what_does_not_decode_is(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.avi").mkdir()
    (tmp_path / "broken.avi").write_bytes(b"no video" * 100)
    files |= {name: tmp_path / name for name in ("folder.avi", "broken.avi")}
    found = scan.scan_all(files, tmp_path / "journal", workers=1)
    assert found["folder.avi"].reason == "cannot be read: Is a directory"
    assert found["broken.avi"].reason
    assert known(tmp_path / "journal") == 4
    monkeypatch.setattr(scan, "scan_file", None)
    del files["folder.avi"]
    assert scan.scan_all(files, tmp_path / "journal", workers=1)["broken.avi"] == found["broken.avi"]


def test_a_link_to_what_is_gone_is_a_named_failure_and_stops_nothing(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    files["link.avi"] = tmp_path / "link.avi"
    files["link.avi"].symlink_to(tmp_path / "gone.avi")
    found = scan.scan_all(files, tmp_path / "journal", workers=2)
    assert [name for name, s in found.items() if s.reason] == ["link.avi"]
    assert f"a link to {tmp_path}/gone.avi, which does not exist" in found["link.avi"].reason
    small_videos.write(tmp_path / "gone.avi", 9)
    assert not scan.scan_all(files, tmp_path / "journal", workers=2)["link.avi"].reason
