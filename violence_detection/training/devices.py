"""Set TensorFlow up, once per process: determinism, precision, and the devices that a model is mirrored on."""

from __future__ import annotations

import logging
import multiprocessing
from typing import Any

from violence_detection.errors import UserError
from violence_detection.system import tensorflow_start
from violence_detection.training import pod_check
from violence_detection.training.config import TrainConfig

log = logging.getLogger(__name__)


def set_up(config: TrainConfig) -> Any:
    """Seed everything, set the precision, and return the distribution strategy.

    Call before anything else touches TensorFlow: logical devices can only be created before it starts. On a CPU,
    operations are made deterministic, so that the same seed gives the same loss history. Raises UserError if there are
    GPUs, but fewer than `devices` asks for.
    """
    import keras
    import tensorflow as tf

    gpus = tensorflow_start.gpus()
    if multiprocessing.parent_process() is None:  # else the parent process has warned
        pod_check.warn_of_unseen_gpus(len(gpus))
    count = config.devices or max(len(gpus), 1)
    if gpus and count > len(gpus):
        raise UserError(
            f"--devices {count}: TensorFlow sees only {len(gpus)} GPU(s). Lower --devices, or see what nvidia-smi lists"
        )
    if not gpus and count > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    if not gpus:
        tensorflow_start.make_deterministic()
    mixed = config.mixed_precision == "on" or (config.mixed_precision == "auto" and bool(gpus))
    keras.mixed_precision.set_dtype_policy(
        ("mixed_float16" if gpus else "mixed_bfloat16") if mixed else "float32"
    )
    keras.utils.set_random_seed(config.seed)
    kind = "GPU" if gpus else "CPU"
    log.info("devices: %d x %s, precision %s", count, kind, keras.mixed_precision.dtype_policy().name)
    if count > 1:
        return tf.distribute.MirroredStrategy([f"{kind}:{i}" for i in range(count)])
    return tf.distribute.get_strategy()
