"""A worker process that loads once, then handles one item after another, and is watched for crashes and silence.

A damaged file can crash or hang the process that reads it. Here that costs only this one item, which is named; the next
item gets a new process. Work may take any time as long as it gives signs of life (`processes.beat`).
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
#: Longest silence allowed while loading: files may come over a network, and compiling for a GPU takes minutes.
LOAD_LIMIT_S = 30 * 60.0
#: Silence is counted in slices of this length, so that time in which the computer or the job was suspended does not
#: count as silence.
_SLICE_S = 5.0
#: How long to wait for a killed process to end.
_KILL_S = 10.0
#: Kinds of messages from the process: a sign of life, item received, result, exception.
_LIFE, _TAKEN, _DONE, _RAISED = "life", "taken", "done", "raised"


class WorkerLost(Exception):
    """The process ended, or was killed because it was silent, before it answered.

    `signal`: the number of the signal that killed it, 0 if none did. `silent`: whether it was killed because it gave no
    sign of life. The message is a predicate, such as "was killed by SIGABRT".
    """

    def __init__(self, what: str, signal: int = 0, silent: bool = False):
        super().__init__(what)
        self.signal, self.silent = signal, silent


class SupervisedWorker(Generic[T, R]):
    """Calls a function for one item at a time in a process of its own, which is started when it is needed.

    `load`: called in that process; returns the function. `load`, items and results are pickled. `silence_s`: the most
    seconds that an item may take without a sign of life. `on_news`: called in this process with the news that the
    function reports with processes.tell.
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
        self._is_received = False  # whether the process has confirmed that it received the item

    def __enter__(self) -> SupervisedWorker[T, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def ready(self) -> None:
        """Start the process, unless it runs, and wait until it has loaded. Raises WorkerLost, or what `load` raises."""
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

        After WorkerLost, the next item gets a new process. If the process ends before it has received the item, the
        item is not the cause: it is given to another process, once.
        """
        try:
            return self._ask(item)
        except WorkerLost as e:
            if self._is_received or e.silent:
                raise
        return self._ask(item)

    def _ask(self, item: T) -> R:
        self.ready()
        assert self._pipe is not None
        self._is_received = False
        try:
            self._pipe.send(item)
        except OSError:
            raise self._ended() from None
        answer: R = self._answer(self._silence_s)
        return answer

    def close(self) -> None:
        """Kill the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.join(_KILL_S)  # a process blocked by a dead disk does not end
            if self._process.exitcode is not None:
                self._process.close()
            else:  # so that this process does not wait for it on exit
                multiprocessing.process._children.discard(self._process)  # type: ignore[attr-defined]
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None

    def _answer(self, silence_s: float) -> Any:
        try:
            kind, value = self._receive(silence_s)
        except BaseException:
            self.close()  # or its late answer would be taken for the next item's
            raise
        if kind == _RAISED:
            raise value
        return value

    def _receive(self, silence_s: float) -> tuple[str, Any]:
        assert self._pipe is not None
        assert self._process is not None
        slices = math.ceil(silence_s / _SLICE_S)
        silent = 0
        while silent < slices:
            if not wait([self._pipe, self._process.sentinel], silence_s / slices):
                silent += 1
                continue
            try:
                message: tuple[str, Any] | None = self._pipe.recv() if self._pipe.poll() else None
            except (EOFError, OSError):
                message = None
            if message is None:
                raise self._ended()
            kind, value = message
            if kind in (_DONE, _RAISED):
                return kind, value
            if kind == _LIFE and value is not None:
                self._on_news(value)
            self._is_received |= kind == _TAKEN
            silent = 0
        raise WorkerLost(f"gave no sign of life for {silence_s:.0f} s", silent=True)

    def _ended(self) -> WorkerLost:
        assert self._process is not None
        self._process.join(_KILL_S)
        code = self._process.exitcode
        self.close()
        if code is None:
            return WorkerLost("stopped answering and did not end")
        if code < 0:
            return WorkerLost(f"was killed by {signal.Signals(-code).name}", signal=-code)
        return WorkerLost(f"ended with exit code {code}")


def fault(error: Exception, item: object) -> str:
    """The reason to report for an item that failed with an unexpected exception; its traceback is logged.

    An OSError is reported as a file that cannot be read, without a traceback.
    """
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    log.error("internal error, please report it: %s\n%s", item, "\n".join(getattr(error, "__notes__", [])))
    return f"internal error, please report it: {type(error).__name__}: {error}; the traceback is in the log"


def _work(
    pipe: Connection[Any, Any], load: Callable[[], Callable[[T], R]], logs: tuple[list[str], int] | None
) -> None:
    """The main function of the process: load, confirm, then answer each item until the pipe is closed."""
    follow_parent()
    os.dup2(2, 1)  # the parent's stdout is reserved for its summary
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
    """The error with its traceback as a note; a RuntimeError with the same text if it cannot be pickled."""
    trace = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - __reduce__ of other packages may raise anything
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(trace)
    return error
