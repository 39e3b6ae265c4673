"""AdamW that clips gradients in the same way on one device and on several."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("violence_detection")
class MirroredAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) that clips the gradients of the whole batch.

    Keras clips the gradients of each device's share separately, before they are summed, so mirrored training differs
    from training on one device as soon as anything is clipped.
    """

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        if keras.backend.backend() != "tensorflow":  # other backends pass the whole batch's gradients
            return super()._clip_gradients(grads)
        import tensorflow as tf

        replica = tf.distribute.get_replica_context()
        if replica is None or replica.num_replicas_in_sync == 1:
            return super()._clip_gradients(grads)
        clipped = super()._clip_gradients(replica.all_reduce(tf.distribute.ReduceOp.SUM, grads))
        return [g / replica.num_replicas_in_sync for g in clipped]  # Keras sums them again
