"""Make damaged copies of real videos, as failing disks, downloads and recorders leave them, in common containers."""

from __future__ import annotations

import itertools
import random
import statistics
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av

SUFFIXES = (".mp4", ".avi", ".mkv", ".ts", ".webm")
#: Cut short; bits flipped; a stretch zeroed; another container's suffix; a header that states another length.
KINDS = ("cut", "flipped", "zeroed", "renamed", "lying")


@dataclass(frozen=True)
class Damaged:
    """A damaged file, and the kind of damage."""

    path: Path
    kind: str


def make(sources: Sequence[Path], folder: Path, count: int, seed: int) -> Iterator[Damaged]:
    """Yield `count` damaged copies of these videos, written to `folder`, of all containers and kinds in turn."""
    rng = random.Random(seed)
    whole: dict[tuple[Path, str], bytes] = {}
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        suffix = SUFFIXES[number % len(SUFFIXES)]
        kind = KINDS[number // len(SUFFIXES) % len(KINDS)]
        source = sources[number % len(sources)]
        if (source, suffix) not in whole:
            whole[source, suffix] = _converted(source, folder / f"whole{suffix}")
        data = whole[source, suffix]
        path = folder / f"{number:03d}_{kind}{suffix}"
        if kind == "renamed":
            path = path.with_suffix(rng.choice([s for s in SUFFIXES if s != suffix]))
        path.write_bytes(_damaged(data, kind, suffix, rng))
        yield Damaged(path, kind)
    for suffix in SUFFIXES:
        (folder / f"whole{suffix}").unlink(missing_ok=True)


def _damaged(data: bytes, kind: str, suffix: str, rng: random.Random) -> bytes:
    out = bytearray(data)
    if kind == "cut":
        return data[: len(data) * rng.randint(1, 19) // 20]
    if kind == "flipped":
        for _ in range(rng.choice((1, 20, 300))):
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    if kind == "zeroed":
        size = max(int(len(out) * rng.choice((0.003, 0.03, 0.2))), 16)
        start = rng.randrange(len(out) - size)
        out[start : start + size] = bytes(size)
    if kind == "lying":
        _lie(out, suffix, rng)
    return bytes(out)


def _lie(data: bytearray, suffix: str, rng: random.Random) -> None:
    """Change the length, or the number of frames, that the header states; nothing in .ts, which states neither."""
    factor = rng.choice((0.3, 2.0, 50.0))
    if suffix == ".mp4":
        for name in (b"mvhd", b"mdhd"):
            at = data.find(name)
            if at > 0 and data[at + 4] == 0:
                at += 4 + 4 + 8 + 4
                (duration,) = struct.unpack_from(">I", data, at)
                struct.pack_into(">I", data, at, min(int(duration * factor), 2**32 - 1))
    elif suffix == ".avi":
        for name, skip in ((b"avih", 8 + 16), (b"strh", 8 + 32)):
            at = data.find(name)
            (count,) = struct.unpack_from("<I", data, at + skip)
            struct.pack_into("<I", data, at + skip, min(int(count * factor), 2**32 - 1))
    elif suffix in (".mkv", ".webm"):
        at = data.find(b"\x44\x89\x88")  # the duration, as an 8-byte float
        if at > 0:
            (duration,) = struct.unpack_from(">d", data, at + 3)
            struct.pack_into(">d", data, at + 3, duration * factor)


def _converted(source: Path, target: Path) -> bytes:
    """Convert the video to the container of `target`, at a constant rate, its average; return the file's bytes."""
    codec = {".avi": "mpeg4", ".webm": "libvpx"}.get(target.suffix, "libx264")
    options = {"movflags": "faststart"} if target.suffix == ".mp4" else {}
    count = 0
    with av.open(str(source)) as there, av.open(str(target), "w", options=options) as here:
        inside = there.streams.video[0]
        rate = inside.average_rate
        assert rate is not None
        stream = here.add_stream(codec, rate=rate, options={"g": "12"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = inside.width // 2 * 2, inside.height // 2 * 2, "yuv420p"
        for frame in there.decode(inside):
            new = frame.reformat(stream.width, stream.height, "yuv420p")
            new.pts, new.time_base = count, 1 / rate
            here.mux(stream.encode(new))
            count += 1
        here.mux(stream.encode())
    return target.read_bytes()


def seconds_that_decode(path: Path) -> float:
    """Seconds of the first video track that a plain loop over its packets decodes.

    That is the number of frames times the median step between their time stamps.
    """
    times = _times(path)
    return len(times) * _usual_step_s(times)


def usual_step_s(path: Path) -> float:
    """Median seconds between the time stamps of the first video track's frames; 0 for fewer than two stamps."""
    return _usual_step_s(_times(path))


def _usual_step_s(times: Sequence[float | None]) -> float:
    stamps = sorted(t for t in times if t is not None)
    return statistics.median(b - a for a, b in itertools.pairwise(stamps)) if len(stamps) > 1 else 0.0


def _times(path: Path) -> list[float | None]:
    times: list[float | None] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"  # as ffmpeg does; it changes the packets at which errors are raised
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                    if packet is None:
                        break
                    times += [frame.time for frame in packet.decode()]
                except av.BlockingIOError:
                    packets = container.demux(stream)
                except av.FFmpegError:
                    continue
    except (av.FFmpegError, IndexError):
        return []
    return times
