"""The settings of step 6."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from violence_detection.backbones.config import RuntimeConfig
from violence_detection.datasets.config import OwnClipsConfig
from violence_detection.system.settings import default_data_root, option


@dataclass(frozen=True)
class EvaluationConfig(OwnClipsConfig, RuntimeConfig):
    """How trained models are measured on the val clips, or on one's own."""

    models: Path = option(
        Path("models_ensemble"),
        "ensemble folder, model folder, .safetensors or .keras file, or a name of list_models()",
    )
    data: Path | None = option(
        None,
        "<root>/combined_all/val (default: below the data root), or your own clips: a folder with class folders in it, "
        "or a CSV file",
    )
    data_root: Path = option(
        default_data_root,
        "folder with combined_all/, unless data is given; features of your own clips are cached in it",
    )
    output: Path | None = option(None, "report folder (default: reports/<model>-<time>)")
    tta: int = option(1, "views of each clip that are averaged; 1 is the plain clip alone")
    workers: int = option(0, "decoding threads; 0: two a core")
