"""Networks in the layers that other formats know, with the same values.

Recurrent layers are unrolled: as loops they would be operations of TensorFlow's own, on GPUs cuDNN's. A convolution
over time is one in two dimensions over the neighbouring frames' channels side by side, and pooling over time is pooling
in the picture and then over frames: TFLite pools in two dimensions only.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from violence_detection.errors import UserError


def unrolled_logits(head: keras.Model, two_dimensional: bool = False) -> keras.Model:
    """A head up to its logits, (B, 1) float32, in float32 throughout and without loops.

    `two_dimensional`: a network over time that it holds is written as `in_two_dimensions` does, and B is 1. Raises
    UserError where that cannot be.
    """
    copy = keras.models.clone_model(head, clone_function=_flat_trunk if two_dimensional else _unrolled)
    copy.set_weights(head.get_weights())
    return keras.Model(copy.inputs, copy.get_layer("logits").output)


def _unrolled(layer: Any) -> Any:
    # sums and the like, which have neither weights nor a type of numbers
    if not isinstance(layer, keras.Layer):
        return layer
    config = layer.get_config()
    if isinstance(layer, layers.Bidirectional):
        config["layer"]["config"] |= {"unroll": True, "dtype": "float32"}
        if config.get("backward_layer"):
            config["backward_layer"]["config"] |= {"unroll": True, "dtype": "float32"}
    elif isinstance(layer, (layers.LSTM, layers.GRU)):
        config["unroll"] = True
    return type(layer).from_config(config | {"dtype": "float32"})


def _flat_trunk(layer: Any) -> Any:
    """The same, and of a layer that runs a `network` of its own (VideoTrunk) that network in two dimensions."""
    copy = _unrolled(layer)
    network = getattr(copy, "network", None)
    return in_two_dimensions(network) if isinstance(network, keras.Model) else copy


def in_two_dimensions(network: keras.Model) -> keras.Model:
    """The network, of one clip, without convolutions and pooling in three dimensions; itself if it has none.

    Raises UserError where there is one that this cannot write.
    """
    if not any(isinstance(layer, (layers.Conv3D, layers.MaxPooling3D)) for layer in network.layers):
        return network
    copy = keras.models.clone_model(network, clone_function=_flat)
    copy.set_weights(network.get_weights())
    return copy


def _flat(layer: Any) -> Any:
    config = layer.get_config()
    if isinstance(layer, layers.Conv3D):
        plain = (layer.padding, layer.dilation_rate, layer.groups, layer.data_format)
        if plain != ("same", (1, 1, 1), 1, "channels_last"):
            raise _not_flat(layer)
        return ConvolutionOfFrames(
            layer.filters,
            layer.kernel_size,
            layer.strides,
            layer.use_bias,
            config["activation"],
            name=layer.name,
        )
    if isinstance(layer, layers.MaxPooling3D):
        if (layer.padding, layer.data_format) != ("same", "channels_last"):
            raise _not_flat(layer)
        return PoolingOfFrames(layer.pool_size, layer.strides, name=layer.name)
    return type(layer).from_config(config)


def _not_flat(layer: keras.Layer) -> UserError:
    return UserError(
        f"the network's layer {layer.name} ({type(layer).__name__}) is of a kind that TFLite cannot be given. Export "
        "to onnx or openvino instead"
    )


class ConvolutionOfFrames(layers.Layer):
    """A Conv3D, padding "same", of one clip: (1, T, H, W, C) -> (1, T', H', W', filters)."""

    def __init__(
        self,
        filters: int,
        kernel_size: tuple[int, ...],
        strides: tuple[int, ...],
        use_bias: bool,
        activation: Any,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        self.use_bias, self.activation = use_bias, keras.activations.get(activation)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        shape = (*self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, trainable=False, name="kernel")
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), trainable=False, name="bias")
        super().build(input_shape)

    def call(self, x: Any) -> Any:
        (length, height, width), channels = self.kernel_size, x.shape[-1]
        frames = ops.concatenate(_shifted(x[0], length, self.strides[0]), axis=-1)
        kernel = ops.transpose(self.kernel, (1, 2, 0, 3, 4))
        kernel = ops.reshape(kernel, (height, width, length * channels, self.filters))
        found = ops.conv(frames, kernel, strides=self.strides[1:], padding="same")
        return self.activation(found + self.bias if self.use_bias else found)[None]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return _output_shape(input_shape, self.strides, self.filters)


class PoolingOfFrames(layers.Layer):
    """A MaxPooling3D, padding "same", of one clip: (1, T, H, W, C) -> (1, T', H', W', C)."""

    def __init__(self, pool_size: tuple[int, ...], strides: tuple[int, ...], **kwargs: Any):
        super().__init__(**kwargs)
        self.pool_size, self.strides = pool_size, strides

    def call(self, x: Any) -> Any:
        frames = ops.max_pool(x[0], self.pool_size[1:], self.strides[1:], padding="same")
        _, height, width, channels = frames.shape
        if self.pool_size[0] > 1 or self.strides[0] > 1:
            rows = ops.reshape(frames, (1, -1, height * width, channels))
            rows = ops.max_pool(rows, (self.pool_size[0], 1), (self.strides[0], 1), padding="same")
            frames = ops.reshape(rows, (-1, height, width, channels))
        return frames[None]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return _output_shape(input_shape, self.strides, input_shape[-1])


def _shifted(frames: Any, length: int, stride: int) -> list[Any]:
    """For each place in a kernel over time the frames (T', H, W, C) that stand there, beyond the ends zeros."""
    if length == 1 and stride == 1:
        return [frames]
    count = frames.shape[0]
    steps = -(-count // stride)
    missing = max((steps - 1) * stride + length - count, 0)
    padded = ops.pad(frames, ((missing // 2, missing - missing // 2), (0, 0), (0, 0), (0, 0)))
    return [padded[i : i + (steps - 1) * stride + 1 : stride] for i in range(length)]


def _output_shape(
    shape: tuple[int | None, ...], strides: tuple[int, ...], channels: int | None
) -> tuple[int | None, ...]:
    sides = (
        None if side is None else -(-side // step) for side, step in zip(shape[1:4], strides, strict=True)
    )
    return (shape[0], *sides, channels)
