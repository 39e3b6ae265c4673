"""Sources of frames: a file, a camera, a network stream, or a file that is still written.

Each is a `Source`: frames with the times at which they are shown, in order of time. The same footage has the same
frames and, within the rounding of its container, the same times, whichever way it comes.
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

#: Seconds that a connection (OPEN_LIMIT_S), and then each packet (READ_LIMIT_S), may take.
OPEN_LIMIT_S, READ_LIMIT_S = 15.0, 10.0
#: A growing file that has not grown for this many seconds is complete.
STILL_S = 10.0
#: The prefix by which a file is named that another program still writes.
GROWING = "growing:"
#: FFmpeg's protocols that are accepted. The others read files or are dangerous.
_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp", "tcp", "http", "https")
#: The protocols of which an address needs no host, since this machine may listen for a sender: udp://:5000,
#: srt://:9000?mode=listener.
_LISTENING = ("rtp", "srt", "udp", "tcp")
_DEVICE = re.compile(r"(?:/dev/video)?(\d{1,2})")
_NAMED = re.compile(r"([^\W_][\w-]*)=(.+)", re.DOTALL)
_MISNAMED = re.compile(r"([^=/]*)=\s*(\w+://.+|growing:.+|/dev/video\d+|\d+)", re.DOTALL)
#: The longest name of a camera. Names of files contain it, a time and a suffix.
_LONGEST_NAME_BYTES = 150


@dataclass(frozen=True, eq=False)
class TimedFrame:
    """A picture and the time at which it is shown.

    time_s: seconds from the beginning of the source. picture: (H, W, 3) uint8 RGB. pixel_shape: width of a pixel
    divided by its height. Raises UserError for a picture of another shape or dtype, and for a time that is not finite.
    """

    time_s: float
    picture: np.ndarray
    pixel_shape: float = 1.0

    def __post_init__(self) -> None:
        shape, dtype = np.shape(self.picture), getattr(self.picture, "dtype", None)
        if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
            raise UserError(
                "a frame of a source must be an RGB picture (height, width, 3) of uint8. Received: "
                f"{shape} of {dtype or type(self.picture).__name__}. cv2.cvtColor converts other pictures to RGB"
            )
        if not math.isfinite(self.time_s):
            raise UserError(
                "a frame's time must be a finite number of seconds from the beginning of its source. Received: "
                f"{self.time_s}"
            )


class Source(Protocol):
    """A source of frames in order of time.

    name: as it may be shown, without passwords. live: whether the source goes on whether it is read or not, so that
    frames may have to be skipped. fps: frames a second as the source states them, 0 if it states none. `name` and
    `live` are known at once (`live` of an http address once it is open), `fps` from the first frame on.
    """

    @property
    def name(self) -> str: ...
    @property
    def live(self) -> bool: ...
    @property
    def fps(self) -> float: ...

    def frames(self) -> Iterator[TimedFrame]:
        """Connect, and yield frames until the source ends. Call it only once.

        Raises UnreadableVideo if the source cannot be opened or breaks; its subclass SourceError for all sources but
        plain files.
        """
        ...

    def close(self) -> None:
        """Ask `frames` to end soon. May be called from any thread, at any time."""
        ...


def is_stream(text: str) -> bool:
    """Whether an argument means a source other than a plain file: a camera, an address or a growing file.

    Raises UserError for an address that cannot be parsed, or that names no host where it must.
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
    """Whether a text that is not a stream seems to be meant as an address, and no file has that name."""
    meant = "://" in text or redaction.has_login(text)
    return meant and not os.path.exists(expanded(text))  # noqa: PTH110 - raises no error


def named(text: str) -> tuple[str, str]:
    """Split `front=rtsp://...` into the name of a stream and the stream; ("", text) where the text gives no name.

    Spaces after the `=` are ignored. Raises UserError for an address that cannot be parsed, and for a name that is not
    allowed, unless a file has `text` as its path.
    """
    match = _NAMED.fullmatch(text)
    if match and not is_stream(text) and is_stream(match[2]):
        return _checked(match[1]), match[2]
    match = _MISNAMED.fullmatch(text)
    if match and not is_stream(text) and is_stream(match[2]) and not os.path.exists(expanded(text)):  # noqa: PTH110
        return _checked(match[1]), match[2]
    return "", text


def _checked(name: str) -> str:
    if _NAMED.fullmatch(f"{name}=x") and len(name.encode()) <= _LONGEST_NAME_BYTES:
        return name
    better = re.sub(r"[^\w-]+", "_", name).strip("_-")[:20] or "front"
    raise UserError(
        f"{name!r} cannot be the name of a camera, since files and MQTT topics are named after it. Use letters, "
        f"digits, - and _, a letter or digit first, and at most {_LONGEST_NAME_BYTES} bytes: {better}=..."
    )


def open_source(
    text: str,
    open_limit_s: float = OPEN_LIMIT_S,
    read_limit_s: float = READ_LIMIT_S,
    still_s: float = STILL_S,
) -> Source:
    """The source that a text means. Nothing is opened until its frames are asked for.

    `text` is the number of a camera or /dev/video0; an address (rtsp, rtmp, srt, http and the others of _SCHEMES; HLS
    is read over http); `growing:PATH`, a file that another program still writes, which ends when it has not grown for
    `still_s` seconds; or the path of a file. In a path `~` is the home folder. `open_limit_s`, `read_limit_s`: seconds
    that the connection to an address, and then each packet, may take.
    Raises UserError for an address that cannot be parsed, and for a text that seems to be meant as an address but is
    not one; its message leaves out the password.
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
    """A whole video file, each frame at the time that `decode` finds for it."""

    live = False

    def __init__(self, path: Path):
        self.name = str(path)
        self._path = path
        self._closed = threading.Event()
        self.fps = 0.0

    def frames(self) -> Iterator[TimedFrame]:
        """Yield all frames that are shown. Raises UnreadableVideo."""
        packets = decode.packet_timing(self._path)
        # the packets of a damaged file do not tell which of its frames are missing
        decoded = decode.probe(self._path) if packets.info.damaged else None
        self.fps, last_s = (decoded or packets.info).fps, -1.0
        try:
            for time_s, picture, shape in decode.played(self._path, decoded or packets):
                yield TimedFrame(time_s, picture, shape)
                last_s = time_s
                if self._closed.is_set():
                    return
        except decode.DecodesOtherwise:
            # damage that the packets do not show: go on after the last frame yielded
            info = decode.probe(self._path)
            for time_s, picture, shape in decode.played(self._path, info):
                if self._closed.is_set():
                    return
                if time_s > last_s:
                    yield TimedFrame(time_s, picture, shape)

    def close(self) -> None:
        """End `frames` at the next frame."""
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
        """Yield frames as they come, with the time at which they come. Raises SourceError."""
        camera = cv2.VideoCapture(self._number)
        try:
            if not camera.isOpened():
                raise SourceError(
                    self.name, "cannot be opened. Is it connected, and not in use by another program?"
                )
            self.fps = float(camera.get(cv2.CAP_PROP_FPS))
            begin_s: float | None = None
            while not self._closed.is_set():
                there, picture = camera.read()
                if not there:
                    raise SourceError(self.name, "delivers no more pictures")
                now_s = time.monotonic()
                begin_s = now_s if begin_s is None else begin_s
                processes.beat()
                yield TimedFrame(now_s - begin_s, cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
        finally:
            camera.release()

    def close(self) -> None:
        """End `frames` at the next frame."""
        self._closed.set()
