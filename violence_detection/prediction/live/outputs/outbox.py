"""A thread that sends what it is given, so that whoever is slow or gone keeps nobody else waiting."""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod

from violence_detection.prediction.live.messages import EventMessage
from violence_detection.system import redaction

log = logging.getLogger(__name__)
#: So many messages wait at most; then the oldest is given up.
_MOST = 200


class Outbox(ABC):
    """One way that news go. `name`: as the log and the figures call it; failed: messages that did not arrive."""

    name = ""

    def __init__(self) -> None:
        self.sent = self.failed = 0
        self._counting = threading.Lock()
        self._queue: queue.Queue[EventMessage | None] = queue.Queue(_MOST)
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    @abstractmethod
    def deliver(self, message: EventMessage) -> None:
        """Send a message. Raises OSError, ValueError or whatever its client raises where that fails."""

    def send(self, message: EventMessage) -> None:
        """Have a message sent; returns at once."""
        self._put(message)

    def close(self, timeout_s: float) -> None:
        """Send what waits, for so long at most."""
        self._put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            log.warning("%s: %d messages were not sent in time", self.name, self._queue.qsize())

    def _put(self, message: EventMessage | None) -> None:
        while True:
            try:
                return self._queue.put_nowait(message)
            except queue.Full:
                try:
                    self._queue.get_nowait()
                except queue.Empty:
                    continue
                self._count_failed()
                log.warning("%s: too slow, the oldest message that waits is given up", self.name)

    def _count_failed(self) -> None:
        """Both the threads that have messages and the one that sends them may call it."""
        with self._counting:
            self.failed += 1

    def _run(self) -> None:
        while (message := self._queue.get()) is not None:
            try:
                self.deliver(message)
                self.sent += 1
            except Exception as e:  # noqa: BLE001 - whatever its client raises, judging goes on
                self._count_failed()
                log.warning(
                    "%s: %s of %s did not arrive: %s",
                    self.name, message.news.kind, message.news.event_id, redaction.redact(str(e)),
                )  # fmt: skip
