"""Every clip is looked at once, and one that cannot be read holds up no other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import small_videos
import timed_videos
from timed_videos import evenly

from violence_detection.combine import scan
from violence_detection.video import damaged


def test_a_file_that_is_never_read_to_its_end_is_given_up_and_tried_again_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damaged, "TIME_LIMIT_S", 4.0)
    files = {f"{i}.avi": small_videos.write(tmp_path / f"{i}.avi", i) for i in range(4)}
    files["stuck.avi"] = tmp_path / "stuck.avi"
    os.mkfifo(files["stuck.avi"])
    journal = tmp_path / "journal"
    found = scan.scan_all(files, journal, workers=2)
    assert [name for name, s in found.items() if s.reason] == ["stuck.avi"]
    assert "30 min" in found["stuck.avi"].reason
    assert "run the same command again" in found["stuck.avi"].reason
    assert len(journal.read_text().splitlines()) == 4
    monkeypatch.setattr(scan, "scan_file", None)
    del files["stuck.avi"]
    assert scan.scan_all(files, journal, workers=2) == {k: v for k, v in found.items() if not v.reason}


def _as_before_time_stamps(journal: Path) -> None:
    """The journal as it was when a frame's time was its number by the stated rate."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        for name in ("duration_s", "by_time", "shortfall"):
            del line[name]
        line["stated_frames"] = line["n_frames"]
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


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
    _as_before_time_stamps(journal)
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
