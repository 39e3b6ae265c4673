"""Ending on request: SIGTERM and Ctrl-C ask, and a second one insists."""

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
    """Yield an event that SIGTERM or SIGINT sets; the second raises KeyboardInterrupt. For the main thread."""
    asked = threading.Event()
    first_s = 0.0

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal first_s
        if not asked.is_set():
            first_s = time.monotonic()
            asked.set()
        elif time.monotonic() - first_s > _ONE_REQUEST_S:
            raise KeyboardInterrupt("ended at once")

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
