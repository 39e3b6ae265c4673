"""The table of what models say of clips that were held out from them: whether it is the one that its record is of.

What calibrates, chooses thresholds and doubts labels is read from it, so a table that was cut off or changed must not
be taken. The record of the folds has the table's SHA-256; those of earlier versions have the number of clips alone. So
has that of left-out data sets, for each seed's table.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.errors import UserError
from violence_detection.system import storage

if TYPE_CHECKING:
    import pandas as pd

#: Where the record of the folds has the table's SHA-256; that of left-out data sets has one by each seed's folder.
SHA256_KEY = "predictions_sha256"
_NEEDED = ("clip_id", "label", "dataset", "source_group", "p_violent", "fold")


class AnotherTableError(Exception):
    """The table is not there, or it is not the one that the record is of. Says which file, and why."""


def parse(content: bytes) -> pd.DataFrame:
    """The rows as they were written. Raises ValueError where this is no table."""
    import pandas as pd

    text = dict.fromkeys(("clip_id", "dataset", "source_group"), str)
    return pd.read_csv(
        io.BytesIO(content), dtype=text, keep_default_na=False, encoding_errors=storage.NAME_ERRORS
    )


def read(
    path: Path, record: Mapping[str, Any], held_out: Sequence[Sequence[str]] | None = None
) -> pd.DataFrame:
    """The table that `record`, cross_validation.json, is of.

    `held_out`: clip ids of each fold, which tell it where the record has no SHA-256. Raises AnotherTableError.
    """
    content = _content(path, record)
    try:
        rows = parse(content)
        if missing := [name for name in _NEEDED if name not in rows.columns]:
            raise ValueError(f"it lacks the columns {', '.join(missing)}")
        if SHA256_KEY not in record:
            _check_rows(rows, record, held_out)
    except ValueError as e:
        raise AnotherTableError(f"{path} is not the table of these folds ({e})") from e
    return rows


def check(path: Path, record: Mapping[str, Any]) -> None:
    """Raise AnotherTableError where a table that can be read is not the one that the record is of."""
    content = _content(path, record)
    if SHA256_KEY not in record and (n := len(parse(content))) != record.get("cv_n", n):
        raise AnotherTableError(f"{path} has {n} clips, and its record is of {record['cv_n']}")


def check_left_out(path: Path, record: Mapping[str, Any]) -> None:
    """Raise UserError where a table of one seed is not the one that `record`, leave_one_dataset_out.json, is of.

    Records of earlier versions do not tell it.
    """
    noted = record.get(SHA256_KEY, {}).get(path.parent.name)
    try:
        _content(path, {SHA256_KEY: noted} if noted else {})
    except AnotherTableError as e:
        raise UserError(
            f"{e}. Make it again with the train_ensemble_models.py command with --leave-one-dataset-out that made it, "
            "which trains nothing again"
        ) from e


def _content(path: Path, record: Mapping[str, Any]) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as e:
        raise AnotherTableError(f"{path} cannot be read ({e.strerror})") from e
    if record.get(SHA256_KEY, found := hashlib.sha256(content).hexdigest()) != found:
        raise AnotherTableError(f"{path} is not as it was written: its SHA-256 is {found[:12]}")
    return content


def _check_rows(
    rows: pd.DataFrame, record: Mapping[str, Any], held_out: Sequence[Sequence[str]] | None
) -> None:
    if len(rows) != record.get("cv_n", len(rows)):
        raise ValueError(f"it has {len(rows)} clips, and its record is of {record['cv_n']}")
    for number, ids in enumerate(held_out or ()):
        if sorted(rows.clip_id[rows.fold == number]) != sorted(ids):
            raise ValueError(f"it has other clips than those that fold {number} held out")
    if not rows.p_violent.astype(float).between(0, 1).all():
        raise ValueError("a probability is none")
