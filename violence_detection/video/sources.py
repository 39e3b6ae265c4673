"""Where frames come from: a file, a camera, a stream of the network, or a file that is still written.

Each is a `Source`: frames with the time at which they are shown, in order. The same footage has the same frames and,
within the rounding of its container, the same times, whichever way it comes.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import av
import cv2
import numpy as np

from violence_detection.errors import SourceError, UnreadableVideo
from violence_detection.system import processes, redaction
from violence_detection.video import decode, growing_file
from violence_detection.video.rgb_frames import RgbFrames

#: How long a connection, and then each packet, may take.
OPEN_LIMIT_S, READ_LIMIT_S = 15.0, 10.0
#: A file that has not grown for so long is complete.
STILL_S = 10.0
GROWING = "growing:"
#: What the rest of FFmpeg's protocols are good for is files, or a danger.
_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp", "tcp", "http", "https")
_DEVICE = re.compile(r"(?:/dev/video)?(\d{1,2})")
#: Those of FFmpeg's settings without which cameras fail: TCP before UDP, which loses packets behind most routers.
_OPTIONS = {
    "rtsp": {"rtsp_flags": "prefer_tcp"},
    "rtsps": {"rtsp_flags": "prefer_tcp"},
    "udp": {"overrun_nonfatal": "1"},
}
#: Pictures without times of their own, as webcams send them over HTTP.
_WITHOUT_TIMES = {"mpjpeg", "mjpeg", "image2pipe"}
#: Stamps that go back, or ahead, by more than this begin another recording, which follows on the one before.
_BACK_S, _AHEAD_S = 2.0, 3600.0
_LEAST_STEP_S = 1e-3


@dataclass(frozen=True, eq=False)
class TimedFrame:
    """A picture and when it is shown. `picture`: (H, W, 3) uint8 RGB; `time_s`: from the beginning of the source."""

    time_s: float
    picture: np.ndarray


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
    """Whether an argument means a source that is no plain file: a camera, an address, a growing file."""
    if text.startswith(GROWING):
        return True
    if _DEVICE.fullmatch(text):
        return text.startswith("/dev/") or not Path(text).exists()
    return urlsplit(text).scheme in _SCHEMES and "://" in text


def open_source(
    text: str,
    open_limit_s: float = OPEN_LIMIT_S,
    read_limit_s: float = READ_LIMIT_S,
    still_s: float = STILL_S,
) -> Source:
    """The source that a text means. Nothing is opened before its frames are asked for.

    A camera's number or /dev/video0; an rtsp, rtmp, srt, http (also HLS), udp or tcp address; `growing:PATH`, a file
    that another program still writes, which ends when it has not grown for `still_s` seconds; else a file.
    """
    if text.startswith(GROWING):
        return GrowingSource(Path(text.removeprefix(GROWING)), still_s)
    if not is_stream(text):
        return FileSource(Path(text))
    if device := _DEVICE.fullmatch(text):
        return CameraSource(int(device[1]))
    return NetworkSource(text, open_limit_s, read_limit_s)


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
        self.fps, last_s = packets.info.fps, -1.0
        try:
            for time_s, picture in decode.played(self._path, packets):
                yield TimedFrame(time_s, picture)
                last_s = time_s
                if self._closed.is_set():
                    return
        except decode.DecodesOtherwise:  # damage, of which packets tell nothing
            info = decode.probe(self._path)
            for time_s, picture in decode.played(self._path, info):
                if self._closed.is_set():
                    return
                if time_s > last_s:
                    yield TimedFrame(time_s, picture)

    def close(self) -> None:
        """End at the next frame."""
        self._closed.set()


class _DemuxedSource:
    """What FFmpeg reads from its beginning to its end without seeking."""

    def __init__(self, name: str, live: bool):
        self.name, self.live, self.fps = name, live, 0.0
        self._closed = threading.Event()

    def _open(self) -> av.container.InputContainer:
        raise NotImplementedError

    def _broken(self, error: av.FFmpegError) -> SourceError:
        """What to say of an error while frames are read."""
        return SourceError(self.name, f"broke off: {_said(error)}")

    def frames(self) -> Iterator[TimedFrame]:
        """All frames that decode, as they come. Raises SourceError."""
        container = self._open()
        with container:
            try:
                stream = decode.video_track(Path(self.name), container)
            except UnreadableVideo as e:
                raise SourceError(self.name, e.reason) from e
            stream.thread_type = "SLICE"  # frames would wait for each other in threads
            self.fps = decode.plausible_rate(stream)
            begins = container.start_time
            clock = _Clock(None if begins is None else begins / av.time_base, 1 / (self.fps or 25.0))
            rgb = RgbFrames()
            for frame in self._decoded(container, stream):
                stamp = frame.pts if frame.pts is not None else frame.dts
                base = frame.time_base or stream.time_base
                time_s = clock.time_s(None if stamp is None or base is None else float(stamp * base))
                try:
                    picture = rgb.picture(frame)
                except (av.FFmpegError, ValueError) as e:
                    raise SourceError(self.name, f"a frame cannot be shown ({e})") from e
                yield TimedFrame(time_s, picture)

    def _decoded(
        self, container: av.container.InputContainer, stream: av.VideoStream
    ) -> Iterator[av.VideoFrame]:
        """Packets that do not decode are left out, as where some were lost on the way."""
        packets = container.demux(stream)
        broken: SourceError | None = None
        packet: av.Packet | None = None
        while not self._closed.is_set():
            try:
                packet = next(packets, None)
            except av.BlockingIOError:
                continue
            except av.EOFError:
                packet = None
            except av.FFmpegError as e:
                packet, broken = None, self._broken(e)
            processes.beat()
            frames: list[av.VideoFrame] = []
            with contextlib.suppress(av.FFmpegError):
                frames = stream.codec_context.decode(packet if packet is not None and packet.size else None)
            yield from frames
            if packet is None or not packet.size:  # the decoder has given what it held back
                break
        if broken:
            raise broken

    def close(self) -> None:
        """End when the packet that is waited for has come, or its time is up."""
        self._closed.set()


class NetworkSource(_DemuxedSource):
    """A stream of the network. One of known length, such as a file behind http, is not live."""

    def __init__(self, url: str, open_limit_s: float, read_limit_s: float):
        super().__init__(redaction.without_secrets(url), live=True)
        self._url = url
        self._open_limit_s, self._read_limit_s = open_limit_s, read_limit_s

    def _open(self) -> av.container.InputContainer:
        container = self._connect({})
        if container.format.name in _WITHOUT_TIMES:
            container.close()
            container = self._connect({"use_wallclock_as_timestamps": "1"})
        self.live = not (self._url.startswith("http") and container.duration)
        return container

    def _connect(self, more: dict[str, str]) -> av.container.InputContainer:
        options = _OPTIONS.get(urlsplit(self._url).scheme, {}) | more
        try:
            return av.open(
                self._url,
                options=options,
                timeout=(self._open_limit_s, self._read_limit_s),
                metadata_errors="ignore",
            )
        except av.ExitError as e:
            raise SourceError(
                self.name,
                f"did not answer within {self._open_limit_s:g} s. Is the address right, and is it on?",
            ) from e
        except av.HTTPUnauthorizedError as e:
            raise SourceError(self.name, "does not take this user and password (401)") from e
        except (av.FFmpegError, OSError, ValueError) as e:
            raise SourceError(self.name, f"cannot be opened: {_said(e)}") from e

    def _broken(self, error: av.FFmpegError) -> SourceError:
        if isinstance(error, av.ExitError):
            return SourceError(self.name, f"nothing came for {self._read_limit_s:g} s")
        return super()._broken(error)


class GrowingSource(_DemuxedSource):
    """A file that another program still writes, from its beginning on."""

    def __init__(self, path: Path, still_s: float):
        super().__init__(str(path), live=False)
        self._path, self._still_s = path, still_s

    def _open(self) -> av.container.InputContainer:
        growing_file.check_readable_meanwhile(self._path)
        file = growing_file.GrowingFile(self._path, self._still_s, self._closed)
        try:
            return av.open(file, "r", metadata_errors="ignore")
        except (av.FFmpegError, OSError, ValueError) as e:
            file.close()
            if not self._path.is_file():
                raise SourceError(self.name, f"no such file came within {self._still_s:g} s") from e
            raise SourceError(self.name, f"no video that can be read while it grows ({_said(e)})") from e


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


class _Clock:
    """Times of frames by their stamps: ascending, and from the beginning of the stream, whatever the stamps do."""

    def __init__(self, begins_s: float | None, step_s: float):
        self._begins_s, self._step_s = begins_s, step_s
        self._last_s: float | None = None
        self._stamped = False  # RTSP has no stamps before it has heard of the sender's clock

    def time_s(self, stamp_s: float | None) -> float:
        """The time of the next frame; without a stamp it comes one step behind the last."""
        next_s = 0.0 if self._last_s is None else self._last_s + self._step_s
        if stamp_s is None:
            time_s = next_s
        else:
            if not self._stamped:
                known_s = self._begins_s if self._last_s is None else stamp_s - next_s
                self._begins_s = stamp_s if known_s is None else min(known_s, stamp_s)
                self._stamped = True
            assert self._begins_s is not None
            time_s = stamp_s - self._begins_s
            if self._last_s is not None and not -_BACK_S <= time_s - self._last_s <= _AHEAD_S:
                time_s = next_s
                self._begins_s = stamp_s - time_s
        if self._last_s is not None:
            time_s = max(time_s, self._last_s + _LEAST_STEP_S)
        self._last_s = time_s
        return time_s


def _said(error: Exception) -> str:
    """The error without the address, which may hold a password."""
    return redaction.redact(str(getattr(error, "strerror", None) or type(error).__name__)).lower()
