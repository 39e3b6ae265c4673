"""The settings of step 1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from violence_detection.system.settings import BaseConfig, Limits, default_data_root, option


@dataclass(frozen=True)
class DownloadConfig(BaseConfig):
    """Which data sets to download, where to, and how."""

    HEADING: ClassVar[str] = "downloading"

    datasets: tuple[str, ...] = option(
        (),
        "data sets by their keys in the catalogue (see --list), comma separated. Without it: the roadmap's seven; with "
        "--verify: all that are there",
    )
    data_root: Path = option(default_data_root, "data root (<root>): raw/ and downloads/ are made in it")
    workers: int = option(
        3,
        "data sets to fetch at once; with --verify: files to read at once",
        limits=Limits(least=1, most=1000),
    )
    keep_archives: bool = option(False, "keep the archives in <root>/downloads once they are unpacked")
    dry_run: bool = option(False, "say what would be fetched, from where, and whether it fits; fetch nothing")
    catalogue: Path | None = option(None, "catalogue file to use instead of the package's (advanced)")
