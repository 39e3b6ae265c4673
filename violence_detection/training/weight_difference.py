"""Store a fine-tuned network's weights compactly, as their difference from the published weights it started from.

Whoever uses the network has the published weights anyway. The difference of each kernel is rounded to whole steps, with
one step size per output channel. The rounding error of a weight is carried over to the channel's next weight, first
along place and time: a channel sums over neighbouring places and moments, which look alike, so the errors cancel (error
diffusion, Floyd & Steinberg 1976). Small kernels have finer steps, since these cost little and the error of every
kernel matters equally. The whole numbers are Huffman coded, with about 3 bits per weight, by zlib; its search for
repetitions is off, since there are none. Arrays with one axis, the offsets, are stored as they are.

In a `.safetensors` file (saved_heads.py):

    difference.codes     uint8, zlib: the whole numbers of all kernels as int8, kernel by kernel, last axis fastest
    difference.steps     float32: the step of each output channel of each kernel, in the same order
    difference.offsets   float32: the arrays with one axis, one after another
    metadata             difference: "1", the version; difference_from: SHA-256 of the file of the published weights
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

VERSION_KEY, BASE_KEY, VERSION = "difference", "difference_from", "1"
CODES, STEPS, OFFSETS = NAMES = ("difference.codes", "difference.steps", "difference.offsets")
#: Largest magnitude of a stored number.
_INT8_MAX = 127
#: A kernel with this many weights has the step that `encode` is given.
_FULL_SIZE = 1.2e6
#: Another kernel's step is multiplied by its share of that number, raised to this power.
_SIZE_POWER = 0.7
#: A raw deflate stream without header and checksum, since the hash of the whole file is compared anyway.
_RAW = -zlib.MAX_WBITS


def encode(weights: Sequence[np.ndarray], base: Sequence[np.ndarray], step: float) -> dict[str, np.ndarray]:
    """Encode the difference of `weights` from `base` as tensors, by name.

    `weights`, `base`: float32 arrays of the same shapes, output channels last. `step`: the step for a kernel with 1.2
    million weights, in standard deviations of an output channel's differences.
    """
    packed, steps, offsets = [], [], []
    coder = zlib.compressobj(9, zlib.DEFLATED, _RAW, 9, zlib.Z_HUFFMAN_ONLY)
    for own, published in zip(weights, base, strict=True):
        if own.ndim < 2:
            offsets.append(own.ravel())
            continue
        change = own.astype(np.float64) - published
        size = _step_sizes(change, step * (change.size / _FULL_SIZE) ** _SIZE_POWER)
        steps.append(size)
        # the flush ends the compressed block: each kernel's numbers have their own spread, so need their own code
        packed += [coder.compress(_rounded(change / size).tobytes()), coder.flush(zlib.Z_FULL_FLUSH)]
    packed.append(coder.flush())
    return {
        CODES: np.frombuffer(b"".join(packed), np.uint8),
        STEPS: np.concatenate(steps),
        OFFSETS: np.concatenate(offsets).astype(np.float32),
    }


def _step_sizes(change: np.ndarray, step: float) -> np.ndarray:
    """The step of each output channel, (C,) float32, above 0. At least 1/127 of the channel's largest difference.

    `step`: in standard deviations of the channel's differences.
    """
    axes = tuple(range(change.ndim - 1))
    size = np.maximum(step * change.std(axis=axes), np.abs(change).max(axis=axes) / _INT8_MAX).astype(
        np.float32
    )
    return np.where(size > 0, size, np.float32(1))


def _rounded(values: np.ndarray) -> np.ndarray:
    """Round values (..., inputs, C) to int8 of the same shape; each error is added to the channel's next value."""
    *places, inputs, channels = values.shape
    # (inputs, places, C), so that the next value is that of the next place, and after the last place the next input
    in_order = values.reshape(-1, inputs, channels).swapaxes(0, 1)
    found = np.empty(in_order.shape, np.int8)
    carried = np.zeros(channels)
    for row, codes in zip(in_order.reshape(-1, channels), found.reshape(-1, channels), strict=True):
        wanted = row + carried
        rounded = np.clip(np.rint(wanted), -_INT8_MAX, _INT8_MAX)
        codes[:] = rounded
        carried = wanted - rounded
    return np.ascontiguousarray(found.swapaxes(0, 1)).reshape(*places, inputs, channels)


def decode(stored: Mapping[str, np.ndarray], base: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Decode the weights, float32 arrays with the shapes of `base`, from the tensors that `encode` made.

    Raises ValueError if the tensors are damaged or do not fit `base`.
    """
    kernels = [b for b in base if b.ndim >= 2]
    counts = (sum(k.shape[-1] for k in kernels), sum(b.size for b in base if b.ndim < 2))
    for (name, kind), count in zip(((STEPS, np.float32), (OFFSETS, np.float32)), counts, strict=True):
        if stored[name].dtype != kind or stored[name].shape != (count,):
            raise ValueError(f"{name} is {stored[name].dtype} {stored[name].shape}, not float32 ({count},)")
    if stored[CODES].dtype != np.uint8 or stored[CODES].ndim != 1:
        raise ValueError(f"{CODES} is not a one-dimensional array of bytes")
    wanted = sum(k.size for k in kernels)
    decoder = zlib.decompressobj(_RAW)
    try:
        unpacked = decoder.decompress(stored[CODES].tobytes(), wanted + 1)
    except zlib.error as e:
        raise ValueError(f"{CODES} is damaged ({e})") from e
    if len(unpacked) != wanted or not decoder.eof or decoder.unused_data:
        raise ValueError(f"{CODES} does not contain exactly {wanted} numbers")
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
