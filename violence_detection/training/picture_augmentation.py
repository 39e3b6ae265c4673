"""A layer that turns the pictures of the feature cache into what I3D takes, and in training alters them at random.

One random draw per clip applies to all of its frames, since a change from frame to frame would look like movement. Only
the noise differs between frames. The ranges are those with which the figures in docs/decisions.md (Fine-tuning) were
measured. Crop, resizing, mirroring and a lower resolution together are one linear map of the rows and one of the
columns, each (B, side, S), so they cost two matrix products. The code runs on any backend of Keras.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import keras
from keras import layers, ops

Tensor: TypeAlias = Any  # keras.KerasTensor; Keras publishes no types

# Names that end in _P are probabilities, per clip.
#: Side of the pictures shown in training, as a share of the whole pictures' side (160 of 176). A crop shows things
#: larger than the whole pictures that are judged, and its smaller side makes up for that (Touvron et al. 2019, arXiv
#: 1906.06423).
_SHOWN = 10 / 11
#: Shortening the span of time that the frames cover: the shortest span, as a share of the whole.
_SHORTEST, _TIME_P = 0.5, 0.6
#: Crops: the smallest area, as a share of the picture's, and the largest magnitude of the logarithm of height / width
#: (Szegedy et al. 2015, arXiv 1409.4842).
_LEAST_AREA, _ASPECT = 0.4, 0.35
#: Lowering the resolution: the largest factor.
_COARSER, _COARSER_P = 3.0, 0.3
#: Removing the colours, subtracting the mean picture, tinting.
_GREY_P, _MOVING_P, _TINT_P = 0.25, 0.3, 0.6
#: Largest magnitudes of the logarithms of the factors of contrast and brightness, and of each colour in a tint.
_LIGHT, _TINT = 0.5, 0.15
#: Noise: the largest standard deviation, for values 0..1.
_NOISE, _NOISE_P = 0.05, 0.3
#: Erasing a box: the shortest and the longest side, as shares of the picture's.
_BOX_P, _BOX = 0.3, (1 / 6, 1 / 2)


@keras.saving.register_keras_serializable("violence_detection")
class PictureAugmentation(layers.Layer):
    """Turn pictures (B, T, S * S * 3) of values 0..255 into (B, T, side, side, 3) float32 of values -1..1.

    Outside training, whole pictures: `side` is S. In training, altered crops: `side` is 10/11 S, and noise may take
    values a little beyond -1..1. If `alters` is False, training gets whole pictures too.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.seed_generator = keras.random.SeedGenerator()
        self.alters = True

    def build(self, input_shape: tuple[Any, ...]) -> None:
        self.frames, self.side = int(input_shape[1]), side_of(input_shape[2])
        super().build(input_shape)

    def compute_output_spec(self, x: Tensor, training: bool | None = None) -> Tensor:
        return keras.KerasTensor((x.shape[0], x.shape[1], None, None, 3), dtype="float32")

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        x = ops.cast(x, "float32") / 255.0
        if training and self.alters:
            x = self._in_space(self._in_time(x))
            x = self._erased(self._noisy(self._moving(self._coloured(x))))
        else:
            x = ops.reshape(x, (-1, self.frames, self.side, self.side, 3))
        return x * 2.0 - 1.0

    def _uniform(self, like: Tensor, low: float, high: float, width: int = 1) -> Tensor:
        """Random numbers for each clip, drawn evenly from `low` to `high`: (B, width)."""
        return keras.random.uniform((ops.shape(like)[0], width), low, high, seed=self.seed_generator)

    def _chance(self, like: Tensor, share: float) -> Tensor:
        """For each clip 1 with the probability `share`, otherwise 0: (B, 1)."""
        return ops.cast(self._uniform(like, 0.0, 1.0) < share, "float32")

    def _in_time(self, x: Tensor) -> Tensor:
        """Take as many frames from a shorter span, so that the clip plays more slowly: (B, T, D) to (B, T, D)."""
        count = self.frames
        length = 1 - self._chance(x, _TIME_P) * self._uniform(x, 0.0, 1 - _SHORTEST)
        start = self._uniform(x, 0.0, 1.0) * (1 - length)
        at = ops.floor((start + (ops.arange(count, dtype="float32") + 0.5) * length / count) * count)
        chosen = ops.one_hot(ops.cast(ops.clip(at, 0, count - 1), "int32"), count, dtype="float32")
        return ops.matmul(chosen, x)

    def _in_space(self, x: Tensor) -> Tensor:
        """Crop the pictures, and mirror and coarsen some: (B, T, S * S * 3) to (B, T, shown, shown, 3)."""
        side, shown = self.side, shown_side(self.side)
        area = self._uniform(x, _LEAST_AREA, 1.0)
        aspect = ops.exp(self._uniform(x, -_ASPECT, _ASPECT))
        coarser = 1 + self._chance(x, _COARSER_P) * self._uniform(x, 0.0, _COARSER - 1)
        height = ops.minimum(1.0, ops.sqrt(area * aspect))
        width = ops.minimum(1.0, ops.sqrt(area / aspect))
        rows = self._positions(x, height, shown)
        columns = self._positions(x, width, shown)
        mirrored = self._chance(x, 0.5)
        columns = mirrored * ops.flip(columns, axis=1) + (1 - mirrored) * columns
        x = ops.reshape(x, (-1, self.frames, side, side * 3))
        x = ops.matmul(self._weights(rows, coarser)[:, None], x)
        x = ops.transpose(ops.reshape(x, (-1, self.frames, shown, side, 3)), (0, 1, 3, 2, 4))
        x = ops.matmul(
            self._weights(columns, coarser)[:, None], ops.reshape(x, (-1, self.frames, side, shown * 3))
        )
        return ops.transpose(ops.reshape(x, (-1, self.frames, shown, shown, 3)), (0, 1, 3, 2, 4))

    def _positions(self, x: Tensor, size: Tensor, shown: int) -> Tensor:
        """The position of each shown row or column in the picture, in its pixels: (B, shown).

        `size`: (B, 1), the crop's share of the picture's side.
        """
        start = self._uniform(x, 0.0, 1.0) * (1 - size)
        at = (start + (ops.arange(shown, dtype="float32") + 0.5) * size / shown) * self.side - 0.5
        return ops.clip(at, 0, self.side - 1)

    def _weights(self, at: Tensor, coarser: Tensor) -> Tensor:
        """The weights (B, shown, S) of the picture's rows or columns in the shown ones: bilinear if `coarser` is 1."""
        distance = ops.abs(at[:, :, None] - ops.arange(self.side, dtype="float32"))
        weights = ops.relu(1 - distance / coarser[:, :, None])
        return weights / ops.sum(weights, axis=-1, keepdims=True)

    def _coloured(self, x: Tensor) -> Tensor:
        grey = _each(self._chance(x, _GREY_P))
        x = grey * ops.mean(x, axis=-1, keepdims=True) + (1 - grey) * x
        middle = ops.mean(x, axis=(1, 2, 3), keepdims=True)
        contrast, light = (_each(ops.exp(self._uniform(x, -_LIGHT, _LIGHT))) for _ in range(2))
        tint = ops.exp(self._chance(x, _TINT_P) * self._uniform(x, -_TINT, _TINT, 3))
        return ops.clip(((x - middle) * contrast + middle * light) * tint[:, None, None, None, :], 0, 1)

    def _moving(self, x: Tensor) -> Tensor:
        """Subtract the clip's mean picture from some clips, so that what does not move becomes mid-grey."""
        share = _each(self._chance(x, _MOVING_P))
        return share * ops.clip(x - ops.mean(x, axis=1, keepdims=True) + 0.5, 0, 1) + (1 - share) * x

    def _noisy(self, x: Tensor) -> Tensor:
        strength = _each(self._chance(x, _NOISE_P) * self._uniform(x, 0.0, _NOISE))
        return x + strength * keras.random.normal(ops.shape(x), seed=self.seed_generator)

    def _erased(self, x: Tensor) -> Tensor:
        """Cover a box with mid-grey in some clips, at the same place in all frames."""
        shown = shown_side(self.side)
        inside = _each(self._chance(x, _BOX_P))
        for axis in (2, 3):
            size = self._uniform(x, *_BOX)
            start = self._uniform(x, 0.0, 1.0) * (1 - size)
            at = ops.arange(shown, dtype="float32") / shown
            within = ops.cast((at >= start) & (at < start + size), "float32")
            inside = inside * ops.reshape(within, (-1, 1, shown, 1, 1) if axis == 2 else (-1, 1, 1, shown, 1))
        return inside * 0.5 + (1 - inside) * x


def _each(values: Tensor) -> Tensor:
    """Reshape one number per clip, (B, 1), to broadcast over pictures (B, T, H, W, 3)."""
    return ops.reshape(values, (-1, 1, 1, 1, 1))


def side_of(channels: int) -> int:
    """The side of a square picture in three colours that has `channels` values. Raises ValueError if there is none."""
    side = math.isqrt(channels // 3)
    if not side or 3 * side * side != channels:
        raise ValueError(f"{channels} values are not a square picture in three colours")
    return side


def shown_side(side: int) -> int:
    """The side of the pictures shown in training, given that of the whole pictures."""
    return max(1, round(side * _SHOWN))
