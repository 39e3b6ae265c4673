"""A network whose convolutions multiply whole numbers of 8 bits, which takes CPUs half the time of 16 bits.

Each input of a convolution, or of a dense layer whose range is known too, is rounded to 256 steps of the range that it
had on pictures of training, the kernel to 255 steps for each output channel; everything else is computed as before
(Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
without training for it). The ranges of a network that was trained here are kept with its weights, see
training/activation_ranges.py; those of a published one are a file beside its code in networks/, made by
benchmarks/measure_ranges.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: CPUs that multiply 8-bit numbers and add them up in one instruction; others lose time or digits.
_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
#: Kernels are the same if the sums of their magnitudes differ by less: only the order of adding does.
_SAME = 1e-6
#: Its first files had convolutions alone.
_KEY = "convolutions"


@dataclass(frozen=True)
class ActivationRange:
    """What went into a convolution or dense layer, known by the sum of its kernel's magnitudes, whatever its name."""

    kernel_sum: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, kernel: np.ndarray, smallest: float, largest: float) -> ActivationRange:
        """With the kernel's sum."""
        return cls(kernel_sum(kernel), float(smallest), float(largest))


def kernel_sum(kernel: np.ndarray) -> float:
    """The sum of the magnitudes, in float64."""
    return float(np.abs(kernel).sum(dtype=np.float64))


def fast_here(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU is fast at it."""
    if not cpuinfo.is_file():
        return False
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    return not _FLAGS.isdisjoint(flags.split())


def quantised(network: Any, ranges: Sequence[ActivationRange]) -> Any:
    """The openvino.Model `network` with its convolutions so, and the dense layers that `ranges` knows; it is changed.

    Raises ValueError for a convolution whose range is not known.
    """
    for layer in convolutions(network):
        found = _known(kernel_of(layer), ranges)
        if not found:
            own = kernel_sum(kernel_of(layer))
            raise ValueError(
                f"no range is known of the convolution whose kernel's magnitudes sum up to {own:g}"
            )
        _round_inputs(layer, found)
    for layer in dense_layers(network):
        if found := _known(kernel_of(layer), ranges):
            _round_inputs(layer, found)
    return network


def convolutions(network: Any) -> list[Any]:
    """Those of an openvino.Model."""
    return [op for op in network.get_ordered_ops() if op.get_type_name() == "Convolution"]


def dense_layers(network: Any) -> list[Any]:
    """The products with a constant matrix of an openvino.Model."""
    products = [op for op in network.get_ordered_ops() if op.get_type_name() == "MatMul"]
    kernels = [op.input_value(1).get_node() for op in products]
    return [
        op
        for op, kernel in zip(products, kernels, strict=True)
        if kernel.get_type_name() == "Constant" and len(kernel.get_output_shape(0)) == 2
    ]


def kernel_of(layer: Any) -> np.ndarray:
    """Of a convolution or dense layer: output channels first, (C, ...). Raises ValueError if it is no constant."""
    constant = layer.input_value(1).get_node()
    if constant.get_type_name() != "Constant":
        raise ValueError(f"the kernel of {layer.get_friendly_name()} is no constant")
    return constant.data if _outputs_first(layer) else constant.data.T


def _outputs_first(layer: Any) -> bool:
    return layer.get_type_name() == "Convolution" or layer.get_attributes()["transpose_b"]


def _known(kernel: np.ndarray, ranges: Sequence[ActivationRange]) -> list[ActivationRange]:
    own = kernel_sum(kernel)
    return [r for r in ranges if abs(r.kernel_sum - own) <= _SAME * own]


def _round_inputs(layer: Any, ranges: Sequence[ActivationRange]) -> None:
    from openvino import opset13 as ops

    smallest, largest = min(r.smallest for r in ranges), max(r.largest for r in ranges)
    # unsigned behind a rectifier, else as far down as up, as the instructions take them
    if smallest >= 0:
        low, high, steps = np.float32(0), np.float32(max(largest, 1e-6)), 256
    else:
        high = np.float32(max(largest, -smallest))
        low, steps = -high, 255
    ends = [ops.constant(low), ops.constant(high)]
    kernel = kernel_of(layer)
    each = np.abs(kernel).reshape(len(kernel), -1).max(axis=1).clip(1e-12).astype(np.float32)
    each = each.reshape(-1, *[1] * (kernel.ndim - 1)) if _outputs_first(layer) else each
    sides = [ops.constant(-each), ops.constant(each)]
    rounded = (
        ops.fake_quantize(layer.input_value(0), *ends, *ends, steps),
        ops.fake_quantize(layer.input_value(1), *sides, *sides, 255),
    )
    for place, value in enumerate(rounded):
        layer.input(place).replace_source_output(value.output(0))


def as_record(ranges: Sequence[ActivationRange]) -> dict[str, Any]:
    """As a JSON file has them."""
    return {_KEY: [[r.kernel_sum, r.smallest, r.largest] for r in ranges]}


def from_record(record: Mapping[str, Any]) -> tuple[ActivationRange, ...]:
    """Of such a file. Raises ValueError for what is none."""
    try:
        ranges = tuple(ActivationRange(*map(float, row)) for row in record[_KEY])
    except (KeyError, TypeError) as e:
        raise ValueError(f"no ranges of layers ({e!r})") from e
    if not all(np.isfinite([r.kernel_sum, r.smallest, r.largest]).all() for r in ranges):
        raise ValueError("a range that is not finite")
    return ranges
