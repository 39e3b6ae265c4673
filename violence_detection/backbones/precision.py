"""How much features may differ for speed's sake, and whether reduced precision keeps within that.

Reduced precision (float16 on GPUs, bfloat16 on CPUs with AMX) is used only where it changes real features by at most
TOLERANCE, measured at each start against float32.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from violence_detection.backbones.engines import Engine, Features

log = logging.getLogger(__name__)

#: Largest relative error ||a - b|| / ||b|| of a clip's features. Storing float16 alone makes 0.0002.
TOLERANCE = 0.01

#: Images of a real clip, stream -> (T, S, S, 3) uint8, made only if they are needed; empty if no clip can be read.
Probe = Callable[[], Mapping[str, np.ndarray]]


def relative_error(values: np.ndarray, reference: np.ndarray) -> float:
    """||values - reference|| / ||reference||, in float64; infinite if a value is not finite."""
    a, b = values.astype(np.float64), reference.astype(np.float64)
    error = float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-12)
    return error if np.isfinite(error) else float("inf")


def faster_if_equal(reduced: Callable[[], Engine], exact: Engine, probe: Probe) -> Engine:
    """The engine of reduced precision if it gives the exact one's features of all streams within TOLERANCE."""
    by_stream = probe()
    if not by_stream:
        return exact
    fast = reduced()
    errors = {
        stream: _worst_error(fast.submit(images).result(), exact.submit(images).result())
        for stream, images in by_stream.items()
    }
    chosen = fast if max(errors.values()) <= TOLERANCE else exact
    measured = ", ".join(f"{stream} {100 * error:.2g} %" for stream, error in errors.items())
    log.info("%s differs from %s by %s: using %s", fast.name, exact.name, measured, chosen.name)
    return chosen


def _worst_error(values: Features, reference: Features) -> float:
    """Of one backbone's features, or of those of several that run together."""
    if isinstance(values, np.ndarray):
        return relative_error(values, reference)
    return max(relative_error(a, b) for a, b in zip(values, reference, strict=True))
