"""Read and write the manifest of combined_all, one row per clip: the contract between step 2 and all later steps."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import logging
import math
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.constants import CLASS_NAMES, MANIFEST_NAME
from violence_detection.errors import UserError
from violence_detection.system import storage

if TYPE_CHECKING:
    import pandas as pd

    from violence_detection.combine.dedupe import ScannedClip

#: clip_id: the first 16 hex digits of sha256; for a window cut from a longer video, 16 digits that identify the video's
#: content and the window. path: relative to combined_all. source_path: relative to the data root, as published.
#: official_split: train, val or empty. fingerprint: hex.
COLUMNS = (
    "clip_id", "path", "source_path", "label", "dataset", "source_group", "split", "official_split", "sha256",
    "fingerprint", "duration_s", "fps", "width", "height", "n_frames", "codec",
)  # fmt: skip
SPLITS = ("train", "val")
log = logging.getLogger(__name__)
FILE_NAME = MANIFEST_NAME
#: Beside the manifest: lists the clips whose frames are found by time stamp, because their rate varies or their header
#: is wrong.
BY_TIME_NAME = "by_time.csv"
#: Beside the manifest: the previous manifest, if somebody had edited it before it was made again.
BEFORE_NAME = "manifest_before.csv"
#: Beside the manifest: the record of how it was made, which has the manifest's SHA-256 under SHA256_KEY.
RECORD_NAME, SHA256_KEY = "combine.json", "manifest_sha256"
#: Most bytes in a clip_id, which becomes part of file names.
_ID_BYTES = 100
#: What a clip_id must match to be part of a file name.
_FILE_NAME = re.compile(r"[^/\0]+")
#: Columns that must not be empty; label and split are checked separately.
_NEVER_EMPTY = ("clip_id", "path", "dataset", "source_group")
_NUMBERS = ("duration_s", "fps", "width", "height", "n_frames")
#: 48 digits per frame; empty if a clip has no texture.
_FINGERPRINT = re.compile(r"(?:[0-9a-f]{48})*")
#: Characters that are replaced in a clip's file name.
_UNSAFE = re.compile(r"[^\w.-]+")
#: Most characters of the original stem in a clip's file name.
_STEM_CHARACTERS = 60
#: Most bytes in a clip's file name: with what links.py adds to temporary names it fits the usual limit of 255.
_NAME_BYTES = 250


def row(clip: ScannedClip, side: str, path: str) -> dict[str, Any]:
    """Make the row of a clip that is on `side` of the split (train or val), at `path` below combined_all."""
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
    """Read and check `<combined>/manifest.csv`, or a manifest file given itself. Text columns are str, never NaN.

    Adds a bool column by_time: whether the clip's frames are found by their time stamps (BY_TIME_NAME). Raises
    UserError if the file is missing, empty or not a table, lacks columns or cells, or has an unknown label or split, an
    unusable or repeated clip id, a repeated path, an invalid fingerprint or an invalid number. Warns if the file is not
    the one that combine.json beside it records.
    """
    return read_hashed(combined)[0]


def read_hashed(combined: Path) -> tuple[pd.DataFrame, str]:
    """`read`, and the SHA-256 of the content that was read, even if the file changes meanwhile."""
    import pandas as pd

    path = combined if combined.suffix == ".csv" else combined / FILE_NAME
    if not path.is_file():
        raise UserError(
            f"no manifest at {path}. Make it with: python combine_all_datasets.py --data-root ROOT"
        )
    text_columns = dict.fromkeys(("clip_id", "path", "source_path", "dataset", "source_group", "official_split",
                                  "sha256", "fingerprint", "codec"), str)  # fmt: skip
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    try:
        frame = pd.read_csv(
            io.BytesIO(content),
            dtype=text_columns,
            keep_default_na=False,
            encoding_errors=storage.NAME_ERRORS,
        )
    except ValueError as e:  # empty, not a table, or not text
        raise UserError(f"{path} is not a manifest ({e}). Make it again with combine_all_datasets.py") from e
    if missing := [c for c in COLUMNS if c not in frame.columns]:
        raise UserError(
            f"{path} is missing the columns {missing}. Make it again with combine_all_datasets.py"
        )
    if frame.empty:
        raise UserError(f"{path} has no clips. Check what find_all_datasets.py finds below the data root")
    try:
        _require_whole_rows(path, content)
    except csv.Error as e:
        raise UserError(f"{path} is not a manifest ({e}). Make it again with combine_all_datasets.py") from e
    for column, allowed in (("label", CLASS_NAMES), ("split", SPLITS)):
        if unknown := sorted(set(frame[column]) - set(allowed)):
            raise UserError(f"{path}: column {column} contains {unknown}; allowed values are {list(allowed)}")
    named = frame.clip_id.map(_is_id)
    if not named.all():
        raise UserError(
            f"{path}: column clip_id contains {frame.clip_id[~named].iloc[0][:_ID_BYTES]!r}; ids are used as names of "
            f"files, so they have no / and at most {_ID_BYTES} bytes. Make it again with combine_all_datasets.py"
        )
    for what, values in (("clip", frame.clip_id), ("path", frame.path)):
        # merging two tables by id would turn two rows of a clip into four
        if (twice := values.duplicated()).any():
            raise UserError(
                f"{path}: the {what} {values[twice].iloc[0]} occurs twice. Keep one row, or make the file again with "
                "combine_all_datasets.py"
            )
    frame["by_time"] = frame.clip_id.isin(_by_time(path.with_name(BY_TIME_NAME)))
    _warn_if_edited(path, sha256)
    return frame, sha256


def _is_id(text: str) -> bool:
    """Whether feature files and contact sheets can be named after this id."""
    return _FILE_NAME.fullmatch(text) is not None and len(os.fsencode(text)) <= _ID_BYTES


def warn_if_changed(combined: Path, sha256: str) -> None:
    """Warn if the manifest is no longer the one that was read, which had this SHA-256."""
    path = combined / FILE_NAME
    if not path.is_file() or storage.sha256_file(path) != sha256:
        log.warning(
            "%s has changed since it was read. The results are those of the clips that it listed then (SHA-256 %s)",
            path,
            sha256[:12],
        )


def make_way(combined: Path) -> None:
    """Prepare for writing a new manifest: keep an edited one as BEFORE_NAME, with a warning, and remove the record.

    If the run is killed before it writes the new record, the new manifest must not be compared with the old record and
    taken for an edited one.
    """
    path, record = combined / FILE_NAME, combined / RECORD_NAME
    if path.is_file() and _is_edited(path, storage.sha256_file(path)):
        kept = combined / BEFORE_NAME
        with storage.atomic_path(kept) as temporary:
            shutil.copyfile(path, temporary)
        log.warning(
            "%s was edited after this script wrote it. It is made again, and the edited one is kept as %s. Its changes "
            "are not adopted: correct labels in the class folders or the CSV file of your own clips, and leave clips "
            "out with --exclude",
            path,
            kept,
        )
    record.unlink(missing_ok=True)


def _require_whole_rows(path: Path, content: bytes) -> None:
    """Raise UserError naming the first row with missing, empty or invalid cells.

    The last row of a truncated file lacks cells; a spreadsheet may have written numbers with a decimal comma.
    """
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig", storage.NAME_ERRORS), newline=""))
    remedy = "Correct that, or make the file again with combine_all_datasets.py"
    columns = next(reader)
    for cells in reader:
        if not cells:  # an empty line
            continue
        row = dict(zip(columns, cells, strict=False))
        where = f"{path}:{reader.line_num}"
        if len(cells) < len(columns):
            raise UserError(f"{where}: {len(cells)} cells for {len(columns)} columns. {remedy}")
        if empty := [name for name in _NEVER_EMPTY if not row[name]]:
            raise UserError(f"{where}: the column {empty[0]} is empty. {remedy}")
        if not _FINGERPRINT.fullmatch(row["fingerprint"]):
            raise UserError(f"{where}: a fingerprint must have 48 hex digits per frame. {remedy}")
        if wrong := [name for name in _NUMBERS if not _is_number(row[name])]:
            raise UserError(
                f"{where}: {wrong[0]} is {row[wrong[0]]!r}, which is not a number such as 12.5. {remedy}"
            )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@functools.lru_cache
def _warn_if_edited(path: Path, sha256: str) -> None:
    """Warn, once per file content, if the manifest is not the one that its record describes."""
    if _is_edited(path, sha256):
        log.warning(
            "%s is not as combine_all_datasets.py wrote it, according to %s. If nobody has edited it, make it again",
            path,
            path.with_name(RECORD_NAME),
        )


def _is_edited(path: Path, sha256: str) -> bool:
    """Whether the record beside the manifest has an SHA-256 other than this one, the manifest's."""
    try:
        made = storage.read_json(path.with_name(RECORD_NAME))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(made, dict) and made.get(SHA256_KEY, sha256) != sha256


def _by_time(path: Path) -> list[str]:
    if not path.is_file():
        log.warning(
            "%s is missing, so it is unknown which clips have a variable frame rate. Run combine_all_datasets.py again",
            path,
        )
        return []
    try:
        return [row["clip_id"] for row in storage.read_csv(path)]
    except KeyError as e:
        raise UserError(
            f"{path} is missing the column {e}. Remove the file and run combine_all_datasets.py to make it again"
        ) from e


def require_both_classes(part: str, rows: pd.DataFrame) -> None:
    """Raise UserError if a part (train, selection, val) has no clips of one of the classes."""
    if missing := [label for label in CLASS_NAMES if not (rows.label == label).any()]:
        raise UserError(
            f"the {part} part has no {' and no '.join(missing)} clip among its {len(rows)} clips, so nothing can be "
            "learnt or measured with it. Add data with both classes from more sources, run combine_all_datasets.py "
            "again, and check what it reports for each data set"
        )


def clip_name(dataset: str, source_path: str, clip_id: str, digits: int = 8) -> str:
    """Make a readable file name: `<dataset>__<stem>__<first digits of the id><suffix>`.

    With all 16 digits it is unique; with 8, two clips may get the same name. If the name would be too long, a part in
    its middle is replaced by a hash of the whole.
    """
    path = Path(source_path)
    stem = _UNSAFE.sub("_", path.stem)[:_STEM_CHARACTERS]
    name = f"{dataset}__{stem}__{clip_id[:digits]}{_UNSAFE.sub('_', path.suffix.lower())}"
    return storage.shorten_name(name, _NAME_BYTES)
