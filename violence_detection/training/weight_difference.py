"""The weights of a network as a small difference from those it started from, which whoever uses it has anyway.

Each kernel's difference is rounded to whole steps, of one size for each output channel. What rounding leaves is carried
to the next weight of the channel, first along place and time: a channel sums over pictures, whose neighbours are alike,
so that errors cancel (error diffusion: Floyd & Steinberg 1976). Kernels of few weights have finer steps: they cost
little, and each kernel's error counts alike. The whole numbers are Huffman coded (zlib without its search for
repetitions: there are none), which takes about 3 bits a weight. Arrays of one axis, offsets, are kept whole.

Part of a `.safetensors` file (saved_heads.py):

    difference.codes     uint8, zlib: all kernels' whole numbers, int8, one kernel after another, last axis fastest
    difference.steps     float32: the step of each output channel of each kernel, in the same order
    difference.offsets   float32: the arrays of one axis, one after another
    metadata             difference: "1", the version; difference_from: SHA-256 of the file of the published weights
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

VERSION_KEY, BASE_KEY, VERSION = "difference", "difference_from", "1"
CODES, STEPS, OFFSETS = NAMES = ("difference.codes", "difference.steps", "difference.offsets")
_MOST = 127
#: How fine the steps of a small kernel are: the share of a million weights that it has, to this power.
_A_MILLION, _FINER = 1.2e6, 0.7
_RAW = -zlib.MAX_WBITS  # neither header nor checksum: the hash of the whole file is compared


def encode(weights: Sequence[np.ndarray], base: Sequence[np.ndarray], step: float) -> dict[str, np.ndarray]:
    """The tensors by name. `weights` and `base`: float32 arrays of the same shapes, output channels last.

    `step`: of a kernel of a million weights, in standard deviations of an output channel's differences.
    """
    packed, steps, offsets = [], [], []
    coder = zlib.compressobj(9, zlib.DEFLATED, _RAW, 9, zlib.Z_HUFFMAN_ONLY)
    for own, published in zip(weights, base, strict=True):
        if own.ndim < 2:
            offsets.append(own.ravel())
            continue
        change = own.astype(np.float64) - published
        size = _step_sizes(change, step * (change.size / _A_MILLION) ** _FINER)
        steps.append(size)
        # a block of its own, as its numbers have a spread of their own
        packed += [coder.compress(_rounded(change / size).tobytes()), coder.flush(zlib.Z_FULL_FLUSH)]
    packed.append(coder.flush())
    return {
        CODES: np.frombuffer(b"".join(packed), np.uint8),
        STEPS: np.concatenate(steps),
        OFFSETS: np.concatenate(offsets).astype(np.float32),
    }


def _step_sizes(change: np.ndarray, step: float) -> np.ndarray:
    """(C,) float32, above 0: of each output channel, so large that 127 steps reach its largest difference."""
    axes = tuple(range(change.ndim - 1))
    size = np.maximum(step * change.std(axis=axes), np.abs(change).max(axis=axes) / _MOST).astype(np.float32)
    return np.where(size > 0, size, np.float32(1))


def _rounded(values: np.ndarray) -> np.ndarray:
    """Whole numbers int8 for values (..., inputs, C), what is left of each carried to the next of its channel."""
    *places, inputs, channels = values.shape
    # (inputs, places, C): place after place of an input, then the next input
    in_order = values.reshape(-1, inputs, channels).swapaxes(0, 1)
    found = np.empty(in_order.shape, np.int8)
    carried = np.zeros(channels)
    for row, codes in zip(in_order.reshape(-1, channels), found.reshape(-1, channels), strict=True):
        wanted = row + carried
        rounded = np.clip(np.rint(wanted), -_MOST, _MOST)
        codes[:] = rounded
        carried = wanted - rounded
    return np.ascontiguousarray(found.swapaxes(0, 1)).reshape(*places, inputs, channels)


def decode(stored: Mapping[str, np.ndarray], base: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The weights, float32 arrays in the shapes of `base`. Raises ValueError where they do not fit it."""
    kernels = [b for b in base if b.ndim >= 2]
    counts = (sum(k.shape[-1] for k in kernels), sum(b.size for b in base if b.ndim < 2))
    for (name, kind), count in zip(((STEPS, np.float32), (OFFSETS, np.float32)), counts, strict=True):
        if stored[name].dtype != kind or stored[name].shape != (count,):
            raise ValueError(f"{name} is {stored[name].dtype} {stored[name].shape}, not float32 ({count},)")
    if stored[CODES].dtype != np.uint8 or stored[CODES].ndim != 1:
        raise ValueError(f"{CODES} is no row of bytes")
    wanted = sum(k.size for k in kernels)
    decoder = zlib.decompressobj(_RAW)
    try:
        unpacked = decoder.decompress(stored[CODES].tobytes(), wanted + 1)
    except zlib.error as e:
        raise ValueError(f"{CODES} is damaged ({e})") from e
    if len(unpacked) != wanted or not decoder.eof or decoder.unused_data:
        raise ValueError(f"{CODES} does not hold just {wanted} numbers")
    codes, steps, offsets = np.frombuffer(unpacked, np.int8), stored[STEPS], stored[OFFSETS]
    found = []
    for published in base:
        if published.ndim < 2:
            values, offsets = np.split(offsets, [published.size])
            found.append(values.reshape(published.shape))
            continue
        kernel, codes = np.split(codes, [published.size])
        size, steps = np.split(steps, [published.shape[-1]])
        found.append(published + kernel.reshape(published.shape) * size)
    return found
