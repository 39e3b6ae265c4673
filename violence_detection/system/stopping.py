"""Ending on request: SIGTERM, Ctrl-C and a terminal that goes ask, and a second one of the first two insists."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: One request may come twice, to the process and to its group: so `timeout` sends it.
_ONE_REQUEST_S = 0.5


@contextmanager
def asked_to_stop() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM, SIGINT or SIGHUP sets; a second one, unless it is SIGHUP, raises KeyboardInterrupt.

    SIGHUP that is ignored, as `nohup` has it, stays so. For the main thread.
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
