"""Reads the packets of an open container, in the calling thread or in one of their own.

Network streams need the thread. PyAV drops the packets of tracks that appeared after the container was opened, in a
loop of its own that checks no time limit. A sender that adds a track and renumbers the others would therefore block its
reader for as long as it sends.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import av

from violence_detection.video import decode

#: Packets that may be read ahead of the consumer.
_READ_AHEAD = 16
#: Seconds beyond the limit before the reading thread is given up: FFmpeg's own limit comes first where it works.
_GRACE_S = 1.0
#: The longest wait for the reading thread when the consumer leaves. Usually it has closed the connection by then.
_LEAVE_S = 1.0
#: Seconds between two looks at whether somebody has left.
_POLL_S = 0.1


@dataclass(frozen=True)
class Arrival:
    """One packet, or the end of the stream: `packet` is None, and `error` is the error that ended it, if any.

    came_s: when the packet came, on the monotonic clock. waited_s: how long it was waited for, in seconds.
    is_pause: FFmpeg had nothing ready; `packet` is None, and the stream goes on.
    """

    packet: av.Packet | None
    came_s: float
    waited_s: float
    error: av.FFmpegError | None = None
    is_pause: bool = False


class NothingCame(Exception):
    """The reading thread has delivered nothing within the time limit and was given up."""


@contextlib.contextmanager
def in_place(container: av.container.InputContainer) -> Iterator[Iterator[Arrival]]:
    """All packets of a container in reading order, then its end. Closes the container on leaving."""
    with container:
        yield _arrivals(container)


@contextlib.contextmanager
def in_thread(
    container: av.container.InputContainer, limit_s: float, left: threading.Event
) -> Iterator[Iterator[Arrival]]:
    """Like `in_place`, but read in a thread. The container is closed once both the consumer and the thread are done.

    Once `left` is set, the iterator stops without an Arrival for the end. It raises NothingCame if no packet comes for
    `limit_s` seconds and FFmpeg's own limit, which should be equally long, has not ended the reading. A thread that was
    given up closes the container when FFmpeg returns: when the sender closes the connection, or sends nothing for as
    long as FFmpeg's limit. Until then it keeps the connection (of UDP, the port).
    """
    thread = _PacketThread(container)
    try:
        yield thread.arrivals(limit_s, left)
    finally:
        thread.leave()


class _PacketThread:
    """The reading thread, and the agreement on who closes the container: whoever is done last."""

    def __init__(self, container: av.container.InputContainer):
        self._container = container
        self._read: queue.Queue[Arrival | Exception] = queue.Queue(_READ_AHEAD)
        self._is_left = threading.Event()
        self._closing = threading.Lock()
        self._is_reading = False
        self._thread = threading.Thread(target=self._run, name="packets", daemon=True)

    def arrivals(self, limit_s: float, left: threading.Event) -> Iterator[Arrival]:
        """See `in_thread`. Reading starts when the first packet is asked for; until then tracks may be discarded."""
        self._is_reading = True
        try:
            self._thread.start()
        except RuntimeError:  # the system has no more threads
            self._is_reading = False
            raise
        while True:
            until_s = time.monotonic() + limit_s + _GRACE_S
            arrival: Arrival | Exception | None = None
            while arrival is None:
                if left.is_set():
                    return
                with contextlib.suppress(queue.Empty):
                    arrival = self._read.get(timeout=_POLL_S)
                if arrival is None and time.monotonic() > until_s:
                    raise NothingCame
            if isinstance(arrival, Exception):
                raise arrival
            yield arrival
            if arrival.packet is None and not arrival.is_pause:
                return

    def leave(self) -> None:
        """Stop reading. The container is closed now, or by the thread when FFmpeg returns."""
        with self._closing:
            self._is_left.set()
            if not self._is_reading:
                self._container.close()
        if self._thread.ident is not None:
            self._thread.join(_LEAVE_S)

    def _run(self) -> None:
        try:
            for arrival in _arrivals(self._container):
                if not self._put(arrival):
                    break
        except Exception as e:  # noqa: BLE001 - raised where the packets are read
            self._put(e)
        finally:
            with self._closing:
                self._is_reading = False
                if self._is_left.is_set():
                    self._container.close()

    def _put(self, arrival: Arrival | Exception) -> bool:
        """Hand over a packet as soon as there is room; return False if the consumer has left."""
        while not self._is_left.is_set():
            with contextlib.suppress(queue.Full):
                self._read.put(arrival, timeout=_POLL_S)
                return True
        return False


def _arrivals(container: av.container.InputContainer) -> Iterator[Arrival]:
    packets = decode.packets_of(container)
    while True:
        asked_s = time.monotonic()
        packet: av.Packet | None = None
        error: av.FFmpegError | None = None
        is_pause = False
        try:
            packet = next(packets, None)
        except av.BlockingIOError:
            packets, is_pause = decode.packets_of(container), True
        except av.EOFError:
            pass
        except av.FFmpegError as e:
            error = e
        came_s = time.monotonic()
        yield Arrival(packet, came_s, came_s - asked_s, error, is_pause)
        if packet is None and not is_pause:
            return
