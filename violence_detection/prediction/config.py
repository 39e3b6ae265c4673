"""The settings of judging new videos."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from violence_detection.backbones.config import RuntimeConfig
from violence_detection.system.settings import option


@dataclass(frozen=True)
class PredictConfig(RuntimeConfig):
    """How new videos are judged. Sampling and window length are the model's own."""

    model: Path = option(
        Path("models_ensemble"),
        "ensemble folder, model folder, .safetensors or .keras file, or a name of list_models()",
    )
    threshold: float = option(0.5, "P(violent) from which a window counts as violent")
    stride_s: float = option(2.5, "seconds from one window to the next in a video longer than one window")
    tta: int = option(1, "views of each window that are averaged; 1 is the plain window alone")
