"""Every item comes back once, whatever happens to the process that had it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from violence_detection.system import processes, storage

REPOSITORY = Path(__file__).resolve().parents[2]


def square(n: int) -> int:
    return n * n


def square_or_die(n: int) -> int:
    if n % 10 == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    return n * n


def square_or_raise(n: int) -> int:
    if n == 3:
        raise ValueError("three")
    return n * n


def test_every_item_comes_back_once() -> None:
    found = list(processes.map_unordered(square, range(50), 2, on_crash=lambda n: -1))
    assert sorted(found) == [(n, n * n) for n in range(50)]
    assert list(processes.map_unordered(square, [], 2, on_crash=lambda n: -1)) == []


def test_a_crash_costs_only_the_item_that_crashes() -> None:
    found = dict(processes.map_unordered(square_or_die, range(12), 2, on_crash=lambda n: -1))
    assert found == {n: -1 if n % 10 == 3 else n * n for n in range(12)}


def test_an_error_is_raised_where_it_is_waited_for() -> None:
    with pytest.raises(ValueError, match="three"):
        list(processes.map_unordered(square_or_raise, range(5), 1, on_crash=lambda n: -1))


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\nfrom pathlib import Path\nfrom violence_detection import parallel\n"
        "def work(folder):\n    (Path(folder) / str(os.getpid())).touch()\n    time.sleep(60)\n"
        "if __name__ == '__main__':\n    list(parallel.map_unordered(work, [sys.argv[1]], 1, on_crash=id))\n"
    )
    pids = tmp_path / "pids"
    pids.mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(script), str(pids)], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    while not list(pids.iterdir()):
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    worker = int(next(pids.iterdir()).name)
    deadline = time.monotonic() + 10
    while storage.is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not storage.is_running(worker)
