"""Extract the features that are missing from the cache.

Finished clips are on disk at once; killed at any moment, the same command goes on with the clips that are missing.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from violence_detection.backbones import engines, registry
from violence_detection.errors import UserError
from violence_detection.features import cache, estimate, extract_ray, precision
from violence_detection.features.cache import FeatureStore
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.extract_run import ExtractionPass, WantedClip, default_workers
from violence_detection.system import storage
from violence_detection.video.config import STREAMS

log = logging.getLogger(__name__)
#: What other writers have spoilt meanwhile is made again so often.
_ROUNDS = 3


@dataclass
class Extraction:
    """What is in the cache after a run: a store per model input, and the clips that could not be read."""

    stores: dict[str, FeatureStore]
    failures: list[dict[str, str]] = field(default_factory=list)
    clips_extracted: int = 0
    seconds: float = 0.0
    machines: int = 1


@dataclass(frozen=True)
class _Part:
    """One backbone's share: its stores by stream, and the clips with the variants that they lack."""

    config: FeatureConfig
    backbone: registry.Backbone
    weights: Path
    stores: dict[str, FeatureStore]
    todo: list[WantedClip]


def ensure(
    wanted: Sequence[WantedClip],
    config: FeatureConfig,
    data_root: Path,
    workers: int = 0,
    *,
    ray: str | None = None,
    usd_per_hour: float = 0.0,
    verify: bool = False,
) -> Extraction:
    """See that the cache holds every wanted variant of every backbone and stream.

    Unreadable clips are named in `failures`. Says beforehand what it takes. Raises UserError where weights or an engine
    cannot be had, or the disk is too small. `ray`: address of a cluster to spread the clips over. `verify`: compare the
    checksums of all entries, not only of those that are new or have changed. An entry that a store finds damaged later,
    when it is read, is made again there and then.
    """
    check(config)
    if config.backbone_weights:  # a worker, or whoever makes a feature again, may have another working folder
        config = replace(config, backbone_weights=config.backbone_weights.absolute())
    started = time.monotonic()
    by_id = {clip.clip_id: replace(clip, path=clip.path.absolute()) for clip in wanted}
    maker = functools.partial(_make_again, by_id, config, data_root.absolute(), workers)
    parts = []
    for name in config.backbone:
        backbone = registry.get(name)
        settings = registry.settings(config, name)
        weights = backbone.weights_file(config.backbone_weights)
        stores = {
            stream: FeatureStore.open(data_root, cache.record(config, name, stream, weights), maker)
            for stream in settings.streams
        }
        for store in stores.values():
            storage.remove_abandoned(store.folder)
        todo = _missing(wanted, stores, verify)
        log.info(
            "%s: %d of %d clips need features (%s)", name, len(todo), len(wanted), ", ".join(settings.streams)
        )
        parts.append(_Part(settings, backbone, weights, stores, todo))
    estimate.check_disk(
        data_root,
        sum(
            estimate.needed_bytes(p.todo, p.backbone.steps(p.config.frames), p.backbone.feature_dim)
            * len(p.stores)
            for p in parts
        ),
    )
    out = Extraction(
        {cache.input_name(p.backbone.name, s): store for p in parts for s, store in p.stores.items()}
    )
    for part in parts:
        _extract_part(part, wanted, out, data_root, workers, ray, usd_per_hour)
    named = {(f["path"], f["reason"]): f for f in out.failures}  # once, even if several backbones met it
    out.failures = [named[key] for key in sorted(named)]
    out.seconds = time.monotonic() - started
    if out.clips_extracted:
        log.info("features took %s", estimate.time_and_cost(out.seconds, usd_per_hour * out.machines))
    return out


def ensure_for(wanted: Sequence[WantedClip], config: FeatureConfig, where: ExtractConfig) -> Extraction:
    """`ensure` with the settings of a training script."""
    return ensure(
        wanted,
        config,
        where.data_root,
        where.workers,
        ray=where.ray,
        usd_per_hour=where.usd_per_hour,
        verify=where.verify_features,
    )


def check(config: FeatureConfig) -> None:
    """Raise UserError for settings that cannot work, before any work starts."""
    if unknown := sorted(set(config.streams) - set(STREAMS)):
        raise UserError(f"unknown stream {unknown[0]!r}. Use one or both of: {','.join(STREAMS)}")
    if not config.backbone or not config.streams:
        raise UserError("--backbone and --streams need at least one name each")
    for name in config.backbone:
        if (taken := registry.settings(config, name).streams) != config.streams:
            log.info("%s takes the stream %s only", name, ", ".join(taken))
    if config.backbone_weights and len(config.backbone) > 1:
        raise UserError("--backbone-weights takes one file, so it goes with one --backbone")
    if config.frames < 2 or config.window_s <= 0:
        raise UserError("--frames must be at least 2 and --window-s above 0")
    if config.focus and not 0.25 <= config.focus <= 0.9:
        raise UserError("--focus must be from 0.25 to 0.9, or 0 for the whole picture only")
    if config.i3d_frames < 16:
        raise UserError("--i3d-frames must be at least 16, what the published classifier needs for two steps")


def _missing(
    wanted: Sequence[WantedClip], stores: Mapping[str, FeatureStore], verify: bool
) -> list[WantedClip]:
    todo = []
    with ThreadPoolExecutor() as pool:
        present = {
            stream: list(
                pool.map(lambda clip, store=store: store.variants(clip.clip_id, verify=verify), wanted)
            )
            for stream, store in stores.items()
        }
    for i, clip in enumerate(wanted):
        have = [present[s][i] for s in stores]
        for store, variants in zip(stores.values(), have, strict=True):
            if variants is None:
                log.warning("damaged cache entry %s: made again", store.path(clip.clip_id))
        common = frozenset.intersection(*(v or frozenset() for v in have))
        if lacking := tuple(v for v in clip.variants if v not in common):
            todo.append(WantedClip(clip.clip_id, clip.path, lacking))
    for store in stores.values():
        store.index.save()
    return todo


def _extract_part(
    part: _Part,
    wanted: Sequence[WantedClip],
    out: Extraction,
    data_root: Path,
    workers: int,
    ray: str | None,
    usd_per_hour: float,
) -> None:
    """Extract what the part lacks, and look whether it is all there."""
    todo = part.todo
    for _ in range(_ROUNDS):
        if not todo:
            return
        try:
            if ray:
                done = extract_ray.extract(
                    ray,
                    todo,
                    part.config,
                    part.backbone.name,
                    part.stores,
                    data_root,
                    workers,
                    usd_per_hour,
                    _log_folder(data_root, part.backbone.name),
                )
            else:
                done = _extract_here(part, todo, wanted, data_root, workers, usd_per_hour)
        finally:
            for store in part.stores.values():
                store.index.save()
        out.failures += done.failures
        out.clips_extracted += done.clips_extracted
        out.machines = max(out.machines, done.machines)
        failed = {f["path"] for f in done.failures}
        todo = _missing([c for c in wanted if str(c.path) not in failed], part.stores, verify=False)
    if todo:
        folders = " and ".join(str(store.folder) for store in part.stores.values())
        raise UserError(
            f"features of {len(todo)} clips (first: {todo[0].path}) are gone from {folders} as soon as they are "
            "written. See whether something else writes or deletes there, and whether the disk is sound"
        )


def _extract_here(
    part: _Part,
    todo: Sequence[WantedClip],
    wanted: Sequence[WantedClip],
    data_root: Path,
    workers: int,
    usd_per_hour: float,
) -> extract_ray.ExtractionDone:
    """Extract with this machine's engine; the first clips, or an earlier run, say how long the others take."""
    probe = precision.probe_of(todo, part.backbone, part.config)
    engine = engines.create(part.config.engine, part.backbone, part.weights, part.config.frames, probe)
    precision.admit(engine, part.stores, wanted, part.backbone, part.config)
    run = ExtractionPass(part.config, part.backbone, part.stores, engine)
    workers = workers or default_workers()
    rates = estimate.RateRecord(next(iter(part.stores.values())).folder)
    rate = rates.known()
    if rate is None and len(todo) >= estimate.WORTH_MEASURING * workers:
        first, todo = todo[: 2 * workers], todo[2 * workers :]
        rate = estimate.measured(lambda: run.extract(first, workers), first)
    if rate:
        needed = estimate.time_and_cost(estimate.count_variants(todo) / rate, usd_per_hour)
        log.info("%s: %d clips will take about %s", part.backbone.name, len(todo), needed)
    rate = estimate.measured(
        lambda: run.extract(todo, workers, _log_folder(data_root, part.backbone.name)), todo
    )
    if len(todo) >= estimate.WORTH_MEASURING * workers:
        rates.note(rate)
    return extract_ray.ExtractionDone(run.failures, run.clips_extracted)


def _log_folder(data_root: Path, backbone: str) -> Path:
    return data_root / "features" / "tensorboard_logs" / f"{backbone}-{time.strftime('%Y%m%d-%H%M%S')}"


def _make_again(
    by_id: Mapping[str, WantedClip], config: FeatureConfig, data_root: Path, workers: int, clip_id: str
) -> None:
    """Extract one clip anew. Raises UserError if it can no longer be read."""
    for failure in ensure([by_id[clip_id]], config, data_root, workers, verify=True).failures:
        raise UserError(
            f"the cached feature of {failure['path']} is lost, and the clip cannot be read ({failure['reason']}). "
            "Run the same command again: it leaves the clip out"
        )
