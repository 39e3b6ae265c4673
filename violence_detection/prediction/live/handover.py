"""Windows that wait to be judged: few, the newest first, of all cameras in turn."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from violence_detection.prediction.live.camera_state import CameraState

W = TypeVar("W")

#: More than this of one camera are not kept; an interruption leaves two or three at once. But all that a segment of HLS
#: of so long gives, which comes as a whole.
_MOST, _SEGMENT_S = 4, 10.0
#: Windows that come within this part of a step have come together: none of them is newer than another.
_TOGETHER = 0.5
#: A window no older than this part of a step is judged however slow the model is, for else none would be; and so much a
#: window may come beside its time.
_NEW = 0.2
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class WaitingWindow(Generic[W]):
    """A window of a camera that is complete.

    arrived_s: when its last frame was here, on the monotonic clock; late_s: how late that frame was; connection: the
    number of the camera's connection that it is of; may_drop: whether it is of footage that waits for nobody.
    """

    camera: CameraState
    window: W
    connection: int
    arrived_s: float
    late_s: float = 0.0
    may_drop: bool = True


class Handover(Generic[W]):
    """Between the threads that read cameras and the one that judges.

    `max_delay_s`: what would be judged later than so long after it came is dropped. `step_s`: how often a window comes;
    one that waits for longer gives way to the next of its camera, unless that came together with it. `most_live`: how
    many of a live camera wait at most.
    """

    def __init__(self, max_delay_s: float, step_s: float):
        self._max_delay_s, self._step_s = max_delay_s, step_s
        self.most_live = max(_MOST, math.ceil(_SEGMENT_S / step_s) + 1)
        self._waiting: dict[str, deque[WaitingWindow[W]]] = {}
        self._changed = threading.Condition()
        self._came_s: dict[str, float] = {}
        self._in_vain: set[str] = set()
        self._mean_s = self._deviation_s = 0.0
        self._closed = False

    def put(self, item: WaitingWindow[W]) -> None:
        """Have it judged. Where too many of its camera wait, the oldest is dropped, or the caller waits."""
        with self._changed:
            queue = self._waiting.setdefault(item.camera.name, deque())
            if item.may_drop:
                while len(queue) >= self.most_live:
                    self._drop(queue)
            else:
                self._changed.wait_for(lambda: len(queue) < _MOST or self._closed)
            queue.append(item)
            self._came_s[item.camera.name] = time.monotonic()
            self._changed.notify_all()

    def next(self, timeout_s: float) -> WaitingWindow[W] | None:
        """The window to judge now, of the camera whose turn it is; None where none comes in time."""
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
        """The window of the camera whose turn it is.

        One that had its turn in vain, since its window was too old by then, is waited for where its next one is due:
        else of two cameras whose windows come at the same time one would be judged always and the other never.
        """
        for name in list(self._waiting):
            if item := self._take(self._waiting[name]):
                self._waiting[name] = self._waiting.pop(name)  # its turn comes last now
                self._in_vain.discard(name)
                return item
            due_s = self._came_s[name] + self._step_s - time.monotonic()
            if may_wait and name in self._in_vain and abs(due_s) <= _NEW * self._step_s:
                return None
        return None

    def took(self, seconds: float) -> None:
        """Know how long the judging of a window took.

        What the next takes at most is then expected as TCP expects an answer: mean and deviation, smoothed (RFC 6298).
        """
        if not self._mean_s:
            self._mean_s, self._deviation_s = seconds, seconds / 2
            return
        self._deviation_s += (abs(seconds - self._mean_s) - self._deviation_s) / 4
        self._mean_s += (seconds - self._mean_s) / 8

    def holds(self, camera: CameraState) -> bool:
        """Whether a window of the camera waits."""
        with self._changed:
            return bool(self._waiting.get(camera.name))

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _take(self, queue: deque[WaitingWindow[W]]) -> WaitingWindow[W] | None:
        now_s = time.monotonic()
        takes_s = self._mean_s + 2 * self._deviation_s
        longest_s = max(self._max_delay_s - takes_s, _NEW * self._step_s)
        while queue and queue[0].may_drop:
            waits_s = now_s - queue[0].arrived_s
            if waits_s <= longest_s and (waits_s <= self._step_s or not self._gives_way(queue)):
                break
            self._drop(queue)
        return queue.popleft() if queue else None

    def _gives_way(self, queue: deque[WaitingWindow[W]]) -> bool:
        """Whether a newer one waits behind the first."""
        return len(queue) > 1 and queue[1].arrived_s - queue[0].arrived_s > _TOGETHER * self._step_s

    def _drop(self, queue: deque[WaitingWindow[W]]) -> None:
        camera = queue.popleft().camera
        camera.drop()
        if not queue:
            self._in_vain.add(camera.name)
