"""A video file sent over the loopback as a camera or a recorder would, or written bit by bit.

As a script it pushes one to whoever listens for RTSP: streamed.py VIDEO URL. In one process with its reader FFmpeg's
greeting would wait for itself.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def remux(
    path: Path, to: str | BinaryIO, kind: str = "mpegts", options: dict[str, str] | None = None
) -> None:
    """The video's packets as they are, as an MPEG transport stream or what else FFmpeg makes."""
    with av.open(str(path)) as source, av.open(to, "w", format=kind, options=options or {}) as sink:
        (track,) = source.streams.video
        out = sink.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.dts is None:
                continue
            packet.stream = out
            sink.mux(packet)


@contextlib.contextmanager
def over_tcp(path: Path) -> Iterator[str]:
    """The address at which FFmpeg's muxer sends it, as fast as it is read, to one reader."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("wb") as sink:
                remux(path, sink)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        sender.join(20)


@contextlib.contextmanager
def growing(path: Path, into: Path, pieces: int = 20, every_s: float = 0.02) -> Iterator[Path]:
    """The same bytes, written piece by piece."""
    data = path.read_bytes()
    step = -(-len(data) // pieces)

    def write() -> None:
        with into.open("wb", buffering=0) as f:
            for at in range(0, len(data), step):
                f.write(data[at : at + step])
                time.sleep(every_s)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    yield into
    writer.join(20)


@contextlib.contextmanager
def server_that_says(*pieces: bytes) -> Iterator[int]:
    """Its port: a server that sends these bytes to whoever connects, and then nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    held.append(connection)
                    for piece in pieces:
                        connection.sendall(piece)

        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])
        for connection in held:
            connection.close()


def push_by_rtsp(path: Path, url: str) -> None:
    """Come to a reader that listens (ANNOUNCE and RECORD), as soon as it does."""
    for _ in range(100):
        with contextlib.suppress(av.ConnectionRefusedError):
            return remux(path, url, "rtsp", {"rtsp_transport": "tcp"})
        time.sleep(0.05)
    raise TimeoutError(url)


if __name__ == "__main__":
    push_by_rtsp(Path(sys.argv[1]), sys.argv[2])
