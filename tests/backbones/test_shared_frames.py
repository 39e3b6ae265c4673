"""Overlapping windows share the features of their frames, and the features of frames long past are not kept."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import deque
from concurrent.futures import Future

import numpy as np

from violence_detection.backbones.registry import PerFrame
from violence_detection.backbones.shared_frames import FrameSharingEngine

FRAMES, STEP = 10, 5


class _Made(np.ndarray):
    """An array of the test's own, whose lifetime is observed through a weak reference."""


def test_an_hour_of_overlapping_windows_keeps_no_more_than_a_minute() -> None:
    """As on a busy machine, a frame is still being computed when the next window asks for it."""
    made: list[weakref.ref[np.ndarray]] = []
    room = threading.Semaphore(2 * FRAMES)

    def runner(images: np.ndarray) -> np.ndarray:
        room.acquire()
        out = np.full((1, 4), images.ravel()[:8].view(np.int64)[0], np.float32).view(_Made)
        made.append(weakref.ref(out))
        return out

    engine = FrameSharingEngine("sharing", [runner] * 30, PerFrame(lambda _: None, lambda x: x.sum(axis=0)))
    ahead: deque[tuple[int, Future[np.ndarray]]] = deque()
    for start in range(0, 1000 * STEP, STEP):
        numbers = np.arange(start, start + FRAMES, dtype=np.int64)
        pictures = np.zeros((FRAMES, 8, 8, 3), np.uint8)
        pictures.reshape(FRAMES, -1)[:, :8] = numbers.view(np.uint8).reshape(FRAMES, 8)
        ahead.append((int(numbers.sum()), engine.submit(pictures)))
        if len(ahead) == 3:
            room.release(STEP)
            expected, window = ahead.popleft()
            assert window.result(10).tolist() == [expected] * 4
    room.release(10 * FRAMES)
    assert [window.result(10)[0] for _, window in ahead] == [expected for expected, _ in ahead]
    gc.collect()
    assert len(made) == 1000 * STEP + FRAMES - STEP, "each frame went through it once"
    assert sum(ref() is not None for ref in made) < 200
