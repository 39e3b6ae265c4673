"""What step 2 has made is nobody's own clips: in it their sources are lost, and its next run takes them away."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from violence_detection.constants import MANIFEST_NAME
from violence_detection.datasets.own_clips import OwnSet
from violence_detection.errors import UserError

_FOLDER = "combined_all"
#: By these a manifest is known, of whatever version: others call their files manifest.csv too.
_SURE_COLUMNS = frozenset({"clip_id", "path", "source_path", "label", "split"})
#: What spreadsheets put between cells.
_BETWEEN = re.compile("[,;\t]")


def is_combined(data: Path) -> bool:
    """Whether step 2 has made this folder, whole or not, or its manifest, or a folder above it, links followed."""
    places = {data.absolute(), data.resolve()}
    above = {folder for place in places for folder in (place, *place.parents)}
    return any(_FOLDER in place.parts or _is_manifest(place) for place in places) or any(
        has_manifest(folder) for folder in above
    )


def has_manifest(folder: Path) -> bool:
    """Whether the manifest of step 2 stands there, whatever its rows and the order of its columns."""
    return _is_manifest(folder / MANIFEST_NAME)


def refuse(own: Iterable[OwnSet]) -> None:
    """Raise UserError where a set of one's own, or the folder of a clip of it, is what step 2 has made."""
    for own_set in own:
        folders = {clip.path.parent for clip in own_set.clips}  # they may be links
        found = next((p for p in (own_set.origin, *sorted(folders)) if is_combined(p)), None)
        if found is not None:
            raise UserError(
                f"--own {own_set.name}={own_set.origin}: {found} is of a folder that combine_all_datasets.py made. It "
                "takes clips away there, and their sources would be lost. Name the folders that they came from: "
                f"{MANIFEST_NAME} there has them in the column source_path"
            )


def _is_manifest(path: Path) -> bool:
    if path.name != MANIFEST_NAME or not path.is_file():
        return False
    # as spreadsheets write it, too
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        return {name.strip('" ') for name in _BETWEEN.split(lines.readline().strip())} >= _SURE_COLUMNS
