"""A head that is a whole video network: I3D on the pictures of a clip, trained end to end.

Pictures (B, T, S * S * 3) are altered in training (picture_augmentation.py), go through I3D, and the mean over time and
place gives P(fight). How it is trained is in fine_tuning.py.
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
    """I3D up to the features that its classifier averages: (B, T, H, W, 3) of values -1..1 to (B, 1024) float32.

    Batch normalisation is folded into the convolutions, so it stays as it was published.
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
        """Give it the published weights. Raises UserError if they do not fit."""
        self.network.set_weights(i3d.folded(self.network, weights))


def pooled(given: Mapping[str, Tensor], config: HeadConfig) -> Tensor:
    """Features of the pictures, the head's one input: (B, 1024). Raises UserError where they are no pictures."""
    (pictures,) = given.values()
    try:
        side_of(pictures.shape[2])
    except ValueError as e:
        raise UserError(f"{', '.join(given)}: {e}, as a head of pictures takes them") from e
    x = PictureAugmentation(name="augmentation")(pictures)
    return layers.Dropout(config.dropout)(VideoTrunk(name=TRUNK)(x))
