"""What runs a backbone: TensorFlow (GPU or CPU) or OpenVINO (CPU, about twice as fast, same float32 values).

An engine takes one job at a time: the T images of one clip, variant and stream, always as one batch of T. The batch
is never mixed with another clip's, so a clip's features do not depend on what else is being extracted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from violence_detection import backbones
from violence_detection.errors import UserError

Done = Callable[[np.ndarray], None]


class Engine(Protocol):
    """`submit` may return before the job ran; `finish` waits for all jobs; `done` gets (T, C) float32."""

    name: str

    def submit(self, images: np.ndarray, done: Done) -> None: ...

    def finish(self) -> None: ...


def create(kind: str, backbone: backbones.Backbone, weights: Path, frames: int) -> Engine:
    """The engine asked for; `auto` takes TensorFlow where it sees a GPU, else OpenVINO if installed.

    Raises UserError if OpenVINO was asked for and is not installed.
    """
    if kind == "auto":
        kind = "tensorflow" if _has_gpu() or not _has_openvino() else "openvino"
    if kind == "openvino" and not _has_openvino():
        raise UserError("--engine openvino: the package is missing. Run: pip install openvino")
    model = backbone.build(weights)
    return _OpenVino(model, frames) if kind == "openvino" else _TensorFlow(model)


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _has_openvino() -> bool:
    import importlib.util

    return importlib.util.find_spec("openvino") is not None


class _TensorFlow:
    name = "tensorflow-float32"

    def __init__(self, model: Any):
        import tensorflow as tf

        self._run = tf.function(lambda images: model(tf.cast(images, tf.float32), training=False))

    def submit(self, images: np.ndarray, done: Done) -> None:
        done(self._run(images).numpy())

    def finish(self) -> None:
        pass


class _OpenVino:
    name = "openvino-float32"

    def __init__(self, model: Any, frames: int):
        import openvino as ov

        size = model.input_shape[1]
        converted = ov.convert_model(model)
        converted.reshape([frames, size, size, 3])
        steps = ov.preprocess.PrePostProcessor(converted)
        steps.input().tensor().set_element_type(ov.Type.u8)
        compiled = ov.Core().compile_model(
            steps.build(), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
        )
        self._queue = ov.AsyncInferQueue(compiled)
        self._queue.set_callback(self._on_result)
        self._lock = threading.Lock()

    def _on_result(self, request: Any, job: tuple[np.ndarray, Done]) -> None:
        job[1](request.get_output_tensor(0).data.copy())

    def submit(self, images: np.ndarray, done: Done) -> None:
        with self._lock:
            self._queue.start_async({0: images}, userdata=(images, done))

    def finish(self) -> None:
        self._queue.wait_all()
