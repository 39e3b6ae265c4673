"""The one way videos are decoded: from the first packet to the last, each frame with the time that the file gives it.

What a container states (length, rate, number of frames) is believed only until the file was read. A video whose frames
come at its stated rate is read once. Any other (variable rate, damaged, cut off, wrongly stated) is looked at as a
screen of constant rate shows it: a frame stands until the next one comes. So frame numbers, everywhere else in this
package, are moments at a constant rate, and a second is a second of the video.
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

#: Fewer decodable frames than this is no video of anything moving; nor is a window with fewer.
MIN_FRAMES = 8
#: What stays unread without any sign of damage is named if it is more than so many seconds, or this share of the video.
_WORTH_NAMING_S, _WORTH_NAMING = 0.5, 0.05
#: Rates that the header may state; beyond them it is not believed, and time stamps alone count.
_LOWEST_RATE, _HIGHEST_RATE = 1.0, 240.0
#: Stamps that go back, or ahead, by more than this begin another recording, which follows on the one before.
BACK_S, AHEAD_S = 2.0, 3600.0
#: Where so many of the steps from frame to frame are alike, a longer one is a loss and not the video's own pace.
_MOSTLY = 0.9
#: Of a changing pace, so many steps before and behind one say what is usual there.
_AROUND = 4
#: Frames that may stand between a frame and the one that is decoded before it.
_REORDERED = 32
#: A video track that begins later than the file does so by more than this; codecs that look ahead delay it by less.
_LATE_S = 0.2
#: Containers that state when they end, and not for how long: parts of a recording count from its beginning.
_END_STATED = ("matroska,webm", "nut", "asf")
#: A container that states how long it is decoded, which begins before the first picture is shown.
_DECODING_STATED = "flv"
#: A container in which other tracks may follow on one that ends; packets of that one may come behind them.
_TRACKS_FOLLOW, _HELD_BACK = "mpegts", 2
#: A container that numbers its moments: at those without a packet of their own the picture before stands on.
_NUMBERS_MOMENTS = "avi"
_MOST_PAUSES = 100_000  # of a demuxer, for stretches that make no packet
_MOST_THREADS = 64  # of FFmpeg's decoders
#: Codecs by the four letters that manifests have always had for them; the others go by their names.
_FOUR_LETTERS = {
    "mpeg4": "FMP4", "mjpeg": "MJPG", "mpeg1video": "mpg1", "mpeg2video": "mpg2", "msmpeg4v3": "MP43", "vp8": "VP80",
    "vp9": "VP90",
}  # fmt: skip
#: Layouts of nearly all videos, which FFmpeg turns into RGB as it does into BGR, bit for bit. It works out the colours
#: of others differently, and what is on disk was made from BGR.
_SAME_IN_RGB = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}
#: Pixels that are thinner are no lens's and no standard's, but a header's mistake.
_THINNEST = 0.25
_SQUARE_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
Frame = np.ndarray  # (height, width, 3) uint8 RGB
Span = tuple[float, float]


@dataclass(frozen=True)
class VideoInfo:
    """A video as a screen of constant rate shows it: `n_frames` moments, `fps` a second, beginning at `start_s`.

    `shown`: for each moment the number of the decoded frame that stands then, (n_frames,) int64; None where the frames
    themselves come at that rate, and number i is frame i. `width`, `height`: upright where frames were decoded, else as
    they are stored. `n_decoded`: frames that decode. `stated_s`: length by the header; `lost`: stretches of which
    nothing decodes, in seconds of the video, in order. `as_stated`: whether the file is what its header says, so that
    frames are where they have always been looked for. `damaged`: whether reading met damage, so that frames may be
    missing that nobody counted. `pixel_shape`: what the width of a pixel is to its height, of frames as they are given.
    `begins_late`: the first of `lost` is no loss, but the time before the pictures: its sound begins earlier.
    `rest_track`: where the first or last of `lost` stands in other video tracks, which end before the one that is read
    begins or follow on it, the number of one of these among the video tracks.
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
        """Length of the whole video, what does not decode included."""
        return max([self.start_s + self.played_s, *(end for _, end in self.lost)])

    @property
    def read_s(self) -> float:
        """Seconds of the video that decode; a frame with a damaged time stamp is there all the same."""
        outside_s = self.duration_s - sum(end - start for start, end in self.lost)
        return min(max(outside_s, self.n_decoded / self.fps), self.duration_s)

    def decoded(self, number: int) -> int:
        """The decoded frame that stands at a moment."""
        return number if self.shown is None else int(self.shown[number])

    def distinct(self, first: int, end: int) -> int:
        """How many different frames stand from one moment to before another."""
        return max(end - first, 0) if self.shown is None else len(np.unique(self.shown[first:end]))

    def shortfall(self) -> str:
        """Says what of the video does not decode, as after half a download or with damage; else empty."""
        lost = self.lost[self.begins_late :]
        if not lost:
            return ""
        # where one frame is missing the others pass for evenly spaced, and the video for as long as they are
        pictures_s = self.read_s + sum(end - start for start, end in lost)
        said = ((self.read_s, pictures_s), *lost[:3])
        # a frame may be less than a digit tells
        digits = next((n for n in (1, 2) if all(round(a, n) < round(b, n) for a, b in said)), 3)
        where = ", ".join(f"{start:.{digits}f}-{end:.{digits}f}" for start, end in lost[:3])
        why = "it is damaged or was cut short. If the original is whole, copy or download it again"
        if self.rest_track is not None:
            why = (
                "the rest stands in another video track, as where recordings were joined, or a recorder was set "
                f"otherwise. Give it as a file of its own: ffmpeg -i OLD -map 0:v:{self.rest_track} -c copy REST.ts"
            )
        return (
            f"only {self.read_s:.{digits}f} of {pictures_s:.{digits}f} s decode (nothing at {where}"
            f"{' ...' if len(lost) > 3 else ''} s): {why}"
        )


@dataclass(frozen=True)
class PacketTiming:
    """A video as its packets tell. `stamps`: theirs in order, (n,) int64; none where they have none."""

    info: VideoInfo
    stamps: np.ndarray

    def fits(self, number: int, stamp: int | None) -> bool:
        """Whether frame `number` may have this stamp: decoders of some containers leave those of near packets."""
        if stamp is None or not len(self.stamps):
            return stamp is None and not len(self.stamps)
        early = self.stamps[max(number - _REORDERED, 0)] if number else self.stamps[0]
        late = self.stamps[min(number + _REORDERED, len(self.stamps) - 1)] if number else self.stamps[0]
        return number < len(self.stamps) and bool(early <= stamp <= late)

    def agrees(self, found: VideoInfo) -> bool:
        """Whether decoding has found the same frames at the same times, and nothing else missing."""
        same = replace(found, width=self.info.width, height=self.info.height) == self.info
        return same and np.array_equal(_shown_or_all(found), _shown_or_all(self.info))


def info_of(found: VideoInfo | PacketTiming) -> VideoInfo:
    """What a file is, whether its frames or its packets told it."""
    return found.info if isinstance(found, PacketTiming) else found


class DecodesOtherwise(Exception):
    """A video does not decode as its packets tell. What it is can be found by decoding it alone: `probe`."""


def read(
    path: Path,
    plan: Callable[[VideoInfo], Sequence[int]],
    transform: Callable[[Frame], Frame] | None = None,
    threads: int = 0,
) -> tuple[VideoInfo, dict[int, Frame]]:
    """Decode the frames that `plan` asks for, given what the file is. Frames are RGB uint8.

    `transform` (a resize, say) takes each kept frame at once, so that memory stays small; what it returns is kept as
    it is. `threads`: of the decoder, 0 for one a core; the frames are the same, but where many videos are decoded at
    once one thread each takes less.
    Raises UnreadableVideo, naming the file, if it does not open or fewer than MIN_FRAMES decode.
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
    """What the container states, without reading further: quick, and not to be relied upon.

    `n_frames` is 1 where nothing is stated. Raises UnreadableVideo if it does not open.
    """
    with _Reader.open(path) as reader:
        return reader.as_stated()


def timing(path: Path) -> VideoInfo:
    """As `probe`, from the packets alone: nothing is decoded, and what does not decode is not noticed.

    Raises UnreadableVideo.
    """
    return packet_timing(path).info


def packet_timing(path: Path) -> PacketTiming:
    """As `timing`, with what a decoding pass can be held against. Raises UnreadableVideo."""
    with _Reader.open(path) as reader:
        reader.skim()
        info = reader.found()
        return PacketTiming(info, np.sort([stamp for stamp in reader.stamps if stamp is not None]))


def probe(path: Path) -> VideoInfo:
    """Decode to the end without keeping frames. Raises UnreadableVideo."""
    return read(path, lambda _: ())[0]


def read_groups(
    path: Path,
    info: VideoInfo | PacketTiming,
    groups: Iterable[frozenset[int]],
    transform: Callable[[Frame, int], Any] | None = None,
) -> Iterator[dict[int, Any]]:
    """Decode a video of any length once, yielding the frames of each group as soon as its last frame is read.

    Groups are frame numbers below `info.n_frames`, ordered by their first and by their last frame; they are asked for
    when they are due, and only frames that they need are held, as `transform` makes them of the picture and its number
    in the order of decoding. `info` is what `probe` found, or `packet_timing`.
    Raises UnreadableVideo if the file ends before the last is complete; with packet timing DecodesOtherwise as soon as
    that shows to be wrong, for which the file is read to its end.
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
    """All frames that are shown, RGB uint8, with the second at which each begins to stand, and its `pixel_shape`.

    `info` is what `probe` found, or `packet_timing`. Raises UnreadableVideo, and DecodesOtherwise as `read_groups`.
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
    """The frames that stand at some moments, RGB uint8, by their ascending numbers, as they are decoded.

    `info` is what `probe` found. Raises UnreadableVideo.
    """
    groups = (frozenset([number]) for number in numbers)
    for number, frames in zip(numbers, read_groups(path, info, groups), strict=True):
        yield number, frames[number]


def _shown_or_all(info: VideoInfo) -> np.ndarray:
    return np.arange(info.n_frames) if info.shown is None else info.shown


def _decoded(numbers: Sequence[int] | frozenset[int], info: VideoInfo) -> frozenset[int]:
    return frozenset(info.decoded(int(number)) for number in numbers)


class RgbFrames:
    """Makes upright RGB pictures of the frames of one video, the same of a file and of a stream.

    `turn`: degrees by which they are turned, None before the first.
    """

    def __init__(self) -> None:
        self._reformatter = av.video.reformatter.VideoReformatter()
        self.turn: int | None = None

    def look_at(self, frame: av.VideoFrame) -> None:
        """Note how the frames are turned, of the first one, whether or not it is shown."""
        if self.turn is None:
            self.turn = frame.rotation % 360

    def picture(self, frame: av.VideoFrame) -> Frame:
        """The frame upright, (H, W, 3) uint8 RGB. Raises FFmpegError or ValueError where it cannot be shown."""
        layout = "rgb24" if frame.format.name in _SAME_IN_RGB else "bgr24"
        picture: Frame = self._reformatter.reformat(frame, format=layout, threads=1).to_ndarray()
        self.look_at(frame)
        if self.turn in _SQUARE_TURNS:
            picture = cv2.rotate(picture, _SQUARE_TURNS[self.turn])
        if layout == "bgr24":
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        return picture


class _Reader:
    """One pass over a file's largest video track, with all that it tells about itself."""

    def __init__(self, path: Path, container: av.container.InputContainer, stream: av.VideoStream):
        self._path, self._container, self._stream = path, container, stream
        self._context = stream.codec_context
        self._rgb = RgbFrames()
        self.stamps: list[int | None] = []  # of the frames, in units of the stream's time base
        self._packets: list[int] = []  # of the packets that should give a frame
        self._packets_due: list[int] = []  # when these are to be decoded; ascending within a recording
        self._skimmed = False  # the stamps are those of the packets, in their order
        self._packet_count = 0
        self._last = (
            -math.inf,
            0,
        )  # the latest stamp of a packet, and for how long its picture is said to stand
        self._held: list[int] = []  # of packets that say that the picture before stands on
        self._others_end_s = 0.0
        # of other video tracks, by number: packets of this one before their first and their last ones, and when they
        # begin and end
        self._other_videos: dict[int, tuple[int, deque[int], Span]] = {}
        self._jumped_s = 0.0  # by which stamps go ahead where another recording begins
        self._damaged = False
        self._fell_out = False  # a packet did not decode

    @classmethod
    @contextmanager
    def open(cls, path: Path, threads: int = 0) -> Iterator[_Reader]:
        """Open the file. Raises UnreadableVideo, or what the system says of a disk that does not answer."""
        _check_file(path)
        try:
            # "file:", for a name with a colon would be a protocol
            container = av.open(f"file:{path}", metadata_errors="ignore")
        except av.FFmpegError as e:
            _check_disk(path)  # of an index that the disk does not give, FFmpeg says that it is none
            raise UnreadableVideo(path, f"not a video that FFmpeg can open ({_said(e)})") from e
        with container:
            stream = video_track(path, container)
            stream.thread_type = "SLICE" if threads == 1 else "AUTO"
            stream.codec_context.thread_count = threads
            yield cls(path, container, stream)

    def keep(self, wanted: frozenset[int], transform: Callable[[Frame], Frame] | None) -> dict[int, Frame]:
        """Read to the end; the wanted frames, by the order in which they decode."""
        return {
            number: self.picture(frame, transform)
            for number, frame in enumerate(self.frames())
            if number in wanted
        }

    def skim(self) -> None:
        """Read to the end without decoding, as if every packet gave its frame."""
        for packet in self._demux():
            self._note(packet)
        self.stamps = [*self._packets] or [None] * self._packet_count
        self._skimmed = True

    def frames(self) -> Iterator[av.VideoFrame]:
        """All frames that decode. A broken packet is left out, as ffmpeg does, and noted."""
        for packet in self._demux():
            self._note(packet)
            for frame in [] if holds_on(packet) else self._decode(packet):
                self.stamps.append(frame.pts if frame.pts is not None else frame.dts)
                yield frame
        # each thread of the decoder may end in an error
        for _ in range(_MOST_THREADS if self._damaged else 0):
            for frame in self._decode(None):
                self.stamps.append(frame.pts if frame.pts is not None else frame.dts)
                yield frame

    def checked_frames(self, expected: PacketTiming | None) -> Iterator[av.VideoFrame]:
        """All frames that decode. Raises DecodesOtherwise as soon as they are not those expected, if any are."""
        if expected is None:
            yield from self.frames()
            return
        for number, frame in enumerate(self.frames()):
            if self._fell_out or not expected.fits(number, self.stamps[-1]):
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
            self._fell_out = True
            return []
        for frame in frames[:1]:
            self._rgb.look_at(frame)
        return frames

    def _demux(self) -> Iterator[av.Packet]:
        """The track's packets, at the end an empty one, which asks the decoder for what it holds back."""
        # without a length of its own, the track's is known by whether the others last as long as the file should
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
            except av.BlockingIOError:  # what was read makes no packet: it goes on behind that
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
            new = count, deque[int](maxlen=_HELD_BACK + 1), (begins_s, ends_s)
            before, ends, (first_s, last_s) = self._other_videos.get(number, new)
            ends.append(count)
            self._other_videos[number] = before, ends, (min(first_s, begins_s), max(last_s, ends_s))

    def picture(self, frame: av.VideoFrame, transform: Callable[[Frame], Any] | None) -> Any:
        """A frame upright, as RGB uint8, through `transform`."""
        try:
            picture: Frame = self._rgb.picture(frame)
        except (av.FFmpegError, ValueError) as e:
            raise UnreadableVideo(self._path, f"a frame cannot be shown ({e})") from e
        return transform(picture) if transform else picture

    def as_stated(self) -> VideoInfo:
        """What the header says."""
        rate = self._rate()
        n_frames = max(self._stream.frames or round(self._stated_s() * rate), 1)
        fps = _rounded(rate, n_frames) if _LOWEST_RATE <= rate <= _HIGHEST_RATE else 25.0
        return self._info(n_frames=n_frames, fps=fps, n_decoded=n_frames)

    def found(self) -> VideoInfo:
        """What was read. Raises UnreadableVideo if it is fewer than MIN_FRAMES."""
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
        """Whether all is as the header says, which is quickly seen: rate, length, no damage, no late beginning."""
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
        """A raw stream, whose frames come at the stated rate for want of anything else."""
        if not rate > 0:
            raise UnreadableVideo(
                self._path, "states neither a frame rate nor times. Convert it: ffmpeg -r RATE -i OLD NEW.mp4"
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
        """That of the frames as they are given, once one was decoded."""
        return pixel_shape(self._stream, self._rgb.turn)

    @property
    def _numbers_moments(self) -> bool:
        return self._container.format.name == _NUMBERS_MOMENTS

    def _rate(self) -> float:
        """Frames a second as the container states them, 0 where it does not."""
        stream = self._stream
        return float(stream.average_rate or stream.guessed_rate or stream.base_rate or 0)

    def _stated_s(self) -> float:
        """Length of the track by the header, 0 where it says nothing."""
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
        """When each frame comes, from the beginning of the file, in order: (n,) float64; None without time stamps.

        Decoders give frames in order, but some containers (AVI) leave their stamps in the order of the packets. Packets
        come in the order of decoding, in which a frame behind a pause may stand before those ahead of it.
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
        """As `_seconds`, when the picture before is said to stand on: (n,) float64, none before the first frame's."""
        first, base = min(s for s in self.stamps if s is not None), float(self._stream.time_base or 0)
        seconds = (np.array(self._held, np.float64) - first) * base + first_s
        return seconds[seconds > first_s]

    def _has_nothing_before(self, fps: float) -> bool:
        """Whether the first frame that decodes is the first there is, as far as anybody can tell."""
        first = min(stamp for stamp in self.stamps if stamp is not None)
        step = 0.5 / fps / float(self._stream.time_base or 1)
        return not self._damaged and min(self._packets, default=first) > first - step

    def _lost(self, seconds: np.ndarray, fps: float, late: bool) -> tuple[Span, ...]:
        """Where nothing decodes, by the times in the video of frames, and of what says that one stands on.

        `late`: what stands before the first frame is no loss, and makes none worth naming.
        """
        is_even = self._numbers_moments or _mostly_comes_at(seconds, fps)
        # where many packets do not decode, it is these that make a part slower, and not the camera
        is_own_pace = not is_even and len(self.stamps) >= _MOSTLY * self._packet_count
        usual_s = _steps_around(seconds, fps) if is_own_pace else np.full(len(seconds) - 1, 1 / fps)
        knows_losses = self._damaged or (is_even and not self._numbers_moments)
        gaps = _gaps(seconds, usual_s) if knows_losses else []
        before = [(0.0, float(seconds[0]))] if seconds[0] > _LATE_S else []
        if not late:
            gaps = before + gaps
        end = float(seconds[-1]) + 1 / fps
        if (missing_s := self._missing_tail_s(end, fps)) > 0:
            stands_to = end + self._stands_on_s(fps)
            gaps.append((stands_to, stands_to + missing_s))
        most = min(_WORTH_NAMING_S, _WORTH_NAMING * (end - float(seconds[0])))
        if not self._damaged and sum(b - a for a, b in gaps) <= most:
            gaps = []
        if late and (gaps or seconds[0] > most):
            gaps = before + gaps
        return tuple((round(a, 3), round(b, 3)) for a, b in gaps if b - a > 0.5 / fps)

    def _missing_tail_s(self, end_s: float, fps: float) -> float:
        """Seconds that the header states beyond the last frame, for as long as that is said to stand."""
        # lengths are up to the last stamp, whether the container states them or FFmpeg makes them of the stamps
        stated_s = self._stated_s() - self._jumped_s - self._stands_on_s(fps)
        others_last_s = self._others_end_s - (self._container.start_time or 0) / av.time_base
        if self._stream.duration is None and others_last_s >= stated_s - _WORTH_NAMING_S:
            stated_s = 0.0  # the length is that of the sound, which is there to its end
        if self._numbers_moments and (rate := self._rate()) > 0:
            by_count = self._stream.frames / rate - end_s
        else:
            by_count = (self._stream.frames - self._packet_count - len(self._held)) / fps
            by_count -= self._left_out_s(fps)
        return max(stated_s - end_s, by_count if by_count > 1 / fps else 0.0, _length_s(self._later()))

    def _stands_on_s(self, fps: float) -> float:
        """For how much longer than others the last frame is said to stand, as at the end of a screen recording."""
        stamp, duration = self._last
        if stamp not in self.stamps[-_REORDERED:]:
            return 0.0  # it does not decode
        return max(float(duration * (self._stream.time_base or 0)) - 1 / fps, 0.0)

    def _later(self) -> dict[int, Span]:
        """Other video tracks that begin where this one ends, as where recordings were joined: when, by their number.

        Not those beside it, as of two cameras, of which one may be switched off earlier.
        """
        ended = self._packet_count - _HELD_BACK
        return {n: span for n, (before, _, span) in self._other_videos.items() if before >= ended}

    def _earlier(self) -> dict[int, Span]:
        """As `_later`, those that end where this one begins: it is larger, and FFmpeg saw it before it chose."""
        if self._container.format.name != _TRACKS_FOLLOW:
            return {}
        return {
            n: span
            for n, (_, ends, span) in self._other_videos.items()
            if ends[0] == 0 and all(count == 0 or count >= self._packet_count - _HELD_BACK for count in ends)
        }

    def _rest_track(self) -> int | None:
        """The number among the video tracks, as FFmpeg counts them, of the first that is earlier or later."""
        videos = [stream.index for stream in self._container.streams if stream.type == "video"]
        return min(map(videos.index, self._earlier() | self._later()), default=None)

    def _left_out_s(self, fps: float) -> float:
        """Seconds of frames that are in the file and that its header leaves out, as where it was trimmed in place."""
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
            raise UnreadableVideo(path, "a folder and no video. Name the videos in it one by one")
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
    """The largest video track that is not a cover picture. Raises UnreadableVideo if there is none that decodes."""
    attached = av.stream.Disposition.attached_pic
    tracks = [s for s in container.streams if s.type == "video" and not s.disposition & attached]
    tracks = [s for s in tracks if not _is_picture(s)] or tracks
    if not tracks:
        raise UnreadableVideo(path, "has no video track")
    decodable = [s for s in tracks if isinstance(s, av.VideoStream) and s.codec_context is not None]
    if not decodable:
        raise UnreadableVideo(
            path,
            "its codec has no decoder here. Convert it where it plays: ffmpeg -i OLD -c:v libx264 NEW.mp4",
        )
    return max(decodable, key=lambda s: s.codec_context.width * s.codec_context.height)


def _is_picture(track: av.stream.Stream) -> bool:
    """Whether a track states that it has one frame: a cover picture that is not marked as one."""
    frames, rate = track.frames, float(getattr(track, "average_rate", None) or 0)
    if not frames and rate:  # Matroska: "00:00:00.040000000"
        hours, _, rest = track.metadata.get("DURATION", "").partition(":")
        minutes, _, seconds = rest.partition(":")
        with contextlib.suppress(ValueError, OverflowError):
            frames = round((3600 * int(hours) + 60 * int(minutes) + float(seconds)) * rate)
    return frames == 1


def plausible_rate(stream: av.VideoStream) -> float:
    """The first that can be true of the rates that FFmpeg knows of a stream, 0 where there is none."""
    rates = (float(rate or 0) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate))
    return next((rate for rate in rates if _LOWEST_RATE <= rate <= _HIGHEST_RATE), 0.0)


def pixel_shape(stream: av.VideoStream, turn: int | None) -> float:
    """The width of a pixel by its height, of frames that are turned by so many degrees; 1 where none can be true."""
    shape = float(stream.sample_aspect_ratio or 1)
    shape = shape if _THINNEST <= shape <= 1 / _THINNEST else 1.0
    return 1 / shape if turn in (90, 270) else shape


def packets_of(container: av.container.InputContainer, *tracks: av.stream.Stream) -> Iterator[av.Packet]:
    """The packets of these tracks, or of all, and at the end of each an empty one. Raises FFmpegError."""
    # at the end PyAV asks tracks for what they hold back that began midway, of which it does not know
    with contextlib.suppress(IndexError):
        yield from container.demux(*tracks)


def holds_on(packet: av.Packet) -> bool:
    """Whether a packet says that the picture before stands on: it is empty, and has a time.

    A decoder would take it for the end.
    """
    return not packet.size and (packet.pts is not None or packet.dts is not None)


def rate_of(seconds: np.ndarray, stated: float) -> float:
    """The rate of a stream's first frames, by the ascending seconds (n,) at which they come; 0: it cannot be told."""
    if len(np.unique(seconds)) < 2:
        return round(stated, 3) if _LOWEST_RATE <= stated <= _HIGHEST_RATE else 0.0
    if _LOWEST_RATE <= stated <= _HIGHEST_RATE and _comes_at(seconds, stated):
        return round(stated, 3)
    return round(_typical_rate(seconds, stated), 3)


def start_of(first_s: float) -> float:
    """When footage begins whose first frame comes then: a little late is not late."""
    return first_s if first_s > _LATE_S else 0.0


def _check_disk(path: Path) -> None:
    """Read a file that FFmpeg could not: raises the OSError of a disk that does not answer."""
    with path.open("rb") as f:
        while f.read(1 << 24):
            processes.beat()


def _said(error: av.FFmpegError) -> str:
    return (error.strerror or "no reason given").lower()


def _codec_of(stream: av.VideoStream) -> str:
    name = stream.codec_context.codec.canonical_name
    return _FOUR_LETTERS.get(name, name)


def _one_after_another(seconds: np.ndarray, order: np.ndarray) -> np.ndarray:
    """When frames come if each recording of a file follows on the one before: (n,) float64, ascending.

    `seconds`: their times (n,) as they are read; `order`: the same (n,), but ascending within each recording.
    """
    steps = np.diff(order)
    typical = float(np.median(np.abs(steps)))
    # stamps in the order of the packets go back all the time, those of a recorder that begins anew once
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
    """Whether every frame is nearest to its own moment of that rate."""
    late = seconds - seconds[0] - np.arange(len(seconds)) / rate
    return bool(np.abs(late).max() <= 0.5 / rate)


def _is_stated(seconds: np.ndarray, rate: float) -> bool:
    """Whether all frames come at the stated rate; one worked out from a last frame of odd length will do."""
    if _comes_at(seconds, rate):
        return True
    even = (len(seconds) - 1) / (seconds[-1] - seconds[0])
    return _comes_at(seconds, even) and abs(rate / even - 1) < 1.5 / len(seconds)


def _typical_rate(seconds: np.ndarray, stated: float) -> float:
    """A rate that all frames come at, or most; or at which no moment of the liveliest part is passed over."""
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
    """The rate to a thousandth; as it is where so many frames would end more than half a frame off by that.

    As of a picture an hour, of which a thousandth leaves nothing, and of hours at 25/3 frames a second.
    """
    near = round(rate, 3)
    return near if abs(near - rate) * count <= 0.5 * rate else rate


def _mostly_comes_at(seconds: np.ndarray, rate: float) -> bool:
    """Whether nine of ten frames follow the one before at that rate, so that a longer pause is a loss."""
    return bool(np.mean(np.abs(np.diff(seconds) * rate - 1) < 0.5) >= _MOSTLY)


def _steps_around(seconds: np.ndarray, fps: float) -> np.ndarray:
    """Seconds from each frame to the next, (n - 1,) float64, as is usual there: parts of a recording may be slower."""
    steps = np.pad(np.diff(seconds), _AROUND, "symmetric")
    around = np.lib.stride_tricks.sliding_window_view(steps, 2 * _AROUND + 1)
    return np.maximum(np.median(around, axis=-1), 1 / fps)


def _gaps(seconds: np.ndarray, usual_s: np.ndarray) -> list[Span]:
    """Pauses of more than one and a half of the usual steps (n - 1,), from when the next frame should have come."""
    return [
        (float(seconds[i] + usual_s[i]), float(seconds[i + 1]))
        for i in np.flatnonzero(np.diff(seconds) > 1.5 * usual_s).tolist()
    ]
