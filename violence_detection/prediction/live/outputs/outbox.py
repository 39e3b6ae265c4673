"""A thread that sends what it is given, so that whoever is slow or gone keeps nobody else waiting."""

from __future__ import annotations

import itertools
import logging
import threading
from abc import ABC, abstractmethod

from violence_detection.prediction.event_follower import UPDATE
from violence_detection.prediction.live.messages import EventMessage
from violence_detection.system import redaction

log = logging.getLogger(__name__)
#: So many messages wait at most; then one is given up.
_MOST = 200


class Outbox(ABC):
    """One way that news go. `name`: as the log and the figures call it; failed: messages that did not arrive.

    Of an event at most one `update` waits, and none where its `end` does: what is newer stands for it, and it is no
    message that did not arrive.
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
        """Send a message. Raises OSError, ValueError or whatever its client raises where that fails."""

    def is_ready(self) -> bool:
        """Whether a message can be sent now; until then all wait. Who changes it holds `_changed`, and notifies it."""
        return True

    @property
    def is_at_work(self) -> bool:
        """Whether a message waits, or is on its way."""
        with self._changed:
            return bool(self._waiting) or self._sending is not None

    def send(self, message: EventMessage) -> None:
        """Have a message sent; returns at once."""
        with self._changed:
            _add(self._waiting, message)
            if len(self._waiting) > _MOST:
                self._give_up(self._waiting.pop(_least(self._waiting, self._sending)))
            self._changed.notify()

    def _give_up(self, message: EventMessage) -> None:
        """See to a message that waits no more, since too many do. With `_changed` held: no other is taken meanwhile."""
        self.failed += 1
        log.warning("%s: too slow, %s is given up", self.name, said(message))

    def close(self, timeout_s: float) -> None:
        """Send what waits, for so long at most."""
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
                log.warning("%s: %s did not arrive: %s", self.name, said(message), redaction.redact(str(e)))

    def _next(self) -> EventMessage | None:
        """The oldest that waits, once it can be sent; None: it is closed, and none waits."""
        with self._changed:
            self._sending = None
            self._changed.wait_for(lambda: self.is_ready() if self._waiting else self._is_closed)
            self._sending = self._waiting.pop(0) if self._waiting else None
            return self._sending


def _add(waiting: list[EventMessage], message: EventMessage) -> None:
    """Add a message; where an `update` of its event waits, it takes that one's place and turn."""
    for number, other in enumerate(waiting):
        if other.news.kind == UPDATE and _event(other) == _event(message):
            waiting[number] = message
            return
    waiting.append(message)


def _least(waiting: list[EventMessage], sending: EventMessage | None) -> int:
    """Which of them is given up: the oldest `update`; the oldest, where only beginnings and ends wait.

    But not of the event of which one is on its way.
    """
    updates = (number for number, message in enumerate(waiting) if message.news.kind == UPDATE)
    others = (n for n, message in enumerate(waiting) if sending is None or _event(message) != _event(sending))
    return next(itertools.chain(updates, others), 0)


def _event(message: EventMessage) -> tuple[str, str]:
    return message.camera, message.news.event_id


def said(message: EventMessage) -> str:
    """A message as the log calls it."""
    return f"{message.news.kind} of {message.news.event_id}"
