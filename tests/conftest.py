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
    """Run the files with the most slow tests first. A long file begun last would leave the other processes idle."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder with raw/ and sources.csv: real clips of four published data sets, which tests only read."""
    folder = Path(os.environ.get("VIOLENCE_REAL_CLIPS", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "raw").is_dir():
        pytest.skip(f"no real clips at {folder} (set VIOLENCE_REAL_CLIPS)")
    return folder


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Restore the logger after each test: a test that runs a script in this process sets up the script's log."""
    before = console.log.handlers, console.log.level, console.log.propagate
    yield
    for handler in set(console.log.handlers) - set(before[0]):
        handler.close()
    console.log.handlers, console.log.level, console.log.propagate = before


@pytest.fixture(autouse=True, scope="session")
def no_caches_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests away from what the user of this machine has downloaded with kagglehub or kaggle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAGGLEHUB_CACHE", str(tmp_path_factory.mktemp("kagglehub")))
        patch.setattr(kaggle_folders, "NOTEBOOK_INPUT", tmp_path_factory.mktemp("input"))
        patch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path_factory.mktemp("kaggle")))
        # tests change networks, and no test may find another's network under the same name
        patch.setenv("VIOLENCE_NETWORK_CACHE", "off")
        yield
