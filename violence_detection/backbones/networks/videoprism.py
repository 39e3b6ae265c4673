"""VideoPrism-B (Zhao et al. 2024, arXiv 2402.13217) from keras_hub: 114 million parameters, frozen, for GPUs.

One vision transformer sees each of 16 frames; a second one, with fewer layers, sees each patch over time. The features
are the patch tokens averaged over the 16 x 16 positions. The time axis is left to the head.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.backbones.registry import BackboneSampling, register
from violence_detection.backbones.weights import KaggleFile, load_keras_weights
from violence_detection.errors import UserError

if TYPE_CHECKING:
    import keras

INPUT_SIZE = 288
FRAMES = 16
WIDTH = 768
#: The sizes of the published network (videoprism_public_v1_base).
_PUBLISHED: dict[str, Any] = {
    "num_frames": FRAMES,
    "patch_size": 18,
    "hidden_dim": WIDTH,
    "intermediate_dim": 3072,
    "num_heads": 12,
    "num_spatial_layers": 12,
    "num_temporal_layers": 4,
    "num_auxiliary_layers": 0,
    "attention_logit_soft_cap": 50.0,
    "image_shape": (INPUT_SIZE, INPUT_SIZE, 3),
}
#: The sizes in which another network may differ: those that do not change the shape of its features.
_SIZE_FIELDS = ("patch_size", "intermediate_dim", "num_heads", "num_spatial_layers", "num_temporal_layers")
_PACKAGE = '"keras-hub>=0.29,<0.30"'


@register(
    "videoprism_b",
    input_size=INPUT_SIZE,
    feature_dim=WIDTH,
    licence="Apache-2.0",
    weights=KaggleFile(
        "keras/videoprism/keras/videoprism_public_v1_base/1",
        "model.weights.h5",
        size_mb=458,
        package=_PACKAGE,
    ),
    sampling=BackboneSampling(frames=FRAMES, together=True, streams=("rgb",)),
    gmacs=490,
)
def build(path: Path) -> keras.Model:
    """Build a model from the RGB frames of one clip (16, 288, 288, 3), values 0..255, to features (16, 768) float32.

    The layers and sizes are those of keras_hub's `config.json` if it is in the folder of the weights, else the
    published ones. Raises UserError if keras_hub is missing, or the weights or that file do not fit.
    """
    import keras
    from keras import layers, ops

    network = _network(path)
    load_keras_weights(network, path, "videoprism_b")
    frames = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="frames")
    tokens = network(ops.expand_dims(layers.Rescaling(1 / 255.0)(frames), 0))
    return keras.Model(frames, ops.mean(ops.cast(tokens, "float32")[0], axis=1), name="videoprism_b")


def _network(path: Path) -> keras.Model:
    """The network with its initial weights, in the sizes that belong to the weights at `path`."""
    try:
        from keras_hub.models import VideoPrismBackbone
    except ImportError as e:
        raise UserError(
            f"videoprism_b needs keras_hub ({e}). Run: pip install -r requirements.txt {_PACKAGE}"
        ) from e
    try:
        return VideoPrismBackbone(**_sizes(path.with_name("config.json")))
    except (ValueError, TypeError, ZeroDivisionError) as e:
        raise UserError(
            f"{path.with_name('config.json')} does not describe a VideoPrism network ({e})"
        ) from e


def _sizes(config: Path) -> dict[str, Any]:
    """The network's sizes: those in the file `config`, or the published ones if there is no such file.

    Raises UserError if a size is invalid, or differs where the features' shape depends on it.
    """
    if not config.is_file():
        return _PUBLISHED
    try:
        given = json.loads(config.read_text(encoding="utf-8"))["config"]
        found = {name: given.get(name, value) for name, value in _PUBLISHED.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{config} is not the config of a keras_hub preset ({e!r})") from e
    found["image_shape"] = tuple(found["image_shape"])
    for name, value in found.items():
        if name in _SIZE_FIELDS and not (type(value) is int and value > 0):
            raise UserError(f"{config}: {name} is {value!r}, not a whole number above 0")
        if name not in _SIZE_FIELDS and value != _PUBLISHED[name]:
            raise UserError(f"{config}: {name} is {value!r}; videoprism_b has {_PUBLISHED[name]!r}")
    return found
