"""Extracts the features that are missing from the cache.

Each clip is written to disk as soon as it is finished. If a run is killed, the same command goes on with the clips that
are still missing.
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
#: Rounds of extraction after which features that are still missing are an error. Another round is needed if other
#: programs have damaged or deleted what was written.
_ROUNDS = 3
#: With at least this many clips per decoding thread, a run is long enough to measure its rate.
WORTH_MEASURING = 8
#: The duration of a run is logged if it was at least this many seconds.
WORTH_TELLING_S = 60.0
#: If the system cannot read more than this share of the clips (and more than one), their volume must have gone away.
_NOT_GIVEN_SHARE = 0.01
#: Bytes of a cache entry besides its variants: the record of which engine made it, and the end of the zip directory.
_ENTRY_BYTES = 400
#: Bytes of a variant besides its values.
_VARIANT_BYTES = 270


@dataclass
class Extraction:
    """The result of a run: a store per model input, and the clips that could not be read."""

    stores: dict[str, FeatureStore]
    failures: list[dict[str, str]] = field(default_factory=list)
    clips_extracted: int = 0
    seconds: float = 0.0
    machines: int = 1

    def report(self, wanted: int) -> None:
        """Log the rate, and each clip that could not be read.

        `wanted`: the number of clips. Raises UserError if none of them could be read, or if the system could not read
        more than a few.
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
                f"the system cannot read {len(not_given)} of the {wanted} clips. First: {not_given[0]['path']}: "
                f"{not_given[0]['reason']}. Check that their volume is mounted and responds; the same command "
                "continues with them. To take out clips that are gone for good, run: python combine_all_datasets.py, "
                "with the flags you combine with"
            )


def ensure(wanted: Sequence[WantedClip], config: FeatureConfig, how: ExtractConfig) -> Extraction:
    """Make sure that the cache contains every wanted variant of every backbone and stream.

    Clips that cannot be read are named in `failures`. Logs the disk space needed before it starts, and for many clips
    an estimate of the time. Raises UserError if weights or an engine cannot be had, or the disk is too small. The
    stores returned extract an entry again if it is missing or damaged when it is read.
    """
    return _ensure(wanted, config, how, _engine)


def weights_to_hand_on(config: FeatureConfig, how: ExtractConfig) -> Path | None:
    """The weights file to pass to every backbone and to the machines of a cluster, or None (registry.handed_over).

    Logs a warning if a file that was given is used on this machine, but not passed to the cluster.
    """
    given = registry.handed_over(config.backbone, how.backbone_weights)
    if how.ray and how.backbone_weights and given is None:
        log.warning(
            "%s is kept on this machine only; the other machines of the cluster look in caches of their own. To use "
            "one folder for all, set KERAS_HOME on each of them before `ray start`",
            how.backbone_weights,
        )
    return given


def _ensure(
    wanted: Sequence[WantedClip], config: FeatureConfig, how: ExtractConfig, engine_for: _EngineMaker
) -> Extraction:
    check(config)
    for name in config.backbone:
        if (taken := key.for_backbone(config, name).streams) != config.streams:
            log.info("%s uses only these streams: %s", name, ", ".join(taken))
    given = weights_to_hand_on(config, how)
    # absolute, because a worker, or a process that extracts a feature again, may have another working folder
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
    named = {(f["path"], f["reason"]): f for f in out.failures}  # once, even if several backbones report it
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
            # Empty for a clip cut out of a longer video: its id comes from that video, and its bytes may differ if it
            # was cut again. The checksum of any other clip begins with its id.
            sha256 if sha256.startswith(clip_id) else "",
        )
        for clip_id, path, by_time, sha256 in zip(*columns, strict=True)
    ]


def all_clips(how: ExtractConfig) -> list[WantedClip]:
    """The clips of the whole manifest as training needs them: see `training_clips`."""
    return training_clips(manifest.read(how.data_root / "combined_all"), how)


def training_clips(frame: pd.DataFrame, how: ExtractConfig) -> list[WantedClip]:
    """The clips of the manifest's rows as training needs them: all variants of train clips, the plain clip of val."""
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
        registry.get(name)  # raises for an unknown name, listing those that exist
    if config.focus and "crop" in config.streams:
        raise UserError("--focus and the stream crop both show a part of the picture: use one or the other")
    if config.focus and not 0.25 <= config.focus <= 0.9:
        raise UserError("--focus must be from 0.25 to 0.9, or 0 for the whole picture only")


def check_taken(config: FeatureConfig) -> None:
    """Raise UserError for a setting that is not the default and that none of the backbones uses.

    Not to be called for the settings of a trained model, which may include some that only earlier versions used.
    """
    samplings = [registry.get(name).sampling for name in config.backbone]
    passed_over = ["frames"] if all(s.frames for s in samplings) else []
    if not any("motion" in s.streams_taken(config.streams) for s in samplings):
        passed_over += ["motion_spacing_s", "motion_gain"]
    for name in passed_over:
        if getattr(config, name) != getattr(FeatureConfig, name):
            raise UserError(
                f"--{name.replace('_', '-')} would do nothing: none of --backbone {','.join(config.backbone)} uses it "
                f"with --streams {','.join(config.streams)}. Leave it out"
            )


def _lacking(wanted: Sequence[WantedClip], store: FeatureStore, verify: bool = False) -> list[frozenset[str]]:
    """For each clip, the wanted variants that its entry lacks. `verify`: compare the checksums of all entries."""
    with ThreadPoolExecutor() as pool:
        present = list(pool.map(lambda clip: store.variants(clip.clip_id, verify=verify), wanted))
    lacking = []
    for clip, there in zip(wanted, present, strict=True):
        if there is None:
            log.warning("damaged cache entry %s: extracting it again", store.path(clip.clip_id))
        whole = there if there and not outdated(there, clip.by_time) else frozenset()
        lacking.append(frozenset(clip.variants) - whole)
    store.index.save()
    return lacking


def _to_do(wanted: Sequence[WantedClip], lacking: Sequence[Sequence[frozenset[str]]]) -> list[WantedClip]:
    """The clips of which some store lacks variants, each with only those. `lacking`: the `_lacking` of each store."""
    todo = []
    for clip, *by_store in zip(wanted, *lacking, strict=True):
        missing = frozenset[str]().union(*by_store)
        if missing:
            todo.append(replace(clip, variants=tuple(v for v in clip.variants if v in missing)))
    return todo


def _parts(
    group: BackboneGroup, wanted: Sequence[WantedClip], verify: bool
) -> list[tuple[BackboneGroup, list[WantedClip]]]:
    """What has to be extracted for a group: parts of it, each with its clips.

    A clip is decoded once for each part that lacks variants of it. Variants that are cached are not computed again,
    unless another stream or backbone of the same part lacks them.
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
            "%d clips with a variable frame rate or a wrong header: their features are from frames found by number and "
            "are extracted again from frames found by time stamp",
            n_outdated,
        )
    return [
        (part, _to_do([wanted[i] for i in numbers], [[lacking[n][i] for i in numbers] for n in part.stores]))
        for names, numbers in alike.items()
        for part in group.parts(names)
    ]


def needed_bytes(clips: Sequence[WantedClip], steps: int, feature_dim: int) -> int:
    """Bytes that one store needs for the variants of these clips, each (steps, feature_dim) float16."""
    variants = sum(len(clip.variants) for clip in clips)
    return len(clips) * _ENTRY_BYTES + variants * (2 * steps * feature_dim + _VARIANT_BYTES)


def _check_disk(data_root: Path, parts: Sequence[tuple[BackboneGroup, Sequence[WantedClip]]]) -> None:
    """Log the disk space needed; raise UserError if the data root is not writable or lacks it (and a reserve)."""
    needed = sum(_needed_bytes(part, todo) for part, todo in parts)
    if not needed:
        return
    disks.check_writable(data_root / "features", "--data-root")
    free = free_bytes_of(data_root / "features")
    log.info("features to extract: %s; %s free", gigabytes(needed), gigabytes(free))
    if needed + RESERVE_BYTES > free:
        raise UserError(
            f"{data_root}/features: {gigabytes(free)} free, but {gigabytes(needed)} of features and a reserve of "
            f"{gigabytes(RESERVE_BYTES)} are needed. Use a smaller --augment (when measuring: a smaller --tta), run a "
            "training script with --prune yes to delete unused features, or choose a --data-root on a bigger disk"
        )


def _needed_bytes(group: BackboneGroup, todo: Sequence[WantedClip]) -> int:
    """Bytes of disk space that the group's features of the clips `todo` will need."""
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
    """Extract the clips `todo` and check that the cache then has them, up to _ROUNDS times.

    Raises UserError if features are still missing.
    """
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
            f"features of {len(missing)} clips (first: {missing[0].path}) disappear from {folders} as soon as they are "
            "written. Check whether another program writes or deletes files there, and whether the disk is sound"
        )


def _extract_here(
    group: BackboneGroup,
    todo: Sequence[WantedClip],
    wanted: Sequence[WantedClip],
    how: ExtractConfig,
    engine_for: _EngineMaker,
) -> extract_ray.ExtractionDone:
    """Extract with this machine's engine. If there are many clips, the time that they take is estimated and logged."""
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
    """This machine's engine for the group, in the fastest precision that keeps the features of the first clip."""
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
    """Extract many clips after logging how long it will take, by the rate of an earlier run or of the first few."""
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
    """Extracts a clip again, given its id. Engines are built once for all clips; another process builds its own.

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
                "Run the same command again, which leaves the clip out"
            )

    def _engine(self, group: BackboneGroup, todo: Sequence[WantedClip], how: ExtractConfig) -> engines.Engine:
        built = (group.name, group.weights)
        if built not in self._engines:
            self._engines[built] = _engine(group, todo, how)
        return self._engines[built]
