"""The manifest of the combined_all folder, one row a clip: the contract between step 2 and everything after it."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import UserError
from violence_detection.system import storage

if TYPE_CHECKING:
    import pandas as pd

    from violence_detection.combine.dedupe import ScannedClip

#: clip_id: first 16 hex digits of sha256, or for a window that was cut from a longer video of what it was cut from;
#: path: below combined_all; source_path: below the data root, as published; official_split: train, val or empty;
#: fingerprint: hex.
COLUMNS = (
    "clip_id", "path", "source_path", "label", "dataset", "source_group", "split", "official_split", "sha256",
    "fingerprint", "duration_s", "fps", "width", "height", "n_frames", "codec",
)  # fmt: skip
SPLITS = ("train", "val")
log = logging.getLogger(__name__)
FILE_NAME = "manifest.csv"
#: Beside it: the clips whose frames are found by their time stamps, because their rate varies or their header is wrong.
BY_TIME_NAME = "by_time.csv"
_UNSAFE = re.compile(r"[^\w.-]+")
#: A name has at most so many bytes: with what links.py adds to that of a temporary one, file systems take it (255).
_STEM_CHARACTERS, _NAME_BYTES = 60, 250


def row(clip: ScannedClip, side: str, path: str) -> dict[str, Any]:
    """The row of a clip that stands at `path` on this side of the split."""
    return {
        "clip_id": clip.clip_id,
        "path": path,
        "source_path": clip.source_path,
        "label": clip.label,
        "dataset": clip.dataset,
        "source_group": clip.source_group,
        "split": side,
        "official_split": clip.official_split,
        "sha256": clip.scan.sha256,
        "fingerprint": clip.scan.fingerprint,
        "duration_s": clip.scan.duration_s,
        "fps": clip.scan.fps,
        "width": clip.scan.width,
        "height": clip.scan.height,
        "n_frames": clip.scan.n_frames,
        "codec": clip.scan.codec,
        "by_time": clip.scan.by_time,
    }


def read(combined: Path) -> pd.DataFrame:
    """Read `<combined>/manifest.csv` (or a manifest file itself), checked. Text columns are str, never NaN.

    Column by_time, bool: whether the clip's frames are found by their time stamps (BY_TIME_NAME).
    Raises UserError when it is missing, lacks columns, is empty, or holds unknown labels or splits.
    """
    import pandas as pd

    path = combined if combined.suffix == ".csv" else combined / FILE_NAME
    if not path.is_file():
        raise UserError(
            f"no manifest at {path}. Make it with: python combine_all_datasets.py --data-root ROOT"
        )
    text_columns = dict.fromkeys(("clip_id", "path", "source_path", "dataset", "source_group", "official_split",
                                  "sha256", "fingerprint", "codec"), str)  # fmt: skip
    try:
        frame = pd.read_csv(
            path, dtype=text_columns, keep_default_na=False, encoding_errors=storage.NAME_ERRORS
        )
    except ValueError as e:  # empty, not a table, or not text
        raise UserError(f"{path} is not a manifest ({e}). Make it again with combine_all_datasets.py") from e
    if missing := [c for c in COLUMNS if c not in frame.columns]:
        raise UserError(f"{path} lacks the columns {missing}. Make it again with combine_all_datasets.py")
    if frame.empty:
        raise UserError(f"{path} has no clips. Check what find_all_datasets.py finds below the data root")
    for column, allowed in (("label", CLASS_NAMES), ("split", SPLITS)):
        if unknown := sorted(set(frame[column]) - set(allowed)):
            raise UserError(f"{path}: column {column} holds {unknown}; allowed are {list(allowed)}")
    frame["by_time"] = frame.clip_id.isin(_by_time(path.with_name(BY_TIME_NAME)))
    return frame


def _by_time(path: Path) -> list[str]:
    if not path.is_file():
        log.warning(
            "%s is not there: nobody knows which clips are of variable frame rate. Run combine_all_datasets.py again",
            path,
        )
        return []
    return [row["clip_id"] for row in storage.read_csv(path)]


def require_both_classes(part: str, rows: pd.DataFrame) -> None:
    """Raise UserError where a part (train, selection, val) has clips of one class only, or none."""
    if missing := [label for label in CLASS_NAMES if not (rows.label == label).any()]:
        raise UserError(
            f"the {part} part has no {' and no '.join(missing)} clip among its {len(rows)} clips; nothing can be "
            "learnt or measured with it. Add data with both classes from more sources, run combine_all_datasets.py "
            "again, and see what it says of each data set"
        )


def clip_name(dataset: str, source_path: str, clip_id: str) -> str:
    """A readable name that no other clip has: `<dataset>__<stem>__<first half of the id><suffix>`.

    Of a name that is too long a middle part gives way to a hash of the whole.
    """
    path = Path(source_path)
    stem = _UNSAFE.sub("_", path.stem)[:_STEM_CHARACTERS]
    name = f"{dataset}__{stem}__{clip_id[:8]}{path.suffix.lower()}"
    return storage.shorten_name(name, _NAME_BYTES)
