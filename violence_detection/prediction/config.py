"""The settings of judging new videos."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from violence_detection.backbones.config import RuntimeConfig
from violence_detection.constants import DEFAULT_THRESHOLD, OPERATING_POINTS
from violence_detection.errors import UserError
from violence_detection.system.settings import option


@dataclass(frozen=True)
class PredictConfig(RuntimeConfig):
    """How new videos are judged. Sampling and window length are the model's own."""

    model: Path | None = option(
        None,
        "ensemble folder, model folder, .safetensors or .keras file, or a name of list_models(), such as accurate "
        "(default: ./models_ensemble where there is one, else accurate)",
    )
    threshold: float = option(DEFAULT_THRESHOLD, "P(violent) from which a window counts as violent")
    operating_point: str = option(
        OPERATING_POINTS[0],
        "whose threshold the model has stored; balanced: that of --threshold",
        choices=OPERATING_POINTS,
    )
    stride_s: float = option(2.5, "seconds from one window to the next in a video longer than one window")
    tta: int = option(1, "views of each window that are averaged; 1 is the plain window alone")

    def __post_init__(self) -> None:
        """Raises UserError for a setting that cannot work."""
        super().__post_init__()
        if self.tta < 1 or not 0 < self.stride_s < math.inf or not 0 <= self.threshold <= 1:
            raise UserError("tta must be at least 1, stride_s above 0, threshold from 0 to 1")
        if self.operating_point != OPERATING_POINTS[0] and self.threshold != DEFAULT_THRESHOLD:
            raise UserError(
                f"threshold {self.threshold} and operating_point {self.operating_point}, which has one of its own: "
                "give one of the two"
            )
