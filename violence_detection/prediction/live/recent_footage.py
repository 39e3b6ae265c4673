"""The last seconds of a camera as small JPEG pictures, so that the clip of an event can begin before the event."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from violence_detection.video import shown

#: Pictures kept per second: enough for people to see what happened.
FPS = 10.0
#: Larger pictures are scaled down to this height, in pixels.
_HEIGHT = 480
_QUALITY = 85
#: A picture that comes this much before the next one is due is kept all the same: time stamps are rounded.
_ROUNDING_S = 1e-3


@dataclass(frozen=True)
class KeptPicture:
    """A picture as JPEG, and the time at which it was shown."""

    time_s: float
    jpeg: bytes


@dataclass(eq=False)
class Follower:
    """A reader that takes pictures in order, from some time on and before `until_s`.

    news: called whenever a picture was added or the footage has ended, by the thread that does so; is_waited_for:
    whether the footage waits rather than forget a picture that this reader has yet to take; taken_s: time of the last
    picture taken; lost_s: seconds of footage that were forgotten before they were taken.
    """

    news: Callable[[], None]
    is_waited_for: bool
    until_s: float
    taken_s: float = -np.inf
    lost_s: float = 0.0

    def needs(self, kept: KeptPicture) -> bool:
        """Whether it has yet to take this picture."""
        return self.taken_s < kept.time_s < self.until_s


class RecentFootage:
    """Pictures of the last `seconds` seconds, about FPS per second. One thread adds, any thread may read."""

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
        """Return a picture, (H, W, 3) uint8 RGB, in the form for `keep`; None if no picture is due yet.

        To be called by one thread. `pixel_shape`: width of the picture's pixels divided by their height; kept pictures
        have square pixels.
        """
        if time_s < self._last_s:  # a new connection
            self._next_s = -np.inf
        self._last_s = time_s
        if time_s < self._next_s - _ROUNDING_S:
            return None
        due_s = self._next_s if np.isfinite(self._next_s) else time_s
        self._next_s = max(due_s + 1 / FPS, time_s + 0.5 / FPS)
        return KeptPicture(time_s, _jpeg(picture, pixel_shape))

    def keep(self, kept: KeptPicture) -> None:
        """Add a picture and forget those too old. Blocks until followers that are waited for have taken them."""
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
                if self._has_ended:  # the pictures are soon freed together
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
        """Let a follower take pictures from a time on; return the time of the first one, None if there is none yet."""
        with self._changed:
            follower.taken_s = np.nextafter(from_s, -np.inf)
            first_s = next((kept.time_s for kept in self._kept if kept.time_s >= from_s), None)
            if first_s is not None and self._began_s is not None and self._forgotten_s >= from_s:
                follower.lost_s = first_s - max(from_s, self._began_s)
            self._followers.append(follower)
        return first_s

    def take(self, follower: Follower, until_s: float, most: int) -> list[KeptPicture]:
        """Return the follower's next pictures: those shown before `until_s`, and at most `most`."""
        with self._changed:
            follower.until_s = until_s
            taken = [kept for kept in self._kept if follower.needs(kept)][:most]
            if taken:
                follower.taken_s = taken[-1].time_s
            self._changed.notify_all()
        return taken

    def leave(self, follower: Follower) -> None:
        """Remove a follower."""
        with self._changed:
            if follower in self._followers:
                self._followers.remove(follower)
            self._changed.notify_all()

    def end(self) -> None:
        """Mark the footage as ended: no more comes, or none is needed. From now on adding a picture never blocks."""
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

    def empty_copy(self) -> RecentFootage:
        """Return an empty one for as many seconds, for when times go back. Clips being written keep using this one."""
        return RecentFootage(self._seconds)

    def between(self, begin_s: float, end_s: float) -> list[KeptPicture]:
        """The pictures kept from [begin_s, end_s), in order."""
        with self._changed:
            return [kept for kept in self._kept if begin_s <= kept.time_s < end_s]

    def nearest(self, time_s: float) -> KeptPicture | None:
        """The kept picture nearest to a time; None if none is kept."""
        with self._changed:
            return min(self._kept, key=lambda kept: abs(kept.time_s - time_s), default=None)

    @property
    def newest_s(self) -> float:
        """Time of the last picture kept; minus infinity if none is kept."""
        with self._changed:
            return self._kept[-1].time_s if self._kept else -np.inf

    @property
    def size_bytes(self) -> int:
        """Memory that the pictures take, in bytes."""
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
        raise ValueError(f"cannot encode a picture of {width} x {height} as JPEG")
    return data.tobytes()


def picture_of(kept: KeptPicture) -> np.ndarray:
    """Decode a kept picture: (H, W, 3) uint8 RGB."""
    picture = cv2.imdecode(np.frombuffer(kept.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
