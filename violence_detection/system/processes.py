"""Work spread over processes, few items in flight whatever their number, and no worker's death is the end.

Fresh processes (spawn) are used, because forking after OpenCV or TensorFlow have started threads may hang.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from violence_detection.system import machine

T = TypeVar("T")
R = TypeVar("R")
_IN_FLIGHT_PER_WORKER = 8


def worker_count(asked: int) -> int:
    """The number asked for, or one a usable core when that is 0."""
    return asked if asked > 0 else machine.usable_cpus()


def map_unordered(
    function: Callable[[T], R], items: Iterable[T], workers: int, on_crash: Callable[[T], R]
) -> Iterator[tuple[T, R]]:
    """Yield (item, function(item)) in order of completion. Items and results cross processes by pickle.

    Damaged videos can take a decoder's whole process with them. Then the items in flight are tried again one at a
    time, and the one that does it again yields on_crash(item). What `function` raises is raised here.
    """
    remaining = iter(items)
    count = worker_count(workers)
    for first in remaining:
        begun: list[T] = []
        try:
            yield from _run(
                function, itertools.chain([first], remaining), count, _IN_FLIGHT_PER_WORKER, begun
            )
        except BrokenProcessPool:
            yield from _one_at_a_time(function, begun, on_crash)


def _one_at_a_time(
    function: Callable[[T], R], items: Iterable[T], on_crash: Callable[[T], R]
) -> Iterator[tuple[T, R]]:
    """With a single item begun at any time, a crash names its item."""
    remaining = iter(items)
    for first in remaining:
        begun: list[T] = []
        try:
            yield from _run(function, itertools.chain([first], remaining), 1, 1, begun)
        except BrokenProcessPool:
            yield begun[0], on_crash(begun[0])


def _run(
    function: Callable[[T], R], items: Iterator[T], workers: int, per_worker: int, begun: list[T]
) -> Iterator[tuple[T, R]]:
    """One pool's work. `begun` holds, for the caller, the items that were begun and not yielded yet."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=follow_parent) as pool:
        pending: dict[Future[R], T] = {}
        try:
            while True:
                for item in itertools.islice(items, workers * per_worker - len(pending)):
                    begun.append(item)
                    pending[pool.submit(function, item)] = item
                if not pending:
                    return
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    item = pending.pop(future)
                    begun.remove(item)
                    yield item, result
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def follow_parent() -> None:
    """A worker ends with the process that started it, even one killed with -9, and leaves Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
