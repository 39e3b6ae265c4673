"""Imitate a camera: send a video in real time, over and over, as MPEG-TS over TCP on the loopback interface.

    python benchmarks/loopback_camera.py VIDEO.mp4 PORT [--cut-at 10,25.5 --away-s 2]

VIDEO is H.264 with a key frame every second, as the function `prepared` makes it. The camera starts when the first
viewer connects, serves one viewer at a time, and keeps running while there is none: a viewer that reconnects sees what
is shown by then. The camera breaks the first connection at the first time of --cut-at, the next one at the next time,
and so on (in seconds since its start). After each it serves nobody for --away-s seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import av
import numpy as np

#: Time base of the packets sent, in seconds: the clock of MPEG-TS, fine enough for any frame rate.
_BASE = Fraction(1, 90_000)


def prepared(video: Path, path: Path, seconds: float, height: int) -> Path:
    """Encode the first `seconds` of a video to `path` as a camera would, and return `path`.

    H.264 for low latency, `height` pixels high, at a constant rate, with a key frame every second.
    """
    with av.open(str(video)) as source, av.open(str(path), "w") as out:
        (track,) = source.streams.video[:1]
        rate = Fraction(track.average_rate or 25).limit_denominator(1001)
        width = 2 * round(track.width * height / track.height / 2)
        options = {"preset": "veryfast", "crf": "26", "tune": "zerolatency", "g": str(round(rate))}
        stream = out.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, frame in enumerate(source.decode(track)):
            if number >= seconds * rate:
                break
            shrunk = frame.reformat(width, height, "yuv420p")
            shrunk.pts, shrunk.time_base = number, 1 / rate
            shrunk.pict_type = av.video.frame.PictureType.NONE
            out.mux(stream.encode(shrunk))
        out.mux(stream.encode())
    return path


class _Viewer:
    """A connection, as a file that FFmpeg can write to."""

    def __init__(self, connection: socket.socket):
        self._connection = connection

    def write(self, data: bytes) -> int:
        self._connection.sendall(data)
        return len(data)


def _packets(video: Path, from_s: float) -> Iterator[tuple[float, av.Packet]]:
    """Yield (seconds since the camera started, packet) for ever, from the first key frame at or after `from_s`."""
    round_s = 0.0
    with av.open(str(video)) as source:
        length_s = float((source.duration or 0) / av.time_base)
    round_s, from_s = from_s // length_s * length_s, from_s % length_s
    while True:
        with av.open(str(video)) as source:
            (track,) = source.streams.video[:1]
            begun = False
            for packet in source.demux(track):
                if packet.dts is None or packet.time_base is None:
                    continue
                time_s = float(packet.dts * packet.time_base)
                begun = begun or (packet.is_keyframe and time_s >= from_s)
                if begun:
                    yield round_s + time_s, packet
        round_s, from_s = round_s + length_s, 0.0


def _send(video: Path, viewer: socket.socket, began_s: float, until_s: float) -> None:
    """Send to one viewer until `until_s`. Both times are in seconds since the epoch.

    Raises av.FFmpegError or OSError if the viewer leaves.
    """
    with av.open(video) as source, av.open(_Viewer(viewer), "w", format="mpegts") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for time_s, packet in _packets(video, time.time() - began_s):
            if began_s + time_s > until_s:
                return
            time.sleep(max(began_s + time_s - time.time(), 0.0))
            packet.stream = stream
            packet.pts = packet.dts = round(time_s / _BASE)
            packet.time_base = _BASE
            out.mux(packet)


def serve(video: Path, port: int, cut_at_s: Sequence[float], away_s: float) -> None:
    """Serve viewers on 127.0.0.1, one after another, until the process ends.

    `cut_at_s`: when each connection is broken, in seconds since the first viewer connected. `away_s`: how long nobody
    is served after that.
    """
    with socket.create_server(("127.0.0.1", port)) as listening:
        began_s: float | None = None
        cuts = list(cut_at_s)
        while True:
            viewer, _ = listening.accept()
            began_s = time.time() if began_s is None else began_s
            until_s = began_s + cuts.pop(0) if cuts else np.inf
            with viewer, contextlib.suppress(av.FFmpegError, OSError):
                _send(video, viewer, began_s, until_s)
            if time.time() >= until_s - 0.5:
                time.sleep(away_s)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("video", type=Path)
    p.add_argument("port", type=int)
    p.add_argument("--cut-at", default="", help="when to break connections, in seconds, comma separated")
    p.add_argument("--away-s", type=float, default=2.0)
    args = p.parse_args()
    serve(args.video, args.port, [float(s) for s in args.cut_at.split(",") if s], args.away_s)


if __name__ == "__main__":
    main()
