"""The settings of step 1b."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from violence_detection.datasets.config import OwnClipsConfig
from violence_detection.system.settings import Limits, default_data_root, option


@dataclass(frozen=True)
class FindConfig(OwnClipsConfig):
    """Where to search for data sets, and whether to check their files."""

    HEADING: ClassVar[str] = "finding"

    data_root: Path = option(
        default_data_root, "data root (<root>): the folder with raw/. inventory.json is written here"
    )
    roots: tuple[Path, ...] = option((), "further folders to search for data sets, comma separated")
    caches: bool = option(True, "search the caches of kagglehub and kaggle too")
    check: bool = option(False, "decode every file and name the damaged ones")
    workers: int = option(0, "processes that decode; 0: one per core", limits=Limits(most=1000))
    catalogue: Path | None = option(None, "catalogue file to use instead of the package's (advanced)")
