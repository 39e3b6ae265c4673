"""The one way video files are written: OpenCV's own encoder, with a look at whether all of it arrived."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import cv2

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.video import decode


def write(path: Path, fps: float, frames: Iterable[decode.Frame], codec: str) -> None:
    """Encode BGR uint8 frames of one size. The same frames give the same bytes, however many cores there are.

    `codec`: mp4v (.mp4), XVID or MJPG (.avi). Raises UserError when this OpenCV cannot write it, or when not all frames
    arrive on the disk: OpenCV's writer itself says nothing when that is full.
    """
    rest = iter(frames)
    first = next(rest)
    height, width = first.shape[:2]
    video = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    if not video.isOpened() and path.parent.is_dir():
        raise UserError(
            cannot_write(path.parent, f"this OpenCV build writes no {codec} there")
            + ". A build that does: pip install opencv-python-headless"
        )
    count = 0
    try:
        for frame in itertools.chain([first], rest):
            video.write(frame)
            count += 1
    finally:
        video.release()
    try:
        there = decode.header(path).n_frames
    except UnreadableVideo:
        there = 0
    if there != count:
        raise UserError(cannot_write(path.parent, f"{there} of {count} frames arrived"))


def cannot_write(folder: Path, reason: str) -> str:
    """What to say, and what to do."""
    return (
        f"cannot write clips to {folder}: {reason}. Is the disk full, or the folder not writable? Mend it and run the "
        "same command again"
    )
