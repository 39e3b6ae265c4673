"""How like each other clips are for the kernel head, in NumPy: what the fit and a head without Keras have in common.

heads.LandmarkSimilarity is the same in a graph.
"""

from __future__ import annotations

import numpy as np

from violence_detection.training.config import LEAST_LENGTH


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, C) at unit length, or shorter where they are below LEAST_LENGTH."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(LEAST_LENGTH))


def likeness(
    a: np.ndarray, b: np.ndarray, gamma: float | np.float32, length_counts: bool = False
) -> np.ndarray:
    """(len(a), len(b)) in [0, 1] of vectors (N, C) of unit length: a Gaussian kernel.

    `length_counts`: of their directions, times both lengths, at most 1.
    """
    if length_counts:
        lengths = (np.minimum(np.linalg.norm(v, axis=1), 1) for v in (a, b))
        return likeness(unit(a), unit(b), gamma) * np.outer(*lengths)
    alike: np.ndarray = np.exp(2 * gamma * (a @ b.T - 1))
    return alike
