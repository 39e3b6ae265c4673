"""Packets read in a thread: errors arrive, a thread that hangs is given up, and the container is closed once."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import av
import pytest

from violence_detection.video import packet_reader


class _Container:
    """Stands for an open container whose `demux` is a generator of the test's."""

    def __init__(self, packets: Callable[[], Iterator[Any]]):
        self._packets, self.closed, self.times_closed = packets, threading.Event(), 0

    def demux(self) -> Iterator[Any]:
        return self._packets()

    def close(self) -> None:
        self.times_closed += 1
        self.closed.set()


def _opened(packets: Callable[[], Iterator[Any]]) -> tuple[_Container, av.container.InputContainer]:
    container = _Container(packets)
    return container, cast(av.container.InputContainer, container)


def test_packets_arrive_in_order_and_the_container_is_closed() -> None:
    """More of them than are read ahead, so that the thread has to wait for its consumer."""
    container, opened = _opened(lambda: iter(range(100)))
    with packet_reader.in_thread(opened, 5.0, threading.Event()) as arrivals:
        came = [arrival.packet for arrival in arrivals]
        assert not container.closed.is_set()
    assert came == [*range(100), None]
    assert container.times_closed == 1


def test_a_container_is_closed_once_if_the_thread_ends_while_its_consumer_leaves() -> None:
    container, opened = _opened(lambda: itertools.cycle([1]))
    with packet_reader.in_thread(opened, 5.0, threading.Event()) as arrivals:
        assert next(arrivals).packet == 1
    assert container.closed.is_set()
    assert container.times_closed == 1


def test_an_error_that_is_not_ffmpegs_is_raised_at_once() -> None:
    def packets() -> Iterator[Any]:
        yield 1
        raise RuntimeError("out of memory")

    container, opened = _opened(packets)
    began_s = time.monotonic()
    with (
        pytest.raises(RuntimeError, match="out of memory"),
        packet_reader.in_thread(opened, 30.0, threading.Event()) as arrivals,
    ):
        list(arrivals)
    assert time.monotonic() - began_s < 5
    assert container.closed.is_set()


def test_a_thread_that_hangs_is_given_up_and_closes_the_container_when_it_returns() -> None:
    """The container must not be closed under FFmpeg, which would read freed memory."""
    goes_on = threading.Event()

    def packets() -> Iterator[Any]:
        yield 1
        goes_on.wait()

    container, opened = _opened(packets)
    with (
        pytest.raises(packet_reader.NothingCame),
        packet_reader.in_thread(opened, 0.1, threading.Event()) as arrivals,
    ):
        list(arrivals)
    assert not container.closed.is_set()
    goes_on.set()
    assert container.closed.wait(5)


def test_a_consumer_that_leaves_does_not_wait_for_the_next_packet() -> None:
    goes_on, left = threading.Event(), threading.Event()

    def packets() -> Iterator[Any]:
        yield 1
        goes_on.wait()

    container, opened = _opened(packets)
    began_s = time.monotonic()
    with packet_reader.in_thread(opened, 60.0, left) as arrivals:
        assert next(arrivals).packet == 1
        left.set()
        assert next(arrivals, None) is None
    assert time.monotonic() - began_s < 5
    goes_on.set()
    assert container.closed.wait(5)


def test_a_container_is_closed_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    container, opened = _opened(lambda: iter(()))
    with (
        pytest.raises(RuntimeError, match="new thread"),
        packet_reader.in_thread(opened, 5.0, threading.Event()) as arrivals,
    ):
        next(arrivals)
    assert container.closed.is_set()


def test_a_container_of_which_no_packet_is_asked_for_is_closed() -> None:
    container, opened = _opened(lambda: iter(()))
    with packet_reader.in_thread(opened, 5.0, threading.Event()):
        pass
    assert container.closed.is_set()
