"""One pass over clips with one backbone: threads decode and augment while the engine runs the backbone.

Finished clips are on disk at once, so that a run killed at any moment loses only the clips in flight.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from violence_detection.backbones import engines, registry
from violence_detection.errors import UnreadableVideo
from violence_detection.features.cache import FeatureStore
from violence_detection.features.config import FeatureConfig
from violence_detection.features.extract_meter import Meter
from violence_detection.system import console, machine
from violence_detection.video import pictures


@dataclass(frozen=True)
class WantedClip:
    """A clip and the variants of it that are wanted."""

    clip_id: str
    path: Path
    variants: tuple[str, ...]


def default_workers() -> int:
    """Threads that decode and augment: two a core, since they also wait for the engine."""
    return 2 * machine.usable_cpus()


class ExtractionPass:
    """A bounded number of clips is in flight. `failures` and `clips_extracted` say how it went."""

    def __init__(
        self,
        config: FeatureConfig,
        backbone: registry.Backbone,
        stores: Mapping[str, FeatureStore],
        engine: engines.Engine,
    ):
        self.config, self.backbone, self.stores, self.engine = config, backbone, stores, engine
        self.failures: list[dict[str, str]] = []
        self.clips_extracted = 0
        self._lock = threading.Lock()

    def extract(self, todo: Sequence[WantedClip], workers: int, logs: Path | None = None) -> None:
        """Extract all of `todo` into the stores; TensorBoard scalars of its speed go to the folder `logs`.

        An error other than an unreadable clip ends it, and is raised.
        """
        in_flight: set[Future[None]] = set()
        meter = Meter(self.engine, len(todo), logs)
        cv2.setNumThreads(
            1
        )  # clips are decoded side by side: OpenCV's own threads would only be in their way
        pool = ThreadPoolExecutor(workers)
        try:
            with console.progress(total=len(todo), unit="clip", desc="features") as bar:
                clips_left = iter(todo)
                while True:
                    room = workers + 1 - len(in_flight)  # one more, so that no worker waits for the next
                    in_flight |= {
                        pool.submit(self._clip, clip) for clip in itertools.islice(clips_left, room)
                    }
                    if not in_flight:
                        break
                    done, in_flight = wait(in_flight, meter.every_s, FIRST_COMPLETED)
                    bar.update(self._collect(done))
                    meter.tick(bar.n)
            meter.finish(bar.n)
        finally:
            cv2.setNumThreads(-1)
            pool.shutdown(cancel_futures=True)  # an error or an interrupt does not wait for clips not begun

    def _collect(self, done: set[Future[None]]) -> int:
        for future in done:
            future.result()  # a bug or a full disk stops the run here
        return len(done)

    def _clip(self, clip: WantedClip) -> None:
        try:
            values = self._features(clip)
        except UnreadableVideo as e:
            with self._lock:
                self.failures.append({"path": e.path, "reason": e.reason})
            return
        for stream, store in self.stores.items():
            store.add(clip.clip_id, values[stream], self.engine.name)
        with self._lock:
            self.clips_extracted += 1

    def _features(self, clip: WantedClip) -> dict[str, dict[str, np.ndarray]]:
        """{stream: {variant: (T, C) float32}} of one clip; waits until the engine has done all of it."""
        variants = pictures.clip_variants(
            clip.path, clip.clip_id, clip.variants, self.backbone.input_size, self.config
        )
        jobs = [
            (stream, variant, self.engine.submit(images))
            for variant, streams in variants
            for stream, images in streams.items()
        ]
        values: dict[str, dict[str, np.ndarray]] = {stream: {} for stream in self.stores}
        for stream, variant, job in jobs:
            values[stream][variant] = job.result()
        return values
