"""What runs a backbone: TensorFlow (GPUs or CPU) or OpenVINO (CPU, up to twice as fast, same float32 values).

On a CPU a batch is the T images of one clip, variant and stream; on GPUs it holds several of those, and each GPU has
the backbone to itself (see batching.py: a clip's features do not depend on what else is being extracted).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection import backbones
from violence_detection.batching import Engine, Runner, places_are_alike
from violence_detection.errors import UserError

log = logging.getLogger(__name__)

_BATCHES_A_DEVICE = 2  # one computes while the next is handed over; more would only fill a GPU's memory
#: Pixels of a GPU's batch: 64 images of 380 x 380 (EfficientNetB4's largest layer then has 0.7 GB in float16).
_GPU_BATCH_PIXELS = 64 * 380**2


def create(kind: str, backbone: backbones.Backbone, weights: Path, frames: int) -> Engine:
    """The engine asked for; `auto` takes TensorFlow where it sees a GPU, else OpenVINO if installed.

    Raises UserError if OpenVINO was asked for and is not installed.
    """
    if kind == "auto":
        kind = "tensorflow" if _gpus() or not _has_openvino() else "openvino"
    if kind == "openvino" and not _has_openvino():
        raise UserError("--engine openvino: the package is missing. Run: pip install openvino")
    if kind == "openvino":
        model = _build_float32(backbone, weights)
        return Engine("openvino-float32", _openvino(model, _shape(backbone, frames)))
    if gpus := _gpus():
        jobs_a_batch = max(1, _GPU_BATCH_PIXELS // (frames * backbone.input_size**2))
        return tensorflow_engine(backbone, weights, frames, gpus, jobs_a_batch)
    return tensorflow_engine(backbone, weights, frames, ["CPU:0"], 1)


def tensorflow_engine(
    backbone: backbones.Backbone, weights: Path, frames: int, devices: Sequence[str], jobs_a_batch: int
) -> Engine:
    """An engine with the backbone on each of the devices ("GPU:0", "GPU:1", ...), which take turns.

    `jobs_a_batch` is brought down to 1 where a clip's features would depend on its place in a batch.
    """
    import tensorflow as tf

    models = []
    for device in devices:
        with tf.device(device):
            models.append(_build_float32(backbone, weights))

    def runners(jobs: int) -> list[Runner]:
        made = []
        for device, model in zip(devices, models, strict=True):
            with tf.device(device):
                made.append(_tensorflow(model, _shape(backbone, jobs * frames)))
        return made

    ready = runners(jobs_a_batch)
    if jobs_a_batch > 1 and not places_are_alike(ready[0], _shape(backbone, frames), jobs_a_batch):
        log.warning("%s: features depend on the place in a batch here; each clip gets its own", backbone.name)
        ready, jobs_a_batch = runners(1), 1
    return Engine("tensorflow-float32", ready * _BATCHES_A_DEVICE, jobs_a_batch)


def _shape(backbone: backbones.Backbone, images: int) -> tuple[int, ...]:
    return (images, backbone.input_size, backbone.input_size, 3)


def _build_float32(backbone: backbones.Backbone, weights: Path) -> Any:
    """The model in float32, whatever precision heads are trained in: else evaluation would see other features."""
    import keras

    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        return backbone.build(weights)
    finally:
        keras.config.set_dtype_policy(policy)


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
        return model(tf.cast(images, tf.float32), training=False)

    # Traced here, once. `features` itself must not be called by several threads: after an error in one (TensorFlow
    # 2.21) its lock stays taken. The traced function has no lock, and no check of the shape either.
    traced = features.get_concrete_function()

    def run(images: np.ndarray) -> np.ndarray:
        if images.shape != shape:
            raise ValueError(f"images of shape {images.shape}, but the backbone takes {shape}")
        return traced(tf.constant(images)).numpy()

    return run


def _openvino(model: Any, shape: tuple[int, ...]) -> list[Runner]:
    import openvino as ov

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The structure of `inputs`")  # it is traced with a tuple
        converted = ov.convert_model(model)
    converted.reshape(list(shape))
    steps = ov.preprocess.PrePostProcessor(converted)
    steps.input().tensor().set_element_type(ov.Type.u8)
    compiled = ov.Core().compile_model(
        steps.build(), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT"}
    )

    def runner() -> Runner:
        request = compiled.create_infer_request()
        return lambda images: request.infer({0: images})[0].copy()

    return [runner() for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))]
