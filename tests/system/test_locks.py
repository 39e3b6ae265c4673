"""Locks: held by one at a time, released when the holder dies, and folders that one run has to itself."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import platform
import re
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from violence_detection.errors import UserError
from violence_detection.system import locks, storage


def test_a_lock_is_held_by_one_and_let_go_when_its_holder_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from violence_detection.system import locks\n"
        "with locks.locked(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(storage.__file__).parents[2])}
    command = [sys.executable, "-c", program, str(tmp_path / "lock")]
    holder = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    got = threading.Event()

    def take() -> None:
        with locks.locked(tmp_path / "lock"):
            got.set()

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    assert not got.wait(0.2), "two hold the lock"
    holder.kill()
    holder.wait()
    assert got.wait(10), "the lock of a killed process stays"


def test_one_that_does_not_wait_is_told_that_the_lock_is_taken(tmp_path: Path) -> None:
    told = []

    def try_it() -> None:
        try:
            with locks.locked(tmp_path / "lock", wait=False):
                told.append("held")
        except locks.LockTaken:
            told.append("taken")

    for inside in (True, False):
        with locks.locked(tmp_path / "lock") if inside else contextlib.nullcontext():
            thread = threading.Thread(target=try_it)
            thread.start()
            thread.join()
    assert told == ["taken", "held"]
    assert (tmp_path / "lock").exists(), (
        "those who wait for another file than the present one wait for nothing"
    )


def test_one_that_waits_for_long_says_for_what(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path, entered = tmp_path / "lock", threading.Event()

    def wait() -> None:
        with locks.locked(path, waits_for="somebody cuts clips"):
            entered.set()

    with locks.locked(path, waits_for="nobody is before it"):
        waiting = threading.Thread(target=wait)
        waiting.start()
        deadline = time.monotonic() + 10
        while "somebody cuts clips" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not entered.is_set()
    waiting.join(10)
    assert entered.is_set()
    assert caplog.text.count("somebody cuts clips") == 1
    assert "nobody is before it" not in caplog.text


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS])
def test_on_a_volume_without_locks_work_goes_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(logging.getLogger("violence_detection"), "propagate", True)
    with locks.locked(tmp_path / "lock", wait=False), locks.locked(tmp_path / "lock"):
        pass
    assert "does not support file locks" in caplog.text


def test_a_second_run_in_a_folder_is_told_who_has_it_and_since_when(tmp_path: Path) -> None:
    folder, before_s = tmp_path / "models", time.time()
    program = (
        "import sys; from pathlib import Path; from violence_detection.system import locks\n"
        "with locks.only_one(Path(sys.argv[1]), 'train.py'):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(storage.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", program, str(folder)], env=environment,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:  # fmt: skip
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(UserError) as refused, locks.only_one(folder, "train.py"):
            pytest.fail("two at once")
        other.kill()
    for told in (str(folder), "train.py", f"process {other.pid} ", platform.node()):
        assert told in str(refused.value)
    (since,) = re.findall(r"since (\S+ \S+ \S+)\)", str(refused.value))
    assert before_s - 1 < datetime.strptime(since, "%Y-%m-%d %H:%M:%S %z").timestamp() <= time.time()
    with locks.only_one(folder, "train.py"):  # a holder that was killed keeps nobody out
        assert (folder / locks.HOLDER_NAME).is_file()
    assert [p.name for p in folder.iterdir()] == [locks.ONLY_ONE_NAME]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write in"), locks.only_one(tmp_path / "file", "x"):
        pass


def test_what_is_raised_inside_a_held_folder_is_passed_on(tmp_path: Path) -> None:
    with pytest.raises(locks.LockTaken), locks.only_one(tmp_path, "train.py"):
        raise locks.LockTaken
    with locks.only_one(tmp_path, "train.py"):
        pass
