"""A violence detector for video whose accuracy can be believed: train one, measure it, judge videos with it.

    import violence_detection as vd

    detector = vd.load("models_ensemble")
    verdict = detector.judge("video.mp4")
    print(verdict.label, verdict.p_violent, verdict.events)

The subpackages stand in the order in which data flows; docs/architecture.md says what is where.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

from violence_detection.constants import CLASS_NAMES, __version__
from violence_detection.system import tensorflow_start

if TYPE_CHECKING:
    from violence_detection.backbones.registry import list_backbones
    from violence_detection.evaluation.evaluate import evaluate
    from violence_detection.evaluation.measure import Evaluation
    from violence_detection.models.shipped import list_models
    from violence_detection.prediction.detector import Detector, load
    from violence_detection.prediction.events import Event, JudgedWindow, Verdict

__all__ = [
    "CLASS_NAMES",
    "Detector",
    "Evaluation",
    "Event",
    "JudgedWindow",
    "Verdict",
    "__version__",
    "evaluate",
    "list_backbones",
    "list_models",
    "load",
]

#: The module of each public name. It is imported on first use: importing the package itself loads nothing heavy.
_PUBLIC = {
    "Detector": "prediction.detector",
    "load": "prediction.detector",
    "Event": "prediction.events",
    "JudgedWindow": "prediction.events",
    "Verdict": "prediction.events",
    "list_models": "models.shipped",
    "list_backbones": "backbones.registry",
    "Evaluation": "evaluation.measure",
    "evaluate": "evaluation.evaluate",
}


def _have_packages_report_nothing() -> None:
    """Switch off the telemetry of other packages: what is judged here, and that anything is, is nobody's business.

    OpenVINO (2026.4) reports each import and conversion to Google Analytics, from processes that it forks, unless the
    user has opted out. Without its package openvino_telemetry it reports nothing. ONNX Runtime (1.32) reports to
    Microsoft.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # so its import fails
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


_have_packages_report_nothing()
tensorflow_start.prepare()


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
