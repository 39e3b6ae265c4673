"""Check that mirrored training is sound on this machine.

A few steps must give the same losses on one device and on all of them, and must change the weights. Since TensorFlow
2.16 MirroredStrategy has produced NaN on two GPUs where one GPU is fine (tensorflow#90686, #62915).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from violence_detection.features.key import Inputs
from violence_detection.training.picture_augmentation import PictureAugmentation

log = logging.getLogger(__name__)

STEPS = 5
#: Relative difference of losses that rounding may cause, since numbers are added in another order.
_TOLERANCE = 1e-3
#: The same under mixed precision, which computes in 16 bits.
_TOLERANCE_MIXED = 2e-2


def sound_strategy(
    strategy: Any,
    build: Callable[[], keras.Model],
    batches: Callable[[], Iterator[tuple[Inputs, np.ndarray]]],
    steps: int = STEPS,
) -> Any:
    """Return `strategy` if its losses are those of one device; otherwise log an error and return one device alone.

    `build` makes a compiled model, each time with the same weights, whose learning rate is not 0 at the first step.
    `batches` yields the same batches each time.
    """
    if strategy.num_replicas_in_sync == 1:
        return strategy
    single, moved = trial(tf.distribute.get_strategy(), build, batches, steps)
    if not moved or not all(map(math.isfinite, single)):
        # not the fault of mirroring, since one device fails too: training will stop and say why
        return strategy
    mirrored, mirrored_moved = trial(strategy, build, batches, steps)
    mixed = keras.mixed_precision.dtype_policy().name != "float32"
    if mirrored_moved and agree(single, mirrored, _TOLERANCE_MIXED if mixed else _TOLERANCE):
        log.info("mirrored training checked: %d steps give the losses of one device", steps)
        return strategy
    log.error(
        "MIRRORED TRAINING IS NOT SOUND HERE: the same %d steps gave the losses %s on one device and %s on %d%s. "
        "GOING ON WITH ONE DEVICE",
        steps, _shown(single), _shown(mirrored), strategy.num_replicas_in_sync,
        "" if mirrored_moved else ", where no weight changed",
    )  # fmt: skip
    return tf.distribute.get_strategy()


def trial(
    strategy: Any,
    build: Callable[[], keras.Model],
    batches: Callable[[], Iterator[tuple[Inputs, np.ndarray]]],
    steps: int,
) -> tuple[list[float], bool]:
    """Train for `steps` steps; return the loss of each, and whether the weights changed.

    Dropout and augmentation are off, since each device would draw its own random numbers.
    """
    with strategy.scope():
        model = build()
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # takes effect, since it is read at every call
        elif isinstance(layer, PictureAugmentation):
            layer.alters = False
    found, before = [], model.get_weights()
    for x, y in islice(batches(), steps):
        dataset = tf.data.Dataset.from_tensors((x, y))
        history = model.fit(dataset, epochs=1, shuffle=False, verbose=0).history
        found.append(float(history["loss"][-1]))
    moved = any(not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    return found, moved


def agree(single: list[float], mirrored: list[float], tolerance: float) -> bool:
    """Whether every loss of `mirrored` is finite and differs from that of `single` by at most this fraction of it."""
    pairs = list(zip(single, mirrored, strict=True))
    return all(math.isfinite(b) and abs(a - b) <= tolerance * abs(a) for a, b in pairs)


def _shown(values: list[float]) -> str:
    return ", ".join(f"{v:.5g}" for v in values)
