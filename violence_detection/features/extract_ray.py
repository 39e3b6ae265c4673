"""Spreads an extraction over a Ray cluster whose machines share the data root. A task is a shard of the clips.

Every machine writes to the same cache. If a worker or machine dies, its shard is started again and goes on with the
clips that are still missing.
"""

from __future__ import annotations

import functools
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from violence_detection.backbones import engines
from violence_detection.errors import NOT_READ, UserError
from violence_detection.features import engine_check, estimate, key
from violence_detection.features.cache import RECORD_NAME, FeatureStore, outdated
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.extraction_pass import (
    BackboneGroup,
    ExtractionPass,
    WantedClip,
    open_groups,
)
from violence_detection.features.meter import Meter
from violence_detection.system import console, processes, ray_cluster

log = logging.getLogger(__name__)
#: Shards for each worker: several, so that all workers finish at about the same time.
_SHARDS_PER_WORKER = 8
#: The most clips in a shard. Large, because on GPUs a process is started for each shard; if it dies, the clips that it
#: has finished are kept.
_MOST_CLIPS = 1024


@dataclass
class ExtractionDone:
    """The outcome of an extraction."""

    failures: list[dict[str, str]] = field(default_factory=list)
    clips_extracted: int = 0
    machines: int = 1


@dataclass(frozen=True)
class _Shard:
    """The outcome of a shard on a machine.

    `busy_s`: seconds in which the worker did not wait for the decoder, including its start.
    """

    machine: str
    failures: list[dict[str, str]]
    clips_extracted: int
    images_done: int
    busy_s: float


@dataclass
class _Workers:
    """What all workers together have done so far: a meter.Counts. `n_runners`: the number of workers."""

    n_runners: int
    images_done: int = 0
    busy_s: float = 0.0


@dataclass(frozen=True)
class _Task:
    """All that a worker needs to know.

    `folders`: model input -> the cache's folder as the machine that started the work sees it. `workers`: decoding
    threads. `cpus`: the worker's share of its machine's processors. `whole`: see BackboneGroup.
    """

    config: FeatureConfig
    whole: FeatureConfig | None
    how: ExtractConfig
    folders: dict[str, Path]
    workers: int
    cpus: int


def extract(
    address: str, todo: Sequence[WantedClip], group: BackboneGroup, how: ExtractConfig, logs: Path
) -> ExtractionDone:
    """Extract all of `todo` into the stores; failures name clips by the paths there. TensorBoard scalars go to `logs`.

    Raises UserError if a machine of the cluster has another data root or other weights, or cannot read a clip that this
    machine can.
    """
    how = replace(how, data_root=how.data_root.absolute())
    as_given = {str(c.path.absolute()): str(c.path) for c in todo}
    folders = {name: store.folder.absolute() for name, store in group.stores.items()}
    config = replace(group.config, backbone=tuple(b.name for b in group.backbones))
    with ray_cluster.connected(address) as resources:
        machines = ray_cluster.machines()
        cpus_each, gpus_each = _share(machines)
        slots = max(1, int(resources.get("GPU", 0) if gpus_each else resources.get("CPU", 1) // cpus_each))
        cpus = max(1, int(cpus_each))
        task = _Task(config, group.whole, how, folders, how.workers or 2 * cpus, cpus)
        shards = _shards([replace(c, path=c.path.absolute()) for c in todo], slots)
        log.info("%s: %d shards for %d workers of the Ray cluster", group.name, len(shards), slots)
        out, extracted, started = ExtractionDone(machines=len(machines)), 0, time.monotonic()
        did = _Workers(n_runners=min(slots, len(shards)))  # more workers than shards: the rest are idle
        meter = Meter(did, len(todo), logs)
        results = ray_cluster.map_unordered(
            address,
            functools.partial(_extract_shard, task),
            shards,
            cpus_each=cpus_each,
            gpus_each=gpus_each,
            what="shard of clips",
        )
        with meter, console.progress(total=len(todo), unit="clip", desc="features") as bar:
            for count, (index, done) in enumerate(results, 1):
                _check_seen(done)
                out.failures += [f | {"path": as_given[f["path"]]} for f in done.failures]
                out.clips_extracted += done.clips_extracted
                extracted += len(shards[index])
                did.images_done += done.images_done
                did.busy_s += done.busy_s
                bar.update(len(shards[index]))
                meter.tick(extracted)
                if count == slots and extracted < len(todo):
                    left_s = (time.monotonic() - started) / extracted * (len(todo) - extracted)
                    needed = estimate.time_and_cost(left_s, how.usd_per_hour * len(machines))
                    log.info("the remaining clips will take about %s", needed)
            meter.finish(extracted)
    for store in group.stores.values():
        store.index.reload()
    return out


def _share(machines: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """(CPUs, GPUs) per worker: one GPU and its share of the processors if there are GPUs, otherwise a whole machine."""
    with_gpu = [m for m in machines if m.get("GPU", 0) >= 1]
    if with_gpu:
        return max(1.0, min(m.get("CPU", 1) // m["GPU"] for m in with_gpu)), 1.0
    return max(1.0, min((m["CPU"] for m in machines if m.get("CPU", 0) >= 1), default=1.0)), 0.0


def _shards(clips: Sequence[WantedClip], slots: int) -> list[list[WantedClip]]:
    size = max(1, min(_MOST_CLIPS, -(-len(clips) // (slots * _SHARDS_PER_WORKER))))
    return [list(clips[i : i + size]) for i in range(0, len(clips), size)]


def _extract_shard(task: _Task, clips: Sequence[WantedClip]) -> _Shard:
    """Run by a worker: extract the clips of the shard that are still missing."""
    begun = time.monotonic()
    (group,) = open_groups(task.config, task.how.backbone_weights, functools.partial(_store, task))
    group = replace(group, whole=task.whole)
    todo = [c for c in clips if not _is_whole(c, group)]
    engine = _engine(task, group, clips)
    group.check_engine(engine, clips)
    run = ExtractionPass(group, engine)
    images, busy_s, ready = engine.images_done, engine.busy_s, time.monotonic()
    try:
        run.extract(todo, task.workers)
    finally:
        for store in group.stores.values():
            store.index.save()
    return _Shard(
        platform.node(),
        run.failures,
        run.clips_extracted,
        engine.images_done - images,
        (engine.busy_s - busy_s) / engine.n_runners + ready - begun,
    )


def _check_seen(done: _Shard) -> None:
    """Raise UserError if the shard's machine could not read a clip from disk that this machine can read.

    Such a clip is not unreadable. A machine without access to the clips would cause all of its shards to be left out.
    """
    for failure in done.failures:
        if failure["reason"].startswith(NOT_READ) and _is_read_here(failure["path"]):
            raise UserError(
                f"{done.machine} does not see {failure['path']} ({failure['reason']}), but this machine does. With "
                "--ray, put the clips, and the files they link to, on a volume that every machine of the cluster "
                "mounts at the same path"
            )


def _is_read_here(path: str) -> bool:
    try:
        with Path(path).open("rb") as f:
            return bool(f.read(1))
    except OSError:
        return False


def _store(task: _Task, backbone: str, stream: str, weights: Path) -> FeatureStore:
    """The shared store. Raises UserError unless this machine sees it as the one that started the work does."""
    folder = task.folders[key.input_name(backbone, stream)]
    record = key.record(task.config, backbone, stream, weights)
    if (here := key.folder_of(task.how.data_root, record)) != folder:
        raise UserError(
            f"{platform.node()} would write to {here.name} instead of {folder.name}: its weights of {backbone} "
            f"({weights}) differ from those of the machine that started the work. Install the same weights on both"
        )
    if not (folder / RECORD_NAME).is_file():
        raise UserError(
            f"{platform.node()} does not see {folder}. With --ray, the data root must be on a volume that every "
            "machine of the cluster mounts at the same path"
        )
    return FeatureStore(folder)


def _is_whole(clip: WantedClip, group: BackboneGroup) -> bool:
    present = [store.variants(clip.clip_id, verify=False) or frozenset() for store in group.stores.values()]
    return all(set(clip.variants) <= there and not outdated(there, clip.by_time) for there in present)


_engines: dict[tuple[Any, ...], engines.Engine] = {}


def _engine(task: _Task, group: BackboneGroup, clips: Sequence[WantedClip]) -> engines.Engine:
    """The worker's engine, built once per process. On CPUs a process works on several shards, on GPUs on one."""
    kind, backbone, frames = task.how.engine, group.backbone, group.config.frames
    built = (kind, backbone.name, group.weights, frames)
    if built not in _engines:
        with processes.limited_to(task.cpus):
            _engines[built] = engines.create(
                kind,
                backbone,
                group.weights,
                frames,
                lambda: engine_check.probe_images(clips, group.probed),
                precision=task.how.precision,
            )
    return _engines[built]
