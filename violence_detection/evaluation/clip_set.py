"""The clips that a model is measured on: one side of combined_all, or the user's own clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.combine import manifest
from violence_detection.datasets import catalogue
from violence_detection.datasets.generated.marker import is_generated
from violence_detection.errors import UserError
from violence_detection.evaluation.config import EvaluationConfig

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ClipSet:
    """Labelled clips with their sources.

    `rows`: as in a manifest, with paths relative to `base`. `unreadable`: rows of clips that cannot be decoded, which
    lower the coverage. `train`: the manifest including its train clips, on which baselines are fitted; None if there
    are none, and `no_baselines` says why. Features are cached in `data_root`. `split` says in words which clips these
    are, `kind` of what kind (published or own), `name` is the set's name in predictions.csv. `generated`: whether they
    are generated samples. `manifest_sha256`: hash of the manifest that lists them, or empty. `is_val`: whether they are
    the val part of `base`, which must not be looked at often. `failures`: {path, reason} of clips that were left out.
    """

    rows: pd.DataFrame
    base: Path
    data_root: Path
    train: pd.DataFrame | None
    split: str
    kind: str
    name: str
    generated: bool
    manifest_sha256: str = ""
    is_val: bool = False
    no_baselines: str = "no training clips in this set"
    unreadable: pd.DataFrame | None = None
    failures: Sequence[dict[str, str]] = field(default_factory=list)


def of_split(config: EvaluationConfig) -> ClipSet:
    """Return the clips of the side that `--data` names, by default val.

    Raises UserError if there is no manifest, or the side lacks a class.
    """
    combined, side = locate(config)
    frame, sha256 = manifest.read_hashed(combined)
    rows = frame[frame.split == side].sort_values("clip_id", ignore_index=True)
    if rows.empty:
        raise UserError(f"{combined}/manifest.csv has no clips in {side}")
    manifest.require_both_classes(side, rows)
    is_val = side == "val"
    return ClipSet(
        rows=rows,
        base=combined,
        data_root=combined.parent,
        train=frame if is_val and (frame.split == "train").any() else None,
        split=f"{side} of {combined / manifest.FILE_NAME}",
        kind=_kind(set(rows.dataset)),
        name=side,
        generated=is_generated(combined.parent),
        manifest_sha256=sha256,
        is_val=is_val,
        no_baselines="no training clips in this set"
        if is_val
        else "these are the clips they would be fitted on",
    )


def _kind(datasets: set[str]) -> str:
    published = datasets & set(catalogue.load())
    if published == datasets:
        return "published clips"
    return "published and own clips" if published else "own clips"


def locate(config: EvaluationConfig) -> tuple[Path, str]:
    """Return the combined folder and the side of it that `--data` names. Raises UserError if there is no manifest."""
    data = config.data or config.data_root / "combined_all" / "val"
    if data.is_file() and data.name == manifest.FILE_NAME:
        data = data.parent
    if not data.is_dir():
        raise UserError(
            f"--data: there is no folder {data}. Make it with combine_all_datasets.py, or name clips of your own: a "
            "folder with a folder for each class, or a CSV file"
        )
    if (data / manifest.FILE_NAME).is_file():
        return data, "val"
    if (data.parent / manifest.FILE_NAME).is_file() and data.name in manifest.SPLITS:
        return data.parent, data.name
    raise UserError(
        f"no manifest.csv in {data} or in the folder above: without it neither labels nor sources are known. "
        "Give <root>/combined_all/val as combine_all_datasets.py made it, or a folder of your own clips with a folder "
        "for each class"
    )
