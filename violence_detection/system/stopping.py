"""Stopping on request: SIGTERM, Ctrl-C and a closed terminal ask; a second SIGTERM or Ctrl-C stops at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: A second signal within this time belongs to the same request: `timeout` signals the process and its group.
_ONE_REQUEST_S = 0.5


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM, SIGINT or SIGHUP sets; a second signal, except SIGHUP, raises KeyboardInterrupt.

    A SIGHUP that is ignored, as under `nohup`, stays ignored. To be used in the main thread.
    """
    asked = threading.Event()
    first_s = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first_s
        if not asked.is_set():
            first_s = time.monotonic()
            asked.set()
        elif number != signal.SIGHUP and time.monotonic() - first_s > _ONE_REQUEST_S:
            raise KeyboardInterrupt("ended at once")

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
