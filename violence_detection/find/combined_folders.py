"""Refuse a folder that step 2 made as a set of own clips.

Such a folder no longer tells the sources of its clips, and the next run of step 2 would remove the clips.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from violence_detection.constants import MANIFEST_NAME
from violence_detection.datasets.own_clips import OwnSet
from violence_detection.errors import UserError

_FOLDER = "combined_all"
#: Columns that identify a manifest of step 2, of any version. Other programs write files named manifest.csv too.
_SURE_COLUMNS = frozenset({"clip_id", "path", "source_path", "label", "split"})
#: The cell separators that spreadsheets use.
_SEPARATORS = re.compile("[,;\t]")


def is_combined(data: Path) -> bool:
    """Whether `data` is or is below a folder that step 2 made, finished or not, or is its manifest. Follows links."""
    places = {data.absolute(), data.resolve()}
    above = {folder for place in places for folder in (place, *place.parents)}
    return any(_FOLDER in place.parts or _is_manifest(place) for place in places) or any(
        has_manifest(folder) for folder in above
    )


def has_manifest(folder: Path) -> bool:
    """Whether the folder contains a manifest of step 2, with any rows and any order of columns."""
    return _is_manifest(folder / MANIFEST_NAME)


def refuse(own: Iterable[OwnSet]) -> None:
    """Raise UserError if an own set, or the folder of one of its clips, belongs to a folder that step 2 made."""
    for own_set in own:
        # the clips' own folders too: they may be links into such a folder
        folders = {clip.path.parent for clip in own_set.clips}
        found = next((p for p in (own_set.origin, *sorted(folders)) if is_combined(p)), None)
        if found is not None:
            raise UserError(
                f"--own {own_set.name}={own_set.origin}: {found} belongs to a folder that combine_all_datasets.py "
                "made. That script removes clips there, and their sources would be lost. Name instead the folders that "
                f"the clips came from: see the column source_path of {MANIFEST_NAME} there"
            )


def _is_manifest(path: Path) -> bool:
    if path.name != MANIFEST_NAME or not path.is_file():
        return False
    # utf-8-sig: spreadsheets save it with a byte order mark
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        return {name.strip('" ') for name in _SEPARATORS.split(lines.readline().strip())} >= _SURE_COLUMNS
