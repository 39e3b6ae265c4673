"""The clips that a model was made with: the table trained_on.csv beside it, with a row per clip.

It contains what evaluation compares other clips with: id (the content's hash), source group and fingerprint. `role`
says what a clip was used for:

- train: trained on
- selection: chose the epoch
- weights: chose the weights of an ensemble's members
- mined: its out-of-fold prediction decided whether it is hard
- adapted: footage without labels that the model was adapted to, with a row for every 0.8 s (models/adapted_model.py)

A clip with several roles has the first of them in the table.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.errors import UnusableRecord
from violence_detection.system import storage
from violence_detection.training import run_folder
from violence_detection.training.run_folder import CLIPS_NAME, CONFIG_NAME

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
COLUMNS = ("clip_id", "source_group", "fingerprint", "role", "dataset")
TRAIN, SELECTION, WEIGHTS, MINED, ADAPTED = ("train", "selection", "weights", "mined", "adapted")
_FINGERPRINT = re.compile(r"(?:[0-9a-f]{48}){0,8}")
#: The file that models of earlier versions have instead: the ids of the train and selection clips, one per line.
_OLD_NAME = "trained_on.txt"


def write(folder: Path, by_role: Mapping[str, pd.DataFrame], earlier: Sequence[Path] = ()) -> None:
    """Write the table. `by_role`: role -> rows of the manifest, in the order of precedence.

    `earlier`: folders of models from which this one was trained further; the clips in their tables are added.
    """
    import pandas as pd

    own = [rows.assign(role=role) for role, rows in by_role.items()]
    before = [table for folder in earlier if (table := read(folder)) is not None]
    parts = [part[list(COLUMNS)].astype(str) for part in (*own, *before)]
    table = pd.concat(parts).drop_duplicates("clip_id").sort_values("clip_id")
    rows = table.to_dict("records")
    storage.write_csv(folder / CLIPS_NAME, COLUMNS, ({str(k): v for k, v in row.items()} for row in rows))


def read(folder: Path) -> pd.DataFrame | None:
    """Read the table of the model in `folder`, all values as text; None if it has none.

    For a model of an earlier version that has no table, only the ids are known: the other columns are empty. Raises
    UnusableRecord if the file is not such a table, or is not complete.
    """
    import pandas as pd

    path, old = folder / CLIPS_NAME, folder / _OLD_NAME
    if not path.is_file():
        if not old.is_file():
            return None
        ids = old.read_text(encoding="utf-8").split()
        return pd.DataFrame({"clip_id": ids}, dtype=str).reindex(columns=list(COLUMNS), fill_value="")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding_errors=storage.NAME_ERRORS)
    except (ValueError, OSError) as e:
        raise _no_table(path, str(e)) from e
    if missing := [c for c in COLUMNS if c not in table.columns]:
        raise _no_table(path, f"missing columns: {missing}")
    whole = table.fingerprint.astype(str).map(_FINGERPRINT.fullmatch).map(bool).all()
    if not whole or not path.read_bytes().endswith(b"\n"):
        raise _no_table(path, "it was cut off or changed")
    made_with, told = _clips_of_run(folder), int(table.clip_id.nunique())
    # clips missing here would be taken for unseen
    if told < made_with:
        raise _no_table(path, f"it has {told} of {made_with} clips")
    return table[list(COLUMNS)]


def has_table(folder: Path) -> bool:
    """Whether the model in `folder` has its table, complete and undamaged. Logs a warning if it is damaged."""
    if not (folder / CLIPS_NAME).is_file():
        return False
    try:
        read(folder)
    except UnusableRecord as e:
        log.warning("%s. It will be written again", e.fault)
        return False
    return True


def _clips_of_run(folder: Path) -> int:
    """The number of train and selection clips of a run by its config.json, or 0 if that does not say."""
    config = folder / CONFIG_NAME
    if not config.is_file():
        return 0
    record = run_folder.read_object(config)
    clips = record.get("clips")
    if not isinstance(clips, dict):
        return 0
    counts = (record.get(run_folder.DISTINCT_KEY, clips.get(TRAIN)), clips.get(SELECTION))
    return sum(n for n in counts if isinstance(n, int))


def _no_table(path: Path, reason: str) -> UnusableRecord:
    return run_folder.damaged(path, f"it is not a table of the clips that the model was made with: {reason}")
