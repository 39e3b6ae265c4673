"""The state of a camera, which several threads change at once."""

from __future__ import annotations

import threading
import time

from violence_detection.prediction.live import camera_state
from violence_detection.prediction.live.camera_state import CameraState


class _SlowCount(int):
    """A number whose addition lets other threads run, as may happen between any reading and writing of a count."""

    def __add__(self, other: int) -> _SlowCount:
        time.sleep(1e-4)
        return _SlowCount(int(self) + other)


def test_windows_that_two_threads_drop_all_count() -> None:
    """The thread that reads drops windows that are too old, and the one that judges drops those it is too late for."""
    camera = CameraState("yard", "", dropped=_SlowCount(0))

    def drop() -> None:
        for _ in range(50):
            camera.drop()

    threads = [threading.Thread(target=drop) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert camera.dropped == 100


def test_a_camera_that_is_lost_meanwhile_is_not_called_stalled() -> None:
    """The thread that looks for stalled cameras may have seen it live before the thread that reads it lost it."""
    camera = CameraState("yard", "")
    camera.set_state(camera_state.LIVE)
    camera.set_state(camera_state.LOST, "broke off")
    camera.set_state(camera_state.STALLED, "no frame for 10 s", only_from=camera_state.LIVE)
    assert (camera.state, camera.reason) == (camera_state.LOST, "broke off")
    camera.set_state(camera_state.LIVE)
    camera.set_state(camera_state.STALLED, "no frame for 10 s", only_from=camera_state.LIVE)
    assert camera.state == camera_state.STALLED
