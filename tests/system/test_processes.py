"""Every item comes back once, whatever happens to the process that worked on it."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from violence_detection.system import processes, storage

REPOSITORY = Path(__file__).resolve().parents[2]


def square(n: int) -> int:
    return n * n


def opencv_threads(_: int) -> int:
    import cv2

    return int(cv2.getNumThreads())


def square_or_die(n: int) -> int:
    if n % 10 == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    return n * n


def square_or_fail_in_every_way(n: int) -> int:
    if n == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if n == 4:
        os._exit(0)
    if n == 5:
        time.sleep(600)
    if n == 6:
        os.kill(os.getpid(), signal.SIGINT)
    return n * n


def began_without_ctrl_c(_: int) -> bool:
    return signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def time_out_by_itself(_: int) -> int:
    raise TimeoutError("the disk did not answer")


def sleep_or_raise(folder: Path | None) -> None:
    if folder is None:
        raise ValueError("none")
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def square_or_raise(n: int) -> int:
    if n == 3:
        raise ValueError("three")
    return n * n


def test_workers_meet_no_ctrl_c_while_they_begin() -> None:
    assert {kept for _, kept in processes.map_unordered(began_without_ctrl_c, range(2), 2, bool)} == {True}
    assert not began_without_ctrl_c(0)  # the process that started the workers does receive it


_INTERRUPTED = """
import signal, threading, time
import psutil
from violence_detection.system import processes

submit = processes.ProcessPoolExecutor.submit

def interrupted(pool, *args):
    future = submit(pool, *args)
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    return future

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run with &
    processes.ProcessPoolExecutor.submit = interrupted
    try:
        list(processes.map_unordered(time.sleep, [600.0], 1, bool))
    except KeyboardInterrupt:
        begun = [c for c in psutil.Process().children() if "spawn_main" in " ".join(c.cmdline())]
        print("left:", len(psutil.wait_procs(begun, timeout=5)[1]))
"""


def test_ctrl_c_while_a_worker_begins_leaves_none_behind(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(_INTERRUPTED)
    command, where = [sys.executable, "parent.py"], {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=tmp_path, env=where, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "left: 0\n", done.stderr


_WITHOUT_A_GUARD = """
import time
from pathlib import Path
from violence_detection.system import processes

with Path("runs").open("a") as runs:
    runs.write("x")

def square(n):
    return n * n

print(sorted(processes.map_unordered(square, range(3), 2, lambda n: -1)))
print(sorted(processes.map_unordered(len, ["ab"] * 3, 1, lambda n: -1)), square.__module__, bool(processes.__name__))
import __main__
assert __main__.square is square
"""


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(_WITHOUT_A_GUARD)
    where = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, env=where, capture_output=True, text=True,
                          timeout=60, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs").read_text() == "x"
    assert done.stdout.splitlines()[0] == "[(0, 0), (1, 1), (2, 4)]"
    assert "Traceback" not in done.stderr


def test_threads_that_start_processes_leave_the_script_as_it_was() -> None:
    script = sys.modules["__main__"]
    context = processes.WithoutScript()
    begun = [context.Process(target=time.sleep, args=(0.0,)) for _ in range(4)]
    threads = [threading.Thread(target=process.start) for process in begun]
    for thread in threads:
        thread.start()
    for thread, process in zip(threads, begun, strict=True):
        thread.join()
        process.join()
        assert process.exitcode == 0
    assert sys.modules["__main__"] is script


def test_workers_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "usable_cpus", lambda: 4)

    def threads(workers: int) -> set[int]:
        return {n for _, n in processes.map_unordered(opencv_threads, range(3), workers, int)}

    assert (threads(2), threads(3), threads(1)) == ({2}, {1}, {4})


def test_a_part_of_the_processors_counts_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOKY_MAX_CPU_COUNT", raising=False)
    everything = processes.usable_cpus()
    with processes.limited_to(1):
        assert processes.usable_cpus() == 1
        with processes.limited_to(1000):
            assert processes.usable_cpus() == everything
        assert processes.usable_cpus() == 1
    assert processes.usable_cpus() == everything


def test_variables_are_there_for_a_while_and_then_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THERE", "before")
    monkeypatch.delenv("NOT_THERE", raising=False)
    with processes.environment({"THERE": "now", "NOT_THERE": "now"}):
        assert (os.environ["THERE"], os.environ["NOT_THERE"]) == ("now", "now")
    assert os.environ["THERE"] == "before"
    assert "NOT_THERE" not in os.environ


def test_every_item_comes_back_once() -> None:
    found = list(processes.map_unordered(square, range(50), 2, on_crash=lambda n: -1))
    assert sorted(found) == [(n, n * n) for n in range(50)]
    assert list(processes.map_unordered(square, [], 2, on_crash=lambda n: -1)) == []


def test_a_crash_costs_only_the_item_that_crashes() -> None:
    found = dict(processes.map_unordered(square_or_die, range(12), 2, on_crash=lambda n: -1))
    assert found == {n: -1 if n % 10 == 3 else n * n for n in range(12)}


def test_what_takes_too_long_is_given_up_and_the_rest_is_done_once_each() -> None:
    found = list(
        processes.map_unordered(
            square_or_fail_in_every_way,
            range(20),
            2,
            on_crash=lambda n: -n,
            time_limit_s=4.0,
            on_timeout=lambda n: -100 * n,
        )
    )
    failed = {3: -3, 4: -4, 5: -500}
    assert sorted(found) == [(n, failed.get(n, n * n)) for n in range(20)]


def test_what_takes_too_long_counts_as_a_crash_if_nothing_else_is_said() -> None:
    found = processes.map_unordered(
        square_or_fail_in_every_way, [5], 1, on_crash=lambda n: -n, time_limit_s=0.5
    )
    assert list(found) == [(5, -5)]


def test_a_time_out_that_the_work_itself_reports_is_an_error_like_others() -> None:
    found = processes.map_unordered(time_out_by_itself, [1], 1, on_crash=lambda n: -n, time_limit_s=60)
    with pytest.raises(TimeoutError, match="the disk"):
        list(found)


def test_few_of_many_items_are_taken_at_a_time() -> None:
    items = iter(range(10_000))
    for count, _ in enumerate(processes.map_unordered(square, items, 2, on_crash=lambda n: -1), 1):
        assert 10_000 - operator.length_hint(items) <= count + 4
        if count == 50:
            break


def test_an_error_ends_what_still_runs(tmp_path: Path) -> None:
    def items() -> Iterator[Path | None]:
        yield tmp_path
        while not list(tmp_path.iterdir()):
            time.sleep(0.02)
        yield None

    with pytest.raises(ValueError, match="none"):
        list(processes.map_unordered(sleep_or_raise, items(), 2, on_crash=lambda _: None))
    assert not storage.is_running(int(next(tmp_path.iterdir()).name))


def test_an_error_is_raised_where_it_is_waited_for() -> None:
    with pytest.raises(ValueError, match="three"):
        list(processes.map_unordered(square_or_raise, range(5), 1, on_crash=lambda n: -1))


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\nfrom pathlib import Path\nfrom violence_detection.system import processes\n"
        "def work(folder):\n    (Path(folder) / str(os.getpid())).touch()\n    time.sleep(60)\n"
        "if __name__ == '__main__':\n    list(processes.map_unordered(work, [sys.argv[1]], 1, on_crash=id))\n"
    )
    pids = tmp_path / "pids"
    pids.mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(script), str(pids)], env={**os.environ, "PYTHONPATH": str(REPOSITORY)}
    )
    while not list(pids.iterdir()):
        assert parent.poll() is None
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    worker = int(next(pids.iterdir()).name)
    deadline = time.monotonic() + 10
    while storage.is_running(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not storage.is_running(worker)
