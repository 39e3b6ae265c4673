"""The file that marks a data root as holding generated sample clips."""

from __future__ import annotations

import logging
from pathlib import Path

from violence_detection.system import storage

log = logging.getLogger(__name__)
MARKER_NAME = "SAMPLE_DATA.json"
#: How reports label every number measured on a root that is marked.
SAMPLE_LABEL = "generated sample clips"
#: The same of real clips that were judged by a model of such.
TRAINED_LABEL = f"a model trained on {SAMPLE_LABEL}"


def is_generated(root: Path) -> bool:
    """Whether `root`, or a folder it lies in, is marked as holding generated sample clips."""
    resolved = root.resolve()
    for folder in (resolved, *resolved.parents):
        marker = folder / MARKER_NAME
        if marker.is_file():
            return bool(storage.read_json(marker).get("generated"))
    return False


def warn_if_generated(root: Path) -> bool:
    """The same; and where it is, the log says so before any number on these clips."""
    found = is_generated(root)
    if found:
        log.warning("%s: every number below is on clips of %s, and says nothing about real videos",
                    SAMPLE_LABEL.upper(), root)  # fmt: skip
    return found
