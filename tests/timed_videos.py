"""Small real videos in common containers. Frames come at chosen times and show their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numbered_videos
import numpy as np

#: The usual encoder of each container, by file suffix.
CODECS = {
    ".mp4": "libx264",
    ".mkv": "libx264",
    ".ts": "libx264",
    ".avi": "mpeg4",
    ".webm": "libvpx",
    ".mov": "mjpeg",
    ".wmv": "wmv2",
    ".flv": "libx264",
}
#: The time base of all: fine enough for 25 and for 300 frames a second.
TIME_BASE = Fraction(1, 90_000)


def write(
    path: Path,
    times_s: Sequence[float],
    *,
    pictures: Sequence[np.ndarray] | None = None,
    rate: int = 25,
    codec: str = "",
    options: dict[str, str] | None = None,
    sound: bool = False,
    sound_start_s: float = 0.0,
) -> Path:
    """Write a video whose frame i comes at times_s[i]. `rate`: the frame rate that the encoder is told.

    `sound`: adds a silent track that begins at `sound_start_s`, whenever the pictures begin.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures = pictures or [numbered_videos.frame(i % 256) for i in range(len(times_s))]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec or CODECS[path.suffix], rate=rate, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if stream.codec_context.name == "mjpeg" else "yuv420p"
        if path.suffix not in (".avi", ".mov"):
            stream.time_base = stream.codec_context.time_base = TIME_BASE
        if sound:
            _add_silence(container, sound_start_s, times_s[-1])
        for picture, time_s in zip(pictures, times_s, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            base = stream.codec_context.time_base or Fraction(1, rate)
            frame.pts, frame.time_base = round(time_s / base), base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def holding(path: Path, pictures: Sequence[int | None], rate: int = 25) -> Path:
    """Write a video with a numbered picture at each moment, or None: an empty packet, which repeats the last picture.

    AVI (null frames) and Ogg (Theora) files contain such packets, and NUT accepts them with every codec.
    """
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.pix_fmt = "yuvj420p"
        stream.height, stream.width = numbered_videos.frame(0).shape[:2]
        for moment, number in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(numbered_videos.frame((number or 0) % 256), format="bgr24")
            frame.pts = moment
            for packet in stream.encode(frame):
                if number is None:
                    empty = av.Packet(b"")
                    empty.stream, empty.pts, empty.dts = stream, packet.pts, packet.dts
                    empty.time_base = packet.time_base
                    packet = empty
                container.mux(packet)
        container.mux(stream.encode())
    return path


def turned(path: Path, to: Path) -> Path:
    """Copy an MP4 as telephones write upright videos: players turn it a quarter clockwise."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version 0: times, id, duration; then layer and volume
    one, none, w = (1 << 16).to_bytes(4, "big"), bytes(4), (1 << 30).to_bytes(4, "big")
    minus = (-(1 << 16)).to_bytes(4, "big", signed=True)
    data[matrix : matrix + 36] = none + one + none + minus + none + none + none + none + w
    to.write_bytes(data)
    return to


def trimmed(path: Path, to: Path, start_s: float, length_s: float) -> Path:
    """Copy an MP4 as telephones trim videos: all frames remain in the file, and its header says which are shown."""
    data = bytearray(path.read_bytes())

    def number(box: bytes, offset: int) -> int:
        at = data.index(box) + offset
        return int.from_bytes(data[at : at + 4], "big")

    moves_at, ticks = number(b"mvhd", 16), number(b"mdhd", 16)  # per second, of the file and of its track
    edit = data.index(b"elst") + 12
    data[edit : edit + 4] = round(length_s * moves_at).to_bytes(4, "big")
    data[edit + 4 : edit + 8] = (number(b"elst", 16) + round(start_s * ticks)).to_bytes(4, "big")
    to.write_bytes(data)
    return to


def _add_silence(container: av.container.OutputContainer, start_s: float, end_s: float) -> None:
    track = container.add_stream("aac", rate=16_000, layout="mono")
    for i in range(int(start_s * 16_000 / 1024), int(end_s * 16_000 / 1024)):
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate, silence.pts, silence.time_base = 16_000, 1024 * i, Fraction(1, 16_000)
        container.mux(track.encode(silence))
    container.mux(track.encode())


def evenly(count: int, fps: float, start_s: float = 0.0) -> list[float]:
    """Return the times of `count` frames at a constant rate."""
    return [start_s + i / fps for i in range(count)]


def noisy(count: int) -> list[np.ndarray]:
    """Return numbered frames with noise below the number, so that there are enough bytes to damage."""
    rng = np.random.default_rng(1)
    out = []
    for i in range(count):
        picture = np.kron(numbered_videos.frame(i % 256), np.ones((4, 2, 1), np.uint8))
        picture[64:] = rng.integers(0, 255, picture[64:].shape, np.uint8)
        out.append(picture)
    return out


def corner_moves(path: Path, seconds: float = 2.0) -> Path:
    """Write a still picture, 160 x 120, 25 frames a second, in a corner of which a small square jumps."""
    count = round(25 * seconds)
    shown = [np.full((120, 160, 3), 90, np.uint8) for _ in range(count)]
    for number, picture in enumerate(shown):
        picture[20:40, 110 + 6 * (number % 3) : 130] = 250
    return write(path, [i / 25 for i in range(count)], pictures=shown)
