"""The manifest of the combined_all folder, one row a clip: the contract between step 2 and everything after it."""

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

#: clip_id: first 16 hex digits of sha256, or for a window that was cut from a longer video of what it was cut from;
#: path: below combined_all; source_path: below the data root, as published; official_split: train, val or empty;
#: fingerprint: hex.
COLUMNS = (
    "clip_id", "path", "source_path", "label", "dataset", "source_group", "split", "official_split", "sha256",
    "fingerprint", "duration_s", "fps", "width", "height", "n_frames", "codec",
)  # fmt: skip
SPLITS = ("train", "val")
log = logging.getLogger(__name__)
FILE_NAME = MANIFEST_NAME
#: Beside it: the clips whose frames are found by their time stamps, because their rate varies or their header is wrong.
BY_TIME_NAME = "by_time.csv"
#: And one that somebody had edited, before it was made again.
BEFORE_NAME = "manifest_before.csv"
#: And how it was made, with its SHA-256 under this key.
RECORD_NAME, SHA256_KEY = "combine.json", "manifest_sha256"
#: What an id is made of, which is part of the names of files.
_ID_BYTES = 100
_FILE_NAME = re.compile(r"[^/\0]+")
#: What no clip is used without; label and split are checked on their own.
_NEEDED = ("clip_id", "path", "dataset", "source_group")
_NUMBERS = ("duration_s", "fps", "width", "height", "n_frames")
#: A part of 48 digits a frame; empty where a clip has no texture.
_FINGERPRINT = re.compile(r"(?:[0-9a-f]{48})*")
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
    Raises UserError when it is missing, lacks columns or cells, is empty, or holds unknown labels or splits, a clip
    or path twice, or a fingerprint that is none. Warns where it is not as combine.json beside it says.
    """
    return read_hashed(combined)[0]


def read_hashed(combined: Path) -> tuple[pd.DataFrame, str]:
    """The same, and the SHA-256 of the file that the rows are of, whatever becomes of it afterwards."""
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
        raise UserError(f"{path} lacks the columns {missing}. Make it again with combine_all_datasets.py")
    if frame.empty:
        raise UserError(f"{path} has no clips. Check what find_all_datasets.py finds below the data root")
    try:
        _require_whole_rows(path, content)
    except csv.Error as e:
        raise UserError(f"{path} is not a manifest ({e}). Make it again with combine_all_datasets.py") from e
    for column, allowed in (("label", CLASS_NAMES), ("split", SPLITS)):
        if unknown := sorted(set(frame[column]) - set(allowed)):
            raise UserError(f"{path}: column {column} holds {unknown}; allowed are {list(allowed)}")
    named = frame.clip_id.map(_is_id)
    if not named.all():
        raise UserError(
            f"{path}: column clip_id holds {frame.clip_id[~named].iloc[0][:_ID_BYTES]!r}; ids are names of files, "
            f"without /, of at most {_ID_BYTES} bytes. Make it again with combine_all_datasets.py"
        )
    for what, values in (("clip", frame.clip_id), ("path", frame.path)):
        if (twice := values.duplicated()).any():  # merged by id, two rows of a clip would be four
            raise UserError(
                f"{path}: the {what} {values[twice].iloc[0]} stands there twice. Leave one row, or make it again with "
                "combine_all_datasets.py"
            )
    frame["by_time"] = frame.clip_id.isin(_by_time(path.with_name(BY_TIME_NAME)))
    _warn_if_edited(path, sha256)
    return frame, sha256


def _is_id(text: str) -> bool:
    """Whether features and contact sheets can be called so."""
    return _FILE_NAME.fullmatch(text) is not None and len(os.fsencode(text)) <= _ID_BYTES


def warn_if_changed(combined: Path, sha256: str) -> None:
    """Warn where the file is no longer the one that was read, whose SHA-256 this is."""
    path = combined / FILE_NAME
    if not path.is_file() or storage.sha256_file(path) != sha256:
        log.warning(
            "%s has changed since it was read. What is made is of the clips that it had then (SHA-256 %s)",
            path,
            sha256[:12],
        )


def make_way(combined: Path) -> None:
    """Let the manifest be written anew: one that somebody has edited is kept beside it, and said.

    The record of the earlier one goes, so that a new manifest of which there is no record yet, as the run that wrote
    it was killed, is not taken for an edited one.
    """
    path, record = combined / FILE_NAME, combined / RECORD_NAME
    if path.is_file() and _is_edited(path, storage.sha256_file(path)):
        kept = combined / BEFORE_NAME
        with storage.atomic_path(kept) as temporary:
            shutil.copyfile(path, temporary)
        log.warning(
            "%s was not as this script wrote it, and is made again; it is kept as %s. What is changed in it is not "
            "taken over: labels are mended in the class folders, or the table, of your own clips; --exclude leaves "
            "clips out",
            path,
            kept,
        )
    record.unlink(missing_ok=True)


def _require_whole_rows(path: Path, content: bytes) -> None:
    """Raise UserError naming a row that lacks cells, as the last of a file that was cut short does, or has wrong ones.

    A spreadsheet may have written numbers with a decimal comma.
    """
    reader = csv.reader(io.StringIO(content.decode("utf-8-sig", storage.NAME_ERRORS), newline=""))
    remedy = "Put that right, or make it again with combine_all_datasets.py"
    columns = next(reader)
    for cells in reader:
        if not cells:  # an empty line
            continue
        row = dict(zip(columns, cells, strict=False))
        where = f"{path}:{reader.line_num}"
        if len(cells) < len(columns):
            raise UserError(f"{where}: {len(cells)} cells for {len(columns)} columns. {remedy}")
        if empty := [name for name in _NEEDED if not row[name]]:
            raise UserError(f"{where}: the column {empty[0]} is empty. {remedy}")
        if not _FINGERPRINT.fullmatch(row["fingerprint"]):
            raise UserError(f"{where}: a fingerprint has 48 hex digits a frame. {remedy}")
        if wrong := [name for name in _NUMBERS if not _is_number(row[name])]:
            raise UserError(
                f"{where}: {wrong[0]} is {row[wrong[0]]!r}, which is no number such as 12.5. {remedy}"
            )


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


@functools.lru_cache
def _warn_if_edited(path: Path, sha256: str) -> None:
    """Say once where the manifest is not the one that its record is of."""
    if _is_edited(path, sha256):
        log.warning(
            "%s is not as combine_all_datasets.py wrote it (%s). If nobody has edited it, make it again",
            path,
            path.with_name(RECORD_NAME),
        )


def _is_edited(path: Path, sha256: str) -> bool:
    """Whether the manifest, whose SHA-256 this is, has a record beside it that is of another."""
    try:
        made = storage.read_json(path.with_name(RECORD_NAME))
    except (FileNotFoundError, ValueError):
        return False
    return isinstance(made, dict) and made.get(SHA256_KEY, sha256) != sha256


def _by_time(path: Path) -> list[str]:
    if not path.is_file():
        log.warning(
            "%s is not there: nobody knows which clips are of variable frame rate. Run combine_all_datasets.py again",
            path,
        )
        return []
    try:
        return [row["clip_id"] for row in storage.read_csv(path)]
    except KeyError as e:
        raise UserError(
            f"{path} lacks the column {e}. Remove it, and combine_all_datasets.py makes it again"
        ) from e


def require_both_classes(part: str, rows: pd.DataFrame) -> None:
    """Raise UserError where a part (train, selection, val) has clips of one class only, or none."""
    if missing := [label for label in CLASS_NAMES if not (rows.label == label).any()]:
        raise UserError(
            f"the {part} part has no {' and no '.join(missing)} clip among its {len(rows)} clips; nothing can be "
            "learnt or measured with it. Add data with both classes from more sources, run combine_all_datasets.py "
            "again, and see what it says of each data set"
        )


def clip_name(dataset: str, source_path: str, clip_id: str, digits: int = 8) -> str:
    """A readable name: `<dataset>__<stem>__<first digits of the id><suffix>`.

    With all 16 digits no other clip has it; with 8 another may. Of a name that is too long a
    middle part gives way to a hash of the whole.
    """
    path = Path(source_path)
    stem = _UNSAFE.sub("_", path.stem)[:_STEM_CHARACTERS]
    name = f"{dataset}__{stem}__{clip_id[:digits]}{_UNSAFE.sub('_', path.suffix.lower())}"
    return storage.shorten_name(name, _NAME_BYTES)
