"""Extract the features that are missing from the cache.

Finished clips are on disk at once; killed at any moment, the same command goes on with the clips that are missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from violence_detection.backbones import engines, registry
from violence_detection.combine import manifest
from violence_detection.errors import NOT_READ, UserError
from violence_detection.features import engine_check, extract_ray, key
from violence_detection.features.cache import FeatureStore, outdated
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.extraction_pass import (
    BackboneGroup,
    ExtractionPass,
    WantedClip,
    default_workers,
    open_groups,
)
from violence_detection.system import disks, storage
from violence_detection.system.disks import RESERVE_BYTES, free_bytes_of, gigabytes
from violence_detection.video import augment
from violence_detection.video.config import STREAMS

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
_EngineMaker: TypeAlias = Callable[[BackboneGroup, Sequence[WantedClip], ExtractConfig], engines.Engine]
#: What other writers have spoilt meanwhile is made again so often.
_ROUNDS = 3
#: So many clips a decoding thread make a run long enough to tell its rate; and seconds that one is told after.
WORTH_MEASURING, WORTH_TELLING_S = 8, 60.0
#: Of more clips than this share (or one) that the system does not give, a volume that has gone away is the reason.
_NOT_GIVEN_SHARE = 0.01
#: Bytes of a cache entry beside the values: who made it, the end of the directory; and of each variant.
_ENTRY_BYTES, _VARIANT_BYTES = 400, 270


@dataclass
class Extraction:
    """What is in the cache after a run: a store per model input, and the clips that could not be read."""

    stores: dict[str, FeatureStore]
    failures: list[dict[str, str]] = field(default_factory=list)
    clips_extracted: int = 0
    seconds: float = 0.0
    machines: int = 1

    def report(self, wanted: int) -> None:
        """Log the rate, and each clip that could not be read.

        Raises UserError if that is every one of `wanted`, or if the system did not give more than a few of them.
        """
        if self.clips_extracted:
            rate = self.clips_extracted / self.seconds
            log.info("features: %d clips in %.0f s (%.1f clips/s)", self.clips_extracted, self.seconds, rate)
        for failure in self.failures:
            log.warning("left out: %s (%s)", failure["path"], failure["reason"])
        if len(self.failures) == wanted:
            raise UserError(
                f"none of the {wanted} clips could be read. First: {self.failures[0]['path']}: "
                f"{self.failures[0]['reason']}. Run: python find_all_datasets.py --check, with the --data-root "
                "and --own of these clips"
            )
        not_given = [f for f in self.failures if f["reason"].startswith(NOT_READ)]
        if len(not_given) > max(1, wanted * _NOT_GIVEN_SHARE):
            raise UserError(
                f"the system does not give {len(not_given)} of the {wanted} clips. First: {not_given[0]['path']}: "
                f"{not_given[0]['reason']}. See whether their volume is mounted and answers; the same command goes on "
                "with them. Clips that are gone for good are taken out with: python combine_all_datasets.py, with the "
                "flags you combine with"
            )


def ensure(wanted: Sequence[WantedClip], config: FeatureConfig, how: ExtractConfig) -> Extraction:
    """See that the cache holds every wanted variant of every backbone and stream.

    Unreadable clips are named in `failures`. Says beforehand what it takes. Raises UserError where weights or an engine
    cannot be had, or the disk is too small. An entry that a store finds damaged later, when it is read, is made again
    there and then.
    """
    return _ensure(wanted, config, how, _engine)


def weights_to_hand_on(config: FeatureConfig, how: ExtractConfig) -> Path | None:
    """What the backbones take of --backbone-weights, see registry.handed_over; machines of a cluster take no more."""
    given = registry.handed_over(config.backbone, how.backbone_weights)
    if how.ray and how.backbone_weights and given is None:
        log.warning(
            "%s is kept on this machine alone; the cluster's others look into a cache of their own: KERAS_HOME, set on "
            "each before `ray start`, can name one folder for all",
            how.backbone_weights,
        )
    return given


def _ensure(
    wanted: Sequence[WantedClip], config: FeatureConfig, how: ExtractConfig, engine_for: _EngineMaker
) -> Extraction:
    check(config)
    for name in config.backbone:
        if (taken := key.for_backbone(config, name).streams) != config.streams:
            log.info("%s takes of the streams only: %s", name, ", ".join(taken))
    given = weights_to_hand_on(config, how)
    # a worker, or whoever makes a feature again, may have another working folder
    how = replace(how, backbone_weights=given and given.absolute())
    started = time.monotonic()
    by_id = {clip.clip_id: replace(clip, path=clip.path.absolute()) for clip in wanted}
    again = replace(how, data_root=how.data_root.absolute(), ray=None, verify_features=True)
    restore = _Remaker(by_id, config, again)

    def open_store(backbone: str, stream: str, weights: Path) -> FeatureStore:
        store = FeatureStore.open(how.data_root, key.record(config, backbone, stream, weights), restore)
        storage.remove_abandoned(store.folder)
        return store

    groups = open_groups(config, how.backbone_weights, open_store)
    out = Extraction({name: store for group in groups for name, store in group.stores.items()})
    parts = []
    for group in groups:
        lacking = _parts(group, wanted, how.verify_features)
        for part, todo in lacking or [(group, [])]:
            streams = ", ".join(part.config.streams)
            log.info("%s: %d of %d clips need features (%s)", part.name, len(todo), len(wanted), streams)
        parts += lacking
    _check_disk(how.data_root, parts)
    for part, todo in parts:
        _extract_part(part, todo, wanted, out, how, engine_for)
    named = {(f["path"], f["reason"]): f for f in out.failures}  # once, even if several backbones met it
    out.failures = [named[key] for key in sorted(named)]
    out.seconds = time.monotonic() - started
    if out.seconds >= WORTH_TELLING_S:
        from violence_detection.features import estimate

        log.info("features took %s", estimate.time_and_cost(out.seconds, how.usd_per_hour * out.machines))
    return out


def clips_of(rows: pd.DataFrame, combined: Path, variants: Sequence[str]) -> list[WantedClip]:
    """The clips of the manifest's rows, each with the same variants wanted."""
    columns = (rows[name].tolist() for name in ("clip_id", "path", "by_time", "sha256"))
    return [
        WantedClip(
            clip_id,
            combined / path,
            tuple(variants),
            by_time,
            # a clip that was cut out of a longer video is known by that, and may have been cut anew
            sha256 if sha256.startswith(clip_id) else "",
        )
        for clip_id, path, by_time, sha256 in zip(*columns, strict=True)
    ]


def all_clips(how: ExtractConfig) -> list[WantedClip]:
    """What training takes of the whole manifest: all variants of the clips of train, those of val plain."""
    return training_clips(manifest.read(how.data_root / "combined_all"), how)


def training_clips(frame: pd.DataFrame, how: ExtractConfig) -> list[WantedClip]:
    """The same of the manifest's rows."""
    combined, variants = how.data_root / "combined_all", augment.variant_names("v", how.augment)
    is_train = frame.split == "train"
    return clips_of(frame[is_train], combined, variants) + clips_of(frame[~is_train], combined, variants[:1])


def without_failures(
    frame: pd.DataFrame, combined: Path, failures: Sequence[Mapping[str, str]]
) -> pd.DataFrame:
    """The manifest's rows without the clips that failed, in order of clip id."""
    failed = {f["path"] for f in failures}
    keep = [str(combined / p) not in failed for p in frame.path]
    return frame[keep].sort_values("clip_id", ignore_index=True)


def check(config: FeatureConfig) -> None:
    """Raise UserError for settings that cannot work, before any work starts."""
    if unknown := sorted(set(config.streams) - set(STREAMS)):
        raise UserError(f"unknown stream {unknown[0]!r}. Use one or more of: {','.join(STREAMS)}")
    for flag, names in (("--backbone", config.backbone), ("--streams", config.streams)):
        if not names or len(set(names)) != len(names):
            raise UserError(f"{flag} needs at least one name, each once. Received: {','.join(names)!r}")
    for name in config.backbone:
        registry.get(name)  # which says what names there are
    if config.focus and "crop" in config.streams:
        raise UserError("--focus and the stream crop are two ways to look at a part of the picture: give one")
    if config.focus and not 0.25 <= config.focus <= 0.9:
        raise UserError("--focus must be from 0.25 to 0.9, or 0 for the whole picture only")


def check_taken(config: FeatureConfig) -> None:
    """Raise UserError for a setting other than the default that none of the backbones takes; of what a model was
    trained with there may be some, which earlier versions took.
    """
    samplings = [registry.get(name).sampling for name in config.backbone]
    passed_over = ["frames"] if all(s.frames for s in samplings) else []
    if not any("motion" in s.taken(config.streams) for s in samplings):
        passed_over += ["motion_spacing_s", "motion_gain"]
    for name in passed_over:
        if getattr(config, name) != getattr(FeatureConfig, name):
            raise UserError(
                f"--{name.replace('_', '-')} would do nothing: none of --backbone {','.join(config.backbone)} takes it "
                f"with --streams {','.join(config.streams)}. Leave it out"
            )


def _lacking(wanted: Sequence[WantedClip], store: FeatureStore, verify: bool = False) -> list[frozenset[str]]:
    """Of each clip the wanted variants that its entry lacks; `verify`: compare the checksums of all entries."""
    with ThreadPoolExecutor() as pool:
        present = list(pool.map(lambda clip: store.variants(clip.clip_id, verify=verify), wanted))
    lacking = []
    for clip, there in zip(wanted, present, strict=True):
        if there is None:
            log.warning("damaged cache entry %s: made again", store.path(clip.clip_id))
        whole = there if there and not outdated(there, clip.by_time) else frozenset()
        lacking.append(frozenset(clip.variants) - whole)
    store.index.save()
    return lacking


def _to_do(wanted: Sequence[WantedClip], lacking: Sequence[Sequence[frozenset[str]]]) -> list[WantedClip]:
    """The clips whose entry in any store lacks variants, with those. `lacking`: of each store what `_lacking` says."""
    todo = []
    for clip, *by_store in zip(wanted, *lacking, strict=True):
        missing = frozenset[str]().union(*by_store)
        if missing:
            todo.append(replace(clip, variants=tuple(v for v in clip.variants if v in missing)))
    return todo


def _parts(
    group: BackboneGroup, wanted: Sequence[WantedClip], verify: bool
) -> list[tuple[BackboneGroup, list[WantedClip]]]:
    """What the group lacks: parts of it, each with the clips that it has to extract.

    A clip is decoded once for all that it lacks, and what it has is not computed again, unless another stream or
    backbone of the same part lacks more variants of it.
    """
    lacking = {name: _lacking(wanted, store, verify) for name, store in group.stores.items()}
    alike: dict[tuple[str, ...], list[int]] = {}
    n_outdated = 0
    for number, clip in enumerate(wanted):
        if names := tuple(name for name, of_clips in lacking.items() if of_clips[number]):
            alike.setdefault(names, []).append(number)
            there = [
                group.stores[name].variants(clip.clip_id, verify=False) for name in names if clip.by_time
            ]
            n_outdated += any(outdated(v or frozenset(), True) for v in there)
    if n_outdated:
        log.info(
            "%d clips of variable frame rate or with a wrong header: their features, of frames found by number, are "
            "made anew by time stamps",
            n_outdated,
        )
    return [
        (part, _to_do([wanted[i] for i in numbers], [[lacking[n][i] for i in numbers] for n in part.stores]))
        for names, numbers in alike.items()
        for part in group.parts(names)
    ]


def needed_bytes(clips: Sequence[WantedClip], steps: int, feature_dim: int) -> int:
    """Bytes that one store will take for the variants (steps, feature_dim) float16 of these clips."""
    variants = sum(len(clip.variants) for clip in clips)
    return len(clips) * _ENTRY_BYTES + variants * (2 * steps * feature_dim + _VARIANT_BYTES)


def _check_disk(data_root: Path, parts: Sequence[tuple[BackboneGroup, Sequence[WantedClip]]]) -> None:
    """Log what is needed; raise UserError if the data root's disk takes nothing, or not that much and a reserve."""
    needed = sum(_needed_bytes(part, todo) for part, todo in parts)
    if not needed:
        return
    disks.check_writable(data_root / "features", "--data-root")
    free = free_bytes_of(data_root / "features")
    log.info("features to come: %s; %s free", gigabytes(needed), gigabytes(free))
    if needed + RESERVE_BYTES > free:
        raise UserError(
            f"{data_root}/features: {gigabytes(free)} free, {gigabytes(needed)} of features to come and a reserve of "
            f"{gigabytes(RESERVE_BYTES)}. Take a smaller --augment (to measure: a smaller --tta), have a "
            "training script delete what is no longer used with --prune, or give a --data-root on a bigger disk"
        )


def _needed_bytes(group: BackboneGroup, todo: Sequence[WantedClip]) -> int:
    """Bytes on the disk of the features to come."""
    streams = len(group.config.streams)
    return sum(
        streams * needed_bytes(todo, b.steps(group.config.frames), b.feature_dim) for b in group.backbones
    )


def _extract_part(
    part: BackboneGroup,
    todo: Sequence[WantedClip],
    wanted: Sequence[WantedClip],
    out: Extraction,
    how: ExtractConfig,
    engine_for: _EngineMaker,
) -> None:
    """Extract what is to do, and look whether it is all there."""
    missing = todo
    for _ in range(_ROUNDS):
        if not missing:
            return
        try:
            if how.ray:
                done = extract_ray.extract(how.ray, missing, part, how, _log_folder(part, how))
            else:
                done = _extract_here(part, missing, wanted, how, engine_for)
        finally:
            for store in part.stores.values():
                store.index.save()
        out.failures += done.failures
        out.clips_extracted += done.clips_extracted
        out.machines = max(out.machines, done.machines)
        failed = {f["path"] for f in done.failures}
        todo = [c for c in todo if str(c.path) not in failed]
        missing = _to_do(todo, [_lacking(todo, store) for store in part.stores.values()])
    if missing:
        folders = " and ".join(str(store.folder) for store in part.stores.values())
        raise UserError(
            f"features of {len(missing)} clips (first: {missing[0].path}) are gone from {folders} as soon as they are "
            "written. See whether something else writes or deletes there, and whether the disk is sound"
        )


def _extract_here(
    group: BackboneGroup,
    todo: Sequence[WantedClip],
    wanted: Sequence[WantedClip],
    how: ExtractConfig,
    engine_for: _EngineMaker,
) -> extract_ray.ExtractionDone:
    """Extract with this machine's engine; the first clips, or an earlier run, say how long the others take."""
    engine = engine_for(group, todo, how)
    group.check_engine(engine, wanted)
    run = ExtractionPass(group, engine)
    workers = how.workers or default_workers()
    if len(todo) < WORTH_MEASURING * workers:
        run.extract(todo, workers, _log_folder(group, how))
    else:
        _extract_measured(run, todo, workers, how)
    return extract_ray.ExtractionDone(run.failures, run.clips_extracted)


def _engine(group: BackboneGroup, todo: Sequence[WantedClip], how: ExtractConfig) -> engines.Engine:
    """This machine's engine for the group, in the fastest precision that keeps the features of the first clips."""
    return engines.create(
        how.engine,
        group.backbone,
        group.weights,
        group.config.frames,
        probe=lambda: engine_check.probe_images(todo, group.probed),
        precision=how.precision,
    )


def _extract_measured(
    run: ExtractionPass, todo: Sequence[WantedClip], workers: int, how: ExtractConfig
) -> None:
    """Many clips: an earlier run's rate, or that of the first of them, says how long the others take."""
    from violence_detection.features import estimate

    group = run.group
    rates = estimate.RateRecord(next(iter(group.stores.values())).folder, group)
    rate = rates.known()
    if rate is None:
        first, todo = todo[: 2 * workers], todo[2 * workers :]
        rate = estimate.measured(lambda: run.extract(first, workers), first)
    if rate:
        needed = estimate.time_and_cost(estimate.count_variants(todo) / rate, how.usd_per_hour)
        log.info("%s: %d clips will take about %s", group.name, len(todo), needed)
    rates.note(estimate.measured(lambda: run.extract(todo, workers, _log_folder(group, how)), todo))


def _log_folder(group: BackboneGroup, how: ExtractConfig) -> Path:
    name = f"{group.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return how.data_root / "features" / "tensorboard_logs" / name


class _Remaker:
    """Extracts a clip anew, given its id. Its engines are built once for all clips; another process builds its own.

    Raises UserError if the clip can no longer be read.
    """

    def __init__(self, by_id: Mapping[str, WantedClip], config: FeatureConfig, how: ExtractConfig):
        self.by_id, self.config, self.how = by_id, config, how
        self._engines: dict[tuple[str, Path], engines.Engine] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.by_id, self.config, self.how)

    def __call__(self, clip_id: str) -> None:
        for failure in _ensure([self.by_id[clip_id]], self.config, self.how, self._engine).failures:
            raise UserError(
                f"the cached feature of {failure['path']} is lost, and the clip cannot be read ({failure['reason']}). "
                "Run the same command again: it leaves the clip out"
            )

    def _engine(self, group: BackboneGroup, todo: Sequence[WantedClip], how: ExtractConfig) -> engines.Engine:
        built = (group.name, group.weights)
        if built not in self._engines:
            self._engines[built] = _engine(group, todo, how)
        return self._engines[built]
