"""Extract the features that are missing: threads decode and augment, the engine runs the backbone meanwhile.

Finished clips are on disk at once; killed at any moment, the same command goes on with the clips that are missing.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from violence_detection import backbones, cli, clips, engines, features, precision
from violence_detection.config import FeatureConfig
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.features import FeatureStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Clip:
    """A clip and the variants of it that are wanted."""

    clip_id: str
    path: Path
    variants: tuple[str, ...]


@dataclass
class Extraction:
    """What is in the cache after a run: a store per model input, and the clips that could not be read."""

    stores: dict[str, FeatureStore]
    failures: list[dict[str, str]] = field(default_factory=list)
    clips_extracted: int = 0
    seconds: float = 0.0


def ensure(wanted: Sequence[Clip], config: FeatureConfig, data_root: Path, workers: int = 0) -> Extraction:
    """See that the cache holds every wanted variant of every backbone and stream.

    Unreadable clips are named in `failures`. Raises UserError where weights or an engine cannot be had.
    """
    check(config)
    out = Extraction({})
    started = time.monotonic()
    for name in config.backbone:
        backbone = backbones.get(name)
        settings = backbones.settings(config, name)
        weights = backbone.weights_file(config.backbone_weights)
        stores = {
            stream: FeatureStore.open(data_root, features.record(config, name, stream, weights))
            for stream in settings.streams
        }
        out.stores |= {features.input_name(name, stream): store for stream, store in stores.items()}
        for store in stores.values():
            features.clean_temporary(store.folder)
        todo = _missing(wanted, stores)
        log.info(
            "%s: %d of %d clips need features (%s)", name, len(todo), len(wanted), ", ".join(settings.streams)
        )
        if todo:
            probe = precision.probe_of(todo, backbone, settings)
            engine = engines.create(config.engine, backbone, weights, settings.frames, probe)
            precision.admit(engine, stores, wanted, backbone, settings)
            _Run(settings, backbone, stores, engine, out).run(todo, workers or 2 * (os.cpu_count() or 1))
    named = {(f["path"], f["reason"]): f for f in out.failures}  # once, even if several backbones met it
    out.failures = [named[key] for key in sorted(named)]
    out.seconds = time.monotonic() - started
    return out


def check(config: FeatureConfig) -> None:
    """Raise UserError for settings that cannot work, before any work starts."""
    from violence_detection.config import STREAMS

    if unknown := sorted(set(config.streams) - set(STREAMS)):
        raise UserError(f"unknown stream {unknown[0]!r}. Use one or both of: {','.join(STREAMS)}")
    if not config.backbone or not config.streams:
        raise UserError("--backbone and --streams need at least one name each")
    for name in config.backbone:
        if (taken := backbones.settings(config, name).streams) != config.streams:
            log.info("%s takes the stream %s only", name, ", ".join(taken))
    if config.backbone_weights and len(config.backbone) > 1:
        raise UserError("--backbone-weights takes one file, so it goes with one --backbone")
    if config.frames < 2 or config.window_s <= 0:
        raise UserError("--frames must be at least 2 and --window-s above 0")
    if config.i3d_frames < 16:
        raise UserError("--i3d-frames must be at least 16, what the published classifier needs for two steps")


def _missing(wanted: Sequence[Clip], stores: Mapping[str, FeatureStore]) -> list[Clip]:
    todo = []
    with ThreadPoolExecutor() as pool:
        present = {
            s: list(pool.map(store.variants, [c.clip_id for c in wanted])) for s, store in stores.items()
        }
    for i, clip in enumerate(wanted):
        have = [present[s][i] for s in stores]
        for store, variants in zip(stores.values(), have, strict=True):
            if variants is None:
                log.warning("damaged cache entry %s: made again", store.path(clip.clip_id))
        common = frozenset.intersection(*(v or frozenset() for v in have))
        if lacking := tuple(v for v in clip.variants if v not in common):
            todo.append(Clip(clip.clip_id, clip.path, lacking))
    return todo


class _Run:
    """One pass over the clips of one backbone; a bounded number of clips is in flight."""

    def __init__(
        self,
        config: FeatureConfig,
        backbone: backbones.Backbone,
        stores: Mapping[str, FeatureStore],
        engine: engines.Engine,
        out: Extraction,
    ):
        self.config, self.backbone, self.stores, self.engine, self.out = config, backbone, stores, engine, out
        self._lock = threading.Lock()

    def run(self, todo: Sequence[Clip], workers: int) -> None:
        in_flight: set[Future[None]] = set()
        pool = ThreadPoolExecutor(workers)
        try:
            with cli.progress(total=len(todo), unit="clip", desc="features") as bar:
                for clip in todo:
                    in_flight.add(pool.submit(self._clip, clip))
                    if len(in_flight) > 2 * workers:
                        done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
                        bar.update(self._collect(done))
                while in_flight:
                    done, in_flight = wait(in_flight, return_when=FIRST_COMPLETED)
                    bar.update(self._collect(done))
        finally:
            pool.shutdown(cancel_futures=True)  # an error or an interrupt does not wait for clips not begun

    def _collect(self, done: set[Future[None]]) -> int:
        for future in done:
            future.result()  # a bug or a full disk stops the run here
        return len(done)

    def _clip(self, clip: Clip) -> None:
        try:
            values = self._features(clip)
        except UnreadableVideo as e:
            with self._lock:
                self.out.failures.append({"path": e.path, "reason": e.reason})
            return
        for stream, store in self.stores.items():
            store.add(clip.clip_id, values[stream], self.engine.name)
        with self._lock:
            self.out.clips_extracted += 1

    def _features(self, clip: Clip) -> dict[str, dict[str, np.ndarray]]:
        """{stream: {variant: (T, C) float32}} of one clip; waits until the engine has done all of it."""
        variants = clips.clip_variants(
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
