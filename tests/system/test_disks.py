"""Disks: room, and folders that are tried before the work begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from violence_detection.errors import UserError
from violence_detection.system import disks


def test_a_folder_is_tried_before_work_begins(tmp_path: Path) -> None:
    disks.check_writable(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(UserError, match=f"cannot write in {folder} .*name another folder"):
            disks.check_writable(folder)


def test_a_folder_that_is_only_tried_is_not_left(tmp_path: Path) -> None:
    disks.check_can_write(tmp_path / "new" / "folder")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    disks.check_can_write(tmp_path / "there" / "below")
    assert list(tmp_path.rglob("*")) == [tmp_path / "there"]
    disks.check_can_write(tmp_path / "there")
    assert (tmp_path / "there").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write in"):
        disks.check_can_write(tmp_path / "file" / "below")


def test_room_is_measured_on_the_disk_that_a_new_folder_will_be_on(tmp_path: Path) -> None:
    assert disks.free_bytes_of(tmp_path / "not" / "yet") > 0
    assert disks.gigabytes(2.5e9) == "2.5 GB"
    assert disks.gigabytes(2.5e6) == "2.5 MB"
