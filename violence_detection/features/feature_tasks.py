"""What a training script does instead of training: --prune, --preview and --features-only."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from violence_detection import cli
from violence_detection.combine import manifest
from violence_detection.errors import UserError
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.features.extract_run import WantedClip
from violence_detection.system import storage
from violence_detection.system.machine import gigabytes
from violence_detection.training import training_data
from violence_detection.training.config import TrainConfig
from violence_detection.video import augment

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def run(
    args: argparse.Namespace,
    wanted: Callable[[ExtractConfig], Sequence[WantedClip]] = training_data.all_clips,
) -> int | None:
    """Do the task that the flags ask for, print its summary and return the exit code; None if they ask for none.

    `wanted`: the clips and variants that the script would train on and judge.
    """
    where, features = cli.build(ExtractConfig, args), cli.build(FeatureConfig, args)
    asked = [
        flag
        for flag, is_set in (
            ("--prune", where.prune), ("--preview", where.preview), ("--features-only", where.features_only)
        )
        if is_set
    ]  # fmt: skip
    if not asked:
        return None
    if len(asked) > 1:
        raise UserError(f"{' and '.join(asked)} are tasks of their own. Give one at a time")
    training_data.check(features, where)
    frame = manifest.read(where.data_root / "combined_all")
    if where.prune:
        return _prune(where, features, frame)
    if where.preview:
        return _preview(args, where, features, frame)
    return _extract(args, where, features, wanted(where))


def _prune(where: ExtractConfig, features: FeatureConfig, frame: pd.DataFrame) -> int:
    from violence_detection.features import prune

    unused = prune.find(where.data_root, features, set(frame.clip_id))
    prune.report(unused)
    total = sum(part.size_bytes for part in unused)
    freed = prune.delete(unused) if where.prune == "yes" else 0
    if where.prune != "yes" and unused:
        log.info(
            "%s are not used by these settings; models trained with other settings would extract theirs again. "
            "Delete them with the same flags and --prune yes",
            gigabytes(total),
        )
    listed = [{"folder": str(p.folder), "what": p.what, "size_bytes": p.size_bytes} for p in unused]
    cli.print_summary({"unused": listed, "unused_bytes": total, "freed_bytes": freed})
    return cli.EXIT_DONE


def _preview(
    args: argparse.Namespace, where: ExtractConfig, features: FeatureConfig, frame: pd.DataFrame
) -> int:
    from violence_detection.video import contact_sheet

    train = frame[frame.split == "train"].sort_values("clip_id")
    turn = train.groupby("label").cumcount()  # both classes in turn
    rows = train.assign(turn=turn).sort_values(["turn", "label"]).head(where.preview)
    variants = augment.variant_names("v", where.augment)
    chosen = training_data.clips_of(rows, where.data_root / "combined_all", variants)
    written, failures = contact_sheet.write(args.output / "preview", chosen, features)
    for failure in failures:
        log.warning("left out, unreadable: %s (%s)", failure["path"], failure["reason"])
    storage.write_failures(args.output / "failures.csv", failures)
    cli.print_summary({"sheets": [str(path) for path in written]})
    return cli.exit_code(failures)


def _extract(
    args: argparse.Namespace, where: ExtractConfig, features: FeatureConfig, wanted: Sequence[WantedClip]
) -> int:
    from violence_detection.features import extract
    from violence_detection.training import devices

    devices.set_up(cli.build(TrainConfig, args))
    done = extract.ensure_for(wanted, features, where)
    training_data.report_extraction(done, len(wanted))
    storage.write_failures(args.output / "failures.csv", done.failures)
    cli.print_summary(summary(done, len(wanted), where.usd_per_hour))
    return cli.exit_code(done.failures)


def summary(done: Any, wanted: int, usd_per_hour: float) -> dict[str, Any]:
    """The JSON line of an extraction."""
    return {
        "clips": wanted,
        "clips_extracted": done.clips_extracted,
        "clips_failed": len(done.failures),
        "hours": round(done.seconds / 3600, 3),
        "usd": round(done.seconds / 3600 * usd_per_hour * done.machines, 2),
        "features": {name: str(store.folder) for name, store in done.stores.items()},
    }
