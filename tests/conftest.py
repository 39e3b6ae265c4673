"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """Folder with raw/ and sources.csv: real clips of four published data sets, read-only."""
    folder = Path(os.environ.get("VIOLENCE_REAL_CLIPS", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "raw").is_dir():
        pytest.skip(f"no real clips at {folder} (set VIOLENCE_REAL_CLIPS)")
    return folder
