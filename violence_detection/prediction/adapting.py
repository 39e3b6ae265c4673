"""A model adapted to a place by its footage, without labels: `--adapt FOOTAGE --save-model DIR`.

What is learnt, and how: models/adapted_head.py. Written is a model folder, used as any other.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.models import adapted_head, adapted_model, model_files, shipped
from violence_detection.models.adapted_head import FIGHT, QUIET, Adapted
from violence_detection.prediction import batch
from violence_detection.prediction.config import PredictConfig
from violence_detection.prediction.detector import Detector
from violence_detection.system import storage

log = logging.getLogger(__name__)
#: With fewer windows nothing is learnt.
FEWEST_WINDOWS = 20
NOT_CHECKED = (
    "not checked: whether it is better here. Footage without labels cannot tell; mark events (--timeline, --learn), or "
    "measure on clips of the place that are labelled"
)


def run(config: PredictConfig, footage: Path, to: Path) -> dict[str, Any]:
    """Adapt the model to the footage, and write it to the folder `to`. Returns the summary.

    Raises UserError where the model has no kernel head, the footage is too short, `to` is there already, or a camera
    profile is given: it is of the model as it is.
    """
    if config.profile:
        raise UserError(
            "--adapt makes another model, for which no --profile holds: make the profile afterwards"
        )
    if to.exists():
        raise UserError(f"{to} is there already. Give --save-model a folder that is not")
    storage.check_writable(to.absolute().parent, "--save-model")
    source = shipped.find(config.model)
    head = adapted_model.kernel_of(source)
    found = batch.find_videos([footage])
    failures = list(found.failures)
    inputs, p, used = _windows(Detector(config), found.videos, failures)
    if len(p) < FEWEST_WINDOWS:
        raise UserError(
            f"{footage}: {len(p)} windows could be judged, and it takes {FEWEST_WINDOWS} to adapt to a place. "
            "Give more footage"
        )
    adapted = adapted_head.adapt(head.head, inputs, p)
    figures = _figures(adapted, p, used)
    if not figures["labelled_quiet"] + figures["labelled_fight"]:
        raise UserError(
            f"{footage}: the model is sure of none of the {len(p)} windows, so there is nothing to learn"
        )
    adapted_model.write(
        source, head, adapted.head, to, {**figures, "adapted_from": model_files.identity(source)}
    )
    _say(figures, to)
    return {"model": str(to), **figures, "failures": [{"path": f.path, "reason": f.reason} for f in failures]}


def _windows(
    detector: Detector, videos: Sequence[Path], failures: list[UnreadableVideo]
) -> tuple[Mapping[str, np.ndarray], np.ndarray, list[str]]:
    """Features of the plain windows of all videos, (N, T, C) by input, P(violent) (N,), and the videos used."""
    features: dict[str, list[np.ndarray]] = {}
    probabilities: list[np.ndarray] = []
    used = []
    for path in videos:
        try:
            seen = detector.windows_of(path)
        except UnreadableVideo as e:
            failures.append(e)
            continue
        used.append(str(path))
        for inputs, p in seen:
            probabilities.append(p)
            for name, values in inputs.items():
                features.setdefault(name, []).append(values[:, 0])
        log.info("%s: looked at", path)
    return {n: np.concatenate(v) for n, v in features.items()}, np.concatenate([[], *probabilities]), used


def _figures(adapted: Adapted, p: np.ndarray, videos: Sequence[str]) -> dict[str, Any]:
    return {
        "videos": list(videos),
        "windows": len(p),
        "labelled_quiet": int((adapted.labels == QUIET).sum()),
        "labelled_fight": int((adapted.labels == FIGHT).sum()),
        "offset_set_back": round(adapted.moved, 4),
        "gain": NOT_CHECKED,
    }


def _say(figures: Mapping[str, Any], to: Path) -> None:
    log.info(
        "%d windows: %d were taken for quiet, %d for fights, the rest is left out; the offset is set back by %.3f",
        figures["windows"], figures["labelled_quiet"], figures["labelled_fight"], figures["offset_set_back"],
    )  # fmt: skip
    log.info("%s", figures["gain"])
    log.info("%s: give it as --model %s", to, to)
