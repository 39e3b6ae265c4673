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
    """How untrimmed videos become clips. All of it changes which clips there are."""

    HEADING: ClassVar[str] = "cutting long videos"

    window_s: float = option(
        ClipConfig.window_s,
        "seconds of a clip that is cut out of a long video",
        limits=Limits(least=0.01, most=3600),
    )
    shortest_s: float = option(
        0.0,
        "cut fights that last at least so long but less than a window, too; 0: none. Clips of other lengths than "
        "a window are then all fights, and a model may learn just that",
    )
    margin_s: float = option(2.0, "seconds that a non-fight clip keeps from every annotated fight")
    windows_per_video: int = option(
        8, "clips of a class from one video with fights in it, at most, spread evenly", limits=Limits(least=1)
    )
    normal_windows: int = option(
        2,
        "clips from one video without any fight, at most; there are many more such videos than annotated fights",
        limits=Limits(least=1),
    )
    cut_unannotated: bool = option(
        False, "call a violent video that nobody annotated a fight from end to end: a guess, wrong for many"
    )


@dataclass(frozen=True)
class CombineConfig(OwnClipsConfig):
    """How found clips become one train/val set. All but `workers` and `link` change the manifest."""

    HEADING: ClassVar[str] = "combining"

    data_root: Path = option(default_data_root, "folder with raw/; combined_all/ is made in it")
    roots: tuple[Path, ...] = option((), "further folders with data sets, comma separated")
    caches: bool = option(True, "take data sets from the caches of kagglehub and kaggle too")
    seed: int = option(
        0, "seed of the split; the same seed and clips give the same split on any machine", limits=ANY_NUMBER
    )
    val_fraction: float = option(0.2, "share of the clips that goes to val", limits=Limits(above=0, below=1))
    keep_near: bool = option(
        False, "keep altered copies of a clip too (encoded again, scaled, cropped), in its source group"
    )
    exclude: Path | None = option(
        None,
        "leave out the clips of this list: a text file with a clip_id or path a line, or a CSV file such as "
        "label_suspects.csv, of which the lines marked in the column confirmed count",
    )
    link: str = option("auto", "how clips get into combined_all", choices=("auto", "hard", "symlink", "copy"))
    workers: int = option(0, "processes that decode; 0: one a core", limits=Limits(most=1000))
    catalogue: Path | None = option(None, "a catalogue file in the place of the package's (advanced)")
