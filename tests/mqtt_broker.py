"""A real MQTT broker on the loopback interface, a subscriber, and links to the broker that fail on command."""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def started(certificate: Path | None = None, lets_in: bool = True) -> Iterator[int]:
    """Run a broker that accepts everyone, or no one; yields its port.

    `certificate`: a file with its certificate and key, for TLS.
    """
    amqtt = pytest.importorskip("amqtt.broker")
    loop = asyncio.new_event_loop()
    tls = {"ssl": True, "certfile": str(certificate), "keyfile": str(certificate)} if certificate else {}
    config = {
        "listeners": {"default": {"type": "tcp", "bind": "127.0.0.1:0", **tls}},
        "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": lets_in}},
    }

    async def make() -> Any:
        broker = amqtt.Broker(config)
        await broker.start()
        return broker

    broker = loop.run_until_complete(make())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield int(broker._servers["default"].instance.sockets[0].getsockname()[1])
    finally:
        asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


@contextmanager
def subscribed(port: int, topics: str) -> Iterator[list[tuple[str, bytes]]]:
    """Subscribe to topics. The list that is yielded receives each message (topic, payload), retained ones too."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    heard: list[tuple[str, bytes]] = []
    client = Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _client, _data, message: heard.append((message.topic, bytes(message.payload)))
    client.connect("127.0.0.1", port)
    client.subscribe(topics, 1)
    client.loop_start()
    try:
        yield heard
    finally:
        client.disconnect()
        client.loop_stop()


@contextmanager
def reachable_at(port: int, broker: int) -> Iterator[None]:
    """Make the broker at the port `broker` reachable at another port as well, from now on."""
    with socket.create_server(("127.0.0.1", port)) as server:

        def serve() -> None:
            while True:
                try:
                    one = server.accept()[0]
                except OSError:
                    return
                other = socket.create_connection(("127.0.0.1", broker))
                for ends in ((one, other), (other, one)):
                    threading.Thread(target=_copy, args=ends, daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield


class Link:
    """A link to a running broker that can break, or swallow all data, as a lost connection does.

    It breaks at a packet of more than `most_bytes`, like a broker that accepts none that large.
    """

    def __init__(self, broker: int, most_bytes: float = math.inf):
        self._broker, self._ends, self._most_bytes = broker, list[socket.socket](), most_bytes
        self._swallows, self.is_up = threading.Event(), True
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def swallow(self) -> None:
        """From now on, let nothing arrive at either end."""
        self._swallows.set()

    def cut(self) -> None:
        """Break the connections, and accept none until `mend` is called."""
        self.is_up = False
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def mend(self) -> None:
        """Work again as at the beginning."""
        self._swallows.clear()
        self.is_up = True

    def close(self) -> None:
        """Break the connections and stop listening."""
        self.cut()
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one = self._server.accept()[0]
                if not self.is_up:
                    one.close()
                    continue
                other = socket.create_connection(("127.0.0.1", self._broker))
                self._ends += [one, other]
                for ends in ((one, other), (other, one)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket) -> None:
        packets = _Packets()
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if packets.longest_bytes(data) > self._most_bytes:
                    for end in (source, to):
                        end.shutdown(socket.SHUT_RDWR)
                    return
                if not self._swallows.is_set():
                    to.sendall(data)


class _Packets:
    """Finds the packets in the bytes of a connection."""

    def __init__(self) -> None:
        self._left_bytes, self._head = 0, b""

    def longest_bytes(self, data: bytes) -> int:
        """Return the length of the longest packet whose header ends in these bytes."""
        longest, at = 0, 0
        while at < len(data):
            if self._left_bytes:
                passed = min(self._left_bytes, len(data) - at)
                self._left_bytes, at = self._left_bytes - passed, at + passed
                continue
            self._head, at = self._head + data[at : at + 1], at + 1
            if len(self._head) > 1 and self._head[-1] < 128:
                self._left_bytes = sum((b & 127) << 7 * n for n, b in enumerate(self._head[1:]))
                longest, self._head = max(longest, self._left_bytes), b""
        return longest


def _copy(source: socket.socket, to: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            to.sendall(data)
        to.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@contextmanager
def silent() -> Iterator[int]:
    """Accept one client as a broker does, and then answer nothing. Yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections: list[socket.socket] = []

        def serve() -> None:
            connection = server.accept()[0]
            connections.append(connection)
            connection.recv(1024)
            connection.sendall(b"\x20\x02\x00\x00")

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        for connection in connections:
            connection.close()
