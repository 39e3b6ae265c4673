"""The settings of each stage: one frozen dataclass a stage, the source of the flags and saved with what it made.

Light on purpose: parsers are built from these before anything heavy is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from violence_detection.cli import default_data_root, option

STREAMS = ("rgb", "motion")


@dataclass(frozen=True)
class FeatureConfig:
    """What turns a clip into features. Everything here but the last block changes the values."""

    backbone: tuple[str, ...] = option(("efficientnet_b4",), "image backbones, comma separated")
    streams: tuple[str, ...] = option(("rgb", "motion"), "rgb (frames) and motion (differences of frames)")
    frames: int = option(20, "frames sampled from a clip, evenly spaced")
    window_s: float = option(5.0, "seconds a model sees at once; a longer clip is judged on its middle")
    motion_spacing_s: float = option(0.08, "seconds between the two frames that motion subtracts")
    motion_gain: float = option(2.0, "factor on the absolute difference, clipped at 255")
    augment_seed: int = option(0, "seed of the augmentation; cached variants of another seed are not reused")

    backbone_weights: Path | None = option(None, "weights file for the backbone instead of fetching it")
    engine: str = option("auto", "what runs the backbone", choices=("auto", "tensorflow", "openvino"))


@dataclass(frozen=True)
class ExtractConfig:
    """Where features go and how many variants a training clip gets."""

    data_root: Path = option(default_data_root, "folder with raw/, combined_all/ and features/")
    augment: int = option(10, "augmented variants of each training clip, beside the plain one")
    workers: int = option(0, "decoding threads; 0: two a core")
