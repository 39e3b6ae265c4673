"""How far reduced precision may change features for the sake of speed, and the checks that it stays within that.

Features are extracted in reduced precision (float16 on GPUs, bfloat16 on CPUs with AMX) only where this changes the
features of real clips by at most TOLERANCE against float32. That is measured at each start.

Judging with features in another precision than a model was trained on needs more. For the backbones marked `bfloat16`
it was measured how far P(fight) moves on real clips, with models trained on float32 (docs/results.md, What judging
costs). Each machine only has to show once that it computes in the same way: the features of made-up pictures must be
within JUDGING_TOLERANCE of those in float32. The same holds for 8 bits (eight_bits.py): P(fight) of a network that
judges by itself must be within JUDGING_TOLERANCE, features within EIGHT_BIT_TOLERANCE, and these are only for the heads
with which P(fight) was measured (trained_model.py).
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

#: Largest relative error ||a - b|| / ||b|| of a clip's features. Storing them as float16 alone causes 0.0002.
TOLERANCE = 0.01

#: Largest relative error of features in bfloat16 that a model judges with (I3D's have 1.2 to 2.4 %), and largest
#: difference in P(fight) of a network that judges by itself in 8 bits.
JUDGING_TOLERANCE = 0.05
#: Largest relative error of features in 8 bits, for the heads with which P(fight) was measured. I3D's have 5 to 10 %,
#: DINOv2's 2 to 4 %.
EIGHT_BIT_TOLERANCE = 0.1

#: Returns images of a real clip, stream -> (T, S, S, 3) uint8; empty if no clip can be read. Called only if needed.
Probe = Callable[[], Mapping[str, np.ndarray]]


def relative_error(values: np.ndarray, reference: np.ndarray) -> float:
    """||values - reference|| / ||reference||, in float64; infinite if a value is not finite."""
    a, b = values.astype(np.float64), reference.astype(np.float64)
    error = float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), 1e-12)
    return error if np.isfinite(error) else float("inf")


def faster_if_equal(reduced: Callable[[], Engine], exact: Engine, probe: Probe) -> Engine:
    """The engine that `reduced` makes, if its features of every stream are within TOLERANCE of those of `exact`.

    Otherwise, and where there is no clip to probe with, `exact`.
    """
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
    """The relative error of one backbone's features; the largest one if several backbones run together."""
    if isinstance(values, np.ndarray):
        return relative_error(values, reference)
    return max(relative_error(a, b) for a, b in zip(values, reference, strict=True))


def keeps(
    backbone: Backbone, weights: Path, frames: int, engine: Callable[[str], Engine], dtype: str
) -> bool:
    """Whether `dtype`, bfloat16 or int8, keeps what the backbone computes from made-up pictures on this machine.

    That is its features, or in int8 P(fight) of a network that judges by itself. Measured once per kind of processor.
    `engine`: makes the engine for a precision; it raises ValueError where there is none.
    """
    from violence_detection.backbones import stored_networks

    of_p = dtype == "int8" and backbone.feature_dim == 1  # the backbone gives P(fight), not features

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
        log.warning("%s: cannot run in %s (%s)", backbone.name, dtype, e)
        return False
    kept = error <= (EIGHT_BIT_TOLERANCE if dtype == "int8" and not of_p else JUDGING_TOLERANCE)
    log.log(
        logging.INFO if kept else logging.WARNING,
        "%s: %s differs from float32 by %.2g %%: %s",
        backbone.name, dtype, 100 * error, "used" if kept else "not used",
    )  # fmt: skip
    return kept


def made_up(frames: int, size: int) -> np.ndarray:
    """Pictures of something that moves over a background with edges, always the same: (frames, size, size, 3) uint8."""
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
