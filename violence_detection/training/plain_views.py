"""Predictions of a head for `Samples`, on the plain variant of each clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from violence_detection.training import heads
from violence_detection.training.training_data import Samples

if TYPE_CHECKING:
    import keras


def predict(model: keras.Model, samples: Samples) -> np.ndarray:
    """P(fight) of each clip: (N,) float64 in [0, 1]. Features are read a batch at a time, which saves memory."""
    if not len(samples):
        return np.empty(0)
    batches = samples.plain_batches(heads.predict_batch(samples.shapes()))
    return np.concatenate([heads.predict(model, batch) for batch in batches])
