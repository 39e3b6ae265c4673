"""How much features may differ for speed's sake, and whether reduced precision keeps within that.

Reduced precision (float16 on GPUs, bfloat16 on CPUs with AMX) is used only where it changes real features by at most
TOLERANCE, measured at each start against float32.

To judge with features that a model was not trained on needs more: how far P(fight) moves on real clips was measured of
the backbones that say `bfloat16` (docs/results.md, What judging costs), with models trained on float32. What a machine
must show by itself, once, is that it computes them so: made-up pictures' features within JUDGING_TOLERANCE. The same
holds of 8 bits (eight_bits.py), of P(fight) itself, and of features within EIGHT_BIT_TOLERANCE, for the heads of which
it was measured (trained_model.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from violence_detection.backbones import eight_bits
from violence_detection.system import storage

if TYPE_CHECKING:
    from pathlib import Path

    from violence_detection.backbones.engines import Engine, Features
    from violence_detection.backbones.registry import Backbone

log = logging.getLogger(__name__)

#: Largest relative error ||a - b|| / ||b|| of a clip's features. Storing float16 alone makes 0.0002.
TOLERANCE = 0.01

#: The same of features that a model is to judge with; 1.2 to 2.4 % is what bfloat16 makes of I3D's. And how far
#: P(fight) of a network that judges by itself may be off in 8 bits.
JUDGING_TOLERANCE = 0.05
#: The same of features in 8 bits, for heads of which it was measured; 5 to 10 % is what they make of I3D's,
#: 2 to 4 % of DINOv2's.
EIGHT_BIT_TOLERANCE = 0.1

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


def keeps(
    backbone: Backbone, weights: Path, frames: int, engine: Callable[[str], Engine], dtype: str
) -> bool:
    """Whether bfloat16 keeps the features that the backbone makes of made-up pictures here, or int8 its P(fight).

    `engine`: makes one of a precision; a ValueError of it is a precision that cannot be had.
    """
    from violence_detection.backbones import stored_networks

    of_p = dtype == "int8" and backbone.feature_dim == 1  # P(fight), not features

    def measure() -> float:
        images = made_up(frames, backbone.input_size)
        fast, exact = (engine(kind).submit(images).result() for kind in (dtype, "float32"))
        if of_p:
            return float(np.abs(fast - exact).max())
        return _worst_error(fast, exact)

    key = stored_networks.key_of(backbone, weights, frames)
    if dtype == "int8":
        key = storage.stable_hash([key, dtype, eight_bits.as_record(backbone.ranges)])
    try:
        error = stored_networks.measured(key, measure)
    except ValueError as e:
        log.warning("%s: not in %s (%s)", backbone.name, dtype, e)
        return False
    kept = error <= (EIGHT_BIT_TOLERANCE if dtype == "int8" and not of_p else JUDGING_TOLERANCE)
    log.log(
        logging.INFO if kept else logging.WARNING,
        "%s: %s differs from float32 by %.2g %%: %s",
        backbone.name, dtype, 100 * error, "used" if kept else "not used",
    )  # fmt: skip
    return kept


def made_up(frames: int, size: int) -> np.ndarray:
    """Pictures in which something moves over a ground with edges, always the same: (frames, size, size, 3) uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (-(-size // 16) + 1, -(-size // 16) + 1, 3), np.uint8)
    ground = coarse.repeat(16, 0).repeat(16, 1)
    figure = rng.integers(0, 256, (size // 3, size // 4, 3), np.uint8)
    out = np.empty((frames, size, size, 3), np.uint8)
    for number, picture in enumerate(out):
        picture[:] = ground[number % 16 :, number % 16 :][:size, :size]
        left = (number * size // 32) % (size - figure.shape[1])
        picture[size // 3 : size // 3 + len(figure), left : left + figure.shape[1]] = figure
    return out
