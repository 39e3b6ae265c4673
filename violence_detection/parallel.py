"""Work spread over processes, with results as they come and few items in flight, whatever the number of
items."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
_IN_FLIGHT_PER_WORKER = 8


def worker_count(asked: int) -> int:
    """The number asked for, or one a usable core when that is 0."""
    if asked > 0:
        return asked
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_unordered(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[tuple[T, R]]:
    """Yield (item, function(item)) in order of completion. Items and results cross processes by pickle.

    Fresh processes (spawn) are used, because forking after OpenCV or TensorFlow have started threads may
    hang.
    """
    remaining = iter(items)
    if (first := next(remaining, None)) is None:
        return
    remaining = itertools.chain([first], remaining)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(worker_count(workers), mp_context=context, initializer=_follow_parent) as pool:
        pending: dict[Future[R], T] = {}
        try:
            while True:
                for item in itertools.islice(
                    remaining, worker_count(workers) * _IN_FLIGHT_PER_WORKER - len(pending)
                ):
                    pending[pool.submit(function, item)] = item
                if not pending:
                    return
                done, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    yield pending.pop(future), future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    """A worker ends with the process that started it, even one killed with -9, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
