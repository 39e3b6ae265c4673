"""Loss scaling for float16 that remains sound when training is mirrored."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("violence_detection")
class MirroredLossScale(keras.optimizers.LossScaleOptimizer):
    """Dynamic loss scaling (Micikevicius et al. 2018, arXiv 1710.03740): a step whose gradients overflow is skipped.

    Here it is skipped if they overflow on any device. Keras 3 checks only the first device, before the gradients are
    summed, so an overflow on another device would turn all weights into NaN.
    """

    def check_finite(self, grads: list[Any]) -> Any:
        finite = super().check_finite(grads)
        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return finite
        overflows = replica.all_reduce(tf.distribute.ReduceOp.SUM, 1.0 - tf.cast(finite, tf.float32))
        return tf.equal(overflows, 0.0)
