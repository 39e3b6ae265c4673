"""The clips that a model was made with: trained_on.csv beside it, one row a clip.

It holds what evaluation compares other clips with: id (the content's hash), source group, and fingerprint. `role` says
what a clip was used for: train; selection, which chose the epoch; weights, which chose an ensemble's weights; mined,
whose out-of-fold prediction told whether it is hard; adapted, footage without labels that the model was adapted to, a
row every 0.8 s of it (models/adapted_model.py). A clip of several roles has the first of them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.errors import UserError
from violence_detection.system import storage
from violence_detection.training import run_folder
from violence_detection.training.run_folder import CLIPS_NAME, CONFIG_NAME

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
COLUMNS = ("clip_id", "source_group", "fingerprint", "role", "dataset")
TRAIN, SELECTION, WEIGHTS, MINED, ADAPTED = ("train", "selection", "weights", "mined", "adapted")
_FINGERPRINT = re.compile(r"(?:[0-9a-f]{48}){0,8}")
#: What models had that were made before: ids of clips of train and selection, one a line.
_OLD_NAME = "trained_on.txt"


def write(folder: Path, by_role: Mapping[str, pd.DataFrame], earlier: Sequence[Path] = ()) -> None:
    """Write the table. `by_role`: rows of the manifest; `earlier`: folders of models that this one goes on from."""
    import pandas as pd

    own = [rows.assign(role=role) for role, rows in by_role.items()]
    before = [table for folder in earlier if (table := read(folder)) is not None]
    parts = [part[list(COLUMNS)].astype(str) for part in (*own, *before)]
    table = pd.concat(parts).drop_duplicates("clip_id").sort_values("clip_id")
    rows = table.to_dict("records")
    storage.write_csv(folder / CLIPS_NAME, COLUMNS, ({str(k): v for k, v in row.items()} for row in rows))


def read(folder: Path) -> pd.DataFrame | None:
    """The table of the model in `folder`, text throughout; None if it has none.

    A model made before there was a table has ids alone: source group, fingerprint, role and dataset are then empty.
    Raises UserError if the file is no such table.
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
        raise _no_table(path, f"it lacks the columns {missing}")
    whole = table.fingerprint.astype(str).map(_FINGERPRINT.fullmatch).map(bool).all()
    if not whole or not path.read_bytes().endswith(b"\n"):
        raise _no_table(path, "it was cut off, or changed")
    made_with, told = _clips_of_run(folder), int(table.clip_id.nunique())
    if told < made_with:  # cut off, it would take what was trained on for unseen
        raise _no_table(path, f"it has {told} of {made_with} clips")
    return table[list(COLUMNS)]


def has_table(folder: Path) -> bool:
    """Whether more is known than the ids of the clips: whether the table is there and whole."""
    if not (folder / CLIPS_NAME).is_file():
        return False
    try:
        read(folder)
    except UserError as e:
        log.warning("%s. It is written anew", str(e).partition(". Copy it again")[0])
        return False
    return True


def _clips_of_run(folder: Path) -> int:
    """How many clips have made the model of a training run, by its settings; 0 where they do not say."""
    config = folder / CONFIG_NAME
    if not config.is_file():
        return 0
    record = run_folder.read_object(config)
    clips = record.get("clips")
    if not isinstance(clips, dict):
        return 0
    counts = (record.get(run_folder.DISTINCT_KEY, clips.get(TRAIN)), clips.get(SELECTION))
    return sum(n for n in counts if isinstance(n, int))


def _no_table(path: Path, reason: str) -> UserError:
    return run_folder.damaged(path, f"it is no table of the clips that the model was made with: {reason}")
