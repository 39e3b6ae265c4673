"""A head with a whole video network: I3D on the pictures of a clip, trained end to end.

In training, pictures (B, T, S * S * 3) are first augmented (picture_augmentation.py). I3D turns them into features,
whose mean over time and place goes to the last layer, which gives P(fight). See fine_tuning.py for the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
from keras import layers

from violence_detection.backbones.networks import i3d
from violence_detection.errors import UserError
from violence_detection.training import heads
from violence_detection.training.picture_augmentation import PictureAugmentation, Tensor, side_of

if TYPE_CHECKING:
    import numpy as np

    from violence_detection.training.config import HeadConfig

TRUNK = "trunk"


@keras.saving.register_keras_serializable("violence_detection")
class VideoTrunk(layers.Layer):
    """I3D without its classifier: (B, T, H, W, 3) of values -1..1 to the features' mean over time and place, (B, 1024).

    The output is float32. Batch normalisation is folded into the convolutions, so that training does not change its
    statistics.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        with heads.computing_in(self.dtype_policy.name):
            self.network = i3d.trunk()

    def call(self, x: Tensor) -> Tensor:
        return self.network(x)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, int]:
        return input_shape[0], self.network.output_shape[-1]

    def set_published(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the weights to the published ones, name -> array. Raises UserError if they do not fit."""
        self.network.set_weights(i3d.folded(self.network, weights))


def pooled(given: Mapping[str, Tensor], config: HeadConfig) -> Tensor:
    """Connect the head's only input, pictures (B, T, S * S * 3), to their features, (B, 1024).

    Raises UserError if the input does not have the size of square pictures.
    """
    (pictures,) = given.values()
    try:
        side_of(pictures.shape[2])
    except ValueError as e:
        raise UserError(f"{', '.join(given)}: {e}, which this head needs as its input") from e
    x = PictureAugmentation(name="augmentation")(pictures)
    return layers.Dropout(config.dropout)(VideoTrunk(name=TRUNK)(x))
