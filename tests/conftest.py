"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from violence_detection.find import kaggle_folders
from violence_detection.system import console

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: a long one begun last would keep one process while the others idle."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """Folder with raw/ and sources.csv: real clips of four published data sets, read-only."""
    folder = Path(os.environ.get("VIOLENCE_REAL_CLIPS", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "raw").is_dir():
        pytest.skip(f"no real clips at {folder} (set VIOLENCE_REAL_CLIPS)")
    return folder


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A test that runs a script in this process sets up its log; the next test finds it as it was."""
    before = console.log.handlers, console.log.level, console.log.propagate
    yield
    for handler in set(console.log.handlers) - set(before[0]):
        handler.close()
    console.log.handlers, console.log.level, console.log.propagate = before


@pytest.fixture(autouse=True, scope="session")
def no_caches_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the machine's user has fetched with kagglehub or kaggle is no part of any test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAGGLEHUB_CACHE", str(tmp_path_factory.mktemp("kagglehub")))
        patch.setattr(kaggle_folders, "NOTEBOOK_INPUT", tmp_path_factory.mktemp("input"))
        patch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path_factory.mktemp("kaggle")))
        # tests change what networks are; no other may meet one under its name
        patch.setenv("VIOLENCE_NETWORK_CACHE", "off")
        yield
