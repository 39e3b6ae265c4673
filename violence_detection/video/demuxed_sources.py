"""Sources that FFmpeg reads in one go, without seeking: network streams and files that still grow."""

from __future__ import annotations

import contextlib
import errno
import math
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av

from violence_detection.errors import LoginRefused, SourceError, UnreadableVideo
from violence_detection.system import processes, redaction
from violence_detection.video import decode, growing_file, packet_reader, video_files
from violence_detection.video.sources import TimedFrame

#: FFmpeg options that cameras need, by the scheme of the address. RTSP tries TCP first, since UDP loses packets behind
#: most routers.
_SCHEME_OPTIONS = {
    "rtsp": {"rtsp_flags": "prefer_tcp"},
    "rtsps": {"rtsp_flags": "prefer_tcp"},
    "udp": {"overrun_nonfatal": "1"},
}
#: If the sender of a transport stream renumbers its tracks (its settings were changed), this makes the stream go on in
#: the tracks that are already there, also in the segments of HLS. PyAV would drop the packets of new tracks.
_COMMON_OPTIONS = {"merge_pmt_versions": "1", "seg_format_options": "merge_pmt_versions=1"}
#: FFmpeg's flag AVFMT_NOTIMESTAMPS, of formats without times: a webcam's pictures, a Raspberry Pi's raw H.264.
_NO_TIMES = 0x80
#: A stream begins with a burst of frames that arrived while FFmpeg looked at it. The burst is over at the first frame
#: that was waited for longer than _BURST_WAIT_S and comes later than _BURST_S after the beginning; in any case after
#: _LONGEST_BURST_S.
_BURST_WAIT_S = 5e-3
_BURST_S = 0.5
_LONGEST_BURST_S = 10.0
#: Factor on the time limit for pictures where they come but do not decode: some cameras send a key frame every 20 s.
_UNDECODED_FACTOR = 3.0
#: FFmpeg's names of the formats that are lists of segments, and what the addresses of such lists contain.
_PLAYLISTS = ("hls", "dash")
_PLAYLIST_NAMES = (".m3u8", ".mpd")
#: Factor on their time limit: a segment comes as a whole, and then nothing for as long as it lasts, say 10 s.
_PLAYLIST_PATIENCE = 3.0
#: The metadata in which FFmpeg says which rendition a track belongs to. A track that several renditions share has none.
_RENDITION = "variant_bitrate"
#: A time stamp of a live stream this far ahead of the last one is not a pause: another recording has begun.
_LIVE_AHEAD_S = 15.0
#: The least time from one frame to the next.
_LEAST_STEP_S = 1e-3


@dataclass(frozen=True)
class _DecodedFrame:
    """A frame, with the time at which its packet came (monotonic clock) and how long that packet was waited for."""

    frame: av.VideoFrame
    came_s: float
    waited_s: float


class DemuxedSource:
    """A source that FFmpeg reads from beginning to end without seeking; the base of those below."""

    def __init__(self, name: str, live: bool):
        self.name, self.live, self.fps = name, live, 0.0
        self._picture_limit_s = math.inf
        self._closed = threading.Event()

    def _open(self) -> av.container.InputContainer:
        raise NotImplementedError

    def _broken(self, error: av.FFmpegError) -> SourceError:
        """The SourceError that tells of an error while frames are read."""
        return SourceError(self.name, f"broke off: {_error_text(error)}")

    def _nothing_came(self) -> SourceError:
        return SourceError(self.name, f"nothing arrived for {self._picture_limit_s:g} s")

    def frames(self) -> Iterator[TimedFrame]:
        """Yield all frames that decode, as they come. Raises SourceError."""
        container = self._open()
        with self._arrivals(container) as arrivals:
            try:
                stream = decode.video_track(Path(self.name), container)
            except UnreadableVideo as e:
                raise SourceError(self.name, e.reason) from e
            if _is_playlist(container):
                _leave_out_other_renditions(container, stream)
            # threads per frame would deliver a frame only after later ones have come
            stream.thread_type = "SLICE"
            by_arrival = self.live and _has_no_times(container)
            comes_as_it_is_seen = self.live and not _is_playlist(container)
            self.fps = 0.0 if by_arrival else decode.plausible_rate(stream)
            begins = None if by_arrival else container.start_time
            clock = StreamClock(
                None if begins is None else begins / av.time_base,
                1 / (self.fps or 25.0),
                _LIVE_AHEAD_S if self.live else decode.AHEAD_S,
            )
            rgb = decode.RgbFrames()
            decoded = self._decoded(arrivals, stream)
            for decoded_frame in _without_burst(decoded) if by_arrival else decoded:
                stamp_s = decoded_frame.came_s if by_arrival else _stamp_s(decoded_frame.frame, stream)
                time_s = clock.time_s(stamp_s, decoded_frame.came_s if comes_as_it_is_seen else None)
                try:
                    picture = rgb.picture(decoded_frame.frame)
                except (av.FFmpegError, ValueError) as e:
                    raise SourceError(self.name, f"a frame cannot be shown ({e})") from e
                yield TimedFrame(time_s, picture, decode.pixel_shape(stream, rgb.turn))

    def _arrivals(
        self, container: av.container.InputContainer
    ) -> contextlib.AbstractContextManager[Iterator[packet_reader.Arrival]]:
        """The container's packets as they come. Closes the container at the end."""
        return packet_reader.in_place(container)

    def _decoded(
        self, arrivals: Iterator[packet_reader.Arrival], stream: av.VideoStream
    ) -> Iterator[_DecodedFrame]:
        """Yield the frames of a track. Packets that do not decode are skipped, as after a loss on the network.

        The packets of all tracks are read, and those of other tracks dropped here and not in PyAV. Otherwise a live
        source whose sound goes on without pictures would never end. Raises SourceError.
        """
        broken: SourceError | None = None
        packet_s = frame_s = time.monotonic()
        while not self._closed.is_set():
            try:
                arrival = next(arrivals, None)
            except packet_reader.NothingCame:
                raise SourceError(
                    self.name,
                    f"no packets of its tracks for {self._picture_limit_s:g} s, though it may send others: it was "
                    "probably reconfigured",
                ) from None
            if arrival is None:  # `close` was called
                break
            if arrival.is_pause:
                self._check_pictures(arrival.came_s - packet_s, arrival.came_s - frame_s)
                continue
            processes.beat()
            packet, came_s = arrival.packet, arrival.came_s
            if arrival.error is not None:
                broken = self._broken(arrival.error)
            if arrival.waited_s > self._picture_limit_s:  # after a time-out FFmpeg delivers what it had kept
                packet, broken = None, broken or self._nothing_came()
            if packet is not None and (packet.stream is not stream or decode.holds_on(packet)):
                self._check_pictures(came_s - packet_s, came_s - frame_s)
                continue
            frames: list[av.VideoFrame] = []
            with contextlib.suppress(av.FFmpegError):
                frames = stream.codec_context.decode(packet if packet is not None and packet.size else None)
            for frame in frames:
                yield _DecodedFrame(frame, came_s, arrival.waited_s)
            if packet is None or not packet.size:  # the decoder has delivered its last frames
                break
            packet_s = time.monotonic()
            frame_s = packet_s if frames else frame_s
            self._check_pictures(0.0, packet_s - frame_s)
        if broken:
            raise broken

    def _check_pictures(self, packet_ago_s: float, frame_ago_s: float) -> None:
        """Raise SourceError if a live source has had no picture, or none that decodes, for too long.

        `packet_ago_s`, `frame_ago_s`: seconds since the last packet of the track, and since the last frame.
        """
        if not self.live:
            return
        if packet_ago_s > self._picture_limit_s:
            raise SourceError(
                self.name, f"no picture for {packet_ago_s:.0f} s, though it sends sound or other data"
            )
        if frame_ago_s > _UNDECODED_FACTOR * self._picture_limit_s:
            raise SourceError(self.name, f"no picture that can be decoded for {frame_ago_s:.0f} s")

    def close(self) -> None:
        """End `frames` soon, without waiting for another packet. The opening of a network stream is not cut short."""
        self._closed.set()


class NetworkSource(DemuxedSource):
    """A network stream, by its address. One over http of known length, such as a file, is not live.

    `open_limit_s`, `read_limit_s`: seconds that the connection, and then each packet, may take; for HLS and DASH three
    times `read_limit_s`.
    """

    def __init__(self, url: str, open_limit_s: float, read_limit_s: float):
        super().__init__(redaction.alone(url), live=True)
        scheme, mark, rest = url.partition("://")
        # FFmpeg takes a scheme in lower case only
        self._url, self._scheme = f"{scheme.lower()}{mark}{rest}", scheme.lower()
        self._open_limit_s, self._one_limit_s = open_limit_s, read_limit_s
        is_playlist = any(name in rest.lower() for name in _PLAYLIST_NAMES)
        self._set_read_limit(read_limit_s * (_PLAYLIST_PATIENCE if is_playlist else 1))

    def _set_read_limit(self, limit_s: float) -> None:
        self._read_limit_s = self._picture_limit_s = limit_s

    def _open(self) -> av.container.InputContainer:
        container = self._open_container()
        limit_s = self._one_limit_s * (_PLAYLIST_PATIENCE if _is_playlist(container) else 1)
        if limit_s > self._read_limit_s:  # the limit of an open container cannot be changed
            container.close()
            self._set_read_limit(limit_s)
            container = self._open_container()
        self.live = not (self._scheme.startswith("http") and container.duration)
        return container

    def _open_container(self) -> av.container.InputContainer:
        # PyAV's errors quote the address with its password, so none of them may be kept as the cause ("from None").
        try:
            return av.open(
                self._url,
                options=_COMMON_OPTIONS | _SCHEME_OPTIONS.get(self._scheme, {}),
                timeout=(self._open_limit_s, self._read_limit_s),
                metadata_errors="ignore",
            )
        except av.ExitError:
            raise SourceError(
                self.name,
                f"did not answer within {self._open_limit_s:g} s. Is the address right, and the device switched on?",
            ) from None
        except av.HTTPUnauthorizedError:
            raise LoginRefused(self.name, "rejects this user and password (401)") from None
        except av.ProtocolNotFoundError:
            raise SourceError(
                self.name,
                f"PyAV {av.__version__} was built without {self._scheme}. Relay the stream with FFmpeg's own program, "
                f"ffmpeg -i {self._scheme}://... -c copy -f mpegts 'udp://127.0.0.1:5000?pkt_size=1316', and pass "
                "udp://:5000 as the address",
            ) from None
        except (av.FFmpegError, OSError, ValueError) as e:
            raise SourceError(
                self.name, f"cannot be opened: {self._unknown_host(e) or _error_text(e)}"
            ) from None

    def _unknown_host(self, error: Exception) -> str:
        """The reason of an `input/output error` of FFmpeg whose real cause is a host that is not found; else empty."""
        host = redaction.split(self._url).hostname
        if host and getattr(error, "errno", None) == errno.EIO:
            try:
                socket.getaddrinfo(host, None)
            except (OSError, UnicodeError) as e:  # UnicodeError: a part of the name is too long
                return f"unknown host {host} ({_error_text(e)})"
        return ""

    def _arrivals(
        self, container: av.container.InputContainer
    ) -> contextlib.AbstractContextManager[Iterator[packet_reader.Arrival]]:
        return packet_reader.in_thread(container, self._read_limit_s, self._closed)

    def _broken(self, error: av.FFmpegError) -> SourceError:
        return self._nothing_came() if isinstance(error, av.ExitError) else super()._broken(error)


class GrowingSource(DemuxedSource):
    """A file that another program still writes, read from its beginning.

    It ends when it has not grown for `still_s` seconds.
    """

    def __init__(self, path: Path, still_s: float):
        super().__init__(str(path), live=False)
        self._path, self._still_s = path, still_s
        self._file = growing_file.GrowingFile(path, still_s, self._closed)

    def frames(self) -> Iterator[TimedFrame]:
        """Yield all frames that decode, as they come; the file is closed at the end.

        Raises SourceError, also at the end if another recording has meanwhile taken the place of the one that was read.
        """
        with contextlib.closing(self._file):
            yield from super().frames()
            if self._file.has_another:
                raise SourceError(
                    self.name,
                    "was rewritten or replaced while it was read, and its new content was not judged. Run the same "
                    "command again",
                )

    def _open(self) -> av.container.InputContainer:
        try:
            growing_file.check_readable_meanwhile(self._path)
            return av.open(self._file, "r", options=video_files.FILES_ALONE, metadata_errors="ignore")
        except (av.FFmpegError, OSError, ValueError) as e:
            if not self._path.is_file():
                raise SourceError(self.name, f"no such file appeared within {self._still_s:g} s") from e
            raise SourceError(
                self.name, f"not a video that can be read while it grows ({_error_text(e)})"
            ) from e


class StreamClock:
    """Turn the time stamps of frames into times that ascend from the beginning of the stream, whatever the stamps do.

    A stamp that is more than `ahead_s` ahead of the last one, or more than decode.BACK_S behind it, begins another
    recording. Its first frame follows the one before by `step_s`, or, if frames come as they are seen and it came later
    than that, when it came. `begins_s`: the stamp of time 0, None if it is not known.
    """

    def __init__(self, begins_s: float | None, step_s: float, ahead_s: float = decode.AHEAD_S):
        self._begins_s, self._step_s, self._ahead_s = begins_s, step_s, ahead_s
        self._last_s: float | None = None
        self._least_s = math.inf  # the least difference so far between when a frame came and its time
        self._stamped = False  # whether a stamp has come; RTSP has none until the sender reports its clock

    def time_s(self, stamp_s: float | None, came_s: float | None = None) -> float:
        """The time of the next frame in seconds; without a stamp it is one step after the last frame's.

        `came_s`: when the frame came, on any clock; None where that says nothing about when it was seen.
        """
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
            if self._last_s is not None and not -decode.BACK_S <= time_s - self._last_s <= self._ahead_s:
                time_s = next_s
                if came_s is not None and math.isfinite(self._least_s):
                    time_s = max(time_s, came_s - self._least_s)
                self._begins_s = stamp_s - time_s
        if self._last_s is not None:
            time_s = max(time_s, self._last_s + _LEAST_STEP_S)
        if came_s is not None:
            self._least_s = min(self._least_s, came_s - time_s)
        self._last_s = time_s
        return time_s


def _is_playlist(container: av.container.InputContainer) -> bool:
    return container.format.name.partition(",")[0] in _PLAYLISTS


def _leave_out_other_renditions(container: av.container.InputContainer, stream: av.VideoStream) -> None:
    """Make FFmpeg fetch only the rendition that this track belongs to, with its sound and its other tracks."""
    others = [track for track in container.streams.video if track is not stream]
    theirs = {track.metadata.get(_RENDITION) for track in others} - {stream.metadata.get(_RENDITION), None}
    for track in container.streams:
        if track in others or track.metadata.get(_RENDITION) in theirs:
            track.discard = av.stream.Discard.all


def _has_no_times(container: av.container.InputContainer) -> bool:
    """Whether the format has no times, so that those of FFmpeg come from a rate that nobody has stated."""
    return bool(container.format.flags & _NO_TIMES) or container.format.name.endswith("pipe")


def _without_burst(decoded: Iterator[_DecodedFrame]) -> Iterator[_DecodedFrame]:
    """Drop the burst of frames at the beginning but its last one: nobody knows when they arrived."""
    begun_s = time.monotonic()
    last: _DecodedFrame | None = None
    after_burst: _DecodedFrame | None = None
    for decoded_frame in decoded:
        since_s = decoded_frame.came_s - begun_s
        is_over = decoded_frame.waited_s > _BURST_WAIT_S and since_s > _BURST_S
        if is_over or since_s > _LONGEST_BURST_S:
            after_burst = decoded_frame
            break
        last = decoded_frame
    yield from (frame for frame in (last, after_burst) if frame is not None)
    yield from decoded


def _stamp_s(frame: av.VideoFrame, stream: av.VideoStream) -> float | None:
    stamp, base = frame.pts if frame.pts is not None else frame.dts, frame.time_base or stream.time_base
    return None if stamp is None or base is None else float(stamp * base)


def _error_text(error: Exception) -> str:
    """The text of an error without the address, which may contain a password."""
    return redaction.redact(str(getattr(error, "strerror", None) or type(error).__name__)).lower()
