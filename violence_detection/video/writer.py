"""Write video files and pictures, and check that all frames arrived on the disk.

The whole package writes videos through this module. Clips for training come from OpenCV's encoder, as they always have;
videos for people to look at are H.264, which browsers play.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.video import decode, shown

#: The longest side of an H.264 picture in pixels.
_LONGEST = 16_384


def write(path: Path, fps: float, frames: Iterable[decode.Frame], codec: str) -> None:
    """Encode BGR uint8 frames of one size, at least one. The same frames give the same bytes on any number of cores.

    `codec`: mp4v (.mp4), XVID or MJPG (.avi). Raises UserError if this OpenCV cannot write it, the path is not UTF-8,
    or not all frames arrive on the disk: OpenCV's writer reports no error when the disk is full.
    """
    rest = iter(frames)
    first = next(rest)
    _check_is_utf8(path)
    height, width = first.shape[:2]
    # with "./", since FFmpeg would take a name with a colon for a protocol
    name = str(path) if path.is_absolute() else f"./{path}"
    video = cv2.VideoWriter(name, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    if not video.isOpened() and path.parent.is_dir():
        raise UserError(
            cannot_write(path.parent, f"this OpenCV build cannot write {codec} there")
            + ". A build that can write it: pip install opencv-python-headless"
        )
    count = 0
    try:
        for frame in itertools.chain([first], rest):
            video.write(frame)
            count += 1
    finally:
        video.release()
    _check_arrived(path, count)


def _check_is_utf8(path: Path) -> None:
    """Raise UserError for a path that is not UTF-8, which would make OpenCV crash the process."""
    try:
        str(path).encode()
    except UnicodeEncodeError as e:
        raise UserError(
            f"cannot write clips to {path.parent}: the path is not UTF-8, which OpenCV requires. Rename the folder, "
            "or pass another one"
        ) from e


@contextmanager
def h264(
    path: Path, fps: float, comment: str = "", crf: int = 23, preset: str = "veryfast"
) -> Iterator[Callable[[decode.Frame], None]]:
    """Yield a function that encodes RGB uint8 frames one by one, into an MP4 that browsers play.

    All frames get the size of the first, shrunk if that is larger than H.264 allows. A frame of another size is scaled
    to fit into it, with black beside. An odd last row or column is doubled, since H.264 needs even sides. `comment` is
    kept in the file (see comment_of). `crf`: x264's constant rate factor, a higher one is coarser. `preset`: x264's,
    faster or smaller. Raises UserError if the file cannot be written or not all frames arrive on the disk.
    """
    count = 0
    rate = Fraction(fps).limit_denominator(1001)
    try:
        # with "file:", since FFmpeg would take a name with a colon for a protocol
        with av.open(f"file:{path}", "w", options={"movflags": "faststart"}) as container:
            container.metadata["comment"] = comment
            options = {"preset": preset, "crf": str(crf)}
            stream = container.add_stream("libx264", rate=rate, options=options)
            assert isinstance(stream, av.VideoStream)
            stream.pix_fmt = "yuv420p"

            shape: tuple[int, ...] = ()

            def put(picture: decode.Frame) -> None:
                nonlocal count, shape
                shape = shape or _small_enough(picture.shape)
                picture = shown.boxed(picture, shape)
                height, width = picture.shape[:2]
                even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
                if count == 0:
                    stream.height, stream.width = even.shape[:2]
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
                frame.pts, frame.time_base = count, 1 / rate
                container.mux(stream.encode(frame))
                count += 1

            yield put
            if count:
                container.mux(stream.encode())
    except av.FFmpegError as e:
        raise UserError(cannot_write(path.parent, e.strerror or str(e))) from e
    _check_arrived(path, count)


def _small_enough(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape (height, width, 3), shrunk so that no side is longer than H.264 allows."""
    scale = min(_LONGEST / max(shape[:2]), 1.0)
    return (*(max(round(side * scale), 1) for side in shape[:2]), *shape[2:])


def picture(path: Path, frame: decode.Frame) -> None:
    """Write one RGB uint8 frame in the format of the path's suffix. Raises OSError, also if the disk is full."""
    _, data = cv2.imencode(path.suffix, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    path.write_bytes(data.tobytes())


def comment_of(path: Path) -> str:
    """The comment that `h264` put into a file; empty if the file does not exist or is incomplete."""
    try:
        with av.open(f"file:{path}", metadata_errors="ignore") as container:
            return container.metadata.get("comment", "")
    except (av.FFmpegError, OSError):
        return ""


def _check_arrived(path: Path, count: int) -> None:
    try:
        there = decode.header(path).n_frames
    except UnreadableVideo:
        there = 0
    if there != count:
        raise UserError(cannot_write(path.parent, f"{there} of {count} frames arrived"))


def cannot_write(folder: Path, reason: str) -> str:
    """The message for a folder that clips cannot be written to."""
    return (
        f"cannot write clips to {folder}: {reason}. Is the disk full, or the folder not writable? Correct that and run "
        "the same command again"
    )
