"""One process that keeps what it has loaded and does one item after another, watched for its end and for silence.

A damaged file can take the process that reads it down, or keep it for ever. Here that costs this one item: it is named,
and the next has a new process. Work of any length is left alone as long as it gives signs of life (`processes.beat`).
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import TracebackType
from typing import Any, Generic, TypeVar

from violence_detection.system import console, processes
from violence_detection.system.processes import follow_parent

log = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
#: What is loaded may come over a network, and GPUs compile for minutes; this long without a sign is the end, though.
LOAD_LIMIT_S = 30 * 60.0
#: Waiting is done in slices of this length, so that a computer that slept, or a stopped job, is no silence.
_SLICE_S = 5.0
_KILL_S = 10.0
_LIFE, _TAKEN, _DONE, _RAISED = "life", "taken", "done", "raised"


class WorkerLost(Exception):
    """The process has ended, or was ended because it was silent, before it had an answer.

    `signal`: the number of the signal that killed it, 0 where it was none. `silent`: it gave no sign of life.
    """

    def __init__(self, what: str, signal: int = 0, silent: bool = False):
        super().__init__(what)
        self.signal, self.silent = signal, silent


class SupervisedWorker(Generic[T, R]):
    """`load()` gives the function that is called with each item, in a process of its own, started when it is needed.

    All of it crosses processes by pickle. `silence_s`: so long an item may take without a sign of life. `on_news` is
    called in this process with what the other tells of an item (processes.tell).
    """

    def __init__(
        self,
        load: Callable[[], Callable[[T], R]],
        silence_s: float,
        on_news: Callable[[Any], None] = lambda news: None,
    ):
        self._load, self._silence_s, self._on_news = load, silence_s, on_news
        self._process: SpawnProcess | None = None
        self._pipe: Connection[Any, Any] | None = None
        self._taken = False  # whether the process has the item

    def __enter__(self) -> SupervisedWorker[T, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def ready(self) -> None:
        """Have a process that has loaded; it does nothing where there is one. Raises WorkerLost or what `load` does."""
        if self._process is not None and self._process.is_alive():
            return
        self.close()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        logs = (console.log_files(), console.log.level) if console.log.handlers else None
        self._process = context.Process(target=_work, args=(theirs, self._load, logs), daemon=True)
        with processes.kept_from_ctrl_c():
            self._process.start()
        theirs.close()
        try:
            self._answer(LOAD_LIMIT_S)
        except Exception:
            self.close()
            raise

    def __call__(self, item: T) -> R:
        """The function's result. Raises WorkerLost, or what the function raises, with its traceback as a note.

        After WorkerLost the next item has a new process. One that ends before it has taken the item has died of
        something else: the item is given to another, once.
        """
        try:
            return self._ask(item)
        except WorkerLost as e:
            if self._taken or e.silent:
                raise
        return self._ask(item)

    def _ask(self, item: T) -> R:
        self.ready()
        assert self._pipe is not None
        self._taken = False
        try:
            self._pipe.send(item)
        except OSError:
            raise self._ended() from None
        answer: R = self._answer(self._silence_s)
        return answer

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join(_KILL_S)  # one that waits for a dead disk cannot be killed
            if self._process.exitcode is not None:
                self._process.close()
            else:  # nobody waits for it when this process ends
                multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _answer(self, silence_s: float) -> Any:
        try:
            kind, value = self._said_last(silence_s)
        except BaseException:
            self.close()  # or its answer would be taken for that of the next item
            raise
        if kind == _RAISED:
            raise value
        return value

    def _said_last(self, silence_s: float) -> tuple[str, Any]:
        assert self._pipe is not None
        assert self._process is not None
        slices = math.ceil(silence_s / _SLICE_S)
        silent = 0
        while silent < slices:
            if not wait([self._pipe, self._process.sentinel], silence_s / slices):
                silent += 1
                continue
            try:
                said: tuple[str, Any] | None = self._pipe.recv() if self._pipe.poll() else None
            except (EOFError, OSError):
                said = None
            if said is None:
                raise self._ended()
            kind, value = said
            if kind in (_DONE, _RAISED):
                return kind, value
            if kind == _LIFE and value is not None:
                self._on_news(value)
            self._taken |= kind == _TAKEN
            silent = 0
        raise WorkerLost(f"gave no sign of life for {silence_s:.0f} s", silent=True)

    def _ended(self) -> WorkerLost:
        assert self._process is not None
        self._process.join(_KILL_S)
        code = self._process.exitcode
        self.close()
        if code is None:
            return WorkerLost("ended its answers and cannot be ended itself")
        if code < 0:
            return WorkerLost(f"was killed by {signal.Signals(-code).name}", signal=-code)
        return WorkerLost(f"ended with exit code {code}")


def fault(error: Exception, item: object) -> str:
    """Why there is nothing of an item of which a worker raised what nobody foresees. Its traceback goes to the log."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    log.error("a fault of these scripts at %s\n%s", item, "\n".join(getattr(error, "__notes__", [])))
    return f"a fault of these scripts, {type(error).__name__}: {error}; the traceback is in the log"


def _work(
    pipe: Connection[Any, Any], load: Callable[[], Callable[[T], R]], logs: tuple[list[str], int] | None
) -> None:
    """The process: load, say so, then answer each item."""
    follow_parent()
    os.dup2(2, 1)  # the parent's stdout is for its summary alone
    if logs:
        console.log_to(*logs)
    lock = threading.Lock()

    def send(kind: str, value: Any = None) -> None:
        with lock:
            pipe.send((kind, value))

    processes.watch(lambda news: send(_LIFE, news))
    try:
        function = load()
    except Exception as e:  # noqa: BLE001 - raised again by the parent
        send(_RAISED, _portable(e))
        return
    send(_DONE)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        send(_TAKEN)
        try:
            result = function(item)
        except Exception as e:  # noqa: BLE001 - raised again by the parent
            send(_RAISED, _portable(e))
        else:
            send(_DONE, result)


def _portable(error: Exception) -> Exception:
    """The error as the parent can raise it; where it cannot be pickled, one that says the same."""
    trace = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - anybody's __reduce__
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(trace)
    return error
