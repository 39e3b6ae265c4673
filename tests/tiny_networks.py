"""Two real Keras backbones with a few weights each, for tests of exports and engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops
from stand_in import ThisFile

from violence_detection.backbones import registry
from violence_detection.features.config import FeatureConfig

SIZE = 24
FRAMES, CLIP_FRAMES = 3, 9
#: Input name -> (T, C) of the features under CONFIG.
SHAPES = {
    "tiny_images.rgb": (FRAMES, 6),
    "tiny_images.motion": (FRAMES, 6),
    "tiny_images.crop": (FRAMES, 6),
    "tiny_images.moving": (FRAMES, 6),
    "tiny_clip.rgb": (3, 8),
    "tiny_clip.moving": (3, 8),
}
CONFIG = FeatureConfig(
    backbone=("tiny_images", "tiny_clip"),
    streams=("rgb", "motion", "crop", "moving"),
    frames=FRAMES,
    window_s=1.5,
)


def images_network(_: Path) -> keras.Model:
    """Build a network from images (B, 24, 24, 3) to features (B, 6), each image by itself."""
    given = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(given)
    x = layers.Conv2D(6, 5, 3, activation="gelu", kernel_initializer=_drawn(1))(x)
    return keras.Model(given, layers.GlobalMaxPooling2D()(x))


def clip_network(_: Path) -> keras.Model:
    """Build a network from a clip (9, 24, 24, 3) to features (3, 8), with I3D's kinds of layers, at odd sizes."""
    given = keras.Input((SIZE, SIZE, 3))
    x = ops.expand_dims(layers.Rescaling(1 / 127.5, offset=-1.0)(given), 0)
    x = _conv(x, 4, (4, 3, 5), (2, 2, 2), 2)
    x = layers.MaxPooling3D((1, 3, 3), (1, 2, 2), padding="same")(x)
    x = _conv(x, 8, 1, 1, 3)
    x = layers.MaxPooling3D((3, 3, 3), (2, 2, 2), padding="same")(x)
    x = layers.BatchNormalization(scale=False)(_conv(x, 8, 3, 1, 4))
    return keras.Model(given, ops.squeeze(ops.mean(x, axis=(2, 3)), 0))


def _conv(x: Any, filters: int, kernel: Any, strides: Any, seed: int) -> Any:
    return layers.Conv3D(
        filters, kernel, strides, padding="same", use_bias=False, kernel_initializer=_drawn(seed)
    )(x)


def _drawn(seed: int) -> keras.Initializer:
    return keras.initializers.RandomNormal(0.0, 0.3, seed)


def install(put: Callable[[object, str, object], None]) -> FeatureConfig:
    """Register both as backbones, and return the settings with both. `put`: a monkeypatch's setattr."""
    put(registry, "_backbones", dict(registry._load_networks()))
    registry.register(
        "tiny_images", input_size=SIZE, feature_dim=6, licence="MIT (made for tests)", weights=ThisFile()
    )(images_network)
    registry.register(
        "tiny_clip",
        input_size=SIZE,
        feature_dim=8,
        licence="MIT (made for tests)",
        weights=ThisFile(),
        sampling=registry.BackboneSampling(
            CLIP_FRAMES, True, 4, ("rgb", "moving"), span_s=1.0, letterbox=True
        ),
    )(clip_network)
    return replace(CONFIG)
