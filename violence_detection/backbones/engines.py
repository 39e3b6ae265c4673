"""What runs a backbone: TensorFlow (GPUs or CPU) or OpenVINO (CPU, up to twice as fast, same float32 values).

On a CPU a batch is the T images of one clip, variant and stream; on GPUs it holds several of those, and each GPU has
the backbone to itself (see batching.py: a clip's features do not depend on what else is being extracted).

An engine's name says its precision, which is part of what it makes: float32 on CPUs, float16 on GPUs and bfloat16 on
CPUs with AMX where they keep the features (see precision.py).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.backbones import precision
from violence_detection.backbones.batching import Engine, Features, Runner, batch_invariant
from violence_detection.backbones.registry import Backbone
from violence_detection.errors import UserError

log = logging.getLogger(__name__)

_BATCHES_A_DEVICE = 2  # one computes while the next is handed over; more would only fill a GPU's memory
#: Pixels of a GPU's batch: 64 images of 380 x 380 (EfficientNetB4's largest layer then has 0.7 GB in float16).
_GPU_BATCH_PIXELS = 64 * 380**2


def create(
    kind: str,
    backbone: Backbone,
    weights: Path,
    frames: int,
    probe: precision.Probe | None = None,
    trained_with: Sequence[str] = (),
) -> Engine:
    """The engine asked for; `auto` takes TensorFlow where it sees a GPU, else OpenVINO if installed.

    With a probe, the reduced precision that the hardware is fast at, if that keeps the features. `trained_with`: names
    of the engines whose features a model was trained on; the reduced precision if it was that alone. Otherwise float32.
    Raises UserError if OpenVINO was asked for and is not installed.
    """
    if kind == "auto":
        kind = "tensorflow" if _gpus() or not _has_openvino() else "openvino"
    if kind == "openvino" and not _has_openvino():
        raise UserError("--engine openvino: the package is missing. Run: pip install openvino")
    reduced = _reduced_precision(kind)
    if reduced and set(trained_with) == {f"{kind}-{reduced}"}:
        return _engine(kind, backbone, weights, frames, reduced)
    exact = _engine(kind, backbone, weights, frames, "float32")
    if probe is None or reduced is None:
        return exact
    return precision.faster_if_equal(lambda: _engine(kind, backbone, weights, frames, reduced), exact, probe)


def _reduced_precision(kind: str) -> str | None:
    """The precision below float32 that this machine computes much faster, if any."""
    if kind == "tensorflow":
        return "float16" if _gpus() else None
    return "bfloat16" if precision.has_amx() else None


def _engine(kind: str, backbone: Backbone, weights: Path, frames: int, dtype: str) -> Engine:
    """An engine named after its kind and precision, `dtype`: float32, float16 (TensorFlow), bfloat16 (OpenVINO)."""
    if kind == "openvino":
        model = _build(backbone, weights, "float32")
        return Engine(f"openvino-{dtype}", _openvino(model, _shape(backbone, frames), dtype))
    gpus = _gpus()
    jobs_a_batch = max(1, _GPU_BATCH_PIXELS // (frames * backbone.input_size**2)) if gpus else 1
    if backbone.is_video:  # its batch axis is time
        jobs_a_batch = 1
    return tensorflow_engine(backbone, weights, frames, gpus or ["CPU:0"], jobs_a_batch, dtype)


def tensorflow_engine(
    backbone: Backbone,
    weights: Path,
    frames: int,
    devices: Sequence[str],
    jobs_a_batch: int,
    dtype: str = "float32",
) -> Engine:
    """An engine with the backbone on each of the devices ("GPU:0", "GPU:1", ...), which take turns.

    `jobs_a_batch` is brought down to 1 where a clip's features would depend on its place in a batch.
    """
    import tensorflow as tf

    policy = "float32" if dtype == "float32" else f"mixed_{dtype}"
    models = []
    for device in devices:
        with tf.device(device):
            models.append(_build(backbone, weights, policy))

    def runners(jobs: int) -> list[Runner]:
        made = []
        for device, model in zip(devices, models, strict=True):
            with tf.device(device):
                made.append(_tensorflow(model, _shape(backbone, jobs * frames)))
        return made

    ready = runners(jobs_a_batch)
    if jobs_a_batch > 1 and not batch_invariant(ready[0], _shape(backbone, frames), jobs_a_batch):
        log.warning("%s: features depend on the place in a batch here; each clip gets its own", backbone.name)
        ready, jobs_a_batch = runners(1), 1
    return Engine(f"tensorflow-{dtype}", ready * _BATCHES_A_DEVICE, jobs_a_batch)


def _shape(backbone: Backbone, images: int) -> tuple[int, ...]:
    return (images, backbone.input_size, backbone.input_size, 3)


def _build(backbone: Backbone, weights: Path, policy: str) -> Any:
    """The model under that dtype policy, whatever heads are trained in: else evaluation would see other features."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return backbone.build(weights)
    finally:
        keras.config.set_dtype_policy(before)


def _gpus() -> list[str]:
    import tensorflow as tf

    return [f"GPU:{i}" for i, _ in enumerate(tf.config.list_physical_devices("GPU"))]


def _has_openvino() -> bool:
    import importlib.util

    return importlib.util.find_spec("openvino") is not None


def _tensorflow(model: Any, shape: tuple[int, ...]) -> Runner:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)])
    def features(images: Any) -> Any:
        return tf.nest.map_structure(
            lambda values: tf.cast(values, tf.float32), model(tf.cast(images, tf.float32), training=False)
        )

    # Traced here, once. `features` itself must not be called by several threads: after an error in one (TensorFlow
    # 2.21) its lock stays taken. The traced function has no lock, and no check of the shape either.
    traced = features.get_concrete_function()

    def run(images: np.ndarray) -> Features:
        if images.shape != shape:
            raise ValueError(f"images of shape {images.shape}, but the backbone takes {shape}")
        return tf.nest.map_structure(lambda values: values.numpy(), traced(tf.constant(images)))

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
        return lambda images: _plain_or_list(
            [values.copy() for values in request.infer({0: images}).values()]
        )

    return [runner() for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))]


def _plain_or_list(outputs: list[np.ndarray]) -> Features:
    return outputs if len(outputs) > 1 else outputs[0]
