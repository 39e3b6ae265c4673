"""The tasks that a training script does instead of training: --prune, --preview and --features-only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.backbones import registry
from violence_detection.combine import manifest
from violence_detection.errors import UserError
from violence_detection.features import extract, key
from violence_detection.features.config import ExtractConfig, FeatureConfig, FeatureTaskConfig
from violence_detection.features.extraction_pass import WantedClip
from violence_detection.system import disks, storage
from violence_detection.system.disks import gigabytes
from violence_detection.video import augment

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskResult:
    """`summary`: the script's one line of JSON. `failures`: the clips named in failures.csv."""

    summary: dict[str, Any]
    failures: list[dict[str, str]] = field(default_factory=list)


def run(
    task: FeatureTaskConfig,
    config: FeatureConfig,
    how: ExtractConfig,
    output: Path,
    start_devices: Callable[[], object],
    wanted: Callable[[ExtractConfig], Sequence[WantedClip]] = extract.all_clips,
) -> TaskResult | None:
    """Do the task that is asked for; returns None if there is none.

    `wanted`: returns the clips and variants that the script would train on and judge. `start_devices`: called before
    anything is extracted. Raises UserError if several tasks are asked for.
    """
    if not asked_for(task):
        return None
    extract.check(config)
    extract.check_taken(config)
    frame = manifest.read(how.data_root / "combined_all")
    if task.prune:
        return _prune(config, how, frame, delete=task.prune == "yes")
    disks.check_writable(output, "--output")
    if task.preview:
        of_run = frame[frame.clip_id.isin({clip.clip_id for clip in wanted(how)})]
        return _preview(config, how, of_run, task.preview, output)
    return _extract(config, how, wanted(how), output, start_devices)


def asked_for(task: FeatureTaskConfig, *others: str) -> list[str]:
    """The flags of the tasks asked for. Raises UserError if there are several. `others`: flags of further tasks."""
    flags = [
        *others,
        *["--prune"] * bool(task.prune),
        *["--preview"] * bool(task.preview),
        *["--features-only"] * task.features_only,
    ]
    if len(flags) > 1:
        raise UserError(f"{' and '.join(flags)} are tasks of their own. Use one at a time")
    return flags


def _prune(config: FeatureConfig, how: ExtractConfig, frame: pd.DataFrame, delete: bool) -> TaskResult:
    from violence_detection.features import prune

    unused = prune.find(how.data_root, config, how.backbone_weights, set(frame.clip_id))
    prune.report(unused)
    total = sum(part.size_bytes for part in unused)
    freed = prune.delete(unused) if delete else 0
    if unused and not delete:
        log.info(
            "%s are not used by these settings. To delete them, use the same flags and --prune yes. Models trained "
            "with other settings would then have to extract their features again",
            gigabytes(total),
        )
    listed = [{"folder": str(p.folder), "what": p.what, "size_bytes": p.size_bytes} for p in unused]
    return TaskResult({"unused": listed, "unused_bytes": total, "freed_bytes": freed})


def _preview(
    config: FeatureConfig, how: ExtractConfig, frame: pd.DataFrame, count: int, output: Path
) -> TaskResult:
    """Draw contact sheets of `count` clips of train, as the first backbone sees them."""
    from violence_detection.video import contact_sheet

    train = frame[frame.split == "train"].sort_values("clip_id")
    turn = train.groupby("label").cumcount()  # both classes in turn
    rows = train.assign(turn=turn).sort_values(["turn", "label"]).head(count)
    variants = augment.variant_names("v", how.augment)
    chosen = [(c.clip_id, c.path) for c in extract.clips_of(rows, how.data_root / "combined_all", variants)]
    first = config.backbone[0]
    seen = key.for_backbone(config, first)
    size = registry.get(first).input_size
    written, failures = contact_sheet.write_all(output / "preview", chosen, variants, seen, size)
    for failure in failures:
        log.warning("left out, unreadable: %s (%s)", failure["path"], failure["reason"])
    # beside the sheets, because <output>/failures.csv lists all clips that a training left out
    storage.write_failures(output / "preview" / "failures.csv", failures)
    return TaskResult({"sheets": [str(path) for path in written]}, failures)


def _extract(
    config: FeatureConfig,
    how: ExtractConfig,
    wanted: Sequence[WantedClip],
    output: Path,
    start_devices: Callable[[], object],
) -> TaskResult:
    start_devices()
    done = extract.ensure(wanted, config, how)
    done.report(len(wanted))
    storage.write_failures(output / "failures.csv", done.failures)
    return TaskResult(summary(done, len(wanted), how.usd_per_hour), done.failures)


def summary(done: extract.Extraction, wanted: int, usd_per_hour: float) -> dict[str, Any]:
    """The line of JSON that sums up an extraction of `wanted` clips."""
    return {
        "clips": wanted,
        "clips_extracted": done.clips_extracted,
        "clips_failed": len(done.failures),
        "hours": round(done.seconds / 3600, 3),
        "usd": round(done.seconds / 3600 * usd_per_hour * done.machines, 2),
        "features": {name: str(store.folder) for name, store in done.stores.items()},
    }
