"""Sources that FFmpeg reads from their beginning on without seeking: streams of the network, files that still grow."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import av

from violence_detection.errors import SourceError, UnreadableVideo
from violence_detection.system import processes, redaction
from violence_detection.video import decode, growing_file
from violence_detection.video.sources import TimedFrame

#: Those of FFmpeg's settings without which cameras fail: TCP before UDP, which loses packets behind most routers.
_OPTIONS = {
    "rtsp": {"rtsp_flags": "prefer_tcp"},
    "rtsps": {"rtsp_flags": "prefer_tcp"},
    "udp": {"overrun_nonfatal": "1"},
}
#: Pictures without times of their own, as webcams send them over HTTP.
_WITHOUT_TIMES = {"mpjpeg", "mjpeg", "image2pipe"}
_LEAST_STEP_S = 1e-3


class DemuxedSource:
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
            clock = StreamClock(None if begins is None else begins / av.time_base, 1 / (self.fps or 25.0))
            rgb = decode.RgbFrames()
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


class NetworkSource(DemuxedSource):
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
        options = _OPTIONS.get(self._url.partition("://")[0].lower(), {}) | more
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


class GrowingSource(DemuxedSource):
    """A file that another program still writes, from its beginning on."""

    def __init__(self, path: Path, still_s: float):
        super().__init__(str(path), live=False)
        self._path, self._still_s = path, still_s
        self._file = growing_file.GrowingFile(path, still_s, self._closed)

    def frames(self) -> Iterator[TimedFrame]:
        """As of any such source; the file is given back at the end."""
        with contextlib.closing(self._file):
            yield from super().frames()

    def _open(self) -> av.container.InputContainer:
        try:
            growing_file.check_readable_meanwhile(self._path)
            return av.open(self._file, "r", metadata_errors="ignore")
        except (av.FFmpegError, OSError, ValueError) as e:
            if not self._path.is_file():
                raise SourceError(self.name, f"no such file came within {self._still_s:g} s") from e
            raise SourceError(self.name, f"no video that can be read while it grows ({_said(e)})") from e


class StreamClock:
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
            if self._last_s is not None and not -decode.BACK_S <= time_s - self._last_s <= decode.AHEAD_S:
                time_s = next_s
                self._begins_s = stamp_s - time_s
        if self._last_s is not None:
            time_s = max(time_s, self._last_s + _LEAST_STEP_S)
        self._last_s = time_s
        return time_s


def _said(error: Exception) -> str:
    """The error without the address, which may hold a password."""
    return redaction.redact(str(getattr(error, "strerror", None) or type(error).__name__)).lower()
