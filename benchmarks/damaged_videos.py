"""Make damaged copies of real videos in common containers, with faults as disks, downloads and recorders cause them."""

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
KINDS = ("cut", "flipped", "zeroed", "renamed", "lying")


@dataclass(frozen=True)
class Damaged:
    """A damaged file, and what was done to it: one of KINDS."""

    path: Path
    kind: str


def make(sources: Sequence[Path], folder: Path, count: int, seed: int) -> Iterator[Damaged]:
    """Write `count` damaged copies of the videos `sources` to `folder` and yield each.

    Containers (SUFFIXES), kinds of damage (KINDS) and sources take turns. The kinds:

    cut      cut off after 1 to 19 twentieths of its bytes
    flipped  1, 20 or 300 bits flipped
    zeroed   0.3, 3 or 20 % of its bytes, in one stretch, set to 0
    renamed  the suffix of another container
    lying    a wrong length in the header; a .ts file has none there and remains as it was
    """
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
    """Multiply the length (AVI: the number of frames) in the header by 0.3, 2 or 50, in place."""
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
        at = data.find(b"\x44\x89\x88")  # the element Duration, a double
        if at > 0:
            (duration,) = struct.unpack_from(">d", data, at + 3)
            struct.pack_into(">d", data, at + 3, duration * factor)


def _converted(source: Path, target: Path) -> bytes:
    """Encode the video into the container of `target`, at its average rate; return the file's bytes."""
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
    """Seconds of the first video track that decode: number of frames times the usual step between their time stamps.

    They are decoded by a plain loop over the packets that skips those with errors, independently of the package.
    """
    times = _times(path)
    return len(times) * _usual_step_s(times)


def usual_step_s(path: Path) -> float:
    """The median step between the time stamps of the first video track's frames; 0 if there are fewer than two."""
    return _usual_step_s(_times(path))


def _usual_step_s(times: Sequence[float | None]) -> float:
    stamps = sorted(t for t in times if t is not None)
    return statistics.median(b - a for a, b in itertools.pairwise(stamps)) if len(stamps) > 1 else 0.0


def _times(path: Path) -> list[float | None]:
    times: list[float | None] = []
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"  # like ffmpeg: it decides which packets fail
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
