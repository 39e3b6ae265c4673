"""Windows waiting for a model that is too slow: newest first, dropped ones counted, and no camera left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.handover import Handover, WaitingWindow


class _Simulated:
    """Simulated time, which passes while the handover waits or the model works.

    `begins_s`: when each camera's first window comes. `every_s`: the time between windows. `takes_s`: how long judging
    one takes.
    """

    def __init__(
        self,
        patch: pytest.MonkeyPatch,
        handover: Handover[int],
        begins_s: dict[str, float],
        every_s: float,
        takes_s: float,
    ):
        self.cameras = {name: CameraState(name, "") for name in begins_s}
        self.now_s, self._handover, self._takes_s = 0.0, handover, takes_s
        self._to_come = sorted((b + n * every_s, n, name) for name, b in begins_s.items() for n in range(400))
        clock = SimpleNamespace(monotonic=lambda: self.now_s)
        patch.setattr("violence_detection.prediction.live.handover.time", clock)
        patch.setattr(handover._changed, "wait", self._wait)

    def judged(self, for_s: float) -> Iterator[tuple[str, int, float]]:
        """Yield each judged window's camera, its number, and the seconds from its arrival to the end of judging."""
        while self.now_s < for_s:
            if (item := self._handover.next(0.1)) is not None:
                self._pass(self._takes_s)
                self._handover.took(self._takes_s)
                yield item.camera.name, item.window, self.now_s - item.arrived_s

    def _wait(self, timeout_s: float) -> None:
        self._pass(max(min(timeout_s, self._to_come[0][0] - self.now_s), 1e-3))

    def _pass(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self._to_come[0][0] <= until_s:
            self.now_s, number, name = self._to_come.pop(0)
            self._handover.put(WaitingWindow(self.cameras[name], number, 1, self.now_s))
        self.now_s = until_s


def test_a_slow_model_drops_windows_and_keeps_the_delay_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four cameras have a window every 50 ms and judging one takes 40 ms, so that two in three cannot be judged."""
    begins_s = {"c0": 0.0, "c1": 0.002, "c2": 0.004, "c3": 0.006}
    simulated = _Simulated(monkeypatch, Handover[int](0.4, 0.05), begins_s, every_s=0.05, takes_s=0.04)
    told = list(simulated.judged(5.0))
    judged = {name: [number for of, number, _ in told if of == name] for name in begins_s}
    counts = [len(numbers) for numbers in judged.values()]
    assert all(numbers == sorted(set(numbers)) for numbers in judged.values()), "in order, none twice"
    assert sum(counts) == 125, "the model has something to do all the time"
    assert max(counts) - min(counts) <= 1, "each camera has its turn"
    assert all(camera.dropped >= 50 for camera in simulated.cameras.values())
    assert max(late_s for _, _, late_s in told) < 0.2


def test_of_two_cameras_in_step_each_is_judged_by_a_model_that_has_time_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Judging takes 150 of the 200 ms allowed: when the first camera's window is done, the second's is too old."""
    begins_s = {"first": 0.0, "second": 0.01}
    simulated = _Simulated(monkeypatch, Handover[int](0.2, 0.1), begins_s, every_s=0.09, takes_s=0.15)
    told = list(simulated.judged(10.0))
    names = [name for name, _, _ in told]
    assert min(names.count(name) for name in begins_s) >= 15, names
    assert max(late_s for _, _, late_s in told) <= 0.2


def test_a_model_slower_than_the_limit_still_judges_the_newest() -> None:
    handover = Handover[int](max_delay_s=1.0, step_s=0.5)
    camera = CameraState("c", "")
    handover.took(9.0)
    now_s = time.monotonic()
    for number, age_s in enumerate((3.0, 2.0, 0.05)):
        handover.put(WaitingWindow(camera, number, 1, now_s - age_s))
    item = handover.next(0)
    assert item is not None
    assert (item.window, camera.dropped) == (2, 2)
    assert handover.next(0) is None


def test_what_is_left_at_a_cut_is_judged_in_order_and_a_file_waits_for_the_model() -> None:
    handover = Handover[int](max_delay_s=5.0, step_s=2.5)
    camera = CameraState("c", "")
    for number in range(3):
        handover.put(WaitingWindow(camera, number, 1, time.monotonic()))
    assert [item.window for item in iter(lambda: handover.next(0), None)] == [0, 1, 2]
    long_ago_s = time.monotonic() - 60

    def read() -> None:
        for number in range(10):
            handover.put(WaitingWindow(camera, number, 1, long_ago_s, may_drop=False))

    reader = threading.Thread(target=read)
    reader.start()
    assert [handover.next(1.0).window for _ in range(10)] == list(range(10))  # type: ignore[union-attr]
    reader.join()
    assert camera.dropped == 0


def test_what_comes_together_is_judged_as_far_as_there_is_time() -> None:
    """HLS brings ten windows at once every 10 s; six of them were dropped, though the model had nothing else to do."""
    handover = Handover[int](max_delay_s=3.0, step_s=1.0)
    camera = CameraState("c", "")
    handover.took(0.1)
    came_s = time.monotonic() - 1.5
    for number in range(10):
        handover.put(WaitingWindow(camera, number, 1, came_s + number * 0.05))
    assert [item.window for item in iter(lambda: handover.next(0), None)] == list(range(10))
    assert camera.dropped == 0
    # windows of an earlier segment, which are too late
    for number in range(10):
        handover.put(WaitingWindow(camera, number, 1, came_s - 10.0))
    assert handover.next(0) is None
    assert camera.dropped == 10
