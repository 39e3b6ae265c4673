"""The file that marks a data root as holding generated sample clips."""

from __future__ import annotations

from pathlib import Path

from violence_detection.system import storage

MARKER_NAME = "SAMPLE_DATA.json"
#: How reports label every number measured on a root that is marked.
SAMPLE_LABEL = "generated sample clips"


def is_generated(root: Path) -> bool:
    """Whether `root`, or a folder it lies in, is marked as holding generated sample clips."""
    resolved = root.resolve()
    for folder in (resolved, *resolved.parents):
        marker = folder / MARKER_NAME
        if marker.is_file():
            return bool(storage.read_json(marker).get("generated"))
    return False
