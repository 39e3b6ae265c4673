"""Decoded frames as upright RGB pictures, the same for a file and for a stream."""

from __future__ import annotations

import av
import cv2
import numpy as np

#: Layouts of nearly all videos, which FFmpeg turns into RGB as it does into BGR, bit for bit. It works out the colours
#: of others differently, and what is on disk was made from BGR.
_SAME_IN_RGB = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}
_SQUARE_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}


class RgbFrames:
    """Makes the pictures of one video. `turn`: degrees by which they are turned upright, None before the first."""

    def __init__(self) -> None:
        self._reformatter = av.video.reformatter.VideoReformatter()
        self.turn: int | None = None

    def picture(self, frame: av.VideoFrame) -> np.ndarray:
        """The frame upright, (H, W, 3) uint8 RGB. Raises FFmpegError or ValueError where it cannot be shown."""
        layout = "rgb24" if frame.format.name in _SAME_IN_RGB else "bgr24"
        picture: np.ndarray = self._reformatter.reformat(frame, format=layout, threads=1).to_ndarray()
        if self.turn is None:
            self.turn = frame.rotation % 360
        if self.turn in _SQUARE_TURNS:
            picture = cv2.rotate(picture, _SQUARE_TURNS[self.turn])
        if layout == "bgr24":
            picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
        return picture
