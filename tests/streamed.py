"""A video file sent over the loopback interface as by a camera or a recorder, or written bit by bit.

As a script, it pushes a video to a program that listens for RTSP: streamed.py VIDEO URL. In the same process as its
reader, FFmpeg's handshake would wait for itself.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import av
import numbered_videos
import numpy as np
import timed_videos


def free_port() -> int:
    """Return a port on which no one listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def remux(
    path: Path, to: str | BinaryIO, kind: str = "mpegts", options: dict[str, str] | None = None
) -> None:
    """Copy the video's packets unchanged into an MPEG transport stream, or into another format of FFmpeg's."""
    with av.open(str(path)) as source, av.open(to, "w", format=kind, options=options or {}) as sink:
        (track,) = source.streams.video
        out = sink.add_stream_from_template(track)
        for packet in source.demux(track):
            if packet.dts is None:
                continue
            packet.stream = out
            sink.mux(packet)


def of_two_recorders(folder: Path) -> tuple[Path, Path]:
    """Write 40 s, and the next 40 s with another track number. Each is longer than what FFmpeg examines at first."""
    parts = []
    for number, begins_s in ((256, 0), (336, 40)):
        whole = timed_videos.write(folder / f"{number}.mp4", timed_videos.evenly(1000, 25, start_s=begins_s))
        parts.append(whole.with_suffix(".ts"))
        remux(whole, str(parts[-1]), options={"mpegts_start_pid": str(number)})
    return parts[0], parts[1]


@contextlib.contextmanager
def over_tcp(path: Path) -> Iterator[str]:
    """Send the video by FFmpeg's muxer to one reader, as fast as it reads. Yields the address."""
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
def begun_again(path: Path, pause_s: float) -> Iterator[str]:
    """Send the video twice over one connection with a pause, like a recorder that restarts. Yields the address."""

    def send(connection: socket.socket) -> None:
        with connection.makefile("wb") as sink:
            remux(path, sink)
            sink.flush()
            time.sleep(pause_s)
            remux(path, sink)

    with _camera(send) as url:
        yield url


@contextlib.contextmanager
def playlist(path: Path, folder: Path, name: str, after_s: float) -> Iterator[str]:
    """Serve an HLS playlist of segments of about 1 s, the last of which is listed `after_s` later; yields its URL."""
    remux(path, str(folder / "all.m3u8"), "hls", {"hls_time": "1", "hls_list_size": "0"})
    whole = (folder / "all.m3u8").read_text()
    lines = whole.splitlines(keepends=True)
    begins = "".join(lines[: lines.index("#EXT-X-ENDLIST\n") - 2])
    asked_s: list[float] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == f"/{name}":
                asked_s.append(time.monotonic())
                data = (begins if asked_s[-1] - asked_s[0] < after_s else whole).encode()
            else:
                data = (folder / self.path[1:]).read_bytes()
            self.send_response(200)
            if self.path == f"/{name}":
                self.send_header("Content-Type", "application/vnd.apple.mpegurl")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/{name}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def playlist_that_goes_on(parts: Sequence[Path], folder: Path, after_s: float) -> Iterator[str]:
    """Serve an HLS playlist of the first file's segments, to which the second file's are added after `after_s` seconds.

    The tracks in the second file's segments have other numbers. Yields the address.
    """
    lines: list[str] = []
    lists = []
    for n, part in enumerate(parts):
        options = {
            "hls_time": "2",
            "hls_list_size": "0",
            "hls_segment_filename": str(folder / f"{n}_%d.ts"),
            "hls_segment_options": f"mpegts_start_pid={256 + 80 * n}",
        }
        remux(part, str(folder / f"{n}.m3u8"), "hls", options)
        written = (folder / f"{n}.m3u8").read_text().splitlines(keepends=True)
        lines += [
            line for line in written if n == 0 or line.startswith("#EXTINF") or not line.startswith("#")
        ]
        lines = [line for line in lines if line != "#EXT-X-ENDLIST\n"]
        lists.append("".join(lines))
    live = folder / "live.m3u8"
    live.write_text(lists[0])
    later = threading.Timer(after_s, live.write_text, [lists[1] + "#EXT-X-ENDLIST\n"])
    later.start()
    with served(folder, []) as url:
        yield f"{url}/live.m3u8"
    later.cancel()


@contextlib.contextmanager
def served(folder: Path, asked: list[str]) -> Iterator[str]:
    """Serve a folder's files over HTTP. `asked` receives the names of the requested files. Yields the address."""

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path[1:])
            super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@contextlib.contextmanager
def growing(path: Path, into: Path, pieces: int = 20, every_s: float = 0.02) -> Iterator[Path]:
    """Write the bytes of the file to `into` piece by piece. Yields `into` while it grows."""
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
    """Run a server that sends these bytes to whoever connects, and then nothing more. Yields its port."""
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


@contextlib.contextmanager
def endless(begins: bytes, goes_on: bytes, every_s: float) -> Iterator[int]:
    """Run a server that answers with `begins`, and then sends `goes_on` again and again. Yields its port."""

    def send(connection: socket.socket) -> None:
        connection.recv(10_000)
        connection.sendall(begins)
        for _ in range(round(30 / every_s)):
            connection.sendall(goes_on)
            time.sleep(every_s)

    with _camera(send) as url:
        yield int(url.rpartition(":")[2])


def one_after_another(paths: Sequence[Path]) -> contextlib.AbstractContextManager[str]:
    """Send the bytes of the files over one connection. Yields the address."""

    def send(connection: socket.socket) -> None:
        for path in paths:
            connection.sendall(path.read_bytes())

    return _camera(send)


class Sending:
    """A connection as a file that FFmpeg can write to."""

    def __init__(self, connection: socket.socket):
        self._connection = connection

    def write(self, data: bytes) -> int:
        self._connection.sendall(data)
        return len(data)


@contextlib.contextmanager
def _camera(send: Callable[[socket.socket], None], scheme: str = "tcp") -> Iterator[str]:
    """Run a server that calls `send` with each connection, in a thread, until the reader leaves. Yields the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError, av.FFmpegError):
                send(connection)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"{scheme}://127.0.0.1:{server.getsockname()[1]}"


def _encoder(codec: str, rate: int, pixels: str) -> av.VideoCodecContext:
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = 160, 96, pixels
    encoder.time_base, encoder.framerate = Fraction(1, rate), Fraction(rate)
    if codec == "libx264":
        encoder.options = {"tune": "zerolatency", "preset": "ultrafast", "g": "25"}
    return encoder


def _pictures(encoder: av.VideoCodecContext, count: int) -> list[bytes]:
    packets: list[bytes] = []
    for number in range(count):
        frame = av.VideoFrame.from_ndarray(numbered_videos.frame(number), format="bgr24")
        frame = frame.reformat(encoder.width, encoder.height, encoder.pix_fmt)
        frame.pts, frame.time_base = number, encoder.time_base
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


def _at_rate(rate: int) -> Iterator[int]:
    """Yield the numbers from 0, `rate` a second, for 30 s, which is longer than any test should take."""
    began_s = time.monotonic()
    for number in range(30 * rate):
        time.sleep(max(began_s + number / rate - time.monotonic(), 0))
        yield number


def raw_h264(rate: int, connections: list[int]) -> contextlib.AbstractContextManager[str]:
    """Send H.264 pictures without container and end, as a Raspberry Pi does. `connections[0]` counts connections."""
    packets = _pictures(_encoder("libx264", rate, "yuv420p"), 50)

    def send(connection: socket.socket) -> None:
        connections[0] += 1
        for number in _at_rate(rate):
            connection.sendall(packets[number % len(packets)])

    return _camera(send)


def webcam(rate: int, connections: list[int]) -> contextlib.AbstractContextManager[str]:
    """Send JPEG pictures over HTTP without end. `connections[0]` counts connections."""
    jpegs = _pictures(_encoder("mjpeg", rate, "yuvj420p"), 50)

    def send(connection: socket.socket) -> None:
        connections[0] += 1
        connection.recv(10_000)
        connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n")
        for number in _at_rate(rate):
            jpeg = jpegs[number % len(jpegs)]
            head = f"--b\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            connection.sendall(head.encode() + jpeg + b"\r\n")

    return _camera(send, "http")


def snapshot(asked: list[int]) -> contextlib.AbstractContextManager[str]:
    """Send one JPEG picture over HTTP. `asked[0]` counts connections."""
    (jpeg,) = _pictures(_encoder("mjpeg", 25, "yuvj420p"), 1)

    def send(connection: socket.socket) -> None:
        asked[0] += 1
        connection.recv(10_000)
        head = f"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
        connection.sendall(head.encode() + jpeg)

    return _camera(send, "http")


def refusing(asked: list[int]) -> contextlib.AbstractContextManager[str]:
    """Be a camera over HTTP that accepts no user and password. `asked[0]` counts connections."""

    def send(connection: socket.socket) -> None:
        asked[0] += 1
        connection.recv(10_000)
        connection.sendall(
            b'HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm="camera"\r\nContent-Length: 0\r\n\r\n'
        )

    return _camera(send, "http")


def sound_that_goes_on(pictures: int) -> contextlib.AbstractContextManager[str]:
    """Send an MPEG transport stream with `pictures` pictures, 20 a second, and with sound that goes on without end."""

    def send(connection: socket.socket) -> None:
        # otherwise, the muxer holds the sound back until there are pictures of the same time
        options = {"flush_packets": "1", "max_interleave_delta": "100000"}
        with av.open(Sending(connection), "w", format="mpegts", options=options) as out:
            video = _video_at_20(out)
            sound = out.add_stream("aac", rate=16_000, layout="mono")
            for number in _at_rate(20):
                if number < pictures:
                    out.mux(video.encode(_picture(number)))
                out.mux(sound.encode(_silence(number)))

    return _camera(send)


def with_sound_added(pictures: int) -> contextlib.AbstractContextManager[str]:
    """Send an MPEG transport stream: `pictures` pictures at 20 fps, then endless sound and pictures in new tracks."""

    def send(connection: socket.socket) -> None:
        numbers = _at_rate(20)
        with av.open(Sending(connection), "w", format="mpegts", options={"flush_packets": "1"}) as out:
            video = _video_at_20(out)
            for number in itertools.islice(numbers, pictures):
                out.mux(video.encode(_picture(number)))
        options = {"flush_packets": "1", "max_interleave_delta": "100000", "mpegts_start_pid": "400"}
        with av.open(Sending(connection), "w", format="mpegts", options=options) as out:
            sound = out.add_stream("aac", rate=16_000, layout="mono")
            video = _video_at_20(out)
            for number in numbers:
                out.mux(video.encode(_picture(number)))
                out.mux(sound.encode(_silence(number)))

    return _camera(send)


def _video_at_20(out: av.container.OutputContainer) -> av.VideoStream:
    video = out.add_stream("libx264", rate=20, options={"tune": "zerolatency", "g": "10"})
    video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
    return video


def _picture(number: int) -> av.VideoFrame:
    """Return frame `number` of a video with 20 frames a second."""
    picture = av.VideoFrame.from_ndarray(numbered_videos.frame(number), format="bgr24")
    picture.pts, picture.time_base = number, Fraction(1, 20)
    return picture


def _silence(number: int) -> av.AudioFrame:
    """Return the sound during frame `number`, silence at 16,000 samples a second."""
    heard = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
    heard.sample_rate, heard.pts, heard.time_base = 16_000, number * 800, Fraction(1, 16_000)
    return heard


def pictures_that_do_not_decode(pictures: int) -> contextlib.AbstractContextManager[str]:
    """Send an MPEG transport stream of 20 pictures a second, of which only the first `pictures` can be decoded."""
    packets = _pictures(_encoder("libx264", 20, "yuv420p"), pictures)
    of_no_parameters = b"\0\0\0\1\x41\x98\x3f" + b"\xff" * 50  # its picture parameters were never sent

    def send(connection: socket.socket) -> None:
        with av.open(Sending(connection), "w", format="mpegts", options={"flush_packets": "1"}) as out:
            video = out.add_stream("libx264", rate=20)
            video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
            for number in _at_rate(20):
                packet = av.Packet(packets[number] if number < pictures else of_no_parameters)
                packet.stream, packet.time_base = video, Fraction(1, 20)
                packet.pts = packet.dts = number
                packet.is_keyframe = number % 25 == 0
                out.mux(packet)

    return _camera(send)


def push_by_rtsp(path: Path, url: str) -> None:
    """Push the video to a reader that listens for RTSP (ANNOUNCE and RECORD), as soon as it listens."""
    for _ in range(100):
        with contextlib.suppress(av.ConnectionRefusedError):
            return remux(path, url, "rtsp", {"rtsp_transport": "tcp"})
        time.sleep(0.05)
    raise TimeoutError(url)


if __name__ == "__main__":
    push_by_rtsp(Path(sys.argv[1]), sys.argv[2])
