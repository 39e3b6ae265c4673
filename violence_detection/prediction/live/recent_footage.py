"""The last seconds of a camera as small JPEG pictures, from which the clip of an event begins before the event."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

#: Pictures a second that are kept, and their height at most: enough for people to see what happened.
FPS = 10.0
_HEIGHT = 480
_QUALITY = 85


@dataclass(frozen=True)
class KeptPicture:
    """A picture as JPEG and when it was shown."""

    time_s: float
    jpeg: bytes


class RecentFootage:
    """Pictures of the last `seconds`, about FPS a second. Any thread may add and read."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._kept: deque[KeptPicture] = deque()
        self._lock = threading.Lock()
        self._last_s = self._next_s = -np.inf

    def kept(self, time_s: float, picture: np.ndarray) -> KeptPicture | None:
        """A picture, (H, W, 3) uint8 RGB, as it is kept; None where it is not yet time for one. For one thread."""
        if time_s < self._last_s:  # another connection
            self._next_s = -np.inf
        self._last_s = time_s
        if time_s < self._next_s:
            return None
        self._next_s = max(self._next_s + 1 / FPS, time_s + 0.5 / FPS)
        return KeptPicture(time_s, _jpeg(picture))

    def keep(self, kept: KeptPicture) -> None:
        """Keep it, and forget what is too old."""
        with self._lock:
            self._kept.append(kept)
            while self._kept[0].time_s < kept.time_s - self._seconds:
                self._kept.popleft()

    def anew(self) -> RecentFootage:
        """Another for as many seconds: of a camera whose times go back. Clips that are written go on with this one."""
        return RecentFootage(self._seconds)

    def between(self, begin_s: float, end_s: float) -> list[KeptPicture]:
        """What is kept of [begin_s, end_s), in order."""
        with self._lock:
            return [kept for kept in self._kept if begin_s <= kept.time_s < end_s]

    def nearest(self, time_s: float) -> KeptPicture | None:
        """The picture nearest to a moment; None where none is kept."""
        with self._lock:
            return min(self._kept, key=lambda kept: abs(kept.time_s - time_s), default=None)

    @property
    def newest_s(self) -> float:
        """When the last picture was shown; minus infinity before the first."""
        with self._lock:
            return self._kept[-1].time_s if self._kept else -np.inf

    @property
    def size_bytes(self) -> int:
        """How much memory the pictures take."""
        with self._lock:
            return sum(len(kept.jpeg) for kept in self._kept)


def _jpeg(picture: np.ndarray) -> bytes:
    height, width = picture.shape[:2]
    if height > _HEIGHT:
        size = (2 * round(width * _HEIGHT / height / 2), _HEIGHT)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    )
    if not done:
        raise ValueError(f"no JPEG of a picture of {width} x {height}")
    return data.tobytes()


def picture_of(kept: KeptPicture) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    picture = cv2.imdecode(np.frombuffer(kept.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
