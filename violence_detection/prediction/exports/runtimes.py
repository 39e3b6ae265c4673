"""Run exported files as their users do: without this package's engines, in float32 on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from violence_detection.prediction.exports.whole_graph import LOGITS, OUTPUT


class ModelOutput(NamedTuple):
    """The result for one window: P(violent), and each member's logit before any temperature."""

    p: float
    logits: tuple[float, ...]


#: Takes pictures by input name.
ExportedModel = Callable[[Mapping[str, np.ndarray]], ModelOutput]


def load(format_name: str, path: Path) -> ExportedModel:
    """Load the exported model at `path`."""
    return _LOADERS[format_name](path)


def _onnx(path: Path) -> ExportedModel:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda pictures: _model_output(*session.run([OUTPUT, LOGITS], dict(pictures)))


def _openvino(path: Path) -> ExportedModel:
    import openvino as ov

    compiled = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda pictures: _named_output(compiled(dict(pictures)))


def _tflite(path: Path) -> ExportedModel:
    from ai_edge_litert.interpreter import Interpreter

    run: Any = Interpreter(str(path)).get_signature_runner()
    return lambda pictures: _named_output(run(**pictures))


def _named_output(outputs: Any) -> ModelOutput:
    return _model_output(outputs[OUTPUT], outputs[LOGITS])


def _model_output(p: np.ndarray, logits: np.ndarray) -> ModelOutput:
    return ModelOutput(float(p.item()), tuple(logits.tolist()))


_LOADERS = {"onnx": _onnx, "openvino": _openvino, "tflite": _tflite}
