"""Sends messages in its own thread, so that a receiver that is slow or gone keeps nobody else waiting."""

from __future__ import annotations

import itertools
import logging
import threading
from abc import ABC, abstractmethod

from violence_detection.prediction.event_follower import UPDATE
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.system import redaction

log = logging.getLogger(__name__)
#: Most messages that wait; if one more comes, one is given up.
_MOST_WAITING = 200


class Outbox(ABC):
    """An output for news. name: its name in the log and the figures; sent, failed: number of messages.

    At most one `update` of an event waits, and none if the event's `end` does: the newer message replaces it, and the
    one that was replaced does not count as failed.
    """

    name = ""

    def __init__(self) -> None:
        self.sent = self.failed = 0
        self._changed = threading.Condition()
        self._waiting: list[EventMessage] = []
        self._is_closed = False
        self._sending: EventMessage | None = None
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    @abstractmethod
    def deliver(self, message: EventMessage) -> None:
        """Send a message. Raises OSError, ValueError or whatever its client raises if that fails."""

    def is_ready(self) -> bool:
        """Whether a message can be sent now; until then all wait.

        Whoever changes the answer must hold `_changed` and notify it.
        """
        return True

    @property
    def is_at_work(self) -> bool:
        """Whether a message is waiting or being sent."""
        with self._changed:
            return bool(self._waiting) or self._sending is not None

    def send(self, message: EventMessage) -> None:
        """Queue a message to be sent; returns at once."""
        with self._changed:
            _add(self._waiting, message)
            if len(self._waiting) > _MOST_WAITING:
                self._give_up(self._waiting.pop(_least_important(self._waiting, self._sending)))
            self._changed.notify()

    def _give_up(self, message: EventMessage) -> None:
        """Handle a message removed because too many wait. `_changed` is held, so that no other is taken meanwhile."""
        self.failed += 1
        log.warning("%s: too slow, %s is given up", self.name, message_name(message))

    def close(self, timeout_s: float) -> None:
        """Send the waiting messages for up to `timeout_s` seconds; the rest count as failed."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            lost = len(self._waiting) + (self._sending is not None)
            self.failed += len(self._waiting)
            self._waiting.clear()
            self._changed.notify()
        if lost:
            log.warning("%s: %d messages were not sent in time", self.name, lost)

    def _run(self) -> None:
        while message := self._next():
            try:
                self.deliver(message)
                self.sent += 1
            except Exception as e:  # noqa: BLE001 - whatever its client raises, judging goes on
                with self._changed:
                    self.failed += 1
                log.warning(
                    "%s: %s did not arrive: %s", self.name, message_name(message), redaction.redact(str(e))
                )

    def _next(self) -> EventMessage | None:
        """Wait for the oldest message until it can be sent, and return it; None if closed and none is waiting."""
        with self._changed:
            self._sending = None
            self._changed.wait_for(lambda: self.is_ready() if self._waiting else self._is_closed)
            self._sending = self._waiting.pop(0) if self._waiting else None
            return self._sending


def _add(waiting: list[EventMessage], message: EventMessage) -> None:
    """Add a message; if an `update` of its event is waiting, the message takes that one's place in the queue."""
    for number, other in enumerate(waiting):
        if other.news.kind == UPDATE and _event(other) == _event(message):
            waiting[number] = message
            return
    waiting.append(message)


def _least_important(waiting: list[EventMessage], sending: EventMessage | None) -> int:
    """Index of the message to give up: the oldest `update`, or else the oldest message.

    The latter spares the event of which a message is being sent, unless there is no other.
    """
    updates = (number for number, message in enumerate(waiting) if message.news.kind == UPDATE)
    others = (n for n, message in enumerate(waiting) if sending is None or _event(message) != _event(sending))
    return next(itertools.chain(updates, others), 0)


def _event(message: EventMessage) -> tuple[str, str]:
    return message.camera, message.news.event_id


def message_name(message: EventMessage) -> str:
    """The name of a message in the log."""
    return f"{message.news.kind} of {message.news.event_id}"
