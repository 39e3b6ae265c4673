"""VGG19 (Simonyan & Zisserman 2015, arXiv 1409.1556) up to fc2, from Keras: the baseline to beat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.backbones.registry import register
from violence_detection.backbones.weights import KerasFile, load_keras_weights

if TYPE_CHECKING:
    import keras

_SIZE = 224
#: Keras' "caffe" preprocessing: channels in the order BGR, these means subtracted, no scaling.
_CHANNEL_MEANS_BGR = (103.939, 116.779, 123.68)
_FILE = "vgg19_weights_tf_dim_ordering_tf_kernels.h5"


@register(
    "vgg19",
    input_size=_SIZE,
    feature_dim=4096,
    licence="CC BY 4.0 (ImageNet)",
    weights=KerasFile(
        _FILE,
        f"https://storage.googleapis.com/tensorflow/keras-applications/vgg19/{_FILE}",
        md5="cbe5617147190e668d6c5d5026f83318",
    ),
)
def build(path: Path) -> keras.Model:
    """Build the network up to fc2, (B, 4096), from Keras' weights with the classifier."""
    import keras

    model = keras.applications.VGG19(include_top=True, weights=None)
    load_keras_weights(model, path, "vgg19")
    inputs = keras.Input((_SIZE, _SIZE, 3), name="image")
    bgr = keras.ops.flip(inputs, axis=-1)
    centred = keras.layers.Rescaling(1.0, offset=tuple(-mean for mean in _CHANNEL_MEANS_BGR))(bgr)
    fc2 = keras.Model(model.input, model.get_layer("fc2").output)
    return keras.Model(inputs, fc2(centred), name="vgg19_fc2")
