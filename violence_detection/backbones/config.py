"""The settings of how backbones are run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from violence_detection.system.settings import BaseConfig, option


@dataclass(frozen=True)
class RuntimeConfig(BaseConfig):
    """What runs the backbones, and where their weights are. None of it may change a feature."""

    engine: str = option("auto", "what runs the backbone", choices=("auto", "tensorflow", "openvino"))
    backbone_weights: Path | None = option(None, "weights file for the backbone instead of fetching it")
