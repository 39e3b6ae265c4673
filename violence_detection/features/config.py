"""The settings of the features: those that decide their values and, apart from these, how they are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from violence_detection.backbones.config import RuntimeConfig
from violence_detection.system.settings import BaseConfig, Limits, default_data_root, option
from violence_detection.video.config import ClipConfig


@dataclass(frozen=True)
class FeatureConfig(ClipConfig):
    """What turns a clip into features. Each setting changes their values, and so the key of the feature cache."""

    HEADING: ClassVar[str] = "features"

    backbone: tuple[str, ...] = option(
        ("efficientnet_b4",), "backbones, comma separated. docs/guides/train.md lists them"
    )


@dataclass(frozen=True)
class ExtractConfig(RuntimeConfig):
    """How features are made and kept, and how many variants a training clip gets."""

    HEADING: ClassVar[str] = "extraction"

    data_root: Path = option(
        default_data_root, "data root (<root>): the folder with raw/, combined_all/ and features/"
    )
    augment: int = option(
        10,
        "variants of each training clip. The first is the plain clip, so 1 means no augmentation",
        limits=Limits(least=1, most=1000),
    )
    workers: int = option(0, "decoding threads; 0: two per core", limits=Limits(most=1000))
    ray: str | None = option(
        None, "spread the work over a Ray cluster that shares the data root: local, auto or HOST:PORT"
    )
    usd_per_hour: float = option(
        0.0, "price of a machine in USD per hour, to say before and after a run what it costs"
    )
    verify_features: bool = option(
        False, "compare the checksums of all cached features, not only of new or changed ones"
    )
    memory_gb: float = option(
        0.0,
        "GB of memory for features while training. Features that need more are read from disk; 0: 40 % of free memory",
    )


@dataclass(frozen=True)
class FeatureTaskConfig(BaseConfig):
    """What a training script may do instead of training, one task at a time."""

    HEADING: ClassVar[str] = "instead of training"

    features_only: bool = option(False, "extract the features that are missing, then end without training")
    preview: int = option(0, "draw the variants of this many clips to <output>/preview/, then end; 0: none")
    prune: str | None = option(
        None,
        "list cached features that these settings and the manifest do not use, then end. yes: delete them",
        choices=("list", "yes"),
        bare="list",
    )
