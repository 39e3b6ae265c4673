"""Fine-tuning: how the training of a head with a whole video network differs from that of other heads.

- It takes a fixed number of steps, on clips drawn evenly from each pair of data set and class.
- The network learns at a twentieth of the rate of the last layer, which is new.
- Some clips are mixed with another clip of the batch, and their labels likewise (Zhang et al. 2018, "mixup", arXiv
  1710.09412).
- At the end the weights are replaced by their moving average, and those of the network are averaged with the published
  weights, by default half and half: what the published network knew carries over to other data sets, and what was
  learnt here is better here (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903).
- On a CPU that multiplies bfloat16 in hardware, training computes in bfloat16, and keeps and updates the weights in
  float32 (Micikevicius et al. 2018, "Mixed precision training", arXiv 1710.03740; Kalamkar et al. 2019, arXiv
  1905.12322).
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

#: Learning rate of the last layer, as a multiple of the network's.
_HEAD_RATE = 20.0
#: Limits of the warm-up: a number of steps, and a share of all steps.
_WARMUP_STEPS, _WARMUP_SHARE = 20, 1 / 3
#: Momentum of the moving average of the weights.
_AVERAGE_MOMENTUM = 0.98
#: Seconds of a core for the forward and backward pass of a clip of 32 frames of 160 pixels in float32, on a fast kind
#: of processor and on a slow one (docs/guides/ship.md).
_CPU_S = (0.8, 1.4)
#: The same in bfloat16.
_CPU_BFLOAT16_S = (0.5, 0.9)
#: Share of the clips that are mixed with another.
_MIXED_SHARE = 0.4
#: Both parameters of the beta distribution from which the other clip's share is drawn.
_MIXED_BETA = 0.4


def is_tuned(record: Mapping[str, Any]) -> bool:
    """Whether a run's record (config.json) describes a head with a whole network."""
    return record["architecture"] in PICTURES_OF


def train_config(head: HeadConfig, train: TrainConfig) -> TrainConfig:
    """The training settings `train`, with the head's own batch size and learning rate in them."""
    return dataclasses.replace(
        train, batch_size=head.tuned_batch_size, learning_rate=_HEAD_RATE * head.tuned_learning_rate
    )


def plan(head: HeadConfig) -> StepPlan:
    """The step plan of such a head."""
    warmup = min(_WARMUP_STEPS, int(head.tuned_steps * _WARMUP_SHARE))
    return StepPlan(head.tuned_steps, head.tuned_steps, warmup)


def precision(train: TrainConfig) -> contextlib.AbstractContextManager[None]:
    """A context in which such a head is built and trained: in bfloat16, on a CPU that multiplies it in hardware.

    `mixed_precision` on or off overrides what the CPU supports. With a GPU the context changes nothing.
    """
    if not _takes_bfloat16(train):
        return contextlib.nullcontext()
    log.info("training in bfloat16; --mixed-precision off trains in float32")
    return heads.computing_in("mixed_bfloat16")


def _takes_bfloat16(train: TrainConfig) -> bool:
    if tensorflow_start.gpus():
        return False
    in_hardware = engines.has_avx512_bf16() or engines.has_amx()
    return train.mixed_precision == "on" or (train.mixed_precision == "auto" and in_hardware)


def say_what_it_takes(
    head: HeadConfig, train: TrainConfig, models: int, usd_per_hour: float, at_once: int | None = 1
) -> None:
    """Log, before training begins, how many clips it takes, and without a GPU for how long and at what cost.

    `models`: the number of such heads to train. `at_once`: how many of them are trained at a time on this machine;
    None: they are trained on other machines, so the time of a single one is given, without cost.
    """
    clips = models * head.tuned_steps * head.tuned_batch_size
    import tensorflow as tf

    from violence_detection.features import estimate

    if tensorflow_start.gpus():
        log.info("%d network(s) to train end to end: %s clips forward and backward", models, f"{clips:,}")
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
        "%d network(s) to train end to end, %s clips forward and backward, without a GPU: %s to %s%s on %d free cores, "
        "depending on the processor. A GPU takes minutes per network; --accumulate N needs less memory",
        models, f"{clips:,}", least, most, each, cores,
    )  # fmt: skip


def published_weights(record: Mapping[str, Any], given: Path | None) -> Path:
    """The file of published weights that the network starts from: `given`, or by default the backbone's own.

    Raises UserError if it cannot be had, or if it is not the file that the run's record names, with which the cache of
    pictures was made.
    """
    backbone = registry.get(PICTURES_OF[record["architecture"]])
    path = backbone.weights_file(given)
    noted = {r["weights_sha256"] for r in record["feature_records"].values()}
    if noted != {storage.sha256_file(path)}:
        raise UserError(
            f"{path} is not the file with which the cache of {backbone.name} was made. That file has the SHA-256 "
            f"{', '.join(sorted(noted))}. Give it with --backbone-weights FILE"
        )
    return path


def start(model: keras.Model, weights: Path) -> None:
    """Set the network's weights to the published ones in the file `weights`."""
    model.get_layer(tuned_network.TRUNK).set_published(numpy_pickle.read_tree(weights))


@keras.saving.register_keras_serializable("violence_detection")
class SlowTrunkAdamW(MirroredAdamW):
    """AdamW that updates some weights more slowly, and keeps a moving average of all weights.

    The slow weights and all biases are exempt from weight decay. The variables are set to their averages only by
    `take_average`, not at the end of each epoch.
    """

    def __init__(self, *args: Any, slowness: float = 1.0, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.slowness = slowness
        self._slow: frozenset[Any] = frozenset()

    def slow_down(self, variables: list[Any]) -> None:
        """Train `variables` at 1 / `slowness` of the learning rate, without weight decay. Call before `build`."""
        self._slow = frozenset(self._var_key(v) for v in variables)
        self.exclude_from_weight_decay(var_list=variables, var_names=["bias"])

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        factor = 1 / self.slowness if self._var_key(variable) in self._slow else 1.0
        super().update_step(gradient, variable, learning_rate * factor)

    def finalize_variable_values(self, var_list: list[Any]) -> None:
        """Do nothing. Keras calls it after each `fit`, here an epoch; training continues with the current weights."""

    def take_average(self, variables: list[Any]) -> None:
        """Set `variables` to their moving averages."""
        super().finalize_variable_values(variables)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "slowness": self.slowness}


def optimizer(model: keras.Model, schedule: Any, weight_decay: float) -> SlowTrunkAdamW:
    """Make the optimiser of such a head. `schedule`: the learning rate of the last layer."""
    made = SlowTrunkAdamW(
        schedule, weight_decay=weight_decay, global_clipnorm=1.0, slowness=_HEAD_RATE,
        use_ema=True, ema_momentum=_AVERAGE_MOMENTUM,
    )  # fmt: skip
    made.slow_down(model.get_layer(tuned_network.TRUNK).trainable_variables)
    return made


def mix_clips(model: keras.Model) -> None:
    """Make `model.fit` mix some clips of each batch. Call after `compile`, and after `micro_batches.accumulate`."""
    seed = model.get_layer("augmentation").seed_generator
    step, measure = model.train_step, model.compute_metrics

    def train_step(self: keras.Model, data: Any) -> Any:
        x, y, *_ = data
        return step(mixed(x, y, seed))

    def compute_metrics(self: keras.Model, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        # metrics count a mixed clip under the label of its larger part
        return measure(x, ops.round(y), y_pred, sample_weight)

    model.train_step = types.MethodType(train_step, model)
    model.compute_metrics = types.MethodType(compute_metrics, model)


def mixed(x: Mapping[str, Any], y: Any, seed: Any) -> tuple[dict[str, Any], Any]:
    """Mix some clips with the clip before them in the batch: inputs name -> (B, T, C), and labels (B, 1)."""
    shape = ops.shape(y)
    chosen = ops.cast(keras.random.uniform(shape, seed=seed) < _MIXED_SHARE, "float32")
    share = chosen * keras.random.beta(shape, _MIXED_BETA, _MIXED_BETA, seed=seed)  # of the other clip

    def mix(values: Any, share: Any) -> Any:
        values = ops.cast(values, "float32")
        return (1 - share) * values + share * ops.roll(values, 1, axis=0)

    return {name: mix(values, share[:, :, None]) for name, values in x.items()}, mix(y, share)


def finish(model: keras.Model, config: HeadConfig, weights: Path) -> None:
    """Set the weights at the end of training to their moving average, and the network's to a mean with the published.

    `config.keep_pretrained` is the share of the published weights, which the file `weights` contains.
    """
    inner = model.optimizer
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        inner = inner.inner_optimizer
    inner.take_average(model.trainable_variables)
    trunk = model.get_layer(tuned_network.TRUNK)
    tuned = trunk.get_weights()
    trunk.set_published(numpy_pickle.read_tree(weights))
    keep = config.keep_pretrained
    trunk.set_weights([(1 - keep) * t + keep * p for t, p in zip(tuned, trunk.get_weights(), strict=True)])
