"""Messages that wait for a slow receiver: none that is outdated, and beginnings and ends are given up last."""

from __future__ import annotations

import threading
import time

import live_parts
import pytest

from violence_detection.prediction.live.messages import EventMessage
from violence_detection.prediction.live.outputs import outbox
from violence_detection.prediction.live.outputs.outbox import Outbox


class _HeldOutbox(Outbox):
    """Keeps each message that it gets, and delivers none until `go_on` is set."""

    name = "held"

    def __init__(self) -> None:
        self.has_one, self.go_on = threading.Event(), threading.Event()
        self.got: list[EventMessage] = []
        super().__init__()

    def deliver(self, message: EventMessage) -> None:
        self.got.append(message)
        self.has_one.set()
        self.go_on.wait(5)


def _held_with(news: list[EventMessage]) -> _HeldOutbox:
    """Return an outbox that has delivered `news`, all of which had to wait behind a message of the camera `first`."""
    held = _HeldOutbox()
    held.send(live_parts.news("first", "new"))
    assert held.has_one.wait(5)
    for message in news:
        held.send(message)
    held.go_on.set()
    held.close(5)
    return held


def _delivered(held: _HeldOutbox) -> list[tuple[str, str, float]]:
    return [(m.camera, m.news.kind, m.news.event.p_violent) for m in held.got[1:]]


def test_what_is_newer_of_an_event_stands_for_an_update_that_waits(caplog: pytest.LogCaptureFixture) -> None:
    updates = [live_parts.news("front", "update", float(number)) for number in range(300)]
    held = _held_with(
        [
            live_parts.news("yard", "new"),
            live_parts.news("front", "new", 0.5),
            *updates,
            live_parts.news("yard", "update", 0.91),
            live_parts.news("gate", "new"),
            live_parts.news("yard", "end", 0.92),
            live_parts.news("gate", "end"),
        ]
    )
    assert _delivered(held) == [
        ("yard", "new", 0.9),
        ("front", "new", 0.5),
        ("front", "update", 299),
        ("yard", "end", 0.92),
        ("gate", "new", 0.9),
        ("gate", "end", 0.9),
    ]
    assert (held.sent, held.failed) == (7, 0), "what was replaced is no message that did not arrive"
    assert not caplog.text


def test_where_too_many_wait_updates_are_given_up_before_beginnings_and_ends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "_MOST_WAITING", 3)
    held = _held_with(
        [
            live_parts.news("yard", "new"),
            live_parts.news("front", "update", 0.6),
            live_parts.news("gate", "update"),
            live_parts.news("front", "update", 0.7),
            # as only three may wait, front's update is given up for this
            live_parts.news("yard", "end"),
            # gate's update is given up
            live_parts.news("door", "new"),
            # this is given up itself, since no other update waits
            live_parts.news("front", "update", 0.8),
            # yard's beginning, the oldest, is given up
            live_parts.news("door", "end"),
        ]
    )
    assert _delivered(held) == [("yard", "end", 0.9), ("door", "new", 0.9), ("door", "end", 0.9)]
    assert (held.sent, held.failed) == (4, 4)
    said = ["update of front-1", "update of gate-1", "update of front-1", "new of yard-1"]
    assert [r.getMessage() for r in caplog.records] == [
        f"held: too slow, {lost} is given up" for lost in said
    ]


class _SlowCount(int):
    """A number whose addition lets other threads run, as may happen between any reading and writing of a count."""

    def __add__(self, other: int) -> _SlowCount:
        time.sleep(1e-4)
        return _SlowCount(int(self) + other)


def test_every_message_that_is_given_up_counts_whichever_thread_had_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread that judges sends messages, and the one that writes clips sends those that waited for a clip."""
    monkeypatch.setattr(outbox, "_MOST_WAITING", 1)
    held = _HeldOutbox()
    held.send(live_parts.news("yard", "new"))
    assert held.has_one.wait(5)
    held.failed = _SlowCount(0)

    def send() -> None:
        for _ in range(50):
            held.send(live_parts.news("yard", "new"))

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    given_up = held.failed
    held.go_on.set()
    held.close(5)
    assert given_up == 99, "one waits"
