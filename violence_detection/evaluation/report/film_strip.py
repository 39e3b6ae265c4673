"""A few frames of a clip, small enough that a page full of them can be sent by mail."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from violence_detection.errors import UnreadableVideo
from violence_detection.video import decode, sampling, shown

#: The box that a frame is scaled to fit into.
_BOX_WIDTH_PX, _BOX_HEIGHT_PX = 288, 162
#: Most bytes of a frame's JPEG, unless even the lowest quality takes more.
_FRAME_BYTES = 16_000
#: JPEG qualities to try, in this order.
_QUALITIES = (80, 65, 50, 35)
#: Numbers of frames to show of a clip, the preferred first. One that divides the number of the model's time steps is
#: taken, so that each frame stands for a whole number of steps; the first, if none does.
_COUNTS = (5, 6, 4, 7)


@dataclass(frozen=True)
class StripFrame:
    """One frame: `jpeg` of `width` x `height` pixels, shown `time_s` seconds into the clip."""

    time_s: float
    width: int
    height: int
    jpeg: bytes

    @property
    def uri(self) -> str:
        """The picture as a data URI, which takes no request to load."""
        return data_uri(self.jpeg, "jpeg")


#: Returns frames of the clip at a path of the predictions. May raise UnreadableVideo or OSError.
FramesMaker = Callable[[str], list[StripFrame]]


def or_reason(frames: FramesMaker, path: str) -> tuple[list[StripFrame], str]:
    """The frames of the clip at `path`, or why there are none: a file that is gone by now must not stop the report."""
    try:
        return frames(path), ""
    except UnreadableVideo as e:
        return [], e.reason
    except OSError as e:
        return [], str(e)


def frames_below(root: Path, window_s: float = float("inf"), steps: int = 0) -> FramesMaker:
    """A function from a clip's path, relative to `root`, to its frames; see `clip_frames` and `frame_count`."""
    count = frame_count(steps)
    return lambda path: clip_frames(root / path, count, window_s)


def frame_count(steps: int) -> int:
    """How many frames to show of a clip that the model sees in `steps` time steps (0: unknown)."""
    return next((count for count in _COUNTS if steps and steps % count == 0), _COUNTS[0])


def clip_frames(path: Path, count: int, window_s: float = float("inf")) -> list[StripFrame]:
    """`count` evenly spaced frames of the window that is judged, the middle `window_s` seconds of the clip.

    Raises UnreadableVideo.
    """

    def chosen(info: decode.VideoInfo) -> list[int]:
        window = sampling.middle_window(info, window_s)
        return sampling.sample_indices(info.n_frames, count, window.start, window.length).tolist()

    info, frames = decode.read(path, chosen, _shrink)
    if info.pixel_shape != 1:
        frames = {number: _shrink(shown.square(frame, info.pixel_shape)) for number, frame in frames.items()}
    return [
        StripFrame(
            info.start_s + number / info.fps,
            frames[number].shape[1],
            frames[number].shape[0],
            _jpeg(frames[number]),
        )
        for number in chosen(info)
    ]


def data_uri(picture: bytes, kind: str = "png") -> str:
    """A picture as a data URI. `kind`: png or jpeg."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


def _shrink(frame: np.ndarray) -> np.ndarray:
    """Scale a frame, (H, W, 3) uint8, to fit into the box; its aspect ratio is kept."""
    height, width = frame.shape[:2]
    scale = min(_BOX_HEIGHT_PX / height, _BOX_WIDTH_PX / width)
    size = max(round(width * scale), 1), max(round(height * scale), 1)
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _jpeg(frame: np.ndarray) -> bytes:
    """An RGB frame as JPEG, at the highest quality that fits into _FRAME_BYTES, or at the lowest."""
    frame = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    for quality in _QUALITIES:
        ok, encoded = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not ok:
            raise ValueError(f"cannot encode a frame of shape {frame.shape} as JPEG")
        if len(encoded) <= _FRAME_BYTES:
            break
    return encoded.tobytes()
