"""The heads: from what the backbones give for a clip to P(fight).

Every head takes a dict of inputs, name -> (B, T, C), one per backbone and stream. The heads that pool features over
time normalise and project each input; inputs of the same length T are concatenated step by step, the others keep a
branch of their own.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import layers, ops

from violence_detection.backbones import registry
from violence_detection.features import key
from violence_detection.system import tensorflow_start
from violence_detection.training.config import ARCHITECTURES as ARCHITECTURES
from violence_detection.training.config import KERNEL as KERNEL
from violence_detection.training.config import LEAST_LENGTH, PICTURES_OF, HeadConfig
from violence_detection.training.config import ON_FEATURES as ON_FEATURES

#: At most this many clips are judged at once.
PREDICT_BATCH = 256
#: And at most this many numbers in their inputs, so that fewer clips are judged at once where inputs are pictures.
_PREDICT_NUMBERS = 1 << 25

Tensor: TypeAlias = Any  # keras.KerasTensor; Keras publishes no types


@keras.saving.register_keras_serializable("violence_detection")
class TemporalAttention(layers.Layer):
    """Additive attention pooling over time (Bahdanau et al. 2015, arXiv 1409.0473): (B, T, D) -> (B, D).

    The softmax over T is computed in float32, also under mixed precision.
    """

    def __init__(self, units: int = 64, **kwargs: object):
        super().__init__(**kwargs)
        self.units = units
        policy = self.dtype_policy
        self.hidden = layers.Dense(units, activation="tanh", name="hidden", dtype=policy)
        self.score = layers.Dense(1, use_bias=False, name="score", dtype=policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.hidden.build(input_shape)
        self.score.build((*input_shape[:-1], self.units))
        super().build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        return ops.sum(ops.cast(self.shares(x), x.dtype) * x, axis=1)

    def shares(self, x: Tensor) -> Tensor:
        """The share of each time step in the pooled vector: (B, T, D) -> (B, T, 1) float32, summing to 1 over T."""
        return ops.softmax(ops.cast(self.score(self.hidden(x)), "float32"), axis=1)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("violence_detection")
class PositionEmbedding(layers.Layer):
    """Add a learnt vector to each time step: (B, T, D) -> (B, T, D)."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.table = self.add_weight(
            shape=input_shape[1:], initializer=keras.initializers.RandomNormal(0.0, 0.02)
        )
        super().build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        return x + ops.cast(self.table, x.dtype)


@keras.saving.register_keras_serializable("violence_detection")
class LandmarkSimilarity(layers.Layer):
    """Similarity of a clip to each of M landmarks, which are train clips: (B, T, C) -> (B, M) float32 in [0, 1].

    It is a Gaussian kernel between the clip's mean over time, scaled to unit length, and the landmarks' stored vectors
    of unit length. With `length_counts`, vectors keep their lengths: the kernel compares their directions, and is
    multiplied by both lengths, each cut off at 1. Computed in float32 always. Landmarks and `gamma` are not learnt in
    training steps but set by kernel_fit.py.
    """

    def __init__(self, landmarks: int, length_counts: bool = False, **kwargs: object):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.landmarks, self.length_counts = landmarks, length_counts

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (self.landmarks, input_shape[-1])
        self.vectors = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="vectors")
        self.gamma = self.add_weight(shape=(1,), initializer="ones", trainable=False, name="gamma")
        super().build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        x, vectors = ops.mean(ops.cast(x, "float32"), axis=1), self.vectors
        counts = 1.0
        if self.length_counts:
            # cut off at 1: a landmark is rounded, which may have made it longer
            counts = ops.minimum(_length(x), 1.0) * ops.minimum(ops.transpose(_length(vectors)), 1.0)
            vectors = unit(vectors)
        alike = ops.exp(2.0 * self.gamma * (ops.matmul(unit(x), ops.transpose(vectors)) - 1.0))
        return counts * alike

    def get_config(self) -> dict[str, object]:
        config = {**super().get_config(), "landmarks": self.landmarks}
        return config | ({"length_counts": True} if self.length_counts else {})


def unit(x: Tensor) -> Tensor:
    """Scale vectors (B, C) to unit length. Those shorter than LEAST_LENGTH are divided by it, so remain below 1."""
    return x / ops.maximum(_length(x), LEAST_LENGTH)


def _length(x: Tensor) -> Tensor:
    """The lengths (B, 1) of vectors (B, C)."""
    return ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))


def build(architecture: str, inputs: Mapping[str, tuple[int, int]], config: HeadConfig) -> keras.Model:
    """Build a head with fresh weights. `inputs`: name -> (T, C).

    The model maps {name: (B, T, C)} to P(fight), (B, 1) float32.
    """
    given = {name: keras.Input(shape, name=name) for name, shape in inputs.items()}
    first = "glorot_uniform"
    if architecture in PICTURES_OF:
        from violence_detection.training import tuned_network  # imports a network that few models need

        # with zeros, an untrained last layer passes no gradients on to the published network
        x, first = tuned_network.pooled(given, config), "zeros"
    elif architecture == KERNEL:
        x = _kernel(given, config)
    else:
        x = _temporal(architecture, given, config)
    logits = layers.Dense(1, kernel_initializer=first, dtype="float32", name="logits")(x)
    p_fight = layers.Activation("sigmoid", dtype="float32", name="p_fight")(logits)
    return keras.Model(given, p_fight, name=architecture)


def of_record(record: Mapping[str, Any]) -> keras.Model:
    """Build the head that a run's record (config.json) describes, with fresh weights."""
    shapes = {name: (shape[0], shape[1]) for name, shape in record["inputs"].items()}
    return build(record["architecture"], shapes, HeadConfig(**record["head"]))


def _kernel(given: Mapping[str, Tensor], config: HeadConfig) -> Tensor:
    """What the support vector machine works on: similarities to the landmarks, averaged over the inputs, (B, M)."""
    found = [
        LandmarkSimilarity(
            config.landmarks, registry.length_counts(key.backbone_of(name)), name=f"{name}.similarity"
        )(x)
        for name, x in given.items()
    ]
    return layers.Average(dtype="float32")(found) if len(found) > 1 else found[0]


def _temporal(architecture: str, given: Mapping[str, Tensor], config: HeadConfig) -> Tensor:
    """Project the inputs, concatenate those of the same length, and pool them over time: (B, D)."""
    by_length: dict[int, list[Tensor]] = {}
    for name, x in given.items():
        x = layers.LayerNormalization(name=f"{name}.norm")(x)
        # drops a channel in all frames at once, since neighbouring frames would reveal its value (Tompson et al. 2015)
        x = layers.SpatialDropout1D(config.input_dropout, name=f"{name}.dropout")(x)
        x = layers.Dense(config.projection, activation="gelu", name=f"{name}.projection")(x)
        by_length.setdefault(x.shape[1], []).append(x)
    vectors = []
    for sequences in by_length.values():
        x = layers.Concatenate()(sequences) if len(sequences) > 1 else sequences[0]
        x = layers.Dropout(config.dropout)(x)
        vectors.append(POOLINGS[architecture](x, config))
    x = layers.Concatenate()(vectors) if len(vectors) > 1 else vectors[0]
    return layers.Dropout(config.dropout)(x)


def _bilstm_attention(x: Tensor, c: HeadConfig) -> Tensor:
    x = layers.Bidirectional(layers.LSTM(c.units, return_sequences=True))(x)
    x = layers.Dropout(c.dropout)(x)
    x = layers.Bidirectional(layers.LSTM(c.units // 2, return_sequences=True))(x)
    return TemporalAttention(c.units // 2)(x)


def _lstm(x: Tensor, c: HeadConfig) -> Tensor:
    x = layers.LSTM(c.units, return_sequences=True)(x)
    x = layers.Dropout(c.dropout)(x)
    return layers.LSTM(c.units // 2)(x)


def _deep_lstm(x: Tensor, c: HeadConfig) -> Tensor:
    for units in (c.units, c.units):
        x = layers.LSTM(units, return_sequences=True)(x)
        x = layers.Dropout(c.dropout)(x)
    return layers.LSTM(c.units // 2)(x)


def _bilstm(x: Tensor, c: HeadConfig) -> Tensor:
    x = layers.Bidirectional(layers.LSTM(c.units, return_sequences=True))(x)
    x = layers.Dropout(c.dropout)(x)
    return layers.Bidirectional(layers.LSTM(c.units // 2))(x)


def _gru(x: Tensor, c: HeadConfig) -> Tensor:
    x = layers.GRU(c.units, return_sequences=True)(x)
    x = layers.Dropout(c.dropout)(x)
    return layers.GRU(c.units // 2)(x)


def _conv_lstm(x: Tensor, c: HeadConfig) -> Tensor:
    for _ in range(2):
        x = layers.Conv1D(c.units, 3, padding="same", activation="gelu")(x)
    if x.shape[1] > 1:  # some backbones give one vector for the whole clip
        x = layers.MaxPooling1D(2)(x)
    x = layers.Dropout(c.dropout)(x)
    return layers.LSTM(c.units // 2)(x)


def _attention(x: Tensor, c: HeadConfig) -> Tensor:
    """Pre-norm transformer encoder (Vaswani et al. 2017; Xiong et al. 2020) of two blocks, then attention pooling."""
    x = PositionEmbedding()(layers.Dense(c.units)(x))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        # float32, so that the softmax is computed in it
        y = layers.MultiHeadAttention(4, c.units // 4, dropout=c.dropout / 2, dtype="float32")(y, y)
        x = x + layers.Dropout(c.dropout)(y)
        y = layers.Dense(2 * c.units, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dropout(c.dropout)(layers.Dense(c.units)(y))
    return TemporalAttention(c.units // 2)(layers.LayerNormalization()(x))


def _average(x: Tensor, c: HeadConfig) -> Tensor:
    """The mean over time, as in temporal segment networks (Wang et al. 2016, arXiv 1608.00859). It ignores order."""
    return layers.GlobalAveragePooling1D()(x)


POOLINGS: dict[str, Callable[[Tensor, HeadConfig], Tensor]] = {
    "bilstm_attention": _bilstm_attention,
    "lstm": _lstm,
    "deep_lstm": _deep_lstm,
    "bilstm": _bilstm,
    "gru": _gru,
    "conv_lstm": _conv_lstm,
    "attention": _attention,
    "average": _average,
}


@contextlib.contextmanager
def computing_in(policy: str) -> Iterator[None]:
    """Let layers that are created in this context compute in the precision `policy`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def predict_batch(shapes: Mapping[str, Sequence[int]]) -> int:
    """The number of clips to judge at once, for inputs of these shapes, name -> (T, C)."""
    numbers = sum(math.prod(shape) for shape in shapes.values())
    return max(1, min(PREDICT_BATCH, _PREDICT_NUMBERS // max(numbers, 1)))


def own_inputs(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of `inputs` that the head takes. The others are for other members."""
    return {given.name: inputs[given.name] for given in model.inputs}


def predict(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """P(fight) of N clips: (N,) float64 in [0, 1]. `inputs`: name -> (N, T, C), of which the head takes its own."""
    from violence_detection.training import training_faults

    tensorflow_start.have_halves()  # features are float16
    inputs = own_inputs(model, inputs)
    count = len(next(iter(inputs.values())))

    def judge(batch_size: int) -> np.ndarray:
        if count <= batch_size:  # saves setting up the pipeline of Keras' `predict`
            return np.asarray(model.predict_on_batch(inputs))
        return model.predict(inputs, batch_size=batch_size, verbose=0)

    at_once = predict_batch({name: values.shape[1:] for name, values in inputs.items()})
    p, _ = training_faults.in_batches_that_fit(judge, at_once)
    return p[:, 0].astype(np.float64)


def attention(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The share of each time step in a head's attention pooling, for inputs name -> (N, T, C).

    One (N, T) float64 array, with rows that sum to 1, for each time axis that the head pools by attention: none if the
    head has no `TemporalAttention`, several if its backbones have several time axes. The shares are what the network
    computes on its way to P(fight), not an explanation of P(fight) (Jain & Wallace 2019, arXiv 1902.10186).
    """
    pooling = [layer for layer in model.layers if isinstance(layer, TemporalAttention)]
    if not pooling:
        return []
    before = keras.Model(model.input, {layer.name: layer.input for layer in pooling})
    pooled = before.predict_on_batch(own_inputs(model, inputs))
    shares = [layer.shares(ops.convert_to_tensor(pooled[layer.name])) for layer in pooling]
    return [ops.convert_to_numpy(s)[:, :, 0].astype(np.float64) for s in shares]
