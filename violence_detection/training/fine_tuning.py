"""How a head with a whole video network is trained: what the trainer does otherwise for it.

- It makes a fixed number of steps, of clips drawn evenly from each pair of data set and class.
- The network learns at a twentieth of the rate of the last layer, which is new.
- Some clips are mixed with another of the batch, labels alike (Zhang et al. 2018, "mixup", arXiv 1710.09412).
- What is kept is the moving average of the weights, and of the network half of that and half of the published weights:
  what it knew travels, what it learnt here is better here (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
- On a CPU that multiplies bfloat16 in hardware it is computed in that, with weights and their updates in float32
  (Micikevicius et al. 2018, "Mixed precision training", arXiv 1710.03740; Kalamkar et al. 2019, arXiv 1905.12322).
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
from keras import ops

from violence_detection.backbones import engines, numpy_pickle, registry
from violence_detection.errors import UserError
from violence_detection.system import processes, storage, tensorflow_start
from violence_detection.training import heads, tuned_network
from violence_detection.training.config import PICTURES_OF, HeadConfig, TrainConfig
from violence_detection.training.mirrored_adamw import MirroredAdamW
from violence_detection.training.step_plan import StepPlan

log = logging.getLogger(__name__)

_HEAD_RATE = 20.0  # times the network's
_WARMUP_STEPS, _WARMUP_SHARE = 20, 1 / 3
_AVERAGE_MOMENTUM = 0.98
#: Seconds of a core that a clip of 32 frames of 160 pixels takes there and back, on a fast kind of processor and a slow
#: one (docs/guides/ship.md).
_CPU_S, _CPU_BFLOAT16_S = (0.8, 1.4), (0.5, 0.9)
_MIXED_SHARE, _MIXED_BETA = 0.4, 0.4


def is_tuned(record: Mapping[str, Any]) -> bool:
    """Whether a run (config.json) is of such a head."""
    return record["architecture"] in PICTURES_OF


def train_config(head: HeadConfig, train: TrainConfig) -> TrainConfig:
    """The settings of training with those that the head has of its own."""
    return dataclasses.replace(
        train, batch_size=head.tuned_batch_size, learning_rate=_HEAD_RATE * head.tuned_learning_rate
    )


def plan(head: HeadConfig) -> StepPlan:
    """Its steps."""
    warmup = min(_WARMUP_STEPS, int(head.tuned_steps * _WARMUP_SHARE))
    return StepPlan(head.tuned_steps, head.tuned_steps, warmup)


def precision(train: TrainConfig) -> contextlib.AbstractContextManager[None]:
    """In what such a head is trained: as others, but in bfloat16 on a CPU that is fast at it, unless told otherwise."""
    if not _takes_bfloat16(train):
        return contextlib.nullcontext()
    log.info("training in bfloat16, which this CPU multiplies in hardware; --mixed-precision off: in float32")
    return heads.computing_in("mixed_bfloat16")


def _takes_bfloat16(train: TrainConfig) -> bool:
    if tensorflow_start.gpus():
        return False
    in_hardware = engines.has_avx512_bf16() or engines.has_amx()
    return train.mixed_precision == "on" or (train.mixed_precision == "auto" and in_hardware)


def say_what_it_takes(
    head: HeadConfig, train: TrainConfig, models: int, usd_per_hour: float, at_once: int | None = 1
) -> None:
    """Log, before it begins, how long training so many such heads takes where there is no GPU.

    `at_once`: how many are trained at a time on this machine; None: on others, so that the time of one is said.
    """
    clips = models * head.tuned_steps * head.tuned_batch_size
    import tensorflow as tf

    from violence_detection.features import estimate

    if tensorflow_start.gpus():
        log.info("%d network(s) to train end to end: %s clips there and back", models, f"{clips:,}")
        return
    core_s = _CPU_BFLOAT16_S if _takes_bfloat16(train) else _CPU_S
    cpus = processes.usable_cpus()
    cores = threads = tf.config.threading.get_intra_op_parallelism_threads() or cpus
    if at_once is None:
        told, price, each = clips / models, 0.0, " each"
    else:
        told, price, each = clips, usd_per_hour, ""
        cores = max(threads, min(threads * min(at_once, models), cpus))
    least, most = (estimate.time_and_cost(told * s / cores, price) for s in core_s)
    log.warning(
        "%d network(s) to train end to end, %s clips there and back, without a GPU: %s to %s%s on %d free cores, by "
        "the kind of processor. A GPU takes minutes a network; --accumulate N takes less memory",
        models, f"{clips:,}", least, most, each, cores,
    )  # fmt: skip


def published_weights(record: Mapping[str, Any], given: Path | None) -> Path:
    """The weights file that the network starts from: the one that the run's record names.

    Raises UserError if it cannot be had, or is another one than that of the pictures' cache.
    """
    backbone = registry.get(PICTURES_OF[record["architecture"]])
    path = backbone.weights_file(given)
    noted = {r["weights_sha256"] for r in record["feature_records"].values()}
    if noted != {storage.sha256_file(path)}:
        raise UserError(
            f"{path} is not the file with which the cache of {backbone.name} was made (SHA-256 "
            f"{', '.join(sorted(noted))}). Give that with --backbone-weights FILE"
        )
    return path


def start(model: keras.Model, weights: Path) -> None:
    """Give the network the published weights."""
    model.get_layer(tuned_network.TRUNK).set_published(numpy_pickle.read_tree(weights))


@keras.saving.register_keras_serializable("violence_detection")
class SlowTrunkAdamW(MirroredAdamW):
    """AdamW that moves some weights more slowly and keeps an average.

    Those weights do not decay either. The average is taken when it is asked for, not at the end of each epoch.
    """

    def __init__(self, *args: Any, slowness: float = 1.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.slowness = slowness
        self._slow: frozenset[Any] = frozenset()

    def slow_down(self, variables: list[Any]) -> None:
        """Call it before `build`."""
        self._slow = frozenset(self._var_key(v) for v in variables)
        self.exclude_from_weight_decay(var_list=variables, var_names=["bias"])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = 1 / self.slowness if self._var_key(variable) in self._slow else 1.0
        super().update_step(gradient, variable, learning_rate * factor)

    def finalize_variable_values(self, var_list: list[Any]) -> None:
        """Keras calls it after each `fit`, which here is an epoch: training goes on with the weights as they are."""

    def take_average(self, variables: list[Any]) -> None:
        """Put the average of the weights into the variables."""
        super().finalize_variable_values(variables)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slowness": self.slowness}


def optimizer(model: keras.Model, schedule: Any, weight_decay: float) -> SlowTrunkAdamW:
    """The optimiser of such a head. `schedule`: of the last layer's learning rate."""
    made = SlowTrunkAdamW(
        schedule, weight_decay=weight_decay, global_clipnorm=1.0, slowness=_HEAD_RATE,
        use_ema=True, ema_momentum=_AVERAGE_MOMENTUM,
    )  # fmt: skip
    made.slow_down(model.get_layer(tuned_network.TRUNK).trainable_variables)
    return made


def mix_clips(model: keras.Model) -> None:
    """Have `model.fit` mix some clips of each batch. Call after `compile`, and after `micro_batches.accumulate`."""
    seed = model.get_layer("augmentation").seed_generator
    step, measure = model.train_step, model.compute_metrics

    def train_step(self: keras.Model, data: Any) -> Any:
        x, y, *_ = data
        return step(mixed(x, y, seed))

    def compute_metrics(self: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        return measure(x, ops.round(y), y_pred, sample_weight)  # of the class that makes most of it

    model.train_step = types.MethodType(train_step, model)
    model.compute_metrics = types.MethodType(compute_metrics, model)


def mixed(x: Mapping[str, Any], y: Any, seed: Any) -> tuple[dict[str, Any], Any]:
    """Inputs name -> (B, T, C) and labels (B, 1), some with a share of the clip before them in the batch."""
    shape = ops.shape(y)
    chosen = ops.cast(keras.random.uniform(shape, seed=seed) < _MIXED_SHARE, "float32")
    share = chosen * keras.random.beta(shape, _MIXED_BETA, _MIXED_BETA, seed=seed)  # of the other clip

    def mix(values: Any, share: Any) -> Any:
        values = ops.cast(values, "float32")
        return (1 - share) * values + share * ops.roll(values, 1, axis=0)

    return {name: mix(values, share[:, :, None]) for name, values in x.items()}, mix(y, share)


def finish(model: keras.Model, config: HeadConfig, weights: Path) -> None:
    """At the end of training: the average of the weights, that of the network with the published ones."""
    inner = model.optimizer
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        inner = inner.inner_optimizer
    inner.take_average(model.trainable_variables)
    trunk = model.get_layer(tuned_network.TRUNK)
    tuned = trunk.get_weights()
    trunk.set_published(numpy_pickle.read_tree(weights))
    keep = config.keep_pretrained
    trunk.set_weights([(1 - keep) * t + keep * p for t, p in zip(tuned, trunk.get_weights(), strict=True)])
