"""Reads tables of predictions for held-out clips, and checks them against the records that were written with them.

Calibration, the choice of thresholds and the audit of labels use these predictions, so a table that was cut off or
changed must be refused. The record of the folds (cross_validation.json) has the table's SHA-256; one that an earlier
version wrote has only the number of clips. The record of left-out data sets (leave_one_dataset_out.json) has the
SHA-256 of each seed's table; one that an earlier version wrote has nothing to check by.
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

#: Key of a record: the table's SHA-256; in that of left-out data sets, the name of a seed's folder -> its table's.
SHA256_KEY = "predictions_sha256"
_NEEDED = ("clip_id", "label", "dataset", "source_group", "p_violent", "fold")


class AnotherTableError(Exception):
    """The table cannot be read, or is not the one that the record belongs to. The message names the file and says why.

    It ends without a full stop, so that callers can add a remedy.
    """


def parse(content: bytes) -> pd.DataFrame:
    """Parse the table; ids and names stay text. Raises ValueError if this is not a CSV table."""
    import pandas as pd

    text = dict.fromkeys(("clip_id", "dataset", "source_group"), str)
    return pd.read_csv(
        io.BytesIO(content), dtype=text, keep_default_na=False, encoding_errors=storage.NAME_ERRORS
    )


def read(
    path: Path, record: Mapping[str, Any], held_out: Sequence[Sequence[str]] | None = None
) -> pd.DataFrame:
    """Read the table that belongs to `record`, cross_validation.json.

    `held_out`: the clip ids of each fold, to check the table by if the record has no SHA-256. Raises AnotherTableError
    if the table cannot be read or is another one.
    """
    content = _content(path, record)
    try:
        rows = parse(content)
        if missing := [name for name in _NEEDED if name not in rows.columns]:
            raise ValueError(f"missing columns: {', '.join(missing)}")
        if SHA256_KEY not in record:
            _check_rows(rows, record, held_out)
    except ValueError as e:
        raise AnotherTableError(f"{path} is not the table of predictions of these folds ({e})") from e
    return rows


def check(path: Path, record: Mapping[str, Any]) -> None:
    """Raise AnotherTableError if the file cannot be read, or is not the table that `record` belongs to.

    Without a SHA-256 in the record, the number of clips is compared, for which `parse` must be able to read the table.
    """
    content = _content(path, record)
    if SHA256_KEY not in record and (n := len(parse(content))) != record.get("cv_n", n):
        raise AnotherTableError(f"{path} has {n} clips, but its record says {record['cv_n']}")


def check_left_out(path: Path, record: Mapping[str, Any]) -> None:
    """Raise UserError if the table of a seed is not the one that `record`, leave_one_dataset_out.json, belongs to.

    With a record of an earlier version, only whether the table can be read is checked.
    """
    noted = record.get(SHA256_KEY, {}).get(path.parent.name)
    try:
        _content(path, {SHA256_KEY: noted} if noted else {})
    except AnotherTableError as e:
        raise UserError(
            f"{e}. Make it again with the train_ensemble_models.py command that made it, the one with "
            "--leave-one-dataset-out: it trains no model again"
        ) from e


def _content(path: Path, record: Mapping[str, Any]) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as e:
        raise AnotherTableError(f"{path} cannot be read ({e.strerror})") from e
    if record.get(SHA256_KEY, found := hashlib.sha256(content).hexdigest()) != found:
        raise AnotherTableError(f"{path} has changed since it was written: its SHA-256 is now {found[:12]}")
    return content


def _check_rows(
    rows: pd.DataFrame, record: Mapping[str, Any], held_out: Sequence[Sequence[str]] | None
) -> None:
    if len(rows) != record.get("cv_n", len(rows)):
        raise ValueError(f"it has {len(rows)} clips, but its record says {record['cv_n']}")
    for number, ids in enumerate(held_out or ()):
        if sorted(rows.clip_id[rows.fold == number]) != sorted(ids):
            raise ValueError(f"its clips of fold {number} are not those that the fold held out")
    if not rows.p_violent.astype(float).between(0, 1).all():
        raise ValueError("a probability is not in [0, 1]")
