"""Networks rewritten in layers that other formats have, with the same outputs.

Recurrent layers are unrolled: as loops they would become operations that only TensorFlow has, on GPUs those of cuDNN.
For TFLite, which pools in two dimensions only, a convolution over time becomes a two-dimensional one over the channels
of neighbouring frames side by side, and pooling over time becomes pooling within frames and then over frames.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from violence_detection.errors import UserError


def unrolled_logits(head: keras.Model, two_dimensional: bool = False) -> keras.Model:
    """Copy a head up to its logits, (B, 1) float32, in float32 throughout and without loops.

    `two_dimensional`: rewrite a network over time in the head as `in_two_dimensions` does; B must then be 1. Raises
    UserError if that is not possible.
    """
    copy = keras.models.clone_model(head, clone_function=_flat_trunk if two_dimensional else _unrolled)
    copy.set_weights(head.get_weights())
    return keras.Model(copy.inputs, copy.get_layer("logits").output)


def _unrolled(layer: Any) -> Any:
    # operations such as sums, which have neither weights nor a dtype
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
    """Copy a layer as `_unrolled` does, or the `network` in two dimensions of a layer that runs one (VideoTrunk)."""
    copy = _unrolled(layer)
    network = getattr(copy, "network", None)
    return in_two_dimensions(network) if isinstance(network, keras.Model) else copy


def in_two_dimensions(network: keras.Model) -> keras.Model:
    """Copy a network, for one clip at a time, without Conv3D and MaxPooling3D layers; return itself if it has none.

    Raises UserError for such a layer that cannot be rewritten.
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
        f"the network's layer {layer.name} ({type(layer).__name__}) cannot be written for TFLite. Export to onnx or "
        "openvino instead"
    )


class ConvolutionOfFrames(layers.Layer):
    """A Conv3D with padding "same" for one clip: (1, T, H, W, C) -> (1, T', H', W', filters)."""

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
    """A MaxPooling3D with padding "same" for one clip: (1, T, H, W, C) -> (1, T', H', W', C)."""

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
    """For each position in a kernel over time, the frames (T', H, W, C) that it meets; zeros beyond both ends."""
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
