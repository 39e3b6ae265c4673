"""The clips that a model is measured on: a side of combined_all, or clips of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.combine import manifest
from violence_detection.constants import PART_MEANINGS
from violence_detection.datasets.generated.marker import is_generated
from violence_detection.errors import UserError
from violence_detection.evaluation.config import EvaluationConfig

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ClipSet:
    """Labelled clips with their sources.

    `rows`: as in a manifest, their paths below `base`. `unreadable`: such rows of clips that cannot be decoded, which
    count against coverage. `train`: the manifest that also has the clips of train; None where there are none. Features
    are cached below `data_root`. `held_apart` says how these clips stand to those trained on, `kind` what they are.
    """

    rows: pd.DataFrame
    base: Path
    data_root: Path
    train: pd.DataFrame | None
    held_apart: str
    kind: str
    generated: bool
    unreadable: pd.DataFrame | None = None
    failures: Sequence[dict[str, str]] = field(default_factory=list)


def of_split(config: EvaluationConfig) -> ClipSet:
    """The clips of the side that `--data` names, by default val. Raises UserError where there are none."""
    combined, side = locate(config)
    frame = manifest.read(combined)
    rows = frame[frame.split == side].sort_values("clip_id", ignore_index=True)
    if rows.empty:
        raise UserError(f"{combined}/manifest.csv has no clips in {side}")
    return ClipSet(
        rows=rows,
        base=combined,
        data_root=combined.parent,
        train=frame if (frame.split == "train").any() else None,
        held_apart=f"{side} is {PART_MEANINGS[side]}; source-disjoint: no source video has clips in train and in val",
        kind="published clips",
        generated=is_generated(combined.parent),
    )


def locate(config: EvaluationConfig) -> tuple[Path, str]:
    """The combined folder and the split that `--data` names. Raises UserError if there is no manifest."""
    data = config.data or config.data_root / "combined_all" / "val"
    if data.is_file() and data.name == manifest.FILE_NAME:
        data = data.parent
    if not data.is_dir():
        raise UserError(
            f"--data: no folder at {data}. Make it with combine_all_datasets.py, or name clips of your own: a folder "
            "with class folders in it, or a CSV file"
        )
    if (data / manifest.FILE_NAME).is_file():
        return data, "val"
    if (data.parent / manifest.FILE_NAME).is_file() and data.name in manifest.SPLITS:
        return data.parent, data.name
    raise UserError(
        f"no manifest.csv in {data} or above it: without it neither labels nor sources are known. "
        "Give <root>/combined_all/val as combine_all_datasets.py made it, or a folder of your own clips with a folder "
        "for each class"
    )


def is_combined(data: Path) -> bool:
    """Whether step 2 has made this folder, whole or not, or its manifest, or the folder above it."""
    names = (data, data / manifest.FILE_NAME, data.parent / manifest.FILE_NAME)
    return "combined_all" in data.absolute().parts or any(_is_manifest(path) for path in names)


def _is_manifest(path: Path) -> bool:
    """Others call their files manifest.csv too."""
    if path.name != manifest.FILE_NAME or not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as lines:
        return lines.readline().startswith(manifest.COLUMNS[0])
