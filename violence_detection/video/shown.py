"""Fits pictures for people to look at: with square pixels, shrunk to a height, or boxed to a common size."""

from __future__ import annotations

import cv2
import numpy as np

from violence_detection.video.decode import Frame


def square(frame: Frame, pixel_shape: float) -> Frame:
    """Widen or narrow a frame (H, W, 3) so that its pixels are square. `pixel_shape`: a pixel's width / its height."""
    width = max(round(frame.shape[1] * pixel_shape), 1)
    if width == frame.shape[1]:
        return frame
    how = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(frame, (width, frame.shape[0]), interpolation=how)


def fitted(frame: Frame, height: int) -> Frame:
    """Shrink a frame (H, W, 3) to `height` if it is higher, keeping its shape."""
    if frame.shape[0] <= height:
        return frame
    width = max(round(frame.shape[1] * height / frame.shape[0]), 1)
    return cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)


def boxed(frame: Frame, shape: tuple[int, ...]) -> Frame:
    """Fit a frame into a black picture of `shape` (height, width, 3), as large as possible and without distortion."""
    if frame.shape == shape:
        return frame
    scale = min(shape[0] / frame.shape[0], shape[1] / frame.shape[1])
    height, width = (max(round(side * scale), 1) for side in frame.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    box = np.zeros(shape, np.uint8)
    box[top : top + height, left : left + width] = cv2.resize(frame, (width, height), interpolation=how)
    return box
