"""Report the outcome of combining: what became of each file, the counts, and the log lines."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from violence_detection.combine import exclusions, manifest, scan
from violence_detection.combine.cut import cutting
from violence_detection.combine.dedupe import Deduplicated, Dropped
from violence_detection.constants import CLASS_NAMES, PART_MEANINGS
from violence_detection.find.inventory import Inventory, source_path
from violence_detection.system.figures import plural

log = logging.getLogger(__name__)

#: The possible outcomes for a video file that was found. cut, not_cut: an untrimmed video; second_copies: published or
#: unpacked twice; excluded: from a category that is neither class; excluded_by_list: left out by --exclude.
FILE_KINDS = ("kept", "duplicates", "label_conflicts", "unreadable", "unlabelled", "excluded", "excluded_by_list",
              "second_copies", "wrong_rows", "cut", "not_cut")  # fmt: skip
#: Warn if the share of clips in val differs from --val-fraction by more than this.
_SHARE_TOLERANCE = 0.02


def of_files(
    found: Inventory,
    cut: cutting.CutResult,
    scans: Mapping[str, scan.Scan],
    rows: Sequence[Mapping[str, Any]],
    dropped: Sequence[Dropped],
    excluded: Sequence[Mapping[str, Any]],
    data_root: Path,
) -> dict[str, int]:
    """Count the video files found, in total and by outcome (FILE_KINDS). Every file counts once."""
    kept, copies = {r["source_path"] for r in rows}, {d.dropped for d in dropped}
    by_list = {r["source_path"] for r in excluded}
    of: dict[str, str] = {}
    for name in (source_path(c.path, data_root) for c in found.clips):
        if name in kept:
            of[name] = "kept"
        elif name in by_list:
            of[name] = "excluded_by_list"
        elif name in copies:
            of[name] = "duplicates"
        else:
            of[name] = "unreadable" if scans[name].reason else "label_conflicts"
    for dataset in found.datasets:
        for video in {c.path for c in dataset.needs_cutting}:
            name = source_path(video, data_root)
            of.setdefault(name, "cut" if video in cut.videos else "not_cut")
    others = {
        "unlabelled": found.unlabelled,
        "excluded": [p for d in found.datasets for p in d.excluded],
        "second_copies": [*found.ignored, *found.copied],
        "wrong_rows": found.refused,
    }
    for kind, paths in others.items():
        for path in paths:
            of.setdefault(source_path(path, data_root), kind)
    counts = Counter(of.values())
    counts["unlabelled"] += sum(found.unknown.values())
    return {"found": sum(counts.values()), **{kind: counts[kind] for kind in FILE_KINDS}}


def summarised(
    rows: Sequence[Mapping[str, Any]],
    dropped: Sequence[Dropped],
    unique: Deduplicated,
    failures: Sequence[Mapping[str, str]],
    found: Inventory,
    cut: cutting.CutResult,
    cut_short: Sequence[Mapping[str, str]],
    files: Mapping[str, int],
    combined: Path,
) -> dict[str, Any]:
    """Return the fields of the JSON line that the script prints."""
    sides = Counter(r["split"] for r in rows)
    kinds = Counter(d.kind for d in dropped)
    wrong_rows = len(found.failures) + cut.refused
    others = len(unique.conflicts) + wrong_rows + cut.wrong_annotations + len(found.unlisted)
    return {
        "train": sides["train"],
        "val": sides["val"],
        "duplicates_removed": len(dropped),
        "duplicates_by_kind": {kind: kinds[kind] for kind in ("exact", "near", "source", "footage")},
        "near_duplicate_groups": unique.n_near_groups,
        "unlabelled": len(found.unlabelled) + sum(found.unknown.values()),
        "excluded": sum(len(d.excluded) for d in found.datasets),
        "windows": {key: dict(sorted(n.items())) for key, n in sorted(cut.by_dataset.items())},
        "not_cut": len(cut.left_out),
        "wrong_rows": wrong_rows,
        "wrong_annotations": cut.wrong_annotations,
        "unlisted_folders": len(found.unlisted),
        "unreadable": len(failures) - others,
        "label_conflicts": len(unique.conflicts),
        "cut_short": len(cut_short),
        "files": files,
        "by_dataset": _by_dataset(rows),
        "manifest": str(combined / manifest.FILE_NAME),
    }


def _by_dataset(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    counts = Counter((r["dataset"], r["split"], r["label"]) for r in rows)
    return {
        dataset: {
            side: {label: counts[dataset, side, label] for label in CLASS_NAMES} for side in manifest.SPLITS
        }
        for dataset in sorted({r["dataset"] for r in rows})
    }


def say(summary: Mapping[str, Any], val_fraction: float) -> None:
    """Log the class balance of each data set, and warn about what is missing or was left out."""
    if files := summary.get("files"):  # records of earlier versions lack this field
        parts = [f"{files[kind]} {kind.replace('_', ' ')}" for kind in FILE_KINDS if files.get(kind)]
        log.info("%d videos found: %s", files["found"], ", ".join(parts))
    if by_list := summary.get("excluded_by_list"):
        log.info("--exclude leaves out %d clips, which %s lists, and all copies of them", by_list,
                 exclusions.FILE_NAME)  # fmt: skip
    log.info("train is %s; val is %s", PART_MEANINGS["train"], PART_MEANINGS["val"])
    log.info("%-20s %14s %14s %7s", "data set", "train f/nf", "val f/nf", "val %")
    for dataset, sides in summary["by_dataset"].items():
        train, val = sides["train"], sides["val"]
        n_val = sum(val.values())
        log.info("%-20s %6d /%6d %6d /%6d %7.1f", dataset, train["fight"], train["nonfight"], val["fight"],
                 val["nonfight"], 100 * n_val / (n_val + sum(train.values())))  # fmt: skip
        for side, counts in sides.items():
            if missing := [label for label in CLASS_NAMES if not counts[label]]:
                log.warning("%s has no %s clip in %s", dataset, " and no ".join(missing), side)
    if summary["cut_short"]:
        log.warning("%d clips and long videos decode only in part, as after an incomplete download; they are listed in "
                    "warnings.csv beside the manifest", summary["cut_short"])  # fmt: skip
    kinds = summary.get("duplicates_by_kind") or {}
    if taken := kinds.get("source", 0) + kinds.get("footage", 0):
        log.warning("%s of train left out because val has clips of the same source or footage; see duplicates.csv",
                    plural(taken, "clip"))  # fmt: skip
    share = summary["val"] / (summary["train"] + summary["val"])
    if not summary["val"]:
        log.warning("val has no clips, so training will refuse this set: all clips come from one source, show one "
                    "place (a fixed camera), or belong to train by their official split or CSV file. Add clips of "
                    "other places or sources, or another data set")  # fmt: skip
    elif abs(share - val_fraction) > _SHARE_TOLERANCE:
        log.warning("val has %.1f %% of the clips instead of %.0f %%: official splits, large source groups or many "
                    "clips of one place do not allow that share", 100 * share, 100 * val_fraction)  # fmt: skip
