"""Windows on their way to a model that is too slow: newest first, the rest counted, no camera forgotten."""

from __future__ import annotations

import threading
import time

from violence_detection.prediction.live.camera_state import CameraState
from violence_detection.prediction.live.handover import Handover, WaitingWindow


def test_a_slow_model_drops_windows_and_keeps_the_delay_short() -> None:
    """Four cameras with a window each 50 ms, and 40 ms for one: three in four cannot be judged."""
    handover = Handover[int](max_delay_s=0.4, step_s=0.05)
    cameras = [CameraState(f"c{i}", "") for i in range(4)]
    stop = threading.Event()

    def film(camera: CameraState) -> None:
        number = 0
        while not stop.is_set():
            handover.put(WaitingWindow(camera, number, 1, time.monotonic()))
            number += 1
            time.sleep(0.05)

    threads = [threading.Thread(target=film, args=(camera,)) for camera in cameras]
    for thread in threads:
        thread.start()
    until_s = time.monotonic() + 1.5
    judged: dict[str, list[int]] = {camera.name: [] for camera in cameras}
    delays = []
    while time.monotonic() < until_s:
        if (item := handover.next(0.1)) is not None:
            time.sleep(0.04)
            handover.took(0.04)
            judged[item.camera.name].append(item.window)
            delays.append(time.monotonic() - item.arrived_s)
    stop.set()
    for thread in threads:
        thread.join()
    counts = [len(numbers) for numbers in judged.values()]
    assert all(numbers == sorted(set(numbers)) for numbers in judged.values()), "in order, none twice"
    assert max(counts) - min(counts) <= 2, "each camera has its turn"
    assert all(camera.dropped >= 10 for camera in cameras)
    assert max(delays) < 0.4


def test_of_two_cameras_in_step_each_is_judged_by_a_model_that_has_time_for_one() -> None:
    """A window takes 150 of the 200 ms that it may: that of the second camera is too old when the first is done."""
    handover = Handover[int](max_delay_s=0.2, step_s=0.1)
    cameras = [CameraState("first", ""), CameraState("second", "")]
    stop = threading.Event()

    def film() -> None:
        for number in range(1000):
            for camera in cameras:
                handover.put(WaitingWindow(camera, number, 1, time.monotonic()))
                time.sleep(0.01)
            if stop.wait(0.08):
                return

    thread = threading.Thread(target=film)
    thread.start()
    until_s = time.monotonic() + 2.0
    judged = {"first": 0, "second": 0}
    while time.monotonic() < until_s:
        if (item := handover.next(0.1)) is not None:
            time.sleep(0.15)
            handover.took(0.15)
            judged[item.camera.name] += 1
    stop.set()
    thread.join()
    assert min(judged.values()) >= 3, judged


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
    """A segment of HLS gives ten windows at once each 10 s: six were dropped, and the model had nothing to do."""
    handover = Handover[int](max_delay_s=3.0, step_s=1.0)
    camera = CameraState("c", "")
    handover.took(0.1)
    came_s = time.monotonic() - 1.5
    for number in range(10):
        handover.put(WaitingWindow(camera, number, 1, came_s + number * 0.05))
    assert [item.window for item in iter(lambda: handover.next(0), None)] == list(range(10))
    assert camera.dropped == 0
    for number in range(10):  # of the segment before, which took too long
        handover.put(WaitingWindow(camera, number, 1, came_s - 10.0))
    assert handover.next(0) is None
    assert camera.dropped == 10
