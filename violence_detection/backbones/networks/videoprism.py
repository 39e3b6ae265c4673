"""VideoPrism-B (Zhao et al. 2024, arXiv 2402.13217) as keras_hub has it: 114 million parameters, frozen, for GPUs.

A vision transformer looks at each of 16 frames, a shorter one at each patch over time. The features are its patch
tokens, averaged over the 16 x 16 positions; time is left to the head.
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
#: As published (videoprism_public_v1_base).
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
#: What another network of this kind may have otherwise: its depth and the sizes within it.
_FREE = ("patch_size", "intermediate_dim", "num_heads", "num_spatial_layers", "num_temporal_layers")
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
    """A model from the RGB frames of one clip (16, 288, 288, 3), values 0..255, to features (16, 768) float32.

    Where a `config.json` of keras_hub lies beside the weights, its layers and sizes hold, else the published ones.
    Raises UserError where keras_hub is missing or the weights do not fit.
    """
    import keras
    from keras import layers, ops

    network = _network(path)
    load_keras_weights(network, path, "videoprism_b")
    frames = keras.Input((INPUT_SIZE, INPUT_SIZE, 3), name="frames")
    tokens = network(ops.expand_dims(layers.Rescaling(1 / 255.0)(frames), 0))
    return keras.Model(frames, ops.mean(ops.cast(tokens, "float32")[0], axis=1), name="videoprism_b")


def _network(path: Path) -> keras.Model:
    """The network with initial values."""
    try:
        from keras_hub.models import VideoPrismBackbone
    except ImportError as e:
        raise UserError(
            f"videoprism_b needs keras_hub ({e}). Run: pip install -r requirements.txt {_PACKAGE}"
        ) from e
    try:
        return VideoPrismBackbone(**_sizes(path.with_name("config.json")))
    except (ValueError, TypeError, ZeroDivisionError) as e:
        raise UserError(f"{path.with_name('config.json')} describes no VideoPrism network ({e})") from e


def _sizes(config: Path) -> dict[str, Any]:
    """The network's sizes. Raises UserError if those of the file differ in what its features' shape depends on."""
    if not config.is_file():
        return _PUBLISHED
    try:
        given = json.loads(config.read_text(encoding="utf-8"))["config"]
        found = {name: given.get(name, value) for name, value in _PUBLISHED.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise UserError(f"{config} is no config of a keras_hub preset ({e!r})") from e
    found["image_shape"] = tuple(found["image_shape"])
    for name, value in found.items():
        if name in _FREE and not (type(value) is int and value > 0):
            raise UserError(f"{config}: {name} is {value!r}, not a whole number above 0")
        if name not in _FREE and value != _PUBLISHED[name]:
            raise UserError(f"{config}: {name} is {value!r}; videoprism_b has {_PUBLISHED[name]!r}")
    return found
