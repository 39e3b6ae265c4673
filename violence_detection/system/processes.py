"""Work spread over processes, few items in flight whatever their number, and no worker's end is that of the work.
Long work gives signs of life, by which whoever watches it can tell slow from stuck.

Fresh processes (spawn) are used, because forking after OpenCV or TensorFlow have started threads may hang.
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
#: Each takes seven of the 1,024 files that a process may commonly have open.
_MOST_WORKERS = 100
#: The variable that bounds what loky counts.
_LIMIT = "LOKY_MAX_CPU_COUNT"
#: Held while a process is started without the script: two threads would take each other's stand-in for it.
_starting = threading.Lock()
#: Signs of life are cheap to give and not worth sending more often.
_EVERY_S = 1.0


def usable_cpus() -> int:
    """Processors that this process may use: those it is bound to, or fewer by the container's quota; at least 1."""
    return int(cpu_count())


@contextlib.contextmanager
def limited_to(cpus: int) -> Iterator[None]:
    """Count at most so many processors as usable meanwhile: a worker's part of a machine that several divide."""
    with environment({_LIMIT: str(cpus)}):
        yield


@contextlib.contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in the environment meanwhile, also for processes that are started; then as before."""
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
    """The number asked for, or one a usable core when that is 0."""
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

    Damaged videos can take a decoder's whole process with them, or keep it busy for ever. An item whose process dies
    yields on_crash(item). The process of an item that takes longer than `time_limit_s`, or time_limit_s(item), is
    killed, and it yields on_timeout(item), without that on_crash(item). What `function` raises is raised here, and ends
    what still runs.
    """
    todo = iter(items)
    count = min(worker_count(workers), _MOST_WORKERS)
    # Each worker is a pool of its own with one item at a time, so that what happens to it names the item: of a larger
    # pool with a dead worker nobody knows which item killed it (docs/decisions.md).
    idle: list[ProcessPoolExecutor] = []
    busy: dict[Future[R], _Begun[T]] = {}
    finished: list[tuple[T, R]] = []
    try:
        while True:
            for item in itertools.islice(todo, count - len(busy)):
                pool = idle.pop() if idle else _one_worker(max(1, usable_cpus() // count))
                limit_s = time_limit_s(item) if callable(time_limit_s) else time_limit_s
                with kept_from_ctrl_c():  # which may come at its end: the pool must be known by then
                    busy[pool.submit(function, item)] = _Begun(item, pool, limit_s)
            # Only now, so that the others work while the caller does.
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
    """An item and the worker that has it, from now on."""

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
    """Processes that do not run the script of this one first, as those of "spawn" do: without
    `if __name__ == "__main__"` in it, each would do all of it again.

    What they are given must not stand in the script, unless what hands it on sends it whole, as loky does.
    """

    Process = _WithoutScriptProcess


def _begin_worker(threads: int) -> None:
    # Its part of the processors, read by OpenCV when it is loaded: each worker would start threads for all of them.
    os.environ.setdefault("OPENCV_FOR_THREADS_NUM", str(threads))
    # A crash is expected here and has its line in the failures file: loky would print a traceback of each.
    os.environ.setdefault("PYTHONFAULTHANDLER", "")
    follow_parent()


@contextlib.contextmanager
def kept_from_ctrl_c() -> Iterator[None]:
    """Processes that this thread starts meanwhile meet no Ctrl-C, not even while they begin.

    This one meets it afterwards, or at once where it has other threads.
    """
    resource_tracker.ensure_running()  # which the first process starts, and Python 3.11 then lets Ctrl-C in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _time_left_s(begun: Iterable[_Begun[T]]) -> float | None:
    """Until the first of them has had its time; None without a limit."""
    ends_s = [b.since_s + b.limit_s for b in begun if b.limit_s is not None]
    return max(0.0, min(ends_s) - time.monotonic()) if ends_s else None


def follow_parent() -> None:
    """A worker ends with the process that started it, even one killed with -9, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)


class _Heart:
    """Where signs of life go, if anybody watches."""

    def __init__(self) -> None:
        self.say: Callable[[Any], None] | None = None
        self.last_s = 0.0


_heart = _Heart()


def beat() -> None:
    """Some progress was made: a frame decoded, a window judged. Costs next to nothing where nobody watches."""
    if _heart.say is not None and (now_s := time.monotonic()) - _heart.last_s >= _EVERY_S:
        _heart.last_s = now_s
        _heart.say(None)


def tell(news: Any) -> None:
    """A sign of life that says what was done, in whatever terms whoever watches understands; none is left out."""
    if _heart.say is not None:
        _heart.last_s = time.monotonic()
        _heart.say(news)


def watch(say: Callable[[Any], None]) -> None:
    """Have `say` called with news, or with None about once a second at most, while this process makes progress.

    Threads may call it.
    """
    _heart.say = say
