"""Settings of step 6, the evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from violence_detection.backbones.config import RuntimeConfig
from violence_detection.constants import BALANCED, OPERATING_POINTS
from violence_detection.datasets.config import OwnClipsConfig
from violence_detection.errors import UserError
from violence_detection.system.settings import Limits, default_data_root, option

#: Values of --audit. The parts of an audit that cost little are always run.
AUDITS = ("leakage", "shortcuts", "labels")


@dataclass(frozen=True)
class EvaluationConfig(OwnClipsConfig, RuntimeConfig):
    """How trained models are measured: on the val clips, or on your own."""

    HEADING: ClassVar[str] = "evaluation"

    models: Path = option(
        Path("models_ensemble"),
        "ensemble folder, model folder, .safetensors or .keras file, or a model's name (accurate, fast, or one of your "
        "own)",
    )
    data: Path | None = option(
        None,
        "clips to measure on: <root>/combined_all/val (the default), or your own: a folder with a folder for each "
        "class, or a CSV file",
    )
    data_root: Path = option(
        default_data_root,
        "data root (<root>): the folder with combined_all/, unless --data is given. Features of your own clips are "
        "cached in it",
    )
    output: Path | None = option(None, "folder for the report (default: reports/<model>-<time>)")
    operating_point: str = option(
        BALANCED,
        "threshold to measure at, as stored with the model. balanced: 0.5",
        choices=OPERATING_POINTS,
    )
    elsewhere: tuple[str, ...] = option(
        (),
        "further labelled clips, measured beside --data as a set that was never seen: a folder with a folder for each "
        "class, or a CSV file. May be given several times",
        many="append",
        shown_as="NAME=PATH",
    )
    audit: tuple[str, ...] = option(
        (),
        f"what to look into beyond the figures, at extra cost: {', '.join(AUDITS)}, comma separated",
    )
    tta: int = option(
        1,
        "views of each clip to average (test-time augmentation); 1: the plain clip alone",
        limits=Limits(least=1, most=1000),
    )
    compare: tuple[Path, ...] = option(
        (),
        "an earlier report (folder, metrics.json or predictions.csv). The difference to it is given, on the clips that "
        "both have judged. May be given several times",
        many="append",
        shown_as="REPORT",
    )
    workers: int = option(0, "decoding threads; 0: two per core", limits=Limits(most=1000))

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := sorted(set(self.audit) - set(AUDITS)):
            raise UserError(
                f"--audit {unknown[0]}: must be one or more of {', '.join(AUDITS)}, comma separated"
            )
