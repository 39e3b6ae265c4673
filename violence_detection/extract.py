"""Extract the features that are missing from the cache.

Finished clips are on disk at once; killed at any moment, the same command goes on with the clips that are missing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from violence_detection import backbones, engines, features, storage
from violence_detection.config import FeatureConfig
from violence_detection.errors import UserError
from violence_detection.extract_run import Clip, Run
from violence_detection.features import FeatureStore

log = logging.getLogger(__name__)


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
        weights = backbone.weights_file(config.backbone_weights)
        stores = {
            stream: FeatureStore.open(data_root, features.record(config, name, stream, weights))
            for stream in config.streams
        }
        out.stores |= {features.input_name(name, stream): store for stream, store in stores.items()}
        for store in stores.values():
            storage.remove_abandoned(store.folder, ".npz")
        todo = _missing(wanted, stores)
        log.info(
            "%s: %d of %d clips need features (%s)", name, len(todo), len(wanted), ", ".join(config.streams)
        )
        if todo:
            engine = engines.create(config.engine, backbone, weights, config.frames)
            run = Run(config, backbone, stores, engine)
            run.extract(todo, workers or 2 * (os.cpu_count() or 1))
            out.failures += run.failures
            out.clips_extracted += run.clips_extracted
    named = {(f["path"], f["reason"]): f for f in out.failures}  # once, even if several backbones met it
    out.failures = [named[key] for key in sorted(named)]
    out.seconds = time.monotonic() - started
    return out


def check(config: FeatureConfig) -> None:
    """Raise UserError for settings that cannot work, before any work starts."""
    from violence_detection.config import STREAMS

    for name in config.backbone:
        backbones.get(name)
    if unknown := sorted(set(config.streams) - set(STREAMS)):
        raise UserError(f"unknown stream {unknown[0]!r}. Use one or both of: {','.join(STREAMS)}")
    if not config.backbone or not config.streams:
        raise UserError("--backbone and --streams need at least one name each")
    if config.backbone_weights and len(config.backbone) > 1:
        raise UserError("--backbone-weights takes one file, so it goes with one --backbone")
    if config.frames < 2 or config.window_s <= 0:
        raise UserError("--frames must be at least 2 and --window-s above 0")


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
