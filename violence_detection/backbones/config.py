"""The settings of how backbones are run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from violence_detection.system.settings import BaseConfig, option


@dataclass(frozen=True)
class RuntimeConfig(BaseConfig):
    """What runs the backbones, and where their weights are. None of it may change a feature by more than rounding."""

    HEADING: ClassVar[str] = "what computes"

    engine: str = option("auto", "what runs the backbone", choices=("auto", "tensorflow", "openvino"))
    backbone_weights: Path | None = option(
        None,
        "weights file for the backbone instead of fetching it; where several are needed the published files are given "
        "one run after another, and kept",
    )
    precision: str = option(
        "auto",
        "what the backbone computes in; auto: 8 or 16 bits where the hardware is fast at them and they are shown to "
        "keep the features (the engine's name says what ran); bfloat16: no 8 bits",
        choices=("auto", "bfloat16", "float32"),
    )
