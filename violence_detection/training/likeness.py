"""Similarity of clips for the kernel head, in NumPy: used when the head is fitted, and when it judges without Keras.

heads.LandmarkSimilarity computes the same in a Keras graph.
"""

from __future__ import annotations

import numpy as np

from violence_detection.training.config import LEAST_LENGTH


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale vectors (N, C) to unit length. Those shorter than LEAST_LENGTH are divided by it, so remain below 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(LEAST_LENGTH))


def likeness(
    a: np.ndarray, b: np.ndarray, gamma: float | np.float32, length_counts: bool = False
) -> np.ndarray:
    """Gaussian kernel between vectors (N, C) of unit length: (len(a), len(b)) in [0, 1].

    `length_counts`: the vectors have any length; the kernel compares their directions, and is multiplied by both
    lengths, each cut off at 1.
    """
    if length_counts:
        lengths = (np.minimum(np.linalg.norm(v, axis=1), 1) for v in (a, b))
        return likeness(unit(a), unit(b), gamma) * np.outer(*lengths)
    alike: np.ndarray = np.exp(2 * gamma * (a @ b.T - 1))
    return alike
