"""Evaluate a model in one call, as `test_ensemble.py` does."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from violence_detection.combine import manifest
from violence_detection.errors import UserError
from violence_detection.evaluation import measure
from violence_detection.evaluation.audits import label_audit, leakage
from violence_detection.evaluation.config import EvaluationConfig
from violence_detection.evaluation.measure import Evaluation
from violence_detection.evaluation.report import from_evaluation
from violence_detection.models import model_card
from violence_detection.system import locks, storage
from violence_detection.system.settings import check_keywords
from violence_detection.training import run_folder

log = logging.getLogger(__name__)

#: The model's card with the figures of this evaluation, in the report's folder.
CARD_NAME = "model_card.md"
FAILURES_NAME = "failures.csv"
#: Longest name of a model within the name of its report folder, in bytes.
_NAME_BYTES = 200


def evaluate(
    model: Path | str = "models_ensemble",
    data: Path | str | None = None,
    *,
    report: Path | str | None = None,
    **settings: Any,
) -> Evaluation:
    """Measure a trained model on labelled clips, and report which of them it was trained on.

    `model`: a trained folder, a model's file, or the name of a shipped model. `data`: `<root>/combined_all/val`, which
    is the default in the data root, or your own clips: a folder with a folder for each class, or a CSV file. `report`:
    folder for metrics.json, predictions.csv, the page and the model's card. Without it nothing is written but caches
    and, if clips of val are judged, a line in val_ledger.jsonl beside their manifest. `settings`: further fields of
    EvaluationConfig, such as tta, engine, data_root, own, labels.

    The result has `accuracy`, `ci95` and `n`, all figures in `result`, and one row per clip in `predictions`. Raises
    UserError for a missing model, folder or manifest, or a wrong value, TypeError for an unknown setting.
    """
    own = {"model": "models", "data": "data", "report": "output"}
    check_keywords("violence_detection.evaluate", EvaluationConfig, settings, own)
    given: dict[str, Any] = {"models": model, "data": data or None, "output": report or None}
    config = EvaluationConfig(**given, **settings)
    call = f"violence_detection.evaluate({str(model)!r}, {str(data) if data else None!r}, **{settings!r})"
    return run(config, call)


def run(config: EvaluationConfig, command: str) -> Evaluation:
    """Measure, and write the report if `output` names a folder for it. `command`: the command to name in the report.

    Raises UserError before the work if another run uses that folder, if nothing can be written to it, if a file that no
    evaluation wrote would be replaced, or if the folder has marks on labels that cannot be read.
    """
    if config.output is None:
        return measure.measure(config, command)
    from violence_detection.evaluation.report.report import METRICS_NAME, PAGE_NAME

    card = config.output / CARD_NAME
    with _taken_back_if_empty(config.output), locks.only_one(config.output, "an evaluation"):
        _check_replaced(config.output)
        if "labels" in config.audit:
            label_audit.marked_before(config.output)  # raises, before the work, if they cannot be read
        measured = measure.measure(config, command)
        # files of an earlier evaluation into the same folder
        for name in (METRICS_NAME, PAGE_NAME, label_audit.PAGE_NAME, CARD_NAME):
            (config.output / name).unlink(missing_ok=True)
        if measured.suspects is None:
            label_audit.remove_table(config.output)
        # written before the report, so that the failures are named even if the report cannot be made
        failures = config.output / FAILURES_NAME
        storage.write_failures(failures, measured.failures)
        page = from_evaluation.write(measured, config.output, command)
        model_card.complete(measured.path, storage.read_json(config.output / METRICS_NAME), card)
    from_evaluation.log_table(measured, page)
    if measured.failures:
        log.warning("left out: %d; %s names each, with the reason", len(measured.failures), failures)
    return measured


def _check_replaced(folder: Path) -> None:
    """Raise UserError if a report in this folder would replace or remove a file that no evaluation wrote."""
    from violence_detection.evaluation.report import report

    for name in (run_folder.ENSEMBLE_NAME, run_folder.CONFIG_NAME, manifest.FILE_NAME):
        if (folder / name).is_file() and (folder / FAILURES_NAME).is_file():
            raise UserError(
                f"{folder / FAILURES_NAME} was written by the command that made {name} there, and would be replaced. "
                f"Name another folder with --output, such as {folder / 'report'}"
            )
    marks = {
        **report.MARKS,
        CARD_NAME: model_card.NOTE,
        FAILURES_NAME: "path,reason",
        leakage.NEAREST_NAME: "nearest_by_feature",
        label_audit.PAGE_NAME: label_audit.PAGE_MARK,
    }
    for name, mark in marks.items():
        path = folder / name
        if path.is_file() and mark not in path.read_text(encoding="utf-8", errors="replace"):
            raise UserError(
                f"{path} was not written by an evaluation, and would be replaced. Move it away, or name another folder "
                "with --output"
            )


@contextlib.contextmanager
def _taken_back_if_empty(folder: Path) -> Iterator[None]:
    """After an error, remove a folder that did not exist before and has nothing in it but the lock."""
    made = not folder.exists()
    try:
        yield
    except BaseException:
        if made and [path.name for path in folder.glob("*")] == [locks.ONLY_ONE_NAME]:
            with contextlib.suppress(OSError):  # it must not hide the error
                (folder / locks.ONLY_ONE_NAME).unlink()
                folder.rmdir()
        raise


def default_report_folder(config: EvaluationConfig) -> Path:
    """Return reports/<model>-<time>, with the name of the model's folder or file, also where it is given as "."."""
    name = Path(os.path.abspath(config.models)).name or "model"  # noqa: PTH100 - links keep their own name
    return Path("reports") / f"{storage.shorten_name(name, _NAME_BYTES)}-{time.strftime('%Y%m%d-%H%M%S')}"
