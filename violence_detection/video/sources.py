"""Where frames come from: a file, a camera, a stream of the network, or a file that is still written.

Each is a `Source`: frames with the time at which they are shown, in order. The same footage has the same frames and,
within the rounding of its container, the same times, whichever way it comes.
"""

from __future__ import annotations

import math
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from violence_detection.errors import SourceError, UserError
from violence_detection.system import processes, redaction
from violence_detection.system.settings import expanded
from violence_detection.video import decode

#: How long a connection, and then each packet, may take.
OPEN_LIMIT_S, READ_LIMIT_S = 15.0, 10.0
#: A file that has not grown for so long is complete.
STILL_S = 10.0
GROWING = "growing:"
#: What the rest of FFmpeg's protocols are good for is files, or a danger.
_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp", "tcp", "http", "https")
#: Of these a machine may listen for whoever sends: udp://:5000, srt://:9000?mode=listener.
_LISTENING = ("rtp", "srt", "udp", "tcp")
_DEVICE = re.compile(r"(?:/dev/video)?(\d{1,2})")
_NAMED = re.compile(r"([^\W_][\w-]*)=(.+)", re.DOTALL)
_MISNAMED = re.compile(r"([^=/]*)=\s*(\w+://.+)", re.DOTALL)
#: A file is called by the name, a time and an ending.
_LONGEST_NAME_BYTES = 150


@dataclass(frozen=True, eq=False)
class TimedFrame:
    """A picture and when it is shown. `picture`: (H, W, 3) uint8 RGB; `time_s`: from the beginning of the source;
    `pixel_shape`: what the width of a pixel is to its height.

    Raises UserError for another kind of picture, and for a time that is no number.
    """

    time_s: float
    picture: np.ndarray
    pixel_shape: float = 1.0

    def __post_init__(self) -> None:
        shape, dtype = np.shape(self.picture), getattr(self.picture, "dtype", None)
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
            raise UserError(
                "a frame of a source is a picture (height, width, 3) of uint8, in RGB. Received: "
                f"{shape} of {dtype or type(self.picture).__name__}. cv2.cvtColor makes RGB of other pictures"
            )
        if not math.isfinite(self.time_s):
            raise UserError(
                f"a frame's time is in seconds from the beginning of its source. Received: {self.time_s}"
            )


class Source(Protocol):
    """Frames in order of time.

    name: as it may be shown, without passwords. live: whether it goes on whether it is read or not, so that frames may
    have to be left out. fps: frames a second as the source states them, 0 where it does not; name and live are known at
    once (those of an http address when it is open), fps from the first frame on.
    """

    @property
    def name(self) -> str: ...
    @property
    def live(self) -> bool: ...
    @property
    def fps(self) -> float: ...

    def frames(self) -> Iterator[TimedFrame]:
        """Connect, and give frames until the source ends. To be called once.

        Raises UnreadableVideo, SourceError for what is no plain file: if it cannot be opened, or breaks.
        """
        ...

    def close(self) -> None:
        """Have `frames` end soon; from any thread, at any time."""
        ...


def is_stream(text: str) -> bool:
    """Whether an argument means a source that is no plain file: a camera, an address, a growing file.

    Raises UserError for an address that cannot be read.
    """
    if text.startswith(GROWING):
        return True
    if _DEVICE.fullmatch(text):
        return text.startswith("/dev/") or not Path(text).exists()
    scheme, mark, _ = text.partition("://")
    if not mark or scheme.lower() not in _SCHEMES:
        return False
    if not redaction.split(text).hostname and scheme.lower() not in _LISTENING:
        raise UserError(
            f"{redaction.alone(text)} names no host: write {scheme.lower()}://HOST/..., with two slashes"
        )
    return True


def is_mistyped(text: str) -> bool:
    """Whether a text that is no stream seems to be meant as an address, and no file is called so."""
    meant = "://" in text or redaction.has_login(text)
    return meant and not os.path.exists(expanded(text))  # noqa: PTH110 - never an error


def named(text: str) -> tuple[str, str]:
    """The name that is given to a stream (`front=rtsp://...`) and what it names; no name: "" and the text as it is.

    Raises UserError for an address that cannot be read, and a name that is none.
    """
    match = _NAMED.fullmatch(text)
    if match and not is_stream(text) and is_stream(match[2]):
        return _checked(match[1]), match[2]
    match = _MISNAMED.fullmatch(text)
    if match and not is_stream(text) and is_stream(match[2]):
        _checked(match[1])
    return "", text


def _checked(name: str) -> str:
    if _NAMED.fullmatch(f"{name}=x") and len(name.encode()) <= _LONGEST_NAME_BYTES:
        return name
    better = re.sub(r"[^\w-]+", "_", name).strip("_-")[:20] or "front"
    raise UserError(
        f"{name!r} is no name for a camera: files and topics are called so. Give it letters, digits, - and _, and "
        f"{_LONGEST_NAME_BYTES} bytes at most: {better}=..."
    )


def open_source(
    text: str,
    open_limit_s: float = OPEN_LIMIT_S,
    read_limit_s: float = READ_LIMIT_S,
    still_s: float = STILL_S,
) -> Source:
    """The source that a text means. Nothing is opened before its frames are asked for.

    A camera's number or /dev/video0; an address of _SCHEMES, http with HLS; `growing:PATH`, a file
    that another program still writes, which ends when it has not grown for `still_s` seconds; else a file. `~` is
    the home folder, as where files are judged. Raises UserError for an address that cannot be read, and for what seems
    to be meant as one, without its password.
    """
    from violence_detection.video import demuxed_sources

    path = text.removeprefix(GROWING)
    if path != text or not is_stream(text):
        if is_mistyped(path):
            raise UserError(
                f"{redaction.mistyped(path)} is neither a file nor the address of a stream: such an address begins "
                f"with {', '.join(f'{scheme}://' for scheme in _SCHEMES)}"
            )
        return (
            FileSource(expanded(text))
            if path == text
            else demuxed_sources.GrowingSource(expanded(path), still_s)
        )
    if device := _DEVICE.fullmatch(text):
        return CameraSource(int(device[1]))
    return demuxed_sources.NetworkSource(text, open_limit_s, read_limit_s)


class FileSource:
    """A whole video file, each frame at the time at which `decode` has it."""

    live = False

    def __init__(self, path: Path):
        self.name = str(path)
        self._path = path
        self._closed = threading.Event()
        self.fps = 0.0

    def frames(self) -> Iterator[TimedFrame]:
        """All frames that are shown. Raises UnreadableVideo."""
        packets = decode.packet_timing(self._path)
        # which frames fall out of a damaged file is not known by its packets
        decoded = decode.probe(self._path) if packets.info.damaged else None
        self.fps, last_s = (decoded or packets.info).fps, -1.0
        try:
            for time_s, picture, shape in decode.played(self._path, decoded or packets):
                yield TimedFrame(time_s, picture, shape)
                last_s = time_s
                if self._closed.is_set():
                    return
        except decode.DecodesOtherwise:  # damage, of which packets tell nothing
            info = decode.probe(self._path)
            for time_s, picture, shape in decode.played(self._path, info):
                if self._closed.is_set():
                    return
                if time_s > last_s:
                    yield TimedFrame(time_s, picture, shape)

    def close(self) -> None:
        """End at the next frame."""
        self._closed.set()


class CameraSource:
    """A camera of this machine, by its number."""

    live = True

    def __init__(self, number: int):
        self.name = f"camera {number}"
        self.fps = 0.0
        self._number = number
        self._closed = threading.Event()

    def frames(self) -> Iterator[TimedFrame]:
        """Frames as they come, at the time at which they come. Raises SourceError."""
        camera = cv2.VideoCapture(self._number)
        try:
            if not camera.isOpened():
                raise SourceError(
                    self.name, "cannot be opened. Is it connected, and does no other program use it?"
                )
            self.fps = float(camera.get(cv2.CAP_PROP_FPS))
            begin_s: float | None = None
            while not self._closed.is_set():
                there, picture = camera.read()
                if not there:
                    raise SourceError(self.name, "gives no more pictures")
                now_s = time.monotonic()
                begin_s = now_s if begin_s is None else begin_s
                processes.beat()
                yield TimedFrame(now_s - begin_s, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        finally:
            camera.release()

    def close(self) -> None:
        """End at the next frame."""
        self._closed.set()
