"""The last seconds of a camera as small JPEG pictures, from which the clip of an event begins before the event."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from violence_detection.video import shown

#: Pictures a second that are kept, and their height at most: enough for people to see what happened.
FPS = 10.0
_HEIGHT = 480
_QUALITY = 85
#: A picture comes in time for its place if it is early by no more than this: times are rounded.
_ROUNDING_S = 1e-3


@dataclass(frozen=True)
class KeptPicture:
    """A picture as JPEG and when it was shown."""

    time_s: float
    jpeg: bytes


@dataclass(eq=False)
class Follower:
    """Somebody who takes the pictures from a moment on, in order, up to `until_s`.

    news: called whenever a picture has come, by the thread that adds it; is_waited_for: whether footage waits rather
    than forget a picture that was not taken; taken_s: the time of the last that was; lost_s: seconds of pictures that
    were forgotten before they were taken.
    """

    news: Callable[[], None]
    is_waited_for: bool
    until_s: float
    taken_s: float = -np.inf
    lost_s: float = 0.0

    def needs(self, kept: KeptPicture) -> bool:
        """Whether it has yet to take a picture."""
        return self.taken_s < kept.time_s < self.until_s


class RecentFootage:
    """Pictures of the last `seconds`, about FPS a second. Any thread may read; one adds."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._kept: deque[KeptPicture] = deque()
        self._changed = threading.Condition()
        self._followers: list[Follower] = []
        self._has_ended = False
        self._began_s: float | None = None
        self._forgotten_s = -np.inf
        self._last_s = self._next_s = -np.inf

    def kept(self, time_s: float, picture: np.ndarray, pixel_shape: float = 1.0) -> KeptPicture | None:
        """A picture, (H, W, 3) uint8 RGB, as it is kept; None where it is not yet time for one. For one thread.

        `pixel_shape`: what the width of its pixels is to their height; those that are kept are square.
        """
        if time_s < self._last_s:  # another connection
            self._next_s = -np.inf
        self._last_s = time_s
        if time_s < self._next_s - _ROUNDING_S:
            return None
        due_s = self._next_s if np.isfinite(self._next_s) else time_s
        self._next_s = max(due_s + 1 / FPS, time_s + 0.5 / FPS)
        return KeptPicture(time_s, _jpeg(picture, pixel_shape))

    def keep(self, kept: KeptPicture) -> None:
        """Keep it, and forget what is too old, but not before those who are waited for have taken it."""
        with self._changed:
            if self._began_s is None:
                self._began_s = kept.time_s
            self._kept.append(kept)
            followers = tuple(self._followers)
        for follower in followers:
            follower.news()
        with self._changed:
            while self._kept[0].time_s < kept.time_s - self._seconds:
                self._changed.wait_for(lambda: self._has_ended or not self._is_waited_for(self._kept[0]))
                if self._has_ended:  # it is not for long
                    return
                self._forget(self._kept.popleft())

    def _is_waited_for(self, kept: KeptPicture) -> bool:
        return any(follower.is_waited_for and follower.needs(kept) for follower in self._followers)

    def _forget(self, kept: KeptPicture) -> None:
        self._forgotten_s = kept.time_s
        for follower in self._followers:
            if follower.needs(kept):
                follower.lost_s += self._kept[0].time_s - kept.time_s

    def follow(self, follower: Follower, from_s: float) -> float | None:
        """Have somebody take pictures from a moment on; returns the time of the first, None where none is there yet."""
        with self._changed:
            follower.taken_s = np.nextafter(from_s, -np.inf)
            first_s = next((kept.time_s for kept in self._kept if kept.time_s >= from_s), None)
            if first_s is not None and self._began_s is not None and self._forgotten_s >= from_s:
                follower.lost_s = first_s - max(from_s, self._began_s)
            self._followers.append(follower)
        return first_s

    def take(self, follower: Follower, until_s: float, most: int) -> list[KeptPicture]:
        """The next pictures for somebody who follows, at most so many, of those before a moment."""
        with self._changed:
            follower.until_s = until_s
            taken = [kept for kept in self._kept if follower.needs(kept)][:most]
            if taken:
                follower.taken_s = taken[-1].time_s
            self._changed.notify_all()
        return taken

    def leave(self, follower: Follower) -> None:
        """Somebody follows no more."""
        with self._changed:
            if follower in self._followers:
                self._followers.remove(follower)
            self._changed.notify_all()

    def end(self) -> None:
        """Know that no more comes, or that nobody cares: from now on adding waits for nobody."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()
            followers = tuple(self._followers)
        for follower in followers:
            follower.news()

    @property
    def has_ended(self) -> bool:
        """Whether `end` was called."""
        return self._has_ended

    def anew(self) -> RecentFootage:
        """Another for as many seconds: of a camera whose times go back. Clips that are written go on with this one."""
        return RecentFootage(self._seconds)

    def between(self, begin_s: float, end_s: float) -> list[KeptPicture]:
        """What is kept of [begin_s, end_s), in order."""
        with self._changed:
            return [kept for kept in self._kept if begin_s <= kept.time_s < end_s]

    def nearest(self, time_s: float) -> KeptPicture | None:
        """The picture nearest to a moment; None where none is kept."""
        with self._changed:
            return min(self._kept, key=lambda kept: abs(kept.time_s - time_s), default=None)

    @property
    def newest_s(self) -> float:
        """When the last picture was shown; minus infinity before the first."""
        with self._changed:
            return self._kept[-1].time_s if self._kept else -np.inf

    @property
    def size_bytes(self) -> int:
        """How much memory the pictures take."""
        with self._changed:
            return sum(len(kept.jpeg) for kept in self._kept)


def _jpeg(picture: np.ndarray, pixel_shape: float) -> bytes:
    height, width = picture.shape[:2]
    if height > _HEIGHT:
        size = (2 * round(width * _HEIGHT / height / 2), _HEIGHT)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    picture = shown.square(picture, pixel_shape)
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
