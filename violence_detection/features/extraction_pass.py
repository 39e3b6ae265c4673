"""One pass over clips: threads decode and augment while the engine runs the backbones.

Each clip is written to disk as soon as it is finished, so that a run that is killed loses only the clips in progress.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from violence_detection.backbones import engines, precision
from violence_detection.errors import NOT_READ, UnreadableVideo
from violence_detection.features import key
from violence_detection.features.cache import FeatureStore
from violence_detection.features.config import FeatureConfig
from violence_detection.features.key import BackboneRun
from violence_detection.system import console, processes, storage
from violence_detection.video import augment, pictures

if TYPE_CHECKING:
    from violence_detection.features.meter import Meter

#: Seconds between reports of an extraction's rates. A run that ends sooner reports none.
REPORT_EVERY_S = 30.0


@dataclass(frozen=True)
class WantedClip:
    """A clip and the variants of it that are wanted.

    `by_time`: its frames are found by their time stamps. `sha256`: of the file; empty if not known.
    """

    clip_id: str
    path: Path
    variants: tuple[str, ...]
    by_time: bool = False
    sha256: str = ""

    def check_unchanged(self) -> None:
        """Raise UnreadableVideo if the file's content has changed: its features are cached under the old one's id."""
        with contextlib.suppress(OSError):  # decoding the clip will report it
            if self.sha256 and self.path.is_file() and storage.sha256_file(self.path) != self.sha256:
                raise UnreadableVideo(
                    self.path,
                    "is not the file that was combined: its content has changed. Run: python combine_all_datasets.py, "
                    "with the flags you combine with",
                )


@dataclass(frozen=True)
class BackboneGroup(BackboneRun):
    """Backbones that run together, with their caches. `stores`: by model input.

    `whole`: if this is a part of a group, with only some of its streams: the settings with all streams.
    """

    stores: Mapping[str, FeatureStore]
    whole: FeatureConfig | None = None

    @property
    def probed(self) -> BackboneGroup:
        """The group with all streams, by which the precision is chosen, so that a part gets the engine of the whole."""
        return replace(self, config=self.whole or self.config)

    def of_stream(self, stream: str) -> dict[str, FeatureStore]:
        """The stores of a stream, in the order of the backbones."""
        return {name: self.stores[name] for name in self.inputs(stream)}

    def check_engine(self, engine: engines.Engine, wanted: Sequence[WantedClip]) -> None:
        """Make sure that an engine may write to the stores, and note it there.

        It may if no other engine has written to them, or if it reproduces what others made. Raises UserError if not.
        """
        for store in self.stores.values():
            others = store.engines().keys() - {engine.name}
            if others or (engine.name not in store.engines() and not store.is_empty()):
                from violence_detection.features import engine_check

                return engine_check.compare_with_cache(engine, self, wanted)
        for store in self.stores.values():
            if engine.name not in store.engines():
                store.note_engine(engine.name, relative_error=None, clips=[], tolerance=precision.TOLERANCE)

    def parts(self, inputs: Collection[str]) -> list[BackboneGroup]:
        """Groups for exactly these model inputs. Streams that need the same backbones are in one group."""
        streams: dict[tuple[str, ...], list[str]] = {}
        for stream in self.config.streams:
            if names := tuple(name for name in self.inputs(stream) if name in inputs):
                streams.setdefault(tuple(map(key.backbone_of, names)), []).append(stream)
        return [self._part(backbones, tuple(of_them)) for backbones, of_them in streams.items()]

    def _part(self, backbones: tuple[str, ...], streams: tuple[str, ...]) -> BackboneGroup:
        names = [key.input_name(backbone, stream) for stream in streams for backbone in backbones]
        return replace(
            self,
            config=replace(self.config, streams=streams),
            whole=self.whole or self.config,
            backbones=tuple(b for b in self.backbones if b.name in backbones),
            stores={name: self.stores[name] for name in names},
        )


def open_groups(
    config: FeatureConfig,
    weights_file: Path | None,
    open_store: Callable[[str, str, Path], FeatureStore],
) -> list[BackboneGroup]:
    """The backbones of the settings with their caches. `open_store`: (backbone, stream, weights file) -> the store.

    Raises UserError if a backbone is unknown or its weights cannot be had.
    """
    groups = []
    for run in key.backbone_runs(config, weights_file):
        stores = {
            key.input_name(backbone.name, stream): open_store(backbone.name, stream, run.weights)
            for stream in run.config.streams
            for backbone in run.backbones
        }
        groups.append(BackboneGroup(run.config, run.backbones, run.weights, stores))
    return groups


def default_workers() -> int:
    """The number of threads that decode and augment: two per core, since they also wait for the engine."""
    return 2 * processes.worker_count(0)


class _Pace:
    """Reports the rates of a run. The meter is made when the first report is due, which a short run never reaches."""

    def __init__(self, engine: engines.Engine, clips: int, logs: Path | None):
        self.engine, self.clips, self.logs = engine, clips, logs
        self.began = (time.monotonic(), engine.images_done, engine.busy_s)
        self.meter: Meter | None = None

    def tick(self, clips_done: int) -> None:
        if self.meter is None:
            if time.monotonic() - self.began[0] < REPORT_EVERY_S:
                return
            from violence_detection.features import meter

            self.meter = meter.Meter(self.engine, self.clips, self.logs, REPORT_EVERY_S, self.began)
        self.meter.tick(clips_done)

    def finish(self, clips_done: int) -> None:
        if self.meter is not None:
            self.meter.finish(clips_done)

    def close(self) -> None:
        if self.meter is not None:
            self.meter.close()


class ExtractionPass:
    """Extracts clips, a bounded number at a time. `failures` and `clips_extracted` are the outcome."""

    def __init__(self, group: BackboneGroup, engine: engines.Engine):
        self.group, self.engine = group, engine
        self.failures: list[dict[str, str]] = []
        self.clips_extracted = 0
        self._lock = threading.Lock()

    def extract(self, todo: Sequence[WantedClip], workers: int, logs: Path | None = None) -> None:
        """Extract all of `todo` into the stores by `workers` threads. TensorBoard scalars of the speed go to `logs`.

        Clips that the system could not read are tried once more at the end. Otherwise a later run that can read them
        would have other clips than this one. Any error but an unreadable clip ends the pass and is raised.
        """
        before = self.failures
        self.failures = []
        self._extract(todo, workers, logs)
        not_given = {f["path"] for f in self.failures if f["reason"].startswith(NOT_READ)}
        if not_given:
            self.failures = [f for f in self.failures if f["path"] not in not_given]
            self._extract([clip for clip in todo if str(clip.path) in not_given], workers)
        self.failures = before + self.failures

    def _extract(self, todo: Sequence[WantedClip], workers: int, logs: Path | None = None) -> None:
        in_flight: set[Future[None]] = set()
        pace = _Pace(self.engine, len(todo), logs)
        # clips are decoded in parallel, so threads of OpenCV's own would only slow them down
        cv2.setNumThreads(1)
        pool = ThreadPoolExecutor(workers)
        try:
            with console.progress(total=len(todo), unit="clip", desc="features") as bar:
                clips_left = iter(todo)
                while True:
                    # one more than there are workers, so that none has to wait for its next clip
                    room = workers + 1 - len(in_flight)
                    in_flight |= {
                        pool.submit(self._clip, clip) for clip in itertools.islice(clips_left, room)
                    }
                    if not in_flight:
                        break
                    done, in_flight = wait(in_flight, REPORT_EVERY_S, FIRST_COMPLETED)
                    bar.update(self._collect(done))
                    pace.tick(bar.n)
            pace.finish(bar.n)
        finally:
            cv2.setNumThreads(-1)
            pool.shutdown(cancel_futures=True)  # after an error or interrupt, waiting clips are dropped
            pace.close()

    def _collect(self, done: set[Future[None]]) -> int:
        for future in done:
            future.result()  # a bug or a full disk stops the run here
        return len(done)

    def _clip(self, clip: WantedClip) -> None:
        try:
            values = self._features(clip)
            _check_finite(clip, values)
        except UnreadableVideo as e:
            with self._lock:
                self.failures.append(e.failure())
            return
        for name, store in self.group.stores.items():
            store.add(clip.clip_id, values[name], self.engine.name, by_time=clip.by_time)
        with self._lock:
            self.clips_extracted += 1

    def _features(self, clip: WantedClip) -> dict[str, dict[str, np.ndarray]]:
        """{model input: {variant: (T, C) float32}} of one clip; waits until the engine has computed all."""
        clip.check_unchanged()
        size = self.group.backbones[0].input_size
        wanted, kept = clip.variants, {}
        if augment.CLOSER in wanted and augment.PLAIN not in wanted:  # a closer look may be the plain clip
            kept = {name: s.read(clip.clip_id, [augment.PLAIN])[0] for name, s in self.group.stores.items()}
        variants = pictures.clip_variants(clip.path, clip.clip_id, wanted, size, self.group.config)
        jobs: list[tuple[str, str, Future[np.ndarray]]] = []
        values: dict[str, dict[str, np.ndarray]] = {name: {} for name in self.group.stores}
        same: list[str] = []  # variants that show the plain clip
        for variant, streams in variants:
            if not streams:
                same.append(variant)
                continue
            jobs += [(stream, variant, self.engine.submit(images)) for stream, images in streams.items()]
        for stream, variant, job in jobs:
            for name, features in self.group.by_input(stream, job.result()).items():
                values[name][variant] = features
        for name, by_variant in values.items() if same else ():
            by_variant |= dict.fromkeys(same, kept[name] if kept else by_variant[augment.PLAIN])
        return values


def _check_finite(clip: WantedClip, values: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Raise UnreadableVideo, naming the clip, if a feature is not finite in float16, as which it would be cached."""
    for name, variants in values.items():
        for variant, features in variants.items():
            with np.errstate(over="ignore"):
                finite = np.isfinite(features.astype(np.float16))
            if not finite.all():
                wrong = features[~finite].flat[0]
                raise UnreadableVideo(
                    clip.path,
                    f"its features by {name} ({variant}) are not finite in float16, such as {wrong:g}",
                )
