"""The temporal heads: from a sequence of frame features to P(fight).

Every head takes a dict of inputs, name -> (B, T, C), one per backbone and stream. Each input is normalised and
projected; inputs that share a time axis are joined frame by frame, others keep a branch of their own.
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

#: Clips that are judged at once, and numbers of their inputs: fewer clips where these are pictures.
PREDICT_BATCH, _PREDICT_NUMBERS = 256, 1 << 25

Tensor: TypeAlias = Any  # keras.KerasTensor; Keras publishes no types


@keras.saving.register_keras_serializable("violence_detection")
class TemporalAttention(layers.Layer):
    """Additive attention pooling over time (Bahdanau et al. 2015, arXiv 1409.0473): (B, T, D) -> (B, D).

    The softmax over T is computed in float32 under mixed precision too.
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
        """How much each time step counts: (B, T, D) -> (B, T, 1) float32, which sum to 1 over T."""
        return ops.softmax(ops.cast(self.score(self.hidden(x)), "float32"), axis=1)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("violence_detection")
class PositionEmbedding(layers.Layer):
    """Adds a learnt vector for each time step: (B, T, D) -> (B, T, D)."""

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.table = self.add_weight(
            shape=input_shape[1:], initializer=keras.initializers.RandomNormal(0.0, 0.02)
        )
        super().build(input_shape)

    def call(self, x: Tensor) -> Tensor:
        return x + ops.cast(self.table, x.dtype)


@keras.saving.register_keras_serializable("violence_detection")
class LandmarkSimilarity(layers.Layer):
    """How like some training clips a clip is: (B, T, C) -> (B, M) float32 in [0, 1].

    The mean over time, scaled to unit length, in a Gaussian kernel with M stored vectors of unit length. With
    `length_counts` both keep their lengths, at most 1, and the kernel is of their directions, times both lengths.
    Always float32. Landmarks and `gamma` are set, not learnt by steps: see kernel_fit.py.
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
            # a landmark is rounded, which may make it longer
            counts = ops.minimum(_length(x), 1.0) * ops.minimum(ops.transpose(_length(vectors)), 1.0)
            vectors = unit(vectors)
        alike = ops.exp(2.0 * self.gamma * (ops.matmul(unit(x), ops.transpose(vectors)) - 1.0))
        return counts * alike

    def get_config(self) -> dict[str, object]:
        config = {**super().get_config(), "landmarks": self.landmarks}
        return config | ({"length_counts": True} if self.length_counts else {})


def unit(x: Tensor) -> Tensor:
    """Vectors (B, C) at unit length, or shorter where they are below LEAST_LENGTH."""
    return x / ops.maximum(_length(x), LEAST_LENGTH)


def _length(x: Tensor) -> Tensor:
    """Of vectors (B, C): (B, 1)."""
    return ops.sqrt(ops.sum(ops.square(x), axis=-1, keepdims=True))


def build(architecture: str, inputs: Mapping[str, tuple[int, int]], config: HeadConfig) -> keras.Model:
    """A head. `inputs`: name -> (T, C). The model maps {name: (B, T, C)} to (B, 1) float32, P(fight)."""
    given = {name: keras.Input(shape, name=name) for name, shape in inputs.items()}
    first = "glorot_uniform"
    if architecture in PICTURES_OF:
        from violence_detection.training import tuned_network  # with its network, which few models have

        # so that the published network is not moved by what an untrained layer says of it
        x, first = tuned_network.pooled(given, config), "zeros"
    elif architecture == KERNEL:
        x = _kernel(given, config)
    else:
        x = _temporal(architecture, given, config)
    logits = layers.Dense(1, kernel_initializer=first, dtype="float32", name="logits")(x)
    p_fight = layers.Activation("sigmoid", dtype="float32", name="p_fight")(logits)
    return keras.Model(given, p_fight, name=architecture)


def of_record(record: Mapping[str, Any]) -> keras.Model:
    """The head that a config.json describes, with fresh weights."""
    shapes = {name: (shape[0], shape[1]) for name, shape in record["inputs"].items()}
    return build(record["architecture"], shapes, HeadConfig(**record["head"]))


def _kernel(given: Mapping[str, Tensor], config: HeadConfig) -> Tensor:
    """What a support vector machine looks at: the mean of the inputs' similarities, (B, M)."""
    found = [
        LandmarkSimilarity(
            config.landmarks, registry.length_counts(key.backbone_of(name)), name=f"{name}.similarity"
        )(x)
        for name, x in given.items()
    ]
    return layers.Average(dtype="float32")(found) if len(found) > 1 else found[0]


def _temporal(architecture: str, given: Mapping[str, Tensor], config: HeadConfig) -> Tensor:
    """The inputs projected, joined, and pooled over time by the architecture: (B, D)."""
    by_length: dict[int, list[Tensor]] = {}
    for name, x in given.items():
        x = layers.LayerNormalization(name=f"{name}.norm")(x)
        # a channel goes missing in all frames at once: its neighbours in time would give it away (Tompson et al. 2015)
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
    """Pre-norm transformer encoder (Vaswani et al. 2017; Xiong et al. 2020) of two blocks, attention pooling."""
    x = PositionEmbedding()(layers.Dense(c.units)(x))
    for _ in range(2):
        y = layers.LayerNormalization()(x)
        # in float32 for the softmax
        y = layers.MultiHeadAttention(4, c.units // 4, dropout=c.dropout / 2, dtype="float32")(y, y)
        x = x + layers.Dropout(c.dropout)(y)
        y = layers.Dense(2 * c.units, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dropout(c.dropout)(layers.Dense(c.units)(y))
    return TemporalAttention(c.units // 2)(layers.LayerNormalization()(x))


def _average(x: Tensor, c: HeadConfig) -> Tensor:
    """The mean over time, as in temporal segment networks (Wang et al. 2016, arXiv 1608.00859): blind to order."""
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
    """Layers that are made meanwhile compute in that precision."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def predict_batch(shapes: Mapping[str, Sequence[int]]) -> int:
    """How many clips are judged at once, whose inputs have these shapes, name -> (T, C)."""
    numbers = sum(math.prod(shape) for shape in shapes.values())
    return max(1, min(PREDICT_BATCH, _PREDICT_NUMBERS // max(numbers, 1)))


def own_inputs(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of the inputs those that a head has: others are for other members."""
    return {given.name: inputs[given.name] for given in model.inputs}


def predict(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """P(fight) for inputs name -> (N, T, C), of which a head takes its own. Returns (N,) float64 in [0, 1]."""
    from violence_detection.training import training_faults

    tensorflow_start.have_halves()  # features are float16
    inputs = own_inputs(model, inputs)
    count = len(next(iter(inputs.values())))

    def judge(batch_size: int) -> np.ndarray:
        if count <= batch_size:  # spares the pipeline that Keras' `predict` sets up
            return np.asarray(model.predict_on_batch(inputs))
        return model.predict(inputs, batch_size=batch_size, verbose=0)

    at_once = predict_batch({name: values.shape[1:] for name, values in inputs.items()})
    p, _ = training_faults.in_batches_that_fit(judge, at_once)
    return p[:, 0].astype(np.float64)


def attention(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """How much each time step counts in the pooling of a head, for inputs name -> (N, T, C).

    One (N, T) float64 for each time axis that the head pools by attention, whose rows sum to 1: none if the head has no
    `TemporalAttention`, several if its backbones have several time axes. It is what the network computes on its way
    to P(fight), not what moved P(fight) there (Jain & Wallace 2019, arXiv 1902.10186).
    """
    pooling = [layer for layer in model.layers if isinstance(layer, TemporalAttention)]
    if not pooling:
        return []
    before = keras.Model(model.input, {layer.name: layer.input for layer in pooling})
    pooled = before.predict_on_batch(own_inputs(model, inputs))
    shares = [layer.shares(ops.convert_to_tensor(pooled[layer.name])) for layer in pooling]
    return [ops.convert_to_numpy(s)[:, :, 0].astype(np.float64) for s in shares]
