"""Settings for running the backbones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from violence_detection.system.settings import BaseConfig, option


@dataclass(frozen=True)
class RuntimeConfig(BaseConfig):
    """The engine and precision of the backbones, and where their weights come from.

    These settings may change a feature only by the rounding of the chosen precision.
    """

    HEADING: ClassVar[str] = "what computes"

    engine: str = option(
        "auto",
        "what runs the backbone. auto: OpenVINO if it is installed and TensorFlow sees no GPU, else TensorFlow",
        choices=("auto", "tensorflow", "openvino"),
    )
    backbone_weights: Path | None = option(
        None,
        "file of published weights for the backbone, instead of fetching it. If several are needed, give them one run "
        "after another: each is kept",
    )
    precision: str = option(
        "auto",
        "precision of the backbone. auto: 8 or 16 bits where the hardware is fast at them and they are shown to keep "
        "the features; bfloat16: no 8 bits; float32: no 16 bits either. The engine's name says what ran",
        choices=("auto", "bfloat16", "float32"),
    )
