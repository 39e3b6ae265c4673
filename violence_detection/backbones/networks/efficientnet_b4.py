"""EfficientNet-B4 (Tan & Le 2019, arXiv 1905.11946) from Keras, the roadmap's default on a pod."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.backbones.registry import register
from violence_detection.backbones.weights import KerasFile, load_keras_weights

if TYPE_CHECKING:
    import keras

_SIZE = 380
#: Standard deviations of ImageNet's channels (R, G, B), values 0..1.
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@register(
    "efficientnet_b4",
    input_size=_SIZE,
    feature_dim=1792,
    licence="Apache-2.0 (ImageNet)",
    weights=KerasFile(
        "efficientnetb4_notop.h5",
        "https://storage.googleapis.com/keras-applications/efficientnetb4_notop.h5",
        md5="ebc24e6d6c33eaebbd558eafbeedf1ba",
    ),
)
def build(path: Path) -> keras.Model:
    """Build the network with pooled features (B, 1792), from Keras' weights without the classifier."""
    import keras
    import numpy as np

    model = keras.applications.EfficientNetB4(
        include_top=False, weights=None, input_shape=(_SIZE, _SIZE, 3), pooling="avg"
    )
    load_keras_weights(model, path, "efficientnet_b4")
    # The ImageNet weights were trained on (x - mean) / variance, but Keras' normalisation divides by the square root.
    # Keras' own loader adds a layer for the missing factor. Scaling the normalisation's variance does the same.
    normalization = next(layer for layer in model.layers if isinstance(layer, keras.layers.Normalization))
    mean, variance, *count = normalization.get_weights()
    normalization.set_weights([mean, variance * np.array(_IMAGENET_DEVIATION, np.float32), *count])
    normalization.finalize_state()
    return model
