"""A layer that makes of the cache's pictures what I3D takes, and in training alters them at random.

One draw a clip holds for all of its frames, since a change from frame to frame would look like movement; the noise
alone differs. Ranges are those that were measured with (docs/decisions.md, Fine-tuning). A resized crop, mirroring and
a lower resolution are one linear map of the rows and one of the columns (B, side, S), so they cost two products of
matrices. Nothing here is of one Keras backend alone.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import keras
from keras import layers, ops

Tensor: TypeAlias = Any  # keras.KerasTensor; Keras publishes no types

#: Of the side of the pictures that training shows (160 of 176): a network sees things larger in training than in
#: judging whole pictures, and this makes up for it (Touvron et al. 2019, arXiv 1906.06423).
_SHOWN = 10 / 11
_SHORTEST, _TIME_P = 0.5, 0.6  # of the frames' span, and how often it is shortened
#: Of a crop; of its sides' ratio the logarithm (Szegedy et al. 2015, arXiv 1409.4842).
_LEAST_AREA, _ASPECT = 0.4, 0.35
_COARSER, _COARSER_P = 3.0, 0.3
_GREY_P, _MOVING_P, _TINT_P = 0.25, 0.3, 0.6
_LIGHT, _TINT = 0.5, 0.15  # logarithms of factors
_NOISE, _NOISE_P = 0.05, 0.3
_BOX_P, _BOX = 0.3, (1 / 6, 1 / 2)  # sides as shares of the picture's


@keras.saving.register_keras_serializable("violence_detection")
class PictureAugmentation(layers.Layer):
    """(B, T, S * S * 3) of values 0..255 to (B, T, side, side, 3) float32 of values -1..1.

    The whole pictures (side S), or in training a part of them altered, side 10/11 S. `alters`: whether it does so.
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
        """A number a clip, or several: (B, width)."""
        return keras.random.uniform((ops.shape(like)[0], width), low, high, seed=self.seed_generator)

    def _chance(self, like: Tensor, share: float) -> Tensor:
        """Whether a clip is altered: (B, 1) of 0 and 1."""
        return ops.cast(self._uniform(like, 0.0, 1.0) < share, "float32")

    def _in_time(self, x: Tensor) -> Tensor:
        """As many frames of a shorter span, which the clip plays more slowly: (B, T, D) to the same."""
        count = self.frames
        length = 1 - self._chance(x, _TIME_P) * self._uniform(x, 0.0, 1 - _SHORTEST)
        start = self._uniform(x, 0.0, 1.0) * (1 - length)
        at = ops.floor((start + (ops.arange(count, dtype="float32") + 0.5) * length / count) * count)
        chosen = ops.one_hot(ops.cast(ops.clip(at, 0, count - 1), "int32"), count, dtype="float32")
        return ops.matmul(chosen, x)

    def _in_space(self, x: Tensor) -> Tensor:
        """A part of the pictures, mirrored or not, coarser or not: (B, T, S * S * 3) to the shown size."""
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
        """Where in the picture each of the shown pixels lies, (B, shown), in pixels of the picture."""
        start = self._uniform(x, 0.0, 1.0) * (1 - size)
        at = (start + (ops.arange(shown, dtype="float32") + 0.5) * size / shown) * self.side - 0.5
        return ops.clip(at, 0, self.side - 1)

    def _weights(self, at: Tensor, coarser: Tensor) -> Tensor:
        """How much each pixel of the picture counts in each shown one: (B, shown, S), bilinear where coarser is 1."""
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
        """The clip's mean picture taken away, on mid-grey."""
        share = _each(self._chance(x, _MOVING_P))
        return share * ops.clip(x - ops.mean(x, axis=1, keepdims=True) + 0.5, 0, 1) + (1 - share) * x

    def _noisy(self, x: Tensor) -> Tensor:
        strength = _each(self._chance(x, _NOISE_P) * self._uniform(x, 0.0, _NOISE))
        return x + strength * keras.random.normal(ops.shape(x), seed=self.seed_generator)

    def _erased(self, x: Tensor) -> Tensor:
        """A box of mid-grey, in the same place of all frames."""
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
    """A number a clip (B, 1) beside pictures (B, T, H, W, 3)."""
    return ops.reshape(values, (-1, 1, 1, 1, 1))


def side_of(channels: int) -> int:
    """The side of square pictures in three colours with so many values. Raises ValueError if there is none."""
    side = math.isqrt(channels // 3)
    if not side or 3 * side * side != channels:
        raise ValueError(f"{channels} values are no square picture in three colours")
    return side


def shown_side(side: int) -> int:
    """Of the pictures that training shows."""
    return max(1, round(side * _SHOWN))
