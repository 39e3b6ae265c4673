"""The pictures themselves, 32 frames of 176 x 176, for a head that trains I3D on them (training/tuned_network.py).

The frames are those of `i3d_steady`, from the middle 2.6 s of a window. The feature cache stores them as float16, which
represents every value from 0 to 255 exactly, with 5.9 MB per clip and variant. The weights are those that the head
starts from. They are not used here, but so the cache's key and a model's record include them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection.backbones.networks import i3d
from violence_detection.backbones.registry import BackboneSampling, register

if TYPE_CHECKING:
    import keras

SIDE, FRAMES = 176, 32


@register(
    "i3d_pictures",
    input_size=SIDE,
    feature_dim=SIDE * SIDE * 3,
    licence=i3d.LICENCE,
    weights=i3d.WEIGHTS,
    sampling=BackboneSampling(frames=FRAMES, together=True, streams=("rgb",), span_s=2.56, one_shot=False),
    bfloat16=True,
)
def build_i3d_pictures(path: Path) -> keras.Model:
    """Build a model from frames (F, S, S, 3), values 0..255, to the same values, (F, S * S * 3) float32."""
    import keras
    from keras import layers

    frames = keras.Input((SIDE, SIDE, 3), name="frames")
    return keras.Model(frames, layers.Flatten(dtype="float32")(frames), name="i3d_pictures")
