"""Quantise a network's convolutions to 8 bits, which takes CPUs half the time that 16 bits take.

The inputs of each convolution, and of each dense layer whose range is known, are rounded to 256 steps (255 where they
can be negative) of the range that they had on training pictures. The kernels are rounded to 255 steps per output
channel. Everything else is computed as before. The method is that of Jacob et al. 2018, "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference", without their training for quantisation.

The ranges of a network that was trained here are stored with its weights (training/activation_ranges.py). Those of a
published network are in a file next to its code in networks/, written by benchmarks/measure_ranges.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: CPU flags of instructions that multiply 8-bit numbers and add up the products in one step. On CPUs without them
#: 8 bits are slower or less exact.
_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
#: Largest relative difference of the sums of magnitudes of one kernel. Only the order of addition causes it.
_SUM_TOLERANCE = 1e-6
#: Dense layers are under this key, too: the first files had ranges of convolutions only.
_KEY = "convolutions"


@dataclass(frozen=True)
class ActivationRange:
    """The range of the inputs of a convolution or dense layer.

    The layer is identified by the sum of its kernel's magnitudes, whatever its name.
    """

    kernel_sum: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, kernel: np.ndarray, smallest: float, largest: float) -> ActivationRange:
        """The range of the inputs of the layer with this kernel."""
        return cls(kernel_sum(kernel), float(smallest), float(largest))


def kernel_sum(kernel: np.ndarray) -> float:
    """The sum of the magnitudes of the kernel's weights, added in float64."""
    return float(np.abs(kernel).sum(dtype=np.float64))


def fast_here(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU has instructions for 8 bits; False where there is no file `cpuinfo`."""
    if not cpuinfo.is_file():
        return False
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    return not _FLAGS.isdisjoint(flags.split())


def quantised(network: Any, ranges: Sequence[ActivationRange]) -> Any:
    """Quantise all convolutions of the openvino.Model `network`, and the dense layers with a range in `ranges`.

    Changes `network` and returns it. Raises ValueError for a convolution whose range is not in `ranges`.
    """
    for layer in convolutions(network):
        found = _ranges_of(kernel_of(layer), ranges)
        if not found:
            own = kernel_sum(kernel_of(layer))
            raise ValueError(
                f"no range is known for the convolution whose kernel's magnitudes sum up to {own:g}"
            )
        _round_inputs(layer, found)
    for layer in dense_layers(network):
        if found := _ranges_of(kernel_of(layer), ranges):
            _round_inputs(layer, found)
    return network


def convolutions(network: Any) -> list[Any]:
    """The convolutions of an openvino.Model, in the order of computation."""
    return [op for op in network.get_ordered_ops() if op.get_type_name() == "Convolution"]


def dense_layers(network: Any) -> list[Any]:
    """The dense layers of an openvino.Model: its products with a constant matrix."""
    products = [op for op in network.get_ordered_ops() if op.get_type_name() == "MatMul"]
    kernels = [op.input_value(1).get_node() for op in products]
    return [
        op
        for op, kernel in zip(products, kernels, strict=True)
        if kernel.get_type_name() == "Constant" and len(kernel.get_output_shape(0)) == 2
    ]


def kernel_of(layer: Any) -> np.ndarray:
    """The kernel of a convolution or dense layer, output channels first: (C, ...).

    Raises ValueError if it is not a constant.
    """
    constant = layer.input_value(1).get_node()
    if constant.get_type_name() != "Constant":
        raise ValueError(f"the kernel of {layer.get_friendly_name()} is not a constant")
    return constant.data if _outputs_first(layer) else constant.data.T


def _outputs_first(layer: Any) -> bool:
    return layer.get_type_name() == "Convolution" or layer.get_attributes()["transpose_b"]


def _ranges_of(kernel: np.ndarray, ranges: Sequence[ActivationRange]) -> list[ActivationRange]:
    own = kernel_sum(kernel)
    return [r for r in ranges if abs(r.kernel_sum - own) <= _SUM_TOLERANCE * own]


def _round_inputs(layer: Any, ranges: Sequence[ActivationRange]) -> None:
    from openvino import opset13 as ops

    smallest, largest = min(r.smallest for r in ranges), max(r.largest for r in ranges)
    # The instructions need inputs that are unsigned, as behind a rectifier, or in a range symmetric about 0.
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
    """The ranges as a JSON file stores them."""
    return {_KEY: [[r.kernel_sum, r.smallest, r.largest] for r in ranges]}


def from_record(record: Mapping[str, Any]) -> tuple[ActivationRange, ...]:
    """The ranges from the content of a JSON file. Raises ValueError if it has none, or one that is not finite."""
    try:
        ranges = tuple(ActivationRange(*map(float, row)) for row in record[_KEY])
    except (KeyError, TypeError) as e:
        raise ValueError(f"it does not contain ranges of layers ({e!r})") from e
    if not all(np.isfinite([r.kernel_sum, r.smallest, r.largest]).all() for r in ranges):
        raise ValueError("it contains a range that is not finite")
    return ranges
