"""Disks: free space, and folders that are tried before the work begins."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

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


def test_a_disk_that_does_not_take_the_characters_of_a_name_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["plain", "22:15", "23:15", "what?", 'a "b"', "line\nend", "ä ~ # é"]
    disks.check_takes_names(tmp_path / "new" / "folder", names, "--clips")
    assert list(tmp_path.iterdir()) == []
    named, tried = tempfile.NamedTemporaryFile, []

    def as_on_fat(**where: Any) -> Any:
        tried.append(where["suffix"])
        if set(where["suffix"]) & set('\\:*?"<>|\n'):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return named(**where)

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", as_on_fat)
    disks.check_takes_names(tmp_path, ["plain", "ä ~ # é"], "--clips")
    assert not tried
    for name in names[1:-1]:
        with pytest.raises(UserError) as e:
            disks.check_takes_names(tmp_path / "new", ["plain", name], "--clips")
        assert (
            f"--clips: the disk of {tmp_path / 'new'} does not accept a file named {name} (Invalid argument)"
            in str(e.value)
        )
        assert "Name a folder on another disk, or rename the video" in str(e.value)


def test_of_a_folder_that_takes_nothing_no_name_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "NamedTemporaryFile", refused)
    with pytest.raises(
        UserError,
        match=rf"^cannot write in {tmp_path} \(Permission denied\)\. Give this user permission .* \(--clips\)$",
    ):
        disks.check_takes_names(tmp_path / "new", ["22:15"], "--clips")


def test_room_is_measured_on_the_disk_that_a_new_folder_will_be_on(tmp_path: Path) -> None:
    assert disks.free_bytes_of(tmp_path / "not" / "yet") > 0
    assert disks.gigabytes(2.5e9) == "2.5 GB"
    assert disks.gigabytes(2.5e6) == "2.5 MB"
