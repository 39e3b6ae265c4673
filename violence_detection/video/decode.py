"""The one way videos are decoded: sequentially, `grab()` what is skipped and `retrieve()` what is kept.

Container frame counts and seeking lie on many AVIs, so neither is relied upon: the count is verified by reading to
the end, and when the container was wrong the file is read a second time with the true count.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from violence_detection.errors import UnreadableVideo
from violence_detection.system import heartbeat

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # damaged files are reported by us, by name
import cv2

#: Fewer decodable frames than this is no video of anything moving.
MIN_FRAMES = 8
#: A file with fewer of the frames that its header states was cut short; small differences are common and harmless.
_WHOLE_SHARE = 0.9
_DEFAULT_FPS = 25.0  # for containers that state none

Frame = np.ndarray  # (height, width, 3) uint8


@dataclass(frozen=True)
class VideoInfo:
    """What a full decode of a file found. `n_frames` is counted; `stated_frames` is what the header claims, or 0."""

    n_frames: int
    fps: float
    width: int
    height: int
    codec: str
    stated_frames: int = 0

    @property
    def duration_s(self) -> float:
        return self.n_frames / self.fps


def read(
    path: Path,
    plan: Callable[[VideoInfo], Sequence[int]],
    transform: Callable[[Frame], Frame] | None = None,
    threads: int = 0,
) -> tuple[VideoInfo, dict[int, Frame]]:
    """Decode the frames that `plan` asks for, given what the file is. Frames are RGB uint8.

    `transform` (a resize, say) takes each kept frame at once, as BGR uint8, so that memory stays small and channels
    are swapped after shrinking, if at all; what it returns is kept as it is. `threads`: of the decoder, 0 for one a
    core; the frames are the same, but where many videos are decoded at once one thread each takes less.
    Raises UnreadableVideo, naming the file, if it does not open or fewer than MIN_FRAMES decode.
    """
    info, frames = _read_pass(path, plan, transform, threads, n_frames=None)
    if frames is None:  # the container lied about its length
        info, frames = _read_pass(path, plan, transform, threads, n_frames=info.n_frames)
        if frames is None:
            raise UnreadableVideo(path, "decodes differently each time it is read")
    return info, frames


def header(path: Path) -> VideoInfo:
    """What the container states, without decoding: quick, and not to be relied upon.

    `n_frames` is stated, not counted, and 0 where nothing is stated. Raises UnreadableVideo if it does not open.
    """
    capture = _open(path)
    try:
        return _info(capture, max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0))
    finally:
        capture.release()


def shortfall(n_frames: int, stated_frames: int) -> str:
    """Says by both counts that a file ends long before its header says, as half a download does; else empty."""
    if n_frames >= _WHOLE_SHARE * stated_frames:
        return ""
    return (
        f"cut short: {n_frames} frames decode, its header states {stated_frames}. If the published file is longer, "
        "download it again"
    )


def probe(path: Path) -> VideoInfo:
    """Decode to the end without keeping frames."""
    return read(path, lambda _: ())[0]


def _read_pass(
    path: Path,
    plan: Callable[[VideoInfo], Sequence[int]],
    transform: Callable[[Frame], Frame] | None,
    threads: int,
    n_frames: int | None,
) -> tuple[VideoInfo, dict[int, Frame] | None]:
    """One sequential read. Frames are None when the count was not as expected."""
    capture = _open(path, threads)
    try:
        claimed = n_frames if n_frames is not None else int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        info = _info(capture, max(claimed, 1))
        wanted = frozenset(int(i) for i in plan(info))
        frames: dict[int, Frame] = {}
        count = 0
        while capture.grab():
            if count in wanted:
                frames[count] = _retrieve(capture, path, count, transform)
            count += 1
            heartbeat.beat()
        if count < MIN_FRAMES:
            raise UnreadableVideo(path, f"only {count} of at least {MIN_FRAMES} frames decode")
        return _info(capture, count), frames if count == claimed else None
    finally:
        capture.release()


def read_groups(
    path: Path, groups: Sequence[frozenset[int]], transform: Callable[[Frame], Frame] | None = None
) -> Iterator[dict[int, Frame]]:
    """Decode a video of any length once, yielding the frames of each group as soon as its last frame is read.

    Groups are frame numbers below the counted length, ordered by their first and by their last frame; only
    frames that a coming group needs are held. Raises UnreadableVideo if the file ends before the last is complete.
    """
    capture = _open(path)
    try:
        held: dict[int, Frame] = {}
        wanted = frozenset[int]().union(*groups)
        waiting = deque(groups)
        count = 0
        while waiting and capture.grab():
            if count in wanted:
                held[count] = _retrieve(capture, path, count, transform)
            while waiting and count >= max(waiting[0]):
                group = waiting.popleft()
                yield {i: held[i] for i in group}
                oldest = min(waiting[0]) if waiting else count
                held = {i: f for i, f in held.items() if i >= oldest}
            count += 1
            heartbeat.beat()
        if waiting:
            raise UnreadableVideo(
                path, f"ended at frame {count}, but {max(waiting[-1]) + 1} were counted before"
            )
    finally:
        capture.release()


def _retrieve(
    capture: cv2.VideoCapture, path: Path, number: int, transform: Callable[[Frame], Frame] | None
) -> Frame:
    ok, frame = capture.retrieve()
    if not ok:
        raise UnreadableVideo(path, f"frame {number} does not decode")
    return transform(frame) if transform else cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def _open(path: Path, threads: int = 0) -> cv2.VideoCapture:
    if not path.is_file():
        raise UnreadableVideo(path, "no such file")
    if path.stat().st_size == 0:
        raise UnreadableVideo(path, "the file is empty")
    capture = cv2.VideoCapture(
        str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads] if threads else []
    )
    if not capture.isOpened():
        raise UnreadableVideo(path, "not a video this FFmpeg build can open")
    return capture


def _info(capture: cv2.VideoCapture, n_frames: int) -> VideoInfo:
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    fourcc = int(capture.get(cv2.CAP_PROP_FOURCC))
    return VideoInfo(
        n_frames=n_frames,
        fps=round(fps, 3) if 1.0 <= fps <= 240.0 else _DEFAULT_FPS,
        width=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        height=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        codec=fourcc.to_bytes(4, "little", signed=True).decode("ascii", "replace").strip("\x00 ")
        if fourcc
        else "",
        stated_frames=max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0),
    )
