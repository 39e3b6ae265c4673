"""The settings of step 2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from violence_detection.datasets.config import OwnClipsConfig
from violence_detection.system.settings import ANY_NUMBER, BaseConfig, Limits, default_data_root, option
from violence_detection.video.config import ClipConfig


@dataclass(frozen=True)
class CutConfig(BaseConfig):
    """Settings for cutting untrimmed videos into clips. Changing any of them changes the resulting clips."""

    HEADING: ClassVar[str] = "cutting long videos"

    window_s: float = option(
        ClipConfig.window_s,
        "length in seconds of the clips cut from long videos",
        limits=Limits(least=0.01, most=3600),
    )
    shortest_s: float = option(
        0.0,
        "also cut fights that last at least this many seconds but less than a window; 0: none. Clips shorter than a "
        "window are then all fights, and a model may learn just that",
    )
    margin_s: float = option(2.0, "seconds that a non-fight clip keeps, at least, from every annotated fight")
    windows_per_video: int = option(
        8,
        "at most this many clips of each class from one video with fights in it, or from one stretch of your own CSV "
        "file, spread evenly",
        limits=Limits(least=1),
    )
    normal_windows: int = option(
        2,
        "at most this many clips from one video without any fight. There are many more such videos than annotated "
        "fights",
        limits=Limits(least=1),
    )
    cut_unannotated: bool = option(
        False, "call a violent video without annotations a fight from end to end: a guess, wrong for many"
    )


@dataclass(frozen=True)
class CombineConfig(OwnClipsConfig):
    """Settings for combining the clips found into one train/val set.

    All settings except `workers` and `link` affect the manifest.
    """

    HEADING: ClassVar[str] = "combining"

    data_root: Path = option(
        default_data_root, "data root (<root>): the folder with raw/. combined_all/ is made in it"
    )
    roots: tuple[Path, ...] = option((), "further folders to search for data sets, comma separated")
    caches: bool = option(True, "search the caches of kagglehub and kaggle too")
    seed: int = option(
        0, "seed of the split. The same seed and clips give the same split on any machine", limits=ANY_NUMBER
    )
    val_fraction: float = option(0.2, "share of the clips that goes to val", limits=Limits(above=0, below=1))
    keep_near: bool = option(
        False, "keep altered copies of a clip too (encoded again, scaled, cropped), in its source group"
    )
    exclude: Path | None = option(
        None,
        "leave out the clips on this list: a text file with a clip_id or path per line, or a CSV file. If that has a "
        "column 'confirmed', as label_suspects.csv does, only the lines marked in it count",
    )
    link: str = option(
        "auto",
        "how clips get into combined_all. auto: hard links, else symbolic links, else copies",
        choices=("auto", "hard", "symlink", "copy"),
    )
    workers: int = option(0, "processes that decode; 0: one per core", limits=Limits(most=1000))
    catalogue: Path | None = option(None, "catalogue file to use instead of the package's (advanced)")
