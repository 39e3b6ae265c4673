"""Work spread over processes, with few items in flight at a time and workers whose death does not end the work.

Long work can send signs of life (`beat`, `tell`), by which a watching process tells slow work from stuck work.
Processes are started fresh (spawn): a fork may hang once OpenCV or TensorFlow have started threads.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from types import ModuleType
from typing import Any, Generic, TypeVar

from loky import ProcessPoolExecutor, cpu_count
from loky.process_executor import TerminatedWorkerError

T = TypeVar("T")
R = TypeVar("R")
#: Each worker takes seven of the 1,024 files that a process can usually have open.
_MOST_WORKERS = 100
#: The environment variable that limits the number of CPUs that loky counts.
_LIMIT = "LOKY_MAX_CPU_COUNT"
#: Held while `__main__` is replaced to start a process: two threads would save and restore each other's stand-in.
_starting = threading.Lock()
#: Least time between two signs of life that `beat` passes on.
_EVERY_S = 1.0


def usable_cpus() -> int:
    """CPUs that this process may use, by its affinity mask and the container's quota; at least 1."""
    return int(cpu_count())


@contextlib.contextmanager
def limited_to(cpus: int) -> Iterator[None]:
    """Let `usable_cpus` return at most `cpus` within the context, for a worker that shares its machine with others."""
    with environment({_LIMIT: str(cpus)}):
        yield


@contextlib.contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set these environment variables within the context, also for processes started there; restore them afterwards."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def worker_count(asked: int) -> int:
    """The number asked for, or one per usable CPU if that is 0."""
    return asked if asked > 0 else usable_cpus()


def map_unordered(
    function: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    on_crash: Callable[[T], R],
    *,
    time_limit_s: float | Callable[[T], float] | None = None,
    on_timeout: Callable[[T], R] | None = None,
) -> Iterator[tuple[T, R]]:
    """Yield (item, function(item)) in order of completion. Items and results cross processes by pickle.

    A damaged video can crash the decoder's process or hang it. An item whose process dies yields on_crash(item). If an
    item takes longer than `time_limit_s`, or time_limit_s(item), its process is killed and it yields on_timeout(item),
    or on_crash(item) if there is no `on_timeout`. An exception of `function` is raised here, and ends all workers.
    """
    todo = iter(items)
    count = min(worker_count(workers), _MOST_WORKERS)
    # Each worker is its own pool with one item at a time: if a worker of a larger pool dies, nothing tells which item
    # killed it (docs/decisions.md).
    idle: list[ProcessPoolExecutor] = []
    busy: dict[Future[R], _Begun[T]] = {}
    finished: list[tuple[T, R]] = []
    try:
        while True:
            for item in itertools.islice(todo, count - len(busy)):
                pool = idle.pop() if idle else _one_worker(max(1, usable_cpus() // count))
                limit_s = time_limit_s(item) if callable(time_limit_s) else time_limit_s
                # Ctrl-C may be raised when this ends; by then the pool must be in `busy`, so that it is shut down.
                with kept_from_ctrl_c():
                    busy[pool.submit(function, item)] = _Begun(item, pool, limit_s)
            # Only after new items were submitted, so that the workers are busy while the caller handles these.
            yield from finished
            if not busy:
                return
            finished = []
            for future in wait(busy, _time_left_s(busy.values()), FIRST_COMPLETED).done:
                item, pool = busy[future].item, busy.pop(future).pool
                idle.append(pool)
                try:
                    result = future.result()
                except TerminatedWorkerError:
                    idle.pop().shutdown()
                    result = on_crash(item)
                finished.append((item, result))
            for future in [f for f, begun in busy.items() if _time_left_s([begun]) == 0]:
                begun = busy.pop(future)
                begun.pool.shutdown(kill_workers=True)
                finished.append((begun.item, (on_timeout or on_crash)(begun.item)))
    finally:
        for pool in (*idle, *(begun.pool for begun in busy.values())):
            pool.shutdown(kill_workers=True)


@dataclass(frozen=True)
class _Begun(Generic[T]):
    """An item in progress, its worker, and when it was submitted."""

    item: T
    pool: ProcessPoolExecutor
    limit_s: float | None
    since_s: float = field(default_factory=time.monotonic)


def _one_worker(threads: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, context=WithoutScript(), initializer=_begin_worker, initargs=(threads,))


class _WithoutScriptProcess(SpawnProcess):
    def start(self) -> None:
        with _starting:
            script, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
            try:
                super().start()
            finally:
                sys.modules["__main__"] = script


class WithoutScript(SpawnContext):
    """A "spawn" context whose processes do not import the main script first.

    Otherwise a script without `if __name__ == "__main__"` would run again in each process. Functions and classes sent
    to these processes must not be defined in the main script, unless they are pickled by value, as loky does.
    """

    Process = _WithoutScriptProcess


def _begin_worker(threads: int) -> None:
    # OpenCV reads this when it is loaded; without it, each worker would start a thread for every CPU of the machine.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", str(threads))
    # Crashes are expected here and listed in the failures file; loky would print a traceback for each.
    os.environ.setdefault("PYTHONFAULTHANDLER", "")
    follow_parent()


@contextlib.contextmanager
def kept_from_ctrl_c() -> Iterator[None]:
    """Block Ctrl-C (SIGINT) in processes that this thread starts within the context, from their first moment on.

    This process receives a Ctrl-C that comes meanwhile at the end of the context, or at once if it has other threads.
    """
    resource_tracker.ensure_running()  # else the first process starts it, and Python 3.11 then unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _time_left_s(begun: Iterable[_Begun[T]]) -> float | None:
    """Seconds until the first of these items reaches its time limit, at least 0; None if none has a limit."""
    ends_s = [b.since_s + b.limit_s for b in begun if b.limit_s is not None]
    return max(0.0, min(ends_s) - time.monotonic()) if ends_s else None


def follow_parent() -> None:
    """Make this worker ignore Ctrl-C and exit when the process that started it ends, even by SIGKILL."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


class _Watcher:
    """Where signs of life are sent: `say` is None if nobody watches."""

    def __init__(self) -> None:
        self.say: Callable[[Any], None] | None = None
        self.last_s = 0.0


_watcher = _Watcher()


def beat() -> None:
    """Report progress, such as a decoded frame or a judged window. Passed on at most once a second; cheap otherwise."""
    if _watcher.say is not None and (now_s := time.monotonic()) - _watcher.last_s >= _EVERY_S:
        _watcher.last_s = now_s
        _watcher.say(None)


def tell(news: Any) -> None:
    """Report progress with `news`, any value that the watcher understands. Always passed on."""
    if _watcher.say is not None:
        _watcher.last_s = time.monotonic()
        _watcher.say(news)


def watch(say: Callable[[Any], None]) -> None:
    """Call `say` for this process's signs of life: with the news of `tell`, or with None for `beat`.

    Any thread may call it.
    """
    _watcher.say = say
