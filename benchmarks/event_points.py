"""What the operating points that models name are worth in recordings: each part at the thresholds of its own model.

Thresholds that were chosen on the recordings they are measured on flatter; these were chosen before, on whatever the
model was calibrated on.
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
    """Operating point -> threshold, `balanced` for the point of this name.

    Points that leave out the early exit are of other probabilities than a model gives unasked, and are not among them.
    Raises UserError for a model that is not calibrated.
    """
    loaded = trained_model.load(shipped.find(model))
    found = loaded.calibration
    if found is None or not found.operating_points:
        why = found.why_not if found else "nothing is stored of it"
        raise UserError(f"{model} names no operating points: {why}")
    return {
        name: found.threshold(name, balanced)
        for name in OPERATING_POINTS
        if (name == BALANCED or calibration.key_of(name) in found.operating_points)
        and not found.leaves_out(loaded.early_exit, name, balanced)
    }


def measured(
    recordings: Sequence[Recording], settings: EventConfig, of_parts: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Figures at each operating point that all models have, of all recordings and of each data set.

    `of_parts`: what `thresholds` gives of the model of each part, or of the one model of all.
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
