"""Measure the operating points stored with models on recordings: each part at the thresholds of its own model.

Figures at thresholds that were chosen on the same recordings are too good. These thresholds were chosen before, on the
predictions on which the model was calibrated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import event_figures, event_rules
from benchmarks.event_figures import Recording, Tally
from violence_detection.constants import BALANCED, OPERATING_POINTS
from violence_detection.errors import UserError
from violence_detection.models import calibration, shipped, trained_model
from violence_detection.prediction.config import EventConfig


def thresholds(model: Path, balanced: float) -> dict[str, float]:
    """The thresholds of a model, operating point -> threshold; that of the point named balanced is `balanced`.

    Points at which the model's early exit is not taken are left out: their probabilities differ from those that the
    model gives by default. Raises UserError if the model has no operating points.
    """
    loaded = trained_model.load(shipped.find(model))
    found = loaded.calibration
    if found is None or not found.operating_points:
        why = found.why_not if found else "no calibration is stored with it"
        raise UserError(f"{model} has no operating points: {why}")
    return {
        name: found.threshold(name, balanced)
        for name in OPERATING_POINTS
        if (name == BALANCED or calibration.key_of(name) in found.operating_points)
        and not found.leaves_out(loaded.early_exit, name, balanced)
    }


def measured(
    recordings: Sequence[Recording], settings: EventConfig, of_parts: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Figures at each operating point that all models have, for all recordings and for each data set.

    `of_parts`: what `thresholds` returns for the model of each part, or for the one model of all parts.
    """
    out: dict[str, Any] = {}
    for name in OPERATING_POINTS:
        if not all(name in points for points in of_parts):
            continue
        chosen = [points[name] for points in of_parts]
        tallies = [_tally(r, settings, chosen[r.part if len(chosen) > 1 else 0]) for r in recordings]
        styles = sorted({r.style for r in recordings})
        out[name] = {
            **_figures(tallies),
            "threshold": None,
            "thresholds": chosen,
            "by_style": {
                style: _figures([t for r, t in zip(recordings, tallies, strict=True) if r.style == style])
                for style in styles
            },
        }
    return out


def _tally(recording: Recording, settings: EventConfig, threshold: float) -> Tally:
    return event_figures.tally([recording], event_rules.by_settings(settings), [threshold])


def _figures(tallies: Sequence[Tally]) -> dict[str, Any]:
    return event_figures.figures_at(event_figures.joined(tallies), 0)
