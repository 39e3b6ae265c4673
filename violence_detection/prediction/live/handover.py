"""Windows waiting to be judged: cameras take turns, and windows of live cameras that are too old are dropped."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from violence_detection.prediction.live.camera_state import CameraState

W = TypeVar("W")

#: Most windows of one camera that wait; an interruption leaves two or three at once.
_MOST_WAITING = 4
#: A live camera may have more waiting: all windows of an HLS segment of this length, which come together.
_SEGMENT_S = 10.0
#: Windows of a camera that come within this fraction of a step came together: none of them counts as newer.
_TOGETHER_STEPS = 0.5
#: A window that has waited no longer than this fraction of a step is judged however slow the model is; otherwise none
#: would be. The next window of a camera is about due if it is early or late by no more than the same fraction.
_TOLERANCE_STEPS = 0.2
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class WaitingWindow(Generic[W]):
    """A complete window of a camera.

    connection: number of the camera's connection that it came from; arrived_s: when it was handed over, on the
    monotonic clock; late_s: by how much frames came late then, in seconds; may_drop: whether its source is live, which
    cannot be made to wait.
    """

    camera: CameraState
    window: W
    connection: int
    arrived_s: float
    late_s: float = 0.0
    may_drop: bool = True


class Handover(Generic[W]):
    """Passes windows from the threads that read cameras to the one that judges.

    `max_delay_s`: a live window that would not be judged within this time of its arrival is dropped. `step_s`: seconds
    between the windows of a camera; a live window that has waited longer gives way to the next one, unless the two came
    together. `most_live`: most windows of a live camera that wait.
    """

    def __init__(self, max_delay_s: float, step_s: float):
        self._max_delay_s, self._step_s = max_delay_s, step_s
        self.most_live = max(_MOST_WAITING, math.ceil(_SEGMENT_S / step_s) + 1)
        self._waiting: dict[str, deque[WaitingWindow[W]]] = {}
        self._changed = threading.Condition()
        self._came_s: dict[str, float] = {}
        self._in_vain: set[str] = set()
        self._mean_s = self._deviation_s = 0.0
        self._closed = False

    def put(self, item: WaitingWindow[W]) -> None:
        """Queue a window. If its camera has too many, drop the oldest; for a recording, block until one is taken."""
        with self._changed:
            queue = self._waiting.setdefault(item.camera.name, deque())
            if item.may_drop:
                while len(queue) >= self.most_live:
                    self._drop(queue)
            else:
                self._changed.wait_for(lambda: len(queue) < _MOST_WAITING or self._closed)
            queue.append(item)
            self._came_s[item.camera.name] = time.monotonic()
            self._changed.notify_all()

    def next(self, timeout_s: float) -> WaitingWindow[W] | None:
        """Return the window to judge next, cameras taking turns; None if there is none within `timeout_s` seconds."""
        until_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                if item := self._turn(timeout_s > 0):
                    self._changed.notify_all()
                    return item
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    return None
                self._changed.wait(min(left_s, _LOOK_EVERY_S))

    def _turn(self, may_wait: bool) -> WaitingWindow[W] | None:
        """Take the window of the camera whose turn it is; None if there is none, or if one is worth waiting for.

        A camera that missed its turn because its windows had become too old is waited for when its next one is about
        due. Otherwise, of two cameras whose windows come at the same time, one would always be judged and one never.
        """
        for name in list(self._waiting):
            if item := self._take(self._waiting[name]):
                self._waiting[name] = self._waiting.pop(name)  # to the end of the turns
                self._in_vain.discard(name)
                return item
            due_s = self._came_s[name] + self._step_s - time.monotonic()
            if may_wait and name in self._in_vain and abs(due_s) <= _TOLERANCE_STEPS * self._step_s:
                return None
        return None

    def took(self, seconds: float) -> None:
        """Note how long it took to judge a window, in seconds.

        From this the longest time that the next one may take is estimated: the smoothed mean plus twice the smoothed
        deviation, smoothed as in TCP's retransmission timer (RFC 6298).
        """
        if not self._mean_s:
            self._mean_s, self._deviation_s = seconds, seconds / 2
            return
        self._deviation_s += (abs(seconds - self._mean_s) - self._deviation_s) / 4
        self._mean_s += (seconds - self._mean_s) / 8

    def holds(self, camera: CameraState) -> bool:
        """Whether a window of the camera is waiting."""
        with self._changed:
            return bool(self._waiting.get(camera.name))

    def close(self) -> None:
        """Release the threads that `put` blocks, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self, queue: deque[WaitingWindow[W]]) -> WaitingWindow[W] | None:
        now_s = time.monotonic()
        takes_s = self._mean_s + 2 * self._deviation_s
        longest_s = max(self._max_delay_s - takes_s, _TOLERANCE_STEPS * self._step_s)
        while queue and queue[0].may_drop:
            waits_s = now_s - queue[0].arrived_s
            if waits_s <= longest_s and (waits_s <= self._step_s or not self._gives_way(queue)):
                break
            self._drop(queue)
        return queue.popleft() if queue else None

    def _gives_way(self, queue: deque[WaitingWindow[W]]) -> bool:
        """Whether a newer window waits behind the first, one that did not come together with it."""
        return len(queue) > 1 and queue[1].arrived_s - queue[0].arrived_s > _TOGETHER_STEPS * self._step_s

    def _drop(self, queue: deque[WaitingWindow[W]]) -> None:
        camera = queue.popleft().camera
        camera.drop()
        if not queue:
            self._in_vain.add(camera.name)
