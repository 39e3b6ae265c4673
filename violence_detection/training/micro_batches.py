"""Gradient accumulation: process a batch in several parts, one after another, and then update the weights once.

Unlike with an optimiser's `gradient_accumulation_steps`, nothing is carried over from step to step: batches, schedule,
clipping and resuming are those of whole batches. Only the memory needed is that of a part.
"""

from __future__ import annotations

import types
from typing import Any

import keras
import tensorflow as tf

from violence_detection.errors import UserError


def parts_of(batch_size: int, devices: int, at_least: int) -> int:
    """The smallest number of equal parts, not below `at_least`, into which each device's share of a batch divides.

    A batch that the devices cannot share evenly is processed by one of them, see TrainingRun. Raises UserError if
    `at_least` is larger than that share.
    """
    if batch_size % devices:
        devices = 1
    share = batch_size // devices
    if at_least > share:
        raise UserError(
            f"a batch of {batch_size} on {devices} device(s) cannot be divided into {at_least} equal parts. Lower "
            "--accumulate or change --batch-size (i3d_tuned: --tuned-batch-size)"
        )
    return next(n for n in range(at_least, share + 1) if share % n == 0)


def accumulate(model: keras.Model, parts: int) -> None:
    """Make `model.fit` process each device's share of a batch in that many equal parts. Call after `compile`."""
    model.train_step = types.MethodType(lambda self, data: _train_step(self, data, parts), model)


def _train_step(model: keras.Model, data: Any, parts: int) -> dict[str, Any]:
    x, y = data
    variables = model.trainable_variables
    size = tf.shape(y)[0] // parts

    def part(
        i: tf.Tensor, loss_sum: tf.Tensor, p: tf.TensorArray, gradients: list[tf.Tensor]
    ) -> tuple[Any, ...]:
        x_i, y_i = tf.nest.map_structure(lambda t: t[i * size : (i + 1) * size], (x, y))
        with tf.GradientTape() as tape:
            p_i = model(x_i, training=True)
            # compute_loss has divided by the number of devices
            loss = model.compute_loss(x=x_i, y=y_i, y_pred=p_i, training=True) / parts
            scaled = model.optimizer.scale_loss(loss)
        more = tape.gradient(scaled, variables)
        return i + 1, loss_sum + loss, p.write(i, p_i), [g + m for g, m in zip(gradients, more, strict=True)]

    start = (
        tf.constant(0),
        tf.constant(0.0),
        tf.TensorArray(tf.float32, parts, element_shape=(None, 1)),
        [tf.zeros_like(v) for v in variables],
    )
    # one part at a time; in parallel, all would be in memory at once
    _, loss, p, gradients = tf.while_loop(lambda i, *_: i < parts, part, start, parallel_iterations=1)
    devices = tf.distribute.get_strategy().num_replicas_in_sync
    loss_metric = next(m for m in model.metrics if m.name == "loss")
    loss_metric.update_state(loss * devices, sample_weight=tf.shape(y)[0])
    model.optimizer.apply_gradients(zip(gradients, variables, strict=True))
    return model.compute_metrics(x, y, p.concat())
