"""An exported file run as its users run it: without this package's engines, in float32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.prediction.exports.whole_graph import OUTPUT

#: Pictures by input name to P(violent).
ExportedModel = Callable[[Mapping[str, np.ndarray]], float]


def load(format_name: str, path: Path) -> ExportedModel:
    """The exported model in `path`."""
    return _LOADERS[format_name](path)


def _onnx(path: Path) -> ExportedModel:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pictures: float(session.run([OUTPUT], dict(pictures))[0].item())


def _openvino(path: Path) -> ExportedModel:
    import openvino as ov

    compiled = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pictures: float(compiled(dict(pictures))[OUTPUT].item())


def _tflite(path: Path) -> ExportedModel:
    from ai_edge_litert.interpreter import Interpreter

    run: Any = Interpreter(str(path)).get_signature_runner()
    return lambda pictures: float(run(**pictures)[OUTPUT].item())


_LOADERS = {"onnx": _onnx, "openvino": _openvino, "tflite": _tflite}
