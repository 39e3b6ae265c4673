"""A worker process that keeps what it has loaded, and whose death costs only one item."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from violence_detection.system import processes, storage, supervised
from violence_detection.system.supervised import SupervisedWorker, WorkerLost

REPOSITORY = Path(__file__).resolve().parents[2]


class OddError(Exception):
    """Cannot be restored from its pickle, since its text does not fit its arguments."""

    def __init__(self, one: int, two: int):
        super().__init__("odd")


def load() -> Callable[[str], int]:
    loaded_by = os.getpid()

    def work(item: str) -> int:
        if item == "crash":
            os.abort()
        if item == "leave":
            os._exit(3)
        if item == "hang":
            time.sleep(600)
        if item == "slow":
            for _ in range(25):
                time.sleep(0.1)
                processes.beat()
        if item == "news":
            processes.tell("half of it")
        if item == "odd":
            raise OddError(1, 2)
        if item == "kept from Ctrl-C":
            return int(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        if item == "print":
            print("to stdout", flush=True)
        return loaded_by

    return work


def load_nothing() -> Callable[[str], int]:
    raise FileNotFoundError("no weights")


def test_what_is_loaded_is_kept_until_an_item_takes_it_down() -> None:
    with SupervisedWorker(load, silence_s=30) as worker:
        first = worker("a")
        assert worker("b") == first != os.getpid()
        with pytest.raises(WorkerLost, match="was killed by SIGABRT") as e:
            worker("crash")
        assert e.value.signal == signal.SIGABRT
        second = worker("c")
        assert second != first
        with pytest.raises(WorkerLost, match="exit code 3"):
            worker("leave")
    assert not storage.is_running(second)


def test_it_meets_no_ctrl_c_while_it_begins() -> None:
    with SupervisedWorker(load, silence_s=30) as worker:
        assert worker("kept from Ctrl-C")


def test_silence_is_the_end_and_signs_of_life_are_not() -> None:
    with SupervisedWorker(load, silence_s=1.6) as worker:
        worker.ready()
        assert worker("slow")
        began_s = time.monotonic()
        with pytest.raises(WorkerLost, match="no sign of life") as e:
            worker("hang")
        assert e.value.silent
        assert time.monotonic() - began_s < 10
        assert worker("a")


def test_one_that_died_in_the_meantime_is_not_the_fault_of_the_next_item() -> None:
    with SupervisedWorker(load, silence_s=30) as worker:
        pid = worker("a")
        os.kill(pid, signal.SIGKILL)
        while storage.is_running(pid):
            time.sleep(0.01)
        assert worker("b") != pid


def test_errors_of_loading_and_working_are_raised_here_with_their_traceback() -> None:
    with SupervisedWorker(load_nothing, silence_s=30) as worker:
        for _ in range(2):
            with pytest.raises(FileNotFoundError, match="no weights") as e:
                worker.ready()
            assert "in load_nothing" in e.value.__notes__[0]
    with SupervisedWorker(load, silence_s=30) as other, pytest.raises(RuntimeError, match="OddError: odd"):
        other("odd")


def test_an_answer_that_nobody_waited_for_is_not_that_of_the_next_item() -> None:
    def refuse(news: Any) -> None:
        raise BrokenPipeError(news)

    with SupervisedWorker(load, silence_s=30, on_news=refuse) as worker:
        first = worker("a")
        with pytest.raises(BrokenPipeError, match="half of it"):
            worker("news")
        assert worker("kept from Ctrl-C") == 1, "and not the number of the process, the answer to the news"
        assert worker("a") != first


def test_stdout_belongs_to_the_parent(capfd: pytest.CaptureFixture[str]) -> None:
    with SupervisedWorker(load, silence_s=30) as worker:
        worker("print")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "to stdout" in captured.err


def test_it_ends_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\nfrom violence_detection.system.supervised import SupervisedWorker\n"
        "def work(_):\n    print(os.getpid(), file=sys.stderr, flush=True)\n    time.sleep(60)\n"
        "def load():\n    return work\n"
        "if __name__ == '__main__':\n    SupervisedWorker(load, 60)('a')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert parent.stderr is not None
    worker = int(parent.stderr.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while storage.is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not storage.is_running(worker)


def test_a_stopped_job_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is counted in slices: time in which this process itself was stopped counts as one slice at most."""
    monkeypatch.setattr(supervised, "_SLICE_S", 0.1)
    waited: list[float] = []
    wait = supervised.wait

    def counted(what: Any, timeout_s: float) -> list[Any]:
        waited.append(timeout_s)
        return wait(what, timeout_s)

    with SupervisedWorker(load, silence_s=1.0) as worker:
        worker.ready()
        monkeypatch.setattr(supervised, "wait", counted)
        with pytest.raises(WorkerLost):
            worker("hang")
    assert len(waited) == 1 + 10, "until the item is taken, and then in silence"


def test_a_process_that_cannot_be_ended_does_not_hold_up_the_end_of_this_one() -> None:
    """Such a process waits, say, for a disk that does not answer."""
    program = """
import multiprocessing.process, sys
sys.path.insert(0, sys.argv[1])
import test_supervised
from violence_detection.system import supervised
if __name__ == "__main__":
    supervised._KILL_S = 0.2
    multiprocessing.process.BaseProcess.kill = lambda self: None
    worker = supervised.SupervisedWorker(test_supervised.load_sleeper, silence_s=0.5)
    try:
        worker(20)
    except supervised.WorkerLost as e:
        print(e.silent)
"""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, str(Path(__file__).parent)], cwd=Path(__file__).parents[2],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr
    assert time.monotonic() - begun < 15


def load_sleeper() -> Callable[[float], None]:
    return time.sleep
