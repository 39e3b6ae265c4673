"""The file that marks a data root as holding generated sample clips."""

from __future__ import annotations

import logging
from pathlib import Path

from violence_detection.system import storage

log = logging.getLogger(__name__)
MARKER_NAME = "SAMPLE_DATA.json"
#: How reports label every number that was measured on clips from a marked root.
SAMPLE_LABEL = "generated sample clips"
#: How reports label every number on real clips if the model was trained on sample clips.
TRAINED_LABEL = f"a model trained on {SAMPLE_LABEL}"


def is_generated(root: Path) -> bool:
    """Whether `root` is marked as holding generated sample clips.

    The marker that counts is the one in `root`, or else in the nearest folder above that has one.
    """
    resolved = root.resolve()
    for folder in (resolved, *resolved.parents):
        marker = folder / MARKER_NAME
        if marker.is_file():
            return bool(storage.read_json(marker).get("generated"))
    return False


def warn_if_generated(root: Path) -> bool:
    """Return `is_generated(root)`, and if true log a warning. To be called before any number is given."""
    found = is_generated(root)
    if found:
        log.warning("%s: every number below was measured on clips of %s and says nothing about real videos",
                    SAMPLE_LABEL.upper(), root)  # fmt: skip
    return found
