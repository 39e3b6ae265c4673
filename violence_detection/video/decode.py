"""Decode videos from the first packet to the last, each frame at the time that the file gives it.

The whole package decodes videos through this module. What a container states (length, rate, number of frames) is
believed only until the file has been read. A video whose frames come at its stated rate is read once. Any other one
(variable rate, damaged, cut off, wrong header) is treated as a screen of constant rate would show it: each frame stays
until the next one comes. Frame numbers, everywhere else in this package, are therefore moments at a constant rate, and
a second is a second of the video.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from violence_detection.errors import NOT_READ, UnreadableVideo
from violence_detection.system import processes

#: A video, or a window of one, with fewer decodable frames than this shows too little movement to be judged.
MIN_FRAMES = 8
#: Missing footage of a file without any sign of damage is reported only if it is longer than this many seconds ...
_REPORTED_S = 0.5
#: ... or than this share of the video, whichever is less.
_REPORTED_SHARE = 0.05
#: Frame rates outside this range are not believed where a header states them; only time stamps count then.
_LOWEST_RATE, _HIGHEST_RATE = 1.0, 240.0
#: A time stamp that goes back by more than BACK_S, or ahead by more than AHEAD_S, begins another recording. Its frames
#: are timed as if they followed the recording before without a pause.
BACK_S, AHEAD_S = 2.0, 3600.0
#: The share that counts as nearly all. Where this share of the steps from frame to frame is alike, a longer step is a
#: loss of frames and not the video's own pace.
_MOSTLY = 0.9
#: Where the pace changes, this many steps on either side of a step say what is usual there.
_STEPS_BESIDE = 4
#: The most frames by which the order of decoding may differ from the order of showing.
_REORDERED = 32
#: A video track begins late if it begins this much after the file does. Codecs that look ahead delay it by less.
_LATE_S = 0.2
#: Containers that state the time of their end, not their length: a part of a recording counts from its beginning.
_END_STATED = ("matroska,webm", "nut", "asf")
#: The container whose stated length counts from when decoding begins, which is before the first picture is shown.
_DECODING_STATED = "flv"
#: The container in which other tracks may follow a track that ends.
_TRACKS_FOLLOW = "mpegts"
#: The most packets of the track that ends which may still come after the following track has begun.
_LATE_PACKETS = 2
#: The container that numbers its moments: where a moment has no packet of its own, the picture before it stays.
_NUMBERS_MOMENTS = "avi"
#: How often the demuxer may find a stretch of the file that makes no packet before the reading ends.
_MOST_PAUSES = 100_000
#: The most threads that FFmpeg's decoders use.
_MOST_THREADS = 64
#: The four letters by which manifests have always named these codecs; all others have FFmpeg's name.
_FOUR_LETTERS = {
    "mpeg4": "FMP4", "mjpeg": "MJPG", "mpeg1video": "mpg1", "mpeg2video": "mpg2", "msmpeg4v3": "MP43", "vp8": "VP80",
    "vp9": "VP90",
}  # fmt: skip
#: Pixel formats of nearly all videos, which FFmpeg converts to RGB and to BGR with the same values, bit for bit. Others
#: it converts to the two with different values, and the features on disk were made from BGR.
_SAME_IN_RGB = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}
#: No lens and no standard makes pixels thinner than this, width by height (or flatter than its inverse): a header that
#: says so is wrong.
_THINNEST = 0.25
#: What turns a frame upright, by its rotation in degrees.
_SQUARE_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
Frame = np.ndarray  # (height, width, 3) uint8 RGB
Span = tuple[float, float]


@dataclass(frozen=True)
class VideoInfo:
    """A video as a screen of constant rate shows it: `n_frames` moments, `fps` a second, beginning at `start_s`.

    shown: for each moment the number of the decoded frame that is on the screen, (n_frames,) int64; None where the
        frames themselves come at that rate, so that moment i shows frame i.
    width, height: of upright frames if any were decoded, otherwise as stored.
    n_decoded: number of frames that decode.
    stated_s: length in seconds by the header, 0 where it states none.
    lost: stretches in which nothing decodes, in seconds of the video, ascending.
    as_stated: whether frames come at the rate that the header states and nothing is damaged, so that a frame number
        computed from the header finds the right frame.
    damaged: whether reading met damage, so that frames may be missing that nobody could count.
    pixel_shape: width of a pixel divided by its height, of the frames as they are returned.
    begins_late: the first of `lost` is not a loss, but the time before the first picture: the sound begins earlier.
    rest_track: number, among the video tracks, of the first one that ends where the track read begins, or begins where
        it ends, and so has the first or last of `lost`; None if there is none.
    """

    n_frames: int
    fps: float
    width: int
    height: int
    codec: str
    n_decoded: int = 0
    stated_s: float = 0.0
    start_s: float = 0.0
    shown: np.ndarray | None = field(default=None, compare=False)
    lost: tuple[Span, ...] = ()
    as_stated: bool = True
    damaged: bool = field(default=False, compare=False)
    pixel_shape: float = field(default=1.0, compare=False)
    begins_late: bool = field(default=False, compare=False)
    rest_track: int | None = field(default=None, compare=False)

    @property
    def played_s(self) -> float:
        """Seconds from the first frame that decodes to the end of the last."""
        return self.n_frames / self.fps

    @property
    def duration_s(self) -> float:
        """Length of the whole video in seconds, including what does not decode."""
        return max([self.start_s + self.played_s, *(end for _, end in self.lost)])

    @property
    def read_s(self) -> float:
        """Seconds of the video that decode. A decoded frame counts even if its time stamp is damaged."""
        outside_s = self.duration_s - sum(end - start for start, end in self.lost)
        return min(max(outside_s, self.n_decoded / self.fps), self.duration_s)

    def decoded(self, number: int) -> int:
        """The number of the decoded frame that is on the screen at a moment."""
        return number if self.shown is None else int(self.shown[number])

    def distinct(self, first: int, end: int) -> int:
        """How many different frames are on the screen from moment `first` until before moment `end`."""
        return max(end - first, 0) if self.shown is None else len(np.unique(self.shown[first:end]))

    def shortfall(self) -> str:
        """A warning that says which parts of the video do not decode and what to do; empty where all of it does."""
        lost = self.lost[self.begins_late :]
        if not lost:
            return ""
        # Not `duration_s`: with one frame missing the others may count as evenly spaced, and then the video counts as
        # only as long as they are.
        pictures_s = self.read_s + sum(end - start for start, end in lost)
        said = ((self.read_s, pictures_s), *lost[:3])
        # A lost frame may be shorter than the last digit shows: use the fewest digits that tell all ends apart.
        digits = next((n for n in (1, 2) if all(round(a, n) < round(b, n) for a, b in said)), 3)
        where = ", ".join(f"{start:.{digits}f}-{end:.{digits}f}" for start, end in lost[:3])
        why = "it is damaged or was cut short. If the original is whole, copy or download it again"
        if self.rest_track is not None:
            why = (
                "the rest is in another video track, as where recordings were joined or a recorder's settings were "
                f"changed. Copy that track to a file of its own: ffmpeg -i OLD -map 0:v:{self.rest_track} -c copy "
                "REST.ts"
            )
        return (
            f"only {self.read_s:.{digits}f} of {pictures_s:.{digits}f} s decode (nothing at {where}"
            f"{' ...' if len(lost) > 3 else ''} s): {why}"
        )


@dataclass(frozen=True)
class PacketTiming:
    """What the packets of a video say of it. `stamps`: their time stamps, ascending, (n,) int64; empty without any."""

    info: VideoInfo
    stamps: np.ndarray

    def fits(self, number: int, stamp: int | None) -> bool:
        """Whether frame `number` may have this time stamp.

        Of some containers decoders give a frame the stamp of a packet near its own, at most _REORDERED packets away.
        """
        if stamp is None or not len(self.stamps):
            return stamp is None and not len(self.stamps)
        early = self.stamps[max(number - _REORDERED, 0)] if number else self.stamps[0]
        late = self.stamps[min(number + _REORDERED, len(self.stamps) - 1)] if number else self.stamps[0]
        return number < len(self.stamps) and bool(early <= stamp <= late)

    def agrees(self, found: VideoInfo) -> bool:
        """Whether decoding found the same frames at the same times, and the same stretches missing."""
        same = replace(found, width=self.info.width, height=self.info.height) == self.info
        return same and np.array_equal(_shown_or_all(found), _shown_or_all(self.info))


def info_of(found: VideoInfo | PacketTiming) -> VideoInfo:
    """The VideoInfo of either kind of result: of decoding, or of reading the packets alone."""
    return found.info if isinstance(found, PacketTiming) else found


class DecodesOtherwise(Exception):
    """A video does not decode as its packets say. Only decoding it tells what it is: `probe`."""


def read(
    path: Path,
    plan: Callable[[VideoInfo], Sequence[int]],
    transform: Callable[[Frame], Frame] | None = None,
    threads: int = 0,
) -> tuple[VideoInfo, dict[int, Frame]]:
    """Decode the frames that `plan` asks for and return them by number, with what was found out about the file.

    Frames are (H, W, 3) uint8 RGB. `plan` gets a VideoInfo and returns frame numbers. It is called with what the header
    states and again with what was found; if the two lead to different frames, the file may be read a second time.
    `transform` (a resize, say) is applied to each wanted frame at once, so that memory stays small; its result is
    returned in place of the frame. `threads`: of the decoder, 0 for one per core. They do not change the frames; where
    many videos are decoded at once, one thread for each costs less in all.
    Raises UnreadableVideo if the file does not open, fewer than MIN_FRAMES decode, or two passes decode differently.
    """
    with _Reader.open(path, threads) as reader:
        stated = reader.as_stated()
        wanted = [int(number) for number in plan(stated)]
        kept = reader.keep(frozenset(wanted), transform)
        info = reader.found()
    planned, wanted = wanted, [int(number) for number in plan(info)]
    if info.shown is None and wanted == planned:
        return info, {number: kept[number] for number in wanted}
    if missing := _decoded(wanted, info) - kept.keys():  # the file is not what its header says
        with _Reader.open(path, threads) as reader:
            kept |= reader.keep(missing, transform)
        if missing - kept.keys():
            raise UnreadableVideo(path, "decodes differently each time it is read")
    return info, {number: kept[info.decoded(number)] for number in wanted}


def header(path: Path) -> VideoInfo:
    """What the container states. Quick, since nothing more is read, but it may be wrong.

    `n_frames` is 1 where nothing is stated. Raises UnreadableVideo if the file does not open.
    """
    with _Reader.open(path) as reader:
        return reader.as_stated()


def timing(path: Path) -> VideoInfo:
    """The same as `probe`, from the packets alone: quicker, but it does not notice packets that do not decode.

    Raises UnreadableVideo.
    """
    return packet_timing(path).info


def packet_timing(path: Path) -> PacketTiming:
    """The same as `timing`, with the time stamps that a decoding pass is checked against. Raises UnreadableVideo."""
    with _Reader.open(path) as reader:
        reader.skim()
        info = reader.found()
        return PacketTiming(info, np.sort([stamp for stamp in reader.stamps if stamp is not None]))


def probe(path: Path) -> VideoInfo:
    """What the file is, found by decoding it to the end without keeping frames. Raises UnreadableVideo."""
    return read(path, lambda _: ())[0]


def read_groups(
    path: Path,
    info: VideoInfo | PacketTiming,
    groups: Iterable[frozenset[int]],
    transform: Callable[[Frame, int], Any] | None = None,
) -> Iterator[dict[int, Any]]:
    """Decode a video of any length once, yielding the frames of each group as soon as its last frame is read.

    A group is a set of frame numbers below `info.n_frames`. Groups must be ordered by their first frame and by their
    last; each is taken from the iterable when its first frame is due. Only frames that a group still needs are kept, as
    what `transform` returns for the picture and its number among the frames that decode. `info` comes from `probe` or
    `packet_timing`. Raises UnreadableVideo if the file ends before the last group is complete. With packet timing the
    file is always read to its end, and DecodesOtherwise is raised as soon as the packets turn out to be wrong.
    """
    expected = info if isinstance(info, PacketTiming) else None
    info = info_of(info)
    coming = ((group, _decoded(group, info)) for group in groups)
    following = next(coming, None)
    waiting: deque[tuple[frozenset[int], frozenset[int]]] = deque()
    held: dict[int, Any] = {}
    count = 0
    with _Reader.open(path) as reader:
        for count, frame in enumerate(reader.checked_frames(expected)):
            while following and min(following[1]) <= count:
                waiting.append(following)
                following = next(coming, None)
            if any(count in needed for _, needed in waiting):
                picture = reader.picture(frame, None)
                held[count] = transform(picture, count) if transform else picture
            while waiting and count >= max(waiting[0][1]):
                group, _ = waiting.popleft()
                yield {i: held[info.decoded(i)] for i in group}
                oldest = min(waiting[0][1]) if waiting else count + 1
                held = {i: f for i, f in held.items() if i >= oldest}
            if not (waiting or following or expected):
                return
    if last := following or (waiting[-1] if waiting else None):
        raise UnreadableVideo(path, f"ended at frame {count + 1}, but {max(last[1]) + 1} were counted before")


def played(path: Path, info: VideoInfo | PacketTiming) -> Iterator[tuple[float, Frame, float]]:
    """Yield all frames that are shown: the second at which each appears, its picture, and its `pixel_shape`.

    Pictures are (H, W, 3) uint8 RGB. `info` comes from `probe` or `packet_timing`. Raises UnreadableVideo, and with
    packet timing DecodesOtherwise as soon as the packets turn out to be wrong.
    """
    expected = info if isinstance(info, PacketTiming) else None
    info = info_of(info)
    begins: dict[int, int] | None = None
    if info.shown is not None:
        begins = dict(zip(*np.unique(info.shown, return_index=True), strict=True))
    with _Reader.open(path) as reader:
        for count, frame in enumerate(reader.checked_frames(expected)):
            number = count if begins is None else begins.get(count)
            if number is not None:
                picture = reader.picture(frame, None)
                yield info.start_s + int(number) / info.fps, picture, reader.pixel_shape


def moments(path: Path, info: VideoInfo, numbers: Sequence[int]) -> Iterator[tuple[int, Frame]]:
    """Yield the frames on the screen at some moments, as they are decoded: (number, picture (H, W, 3) uint8 RGB).

    `numbers`: of the moments, ascending. `info` comes from `probe`. Raises UnreadableVideo.
    """
    groups = (frozenset([number]) for number in numbers)
    for number, frames in zip(numbers, read_groups(path, info, groups), strict=True):
        yield number, frames[number]


def _shown_or_all(info: VideoInfo) -> np.ndarray:
    return np.arange(info.n_frames) if info.shown is None else info.shown


def _decoded(numbers: Sequence[int] | frozenset[int], info: VideoInfo) -> frozenset[int]:
    return frozenset(info.decoded(int(number)) for number in numbers)


class RgbFrames:
    """Convert the frames of one video to upright RGB pictures, in the same way for a file and for a stream.

    `turn`: the rotation in degrees that the first frame states, from 0 to 359; None before that.
    """

    def __init__(self) -> None:
        self._reformatter = av.video.reformatter.VideoReformatter()
        self.turn: int | None = None

    def look_at(self, frame: av.VideoFrame) -> None:
        """Note the rotation that the first frame states, whether or not that frame is shown."""
        if self.turn is None:
            self.turn = frame.rotation % 360

    def picture(self, frame: av.VideoFrame) -> Frame:
        """The frame upright, (H, W, 3) uint8 RGB. Raises FFmpegError or ValueError if it cannot be converted."""
        layout = "rgb24" if frame.format.name in _SAME_IN_RGB else "bgr24"
        picture: Frame = self._reformatter.reformat(frame, format=layout, threads=1).to_ndarray()
        self.look_at(frame)
        if self.turn in _SQUARE_TURNS:
            picture = cv2.rotate(picture, _SQUARE_TURNS[self.turn])
        if layout == "bgr24":
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        return picture


class _Reader:
    """One pass over a file's largest video track, which collects all that the file says about itself."""

    def __init__(self, path: Path, container: av.container.InputContainer, stream: av.VideoStream):
        self._path, self._container, self._stream = path, container, stream
        self._context = stream.codec_context
        self._rgb = RgbFrames()
        self.stamps: list[int | None] = []  # time stamps of the frames, in units of the stream's time base
        self._packets: list[int] = []  # time stamps of the packets that should give a frame
        self._packets_due: list[int] = []  # decoding times of the same packets; ascending within a recording
        self._skimmed = False  # whether `stamps` are those of the packets, in the order of the packets
        self._packet_count = 0
        # the latest time stamp of a packet, and for how long its picture stays, as the packet says
        self._last = (-math.inf, 0)
        self._held: list[int] = []  # time stamps of packets that say that the picture before stays
        self._others_end_s = 0.0  # when the last of the other tracks ends
        # Of each other video track, by its stream index: how many packets of this track came before its first packet,
        # and before each of its last ones; and when it begins and ends, in seconds.
        self._other_videos: dict[int, tuple[int, deque[int], Span]] = {}
        self._jumped_s = 0.0  # seconds by which the stamps jump ahead in all where another recording begins
        self._damaged = False
        self._packet_failed = False  # whether a packet did not decode

    @classmethod
    @contextmanager
    def open(cls, path: Path, threads: int = 0) -> Iterator[_Reader]:
        """Open the file. Raises UnreadableVideo, or the OSError of a disk that does not answer."""
        _check_file(path)
        try:
            # with "file:", since FFmpeg would take a name with a colon for a protocol
            container = av.open(f"file:{path}", metadata_errors="ignore")
        except av.FFmpegError as e:
            _check_disk(path)  # FFmpeg reports an index that the disk cannot deliver as one that is missing
            raise UnreadableVideo(path, f"not a video that FFmpeg can open ({_error_text(e)})") from e
        with container:
            stream = video_track(path, container)
            stream.thread_type = "SLICE" if threads == 1 else "AUTO"
            stream.codec_context.thread_count = threads
            yield cls(path, container, stream)

    def keep(self, wanted: frozenset[int], transform: Callable[[Frame], Frame] | None) -> dict[int, Frame]:
        """Read to the end and return the wanted frames, by their number among the frames that decode."""
        return {
            number: self.picture(frame, transform)
            for number, frame in enumerate(self.frames())
            if number in wanted
        }

    def skim(self) -> None:
        """Read to the end without decoding, and count every packet as a frame."""
        for packet in self._demux():
            self._note(packet)
        self.stamps = [*self._packets] or [None] * self._packet_count
        self._skimmed = True

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield all frames that decode. A broken packet is skipped, as ffmpeg does, and noted as damage."""
        for packet in self._demux():
            self._note(packet)
            for frame in [] if holds_on(packet) else self._decode(packet):
                self.stamps.append(frame.pts if frame.pts is not None else frame.dts)
                yield frame
        # At the end each thread of the decoder may report an error before the next one delivers its frames.
        for _ in range(_MOST_THREADS if self._damaged else 0):
            for frame in self._decode(None):
                self.stamps.append(frame.pts if frame.pts is not None else frame.dts)
                yield frame

    def checked_frames(self, expected: PacketTiming | None) -> Iterator[av.VideoFrame]:
        """Yield all frames that decode. Raises DecodesOtherwise as soon as they differ from `expected`, if given."""
        if expected is None:
            yield from self.frames()
            return
        for number, frame in enumerate(self.frames()):
            if self._packet_failed or not expected.fits(number, self.stamps[-1]):
                raise DecodesOtherwise
            yield frame
        if not expected.agrees(self.found()):
            raise DecodesOtherwise

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        try:
            frames = self._context.decode(packet)
        except av.EOFError:
            return []
        except av.FFmpegError as e:
            self._note_damage(e)
            self._packet_failed = True
            return []
        for frame in frames[:1]:
            self._rgb.look_at(frame)
        return frames

    def _demux(self) -> Iterator[av.Packet]:
        """Yield the track's packets, and at the end an empty one, which makes the decoder deliver its last frames."""
        # The other tracks are read too if this one states no length of its own: where they last as long as the file
        # should, the file's stated length is theirs. They also are if another video track may follow this one.
        others = self._stream.duration is None and len(self._container.streams) > 1
        others |= self._container.format.name == _TRACKS_FOLLOW and len(self._container.streams.video) > 1
        for _ in range(_MOST_PAUSES):
            try:
                for packet in packets_of(self._container, *(() if others else (self._stream,))):
                    processes.beat()
                    if packet.stream is self._stream:
                        yield packet
                    elif packet.pts is not None and packet.time_base is not None:
                        self._note_other(packet, packet.pts, packet.time_base)
                return
            except av.BlockingIOError:  # a stretch of the file made no packet: go on after it
                self._damaged = True
            except av.FFmpegError as e:
                self._note_damage(e)
                return

    def _note_damage(self, error: av.FFmpegError) -> None:
        self._damaged = True
        if isinstance(error, OSError):
            _check_disk(self._path)

    def _note(self, packet: av.Packet) -> None:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if holds_on(packet) and stamp is not None:
            self._held.append(stamp)
        if not packet.size:
            return
        self._packet_count += 1
        self._damaged |= packet.is_corrupt
        if not packet.is_discard and stamp is not None:
            self._packets.append(stamp)
            self._last = max(self._last, (stamp, packet.duration or 0))
            before = self._packets_due[-1] if self._packets_due else stamp
            self._packets_due.append(before if packet.dts is None else packet.dts)

    def _note_other(self, packet: av.Packet, stamp: int, base: Fraction) -> None:
        begins_s, ends_s = float(stamp * base), float((stamp + (packet.duration or 0)) * base)
        self._others_end_s = max(self._others_end_s, ends_s)
        if packet.stream.type == "video":
            number = packet.stream.index
            count = self._packet_count
            new = count, deque[int](maxlen=_LATE_PACKETS + 1), (begins_s, ends_s)
            before, ends, (first_s, last_s) = self._other_videos.get(number, new)
            ends.append(count)
            self._other_videos[number] = before, ends, (min(first_s, begins_s), max(last_s, ends_s))

    def picture(self, frame: av.VideoFrame, transform: Callable[[Frame], Any] | None) -> Any:
        """A frame upright, (H, W, 3) uint8 RGB, passed through `transform` if there is one. Raises UnreadableVideo."""
        try:
            picture: Frame = self._rgb.picture(frame)
        except (av.FFmpegError, ValueError) as e:
            raise UnreadableVideo(self._path, f"a frame cannot be shown ({e})") from e
        return transform(picture) if transform else picture

    def as_stated(self) -> VideoInfo:
        """What the header says; 25 frames a second where its rate is not believed."""
        rate = self._rate()
        n_frames = max(self._stream.frames or round(self._stated_s() * rate), 1)
        fps = _rounded(rate, n_frames) if _LOWEST_RATE <= rate <= _HIGHEST_RATE else 25.0
        return self._info(n_frames=n_frames, fps=fps, n_decoded=n_frames)

    def found(self) -> VideoInfo:
        """What was read. Raises UnreadableVideo if it is fewer than MIN_FRAMES, or has neither a rate nor times."""
        count = len(self.stamps)
        if count < MIN_FRAMES:
            raise UnreadableVideo(self._path, f"only {count} of at least {MIN_FRAMES} frames decode")
        rate = self._rate()
        if self._comes_as_stated(rate):
            return self._info(n_frames=count, fps=_rounded(rate, count), n_decoded=count)
        seconds = self._seconds()
        if seconds is None:
            return self._without_stamps(rate)
        stated_rate = _LOWEST_RATE <= rate <= _HIGHEST_RATE
        held = self._held_seconds(float(seconds[0]))
        last_s = max([float(seconds[-1]), *held])
        fits = rate > 0 and _is_stated(seconds, rate)
        fps = _rounded(rate if fits else _typical_rate(seconds, rate), count)
        constant = last_s == seconds[-1] and (fits or _comes_at(seconds, fps))
        shown = None
        n_frames = count
        if not constant:
            n_frames = round((last_s - seconds[0]) * fps) + 1
            moments = seconds[0] + (np.arange(n_frames) + 0.5) / fps
            shown = np.maximum(np.searchsorted(seconds, moments, side="right") - 1, 0)
        earlier_s = _length_s(self._earlier())
        start_s = start_of(max(float(seconds[0]), earlier_s))
        late = start_s > 0 and self._has_nothing_before(fps) and earlier_s <= _LATE_S
        lost = self._lost(np.sort(np.concatenate([seconds, held])) - (seconds[0] - start_s), fps, late)
        return self._info(
            n_frames=n_frames,
            fps=fps,
            n_decoded=count,
            start_s=start_s,
            shown=shown,
            lost=lost,
            begins_late=late and bool(lost) and lost[0][0] == 0,
            rest_track=self._rest_track() if lost else None,
            as_stated=fits and stated_rate and not self._damaged,
        )

    def _comes_as_stated(self, rate: float) -> bool:
        """Whether rate and length are as the header says, with no damage and no late beginning. A quick check."""
        base, begins = self._stream.time_base, self._container.start_time
        if self._damaged or base is None or begins is None or not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
            return False
        if None in self.stamps:
            return False
        seconds = np.sort(np.array(self.stamps, np.float64)) * float(base)
        late_s = max(float(seconds[0]) - begins / av.time_base, _length_s(self._earlier()))
        end_s = len(seconds) / rate
        return (
            late_s <= _LATE_S and self._missing_tail_s(end_s, rate) <= 0.5 / rate and _comes_at(seconds, rate)
        )

    def _without_stamps(self, rate: float) -> VideoInfo:
        """A stream without usable time stamps: its frames are taken to come at the stated rate.

        Raises UnreadableVideo if it states no rate.
        """
        if not rate > 0:
            raise UnreadableVideo(
                self._path,
                "states neither a frame rate nor time stamps. Convert it: ffmpeg -r RATE -i OLD NEW.mp4",
            )
        count = len(self.stamps)
        fps = _rounded(rate, count)
        lost = (
            ((count / fps, self._packet_count / fps),) if self._damaged and count < self._packet_count else ()
        )
        return self._info(
            n_frames=count,
            fps=fps,
            n_decoded=count,
            lost=lost,
            as_stated=_LOWEST_RATE <= rate <= _HIGHEST_RATE and not self._damaged,
        )

    def _info(self, **found: object) -> VideoInfo:
        context = self._stream.codec_context
        sides = context.width, context.height
        if self._rgb.turn in (90, 270):
            sides = sides[::-1]
        return VideoInfo(
            width=sides[0],
            height=sides[1],
            codec=_codec_of(self._stream),
            stated_s=self._stated_s(),
            damaged=self._damaged,
            pixel_shape=self.pixel_shape,
            **found,  # type: ignore[arg-type]
        )

    @property
    def pixel_shape(self) -> float:
        """Width of a pixel divided by its height, of upright frames. To be asked for after the first was decoded."""
        return pixel_shape(self._stream, self._rgb.turn)

    @property
    def _numbers_moments(self) -> bool:
        return self._container.format.name == _NUMBERS_MOMENTS

    def _rate(self) -> float:
        """Frames a second as the container states them, 0 where it states none."""
        stream = self._stream
        return float(stream.average_rate or stream.guessed_rate or stream.base_rate or 0)

    def _stated_s(self) -> float:
        """Length of the track in seconds by the header, 0 where it states none."""
        length, begins = (
            (n or 0) / av.time_base for n in (self._container.duration, self._container.start_time)
        )
        if self._stream.duration is not None and self._stream.time_base is not None:
            length = float(self._stream.duration * self._stream.time_base)
        if self._container.format.name in _END_STATED and 0 < begins < length:
            length -= begins
        if self._container.format.name == _DECODING_STATED:
            length -= min(begins, _LATE_S)
        return max(length, 0.0)

    def _seconds(self) -> np.ndarray | None:
        """When each frame comes, in seconds from the beginning of the file, ascending: (n,) float64.

        None where a frame has no time stamp, or fewer than half of the stamps differ. Decoders deliver frames in the
        order of showing, but of some containers (AVI) with the stamps in the order of the packets. Packets come in the
        order of decoding, in which a frame that follows a pause may precede frames from before the pause.
        """
        base = self._stream.time_base
        if base is None or any(stamp is None for stamp in self.stamps):
            return None
        seconds = np.array(self.stamps, np.float64) * float(base)
        order = np.array(self._packets_due, np.float64) * float(base) if self._skimmed else seconds
        stamped_s, seconds = float(np.ptp(seconds)), _one_after_another(seconds, order)
        self._jumped_s = max(stamped_s - float(np.ptp(seconds)), 0.0)
        if len(np.unique(seconds)) < len(seconds) / 2:
            return None
        begins = self._container.start_time
        return seconds - (seconds[0] if begins is None else min(begins / av.time_base, float(seconds[0])))

    def _held_seconds(self, first_s: float) -> np.ndarray:
        """When packets say that the picture before stays: (n,) float64 seconds as of `_seconds`, after `first_s`."""
        first, base = min(s for s in self.stamps if s is not None), float(self._stream.time_base or 0)
        seconds = (np.array(self._held, np.float64) - first) * base + first_s
        return seconds[seconds > first_s]

    def _has_nothing_before(self, fps: float) -> bool:
        """Whether the first frame that decodes is the file's first, as far as its packets and damage show."""
        first = min(stamp for stamp in self.stamps if stamp is not None)
        step = 0.5 / fps / float(self._stream.time_base or 1)
        return not self._damaged and min(self._packets, default=first) > first - step

    def _lost(self, seconds: np.ndarray, fps: float, late: bool) -> tuple[Span, ...]:
        """The stretches in which nothing decodes, in seconds.

        `seconds`: when frames come, or packets say that one stays, (n,) ascending. `late`: the time before the first
        frame is not a loss, and does not count when it is decided whether the losses are long enough to be reported.
        """
        is_even = self._numbers_moments or _mostly_comes_at(seconds, fps)
        # Where many packets do not decode, they are what makes a part slower, and not the camera.
        is_own_pace = not is_even and len(self.stamps) >= _MOSTLY * self._packet_count
        usual_s = _steps_around(seconds, fps) if is_own_pace else np.full(len(seconds) - 1, 1 / fps)
        knows_losses = self._damaged or (is_even and not self._numbers_moments)
        gaps = _gaps(seconds, usual_s) if knows_losses else []
        before = [(0.0, float(seconds[0]))] if seconds[0] > _LATE_S else []
        if not late:
            gaps = before + gaps
        end = float(seconds[-1]) + 1 / fps
        if (missing_s := self._missing_tail_s(end, fps)) > 0:
            shown_until_s = end + self._last_frame_stays_s(fps)
            gaps.append((shown_until_s, shown_until_s + missing_s))
        most = min(_REPORTED_S, _REPORTED_SHARE * (end - float(seconds[0])))
        if not self._damaged and sum(b - a for a, b in gaps) <= most:
            gaps = []
        if late and (gaps or seconds[0] > most):
            gaps = before + gaps
        return tuple((round(a, 3), round(b, 3)) for a, b in gaps if b - a > 0.5 / fps)

    def _missing_tail_s(self, end_s: float, fps: float) -> float:
        """Seconds that are missing behind the last frame: by the stated length, the number of frames or later tracks.

        The time for which the last frame is said to stay is not missing.
        """
        # Stated lengths reach to the last stamp, whether the container states them or FFmpeg derives them from stamps.
        stated_s = self._stated_s() - self._jumped_s - self._last_frame_stays_s(fps)
        others_last_s = self._others_end_s - (self._container.start_time or 0) / av.time_base
        if self._stream.duration is None and others_last_s >= stated_s - _REPORTED_S:
            stated_s = 0.0  # the stated length is that of the sound, which is complete
        if self._numbers_moments and (rate := self._rate()) > 0:
            by_count = self._stream.frames / rate - end_s
        else:
            by_count = (self._stream.frames - self._packet_count - len(self._held)) / fps
            by_count -= self._left_out_s(fps)
        return max(stated_s - end_s, by_count if by_count > 1 / fps else 0.0, _length_s(self._later()))

    def _last_frame_stays_s(self, fps: float) -> float:
        """Seconds by which the last frame is said to stay longer than others, as at the end of a screen recording."""
        stamp, duration = self._last
        if stamp not in self.stamps[-_REORDERED:]:
            return 0.0  # that frame does not decode
        return max(float(duration * (self._stream.time_base or 0)) - 1 / fps, 0.0)

    def _later(self) -> dict[int, Span]:
        """Video tracks that begin where this one ends, as in joined recordings: {stream index: (begin, end) in s}.

        Tracks that run beside this one are left out, as of two cameras of which one was switched off earlier.
        """
        ended = self._packet_count - _LATE_PACKETS
        return {n: span for n, (before, _, span) in self._other_videos.items() if before >= ended}

    def _earlier(self) -> dict[int, Span]:
        """Video tracks that end where this one begins: {stream index: (begin, end) in s}.

        They are looked for in MPEG-TS only. This one is read although it is not the first, because it is larger and
        FFmpeg found it while it looked at the file.
        """
        if self._container.format.name != _TRACKS_FOLLOW:
            return {}
        return {
            n: span
            for n, (_, ends, span) in self._other_videos.items()
            if ends[0] == 0
            and all(count == 0 or count >= self._packet_count - _LATE_PACKETS for count in ends)
        }

    def _rest_track(self) -> int | None:
        """The number, among the video tracks as FFmpeg counts them, of the first one that is earlier or later."""
        videos = [stream.index for stream in self._container.streams if stream.type == "video"]
        return min(map(videos.index, self._earlier() | self._later()), default=None)

    def _left_out_s(self, fps: float) -> float:
        """Seconds of frames that are in the file but outside the header's length, as where it was trimmed in place."""
        if self._stream.duration is None or self._stream.time_base is None:
            return 0.0
        return max(self._stream.frames / fps - float(self._stream.duration * self._stream.time_base), 0.0)


def _length_s(spans: Mapping[int, Span]) -> float:
    return sum(end - start for start, end in spans.values())


def _check_file(path: Path) -> None:
    try:
        if not path.exists():
            raise UnreadableVideo(path, f"{NOT_READ}no such file")
        if path.is_dir():
            raise UnreadableVideo(path, "a folder, not a video. Name the videos in it one by one")
        if not path.is_file():
            raise UnreadableVideo(path, "not a file")
        if path.stat().st_size == 0:
            raise UnreadableVideo(path, "the file is empty")
        with path.open("rb"):
            pass
    except PermissionError as e:
        raise UnreadableVideo(
            path, f"{NOT_READ}no permission to read it. Run: chmod u+r FILE, or ask its owner"
        ) from e


def video_track(path: Path, container: av.container.InputContainer) -> av.VideoStream:
    """The largest video track that has a decoder and is not a cover picture. Raises UnreadableVideo without one."""
    attached = av.stream.Disposition.attached_pic
    tracks = [s for s in container.streams if s.type == "video" and not s.disposition & attached]
    tracks = [s for s in tracks if not _is_picture(s)] or tracks
    if not tracks:
        raise UnreadableVideo(path, "has no video track")
    decodable = [s for s in tracks if isinstance(s, av.VideoStream) and s.codec_context is not None]
    if not decodable:
        raise UnreadableVideo(
            path,
            "FFmpeg has no decoder for its codec here. Convert it where it plays: ffmpeg -i OLD -c:v libx264 NEW.mp4",
        )
    return max(decodable, key=lambda s: s.codec_context.width * s.codec_context.height)


def _is_picture(track: av.stream.Stream) -> bool:
    """Whether a track states that it has a single frame, as a cover picture that is not marked as one does."""
    frames, rate = track.frames, float(getattr(track, "average_rate", None) or 0)
    if not frames and rate:  # Matroska states a duration such as "00:00:00.040000000"
        hours, _, rest = track.metadata.get("DURATION", "").partition(":")
        minutes, _, seconds = rest.partition(":")
        with contextlib.suppress(ValueError, OverflowError):
            frames = round((3600 * int(hours) + 60 * int(minutes) + float(seconds)) * rate)
    return frames == 1


def plausible_rate(stream: av.VideoStream) -> float:
    """The first of FFmpeg's rates of a stream that is from 1 to 240 frames a second; 0 if none is."""
    rates = (float(rate or 0) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate))
    return next((rate for rate in rates if _LOWEST_RATE <= rate <= _HIGHEST_RATE), 0.0)


def pixel_shape(stream: av.VideoStream, turn: int | None) -> float:
    """Width of a pixel divided by its height, of frames turned upright by `turn` degrees.

    1 where the stream states no ratio, or one outside 1/4 to 4.
    """
    shape = float(stream.sample_aspect_ratio or 1)
    shape = shape if _THINNEST <= shape <= 1 / _THINNEST else 1.0
    return 1 / shape if turn in (90, 270) else shape


def packets_of(container: av.container.InputContainer, *tracks: av.stream.Stream) -> Iterator[av.Packet]:
    """Yield the packets of these tracks, or of all, and at the end an empty one for each track. Raises FFmpegError."""
    # At the end PyAV raises IndexError for tracks that began midway, which it does not know.
    with contextlib.suppress(IndexError):
        yield from container.demux(*tracks)


def holds_on(packet: av.Packet) -> bool:
    """Whether a packet says that the picture before it stays: it is empty and has a time stamp.

    Such a packet must not be decoded: a decoder takes it for the end of the stream.
    """
    return not packet.size and (packet.pts is not None or packet.dts is not None)


def rate_of(seconds: np.ndarray, stated: float) -> float:
    """Frames a second of a stream, from the times of its first frames; 0 if it cannot be told.

    `seconds`: (n,), ascending. `stated`: the rate that the stream states, which is returned where the frames come at it
    or there are too few.
    """
    if len(np.unique(seconds)) < 2:
        return round(stated, 3) if _LOWEST_RATE <= stated <= _HIGHEST_RATE else 0.0
    if _LOWEST_RATE <= stated <= _HIGHEST_RATE and _comes_at(seconds, stated):
        return round(stated, 3)
    return round(_typical_rate(seconds, stated), 3)


def start_of(first_s: float) -> float:
    """The second at which footage begins: that of its first frame, or 0 if that is no more than 0.2."""
    return first_s if first_s > _LATE_S else 0.0


def _check_disk(path: Path) -> None:
    """Read all of a file that FFmpeg could not read. Raises the OSError of a disk that does not answer."""
    with path.open("rb") as f:
        while f.read(1 << 24):
            processes.beat()


def _error_text(error: av.FFmpegError) -> str:
    return (error.strerror or "no reason given").lower()


def _codec_of(stream: av.VideoStream) -> str:
    name = stream.codec_context.codec.canonical_name
    return _FOUR_LETTERS.get(name, name)


def _one_after_another(seconds: np.ndarray, order: np.ndarray) -> np.ndarray:
    """When frames come if each recording of a file follows the one before without a pause: (n,) float64, ascending.

    `seconds`: the times of the frames as they were read, (n,). `order`: times of the same frames that ascend within
    each recording, (n,).
    """
    steps = np.diff(order)
    typical = float(np.median(np.abs(steps)))
    # Stamps in the order of the packets go back all the time, those of a recorder that starts again only once.
    is_shuffled = np.mean(steps < 0) > 1 - _MOSTLY
    begins = np.flatnonzero(steps < -max(BACK_S, _REORDERED * typical if is_shuffled else 0.0)) + 1
    parts = []
    for recording in np.split(seconds, begins):
        recording = np.sort(recording)
        parts += np.split(recording, np.flatnonzero(np.diff(recording) > AHEAD_S) + 1)
    for before, part in itertools.pairwise(parts):
        part += before[-1] + typical - part[0]
    return np.concatenate(parts)


def _comes_at(seconds: np.ndarray, rate: float) -> bool:
    """Whether no frame is more than half a step away from its own moment at that rate."""
    late = seconds - seconds[0] - np.arange(len(seconds)) / rate
    return bool(np.abs(late).max() <= 0.5 / rate)


def _is_stated(seconds: np.ndarray, rate: float) -> bool:
    """Whether all frames come at the stated rate.

    A stated rate that is a little off also counts, as one computed from a last frame of unusual length is.
    """
    if _comes_at(seconds, rate):
        return True
    even = (len(seconds) - 1) / (seconds[-1] - seconds[0])
    return _comes_at(seconds, even) and abs(rate / even - 1) < 1.5 / len(seconds)


def _typical_rate(seconds: np.ndarray, stated: float) -> float:
    """The rate at which all frames come, or nearly all.

    If there is none, the rate of the fastest tenth of the steps, so that hardly a frame is skipped; at most 240. The
    stated rate takes its place if the two differ by less than 0.2 %.
    """
    even = float((len(seconds) - 1) / (seconds[-1] - seconds[0]))
    if _comes_at(seconds, even):
        return even
    steps = np.diff(seconds)
    steps = steps[steps > 0]
    usual = steps[np.abs(steps / np.median(steps) - 1) < 0.5]
    rate = float(1 / usual.mean())
    if len(usual) < _MOSTLY * len(steps):
        rate = float(min(1 / np.quantile(steps, 0.1), _HIGHEST_RATE))
    return stated if abs(stated / rate - 1) < 0.002 else rate


def _rounded(rate: float, count: int) -> float:
    """The rate rounded to a thousandth, unless that moves the end of `count` frames by more than half a frame.

    It would for one picture an hour, which rounds to 0, and for hours at 25/3 frames a second.
    """
    near = round(rate, 3)
    return near if abs(near - rate) * count <= 0.5 * rate else rate


def _mostly_comes_at(seconds: np.ndarray, rate: float) -> bool:
    """Whether at least nine of ten frames follow the one before at that rate, so that a longer pause is a loss."""
    return bool(np.mean(np.abs(np.diff(seconds) * rate - 1) < 0.5) >= _MOSTLY)


def _steps_around(seconds: np.ndarray, fps: float) -> np.ndarray:
    """The usual step in seconds around each step from frame to frame, (n - 1,) float64, at least 1 / fps.

    It is the median of the steps near by, since parts of a recording may be slower than others.
    """
    steps = np.pad(np.diff(seconds), _STEPS_BESIDE, "symmetric")
    around = np.lib.stride_tricks.sliding_window_view(steps, 2 * _STEPS_BESIDE + 1)
    return np.maximum(np.median(around, axis=-1), 1 / fps)


def _gaps(seconds: np.ndarray, usual_s: np.ndarray) -> list[Span]:
    """Pauses of more than 1.5 times the usual step, from when the next frame was due until it came, in seconds.

    `seconds`: (n,), ascending; `usual_s`: the usual step at each, (n - 1,).
    """
    return [
        (float(seconds[i] + usual_s[i]), float(seconds[i + 1]))
        for i in np.flatnonzero(np.diff(seconds) > 1.5 * usual_s).tolist()
    ]
