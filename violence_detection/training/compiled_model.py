"""A head that is ready to be trained: initial weights, optimiser with its schedule, and loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from violence_detection.training import fine_tuning, heads, step_plan
from violence_detection.training.config import TrainConfig
from violence_detection.training.loss_scale import MirroredLossScale
from violence_detection.training.mirrored_adamw import MirroredAdamW


def build(record: Mapping[str, Any], steps: int) -> keras.Model:
    """Build the compiled model of a run's record, with initial weights that its seed decides.

    `steps`: steps per epoch, from which the schedule follows unless the record has a step plan.
    """
    c = TrainConfig(**record["train"])
    keras.utils.set_random_seed(c.seed)
    model = heads.of_record(record)
    plan = step_plan.of_record(record) or step_plan.of_epochs(c, steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if plan.warmup else c.learning_rate,
        decay_steps=max(1, plan.horizon - plan.warmup),
        alpha=0.01,
        warmup_target=c.learning_rate if plan.warmup else None,
        warmup_steps=plan.warmup,
    )
    if fine_tuning.is_tuned(record):
        optimizer = fine_tuning.optimizer(model, schedule, c.weight_decay)
    else:
        optimizer = MirroredAdamW(schedule, weight_decay=c.weight_decay, global_clipnorm=1.0)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    is_float16 = keras.mixed_precision.dtype_policy().compute_dtype == "float16"
    model.compile(
        MirroredLossScale(optimizer) if is_float16 else optimizer,
        keras.losses.BinaryCrossentropy(label_smoothing=c.label_smoothing),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.AUC(name="auc")],
        jit_compile=False,
    )
    # before the first step: TensorFlow traces a step twice if it creates the optimiser's variables
    model.optimizer.build(model.trainable_variables)
    return model
