"""Every clip is looked at once, and one that cannot be read holds up no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import small_videos

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
