"""What runs a backbone: TensorFlow (GPU or CPU) or OpenVINO (CPU, up to twice as fast, same float32 values).

An engine's name says its precision, which is part of what it makes: float32 on CPUs, float16 on GPUs and bfloat16 on
CPUs with AMX where they keep the features (see precision.py).

A job is the T images of one clip, variant and stream, always as one batch of T. The batch is never mixed with another
clip's, so a clip's features do not depend on what else is being extracted.
"""

from __future__ import annotations

import queue
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection import backbones, precision
from violence_detection.errors import UserError

#: Images (T, S, S, 3) uint8 to features (T, C) float32. One that is busy is not called a second time.
Runner = Callable[[np.ndarray], np.ndarray]
_TENSORFLOW_JOBS = 2  # one computes while the next is handed over; more would only fill a GPU's memory


class Engine:
    """Runs one job on each of its runners at once. Safe to use from several threads."""

    def __init__(self, name: str, runners: Sequence[Runner]):
        self.name = name
        self._idle: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for runner in runners:
            self._idle.put(runner)
        self._pool = ThreadPoolExecutor(len(runners), "engine")

    def submit(self, images: np.ndarray) -> Future[np.ndarray]:
        """Features (T, C) float32 to come, for images (T, S, S, 3) uint8.

        Waits while all runners are busy, so that images do not pile up. An error comes with the future's result.
        """
        return self._pool.submit(self._run, self._idle.get(), images)

    def _run(self, runner: Runner, images: np.ndarray) -> np.ndarray:
        try:
            return runner(images)
        finally:
            self._idle.put(runner)


def create(
    kind: str,
    backbone: backbones.Backbone,
    weights: Path,
    frames: int,
    probe: precision.Probe | None = None,
) -> Engine:
    """The engine asked for; `auto` takes TensorFlow where it sees a GPU, else OpenVINO if installed.

    With a probe, the reduced precision that the hardware is fast at, if that keeps the features; else float32.
    Raises UserError if OpenVINO was asked for and is not installed.
    """
    if kind == "auto":
        kind = "tensorflow" if _has_gpu() or not _has_openvino() else "openvino"
    if kind == "openvino" and not _has_openvino():
        raise UserError("--engine openvino: the package is missing. Run: pip install openvino")
    exact = _engine(kind, backbone, weights, frames, "float32")
    reduced = _reduced_precision(kind)
    if probe is None or reduced is None:
        return exact
    return precision.faster_if_equal(lambda: _engine(kind, backbone, weights, frames, reduced), exact, probe)


def _reduced_precision(kind: str) -> str | None:
    """The precision below float32 that this machine computes much faster, if any."""
    if kind == "tensorflow":
        return "float16" if _has_gpu() else None
    return "bfloat16" if precision.has_amx() else None


def _engine(kind: str, backbone: backbones.Backbone, weights: Path, frames: int, dtype: str) -> Engine:
    """An engine named after its kind and precision, `dtype`: float32, float16 (TensorFlow), bfloat16 (OpenVINO)."""
    shape = (frames, backbone.input_size, backbone.input_size, 3)
    name = f"{kind}-{dtype}"
    if kind == "openvino":
        return Engine(name, _openvino(_build(backbone, weights, "float32"), shape, dtype))
    policy = "float32" if dtype == "float32" else f"mixed_{dtype}"
    return Engine(name, [_tensorflow(_build(backbone, weights, policy), shape)] * _TENSORFLOW_JOBS)


def _build(backbone: backbones.Backbone, weights: Path, policy: str) -> Any:
    """The model under that dtype policy, whatever heads are trained in: else evaluation would see other features."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return backbone.build(weights)
    finally:
        keras.config.set_dtype_policy(before)


def _has_gpu() -> bool:
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def _has_openvino() -> bool:
    import importlib.util

    return importlib.util.find_spec("openvino") is not None


def _tensorflow(model: Any, shape: tuple[int, ...]) -> Runner:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)])
    def features(images: Any) -> Any:
        return tf.cast(model(tf.cast(images, tf.float32), training=False), tf.float32)

    # Traced here, once. `features` itself must not be called by several threads: after an error in one (TensorFlow
    # 2.21) its lock stays taken. The traced function has no lock, and no check of the shape either.
    traced = features.get_concrete_function()

    def run(images: np.ndarray) -> np.ndarray:
        if images.shape != shape:
            raise ValueError(f"images of shape {images.shape}, but the backbone takes {shape}")
        return traced(tf.constant(images)).numpy()

    return run


def _openvino(model: Any, shape: tuple[int, ...], dtype: str) -> list[Runner]:
    import openvino as ov

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The structure of `inputs`")  # it is traced with a tuple
        converted = ov.convert_model(model)
    converted.reshape(list(shape))
    steps = ov.preprocess.PrePostProcessor(converted)
    steps.input().tensor().set_element_type(ov.Type.u8)
    hint = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    compiled = ov.Core().compile_model(
        steps.build(), "CPU", {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "THROUGHPUT"}
    )

    def runner() -> Runner:
        request = compiled.create_infer_request()
        return lambda images: request.infer({0: images})[0].copy()

    return [runner() for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))]
