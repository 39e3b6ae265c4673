"""Evaluation in one call, as `test_ensemble.py` does it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from violence_detection.evaluation import scoring
from violence_detection.evaluation.config import EvaluationConfig
from violence_detection.evaluation.scoring import Evaluation
from violence_detection.system import storage


def evaluate(
    model: Path | str = "models_ensemble",
    data: Path | str | None = None,
    *,
    report: Path | str | None = None,
    **settings: Any,
) -> Evaluation:
    """Measure a trained model on labelled clips, and say which of them it was trained on.

    `model`: a trained folder, a `.keras` file, or the name of a shipped model. `data`: `<root>/combined_all/val`, by
    default below the data root, or clips of your own: a folder with class folders in it, or a CSV file. `report`:
    folder for metrics.json, predictions.csv and the page; without it nothing is written but features. `settings`:
    further fields of EvaluationConfig, such as tta, engine, data_root, own, labels.

    The result has `accuracy`, `ci95` and `n`, all figures in `result`, and a row a clip in `predictions`. Raises
    UserError for a missing model, folder or manifest, or a wrong value.
    """
    config = EvaluationConfig(
        models=Path(model),
        data=Path(data) if data else None,
        output=Path(report) if report else None,
        **settings,
    )
    call = f"violence_detection.evaluate({str(model)!r}, {str(data) if data else None!r}, **{settings!r})"
    return run(config, call)


def run(config: EvaluationConfig, command: str) -> Evaluation:
    """Measure, and write the report where `output` names its folder. `command`: what the report says made it.

    Raises UserError, before the work, if another run has that folder or nothing can be written there.
    """
    if config.output is None:
        return scoring.measure(config)
    with storage.only_one(config.output, "an evaluation"):
        measured = scoring.measure(config)
        page = scoring.report(measured, config.output, command)
        storage.write_failures(config.output / "failures.csv", measured.failures)
    scoring.log_table(measured, page)
    return measured


def default_report_folder(config: EvaluationConfig) -> Path:
    """reports/<model>-<time>."""
    return Path("reports") / f"{config.models.name}-{time.strftime('%Y%m%d-%H%M%S')}"
