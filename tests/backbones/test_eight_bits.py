"""Networks in 8 bits: the results are close, and ranges are matched by the kernels, and never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from violence_detection.backbones import eight_bits
from violence_detection.backbones.eight_bits import ActivationRange

ov: Any = pytest.importorskip("openvino")


def _network(kernels: list[np.ndarray]) -> Any:
    """Build a chain of convolutions over (1, 3, T, H, W), with a ReLU after each but the last."""
    from openvino import opset13 as ops

    given = ops.parameter([1, 3, 4, 12, 12], np.float32)
    x = given
    for number, kernel in enumerate(kernels):
        x = ops.convolution(x, ops.constant(kernel), [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1])
        x = ops.relu(x) if number + 1 < len(kernels) else x
    return ov.Model([ops.result(x)], [given], "small")


def _kernels(rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.normal(0, 0.1, (8, c, 3, 3, 3)).astype(np.float32) for c in (3, 8, 8)]


def _run(network: Any, x: np.ndarray) -> np.ndarray:
    compiled = ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(next(iter(compiled(x).values())))


def test_what_comes_out_is_near_and_is_rounded() -> None:
    rng = np.random.default_rng(0)
    kernels = _kernels(rng)
    x = rng.uniform(-1, 1, (1, 3, 4, 12, 12)).astype(np.float32)
    exact = _run(_network(kernels), x)
    ends = [_run(_network(kernels[: n + 1]), x).clip(0).max() for n in range(2)]
    spans = zip(kernels, [-1, 0, 0], [1, *ends], strict=True)
    ranges = [ActivationRange.of(*span) for span in spans]
    rounded = _run(eight_bits.quantised(_network(kernels), ranges[::-1]), x)
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.03
    half = [ActivationRange(r.kernel_sum, r.smallest / 4, r.largest / 4) for r in ranges]
    clipped = _run(eight_bits.quantised(_network(kernels), half), x)
    assert np.linalg.norm(clipped - exact) / np.linalg.norm(exact) > 5 * error


def _dense(kernel: np.ndarray, outputs_first: bool) -> Any:
    """Build a convolution that changes nothing and a dense layer: (1, 4, in) to (1, 4, out). `kernel`: (out, in),
    stored in that order if `outputs_first`, or else transposed.
    """
    from openvino import opset13 as ops

    given = ops.parameter([1, 4, kernel.shape[1]], np.float32)
    x = ops.convolution(given, ops.constant(np.eye(4, dtype=np.float32)[..., None]), [1], [0], [0], [1])
    x = ops.matmul(x, ops.constant(kernel if outputs_first else kernel.T.copy()), False, outputs_first)
    return ov.Model([ops.result(x)], [given], "dense")


@pytest.mark.parametrize("outputs_first", [True, False])
def test_a_dense_layer_is_rounded_for_each_output_if_its_range_is_known(outputs_first: bool) -> None:
    rng = np.random.default_rng(0)
    # The outputs differ in size by up to 10,000. With one step for all of them, the small ones would be lost.
    kernel = (rng.normal(0, 1, (6, 5)) * np.logspace(0, -4, 6)[:, None]).astype(np.float32)
    x = rng.uniform(-1, 1, (1, 4, 5)).astype(np.float32)
    exact = x @ kernel.T
    convolution = ActivationRange.of(np.eye(4), -1, 1)
    alone = _run(eight_bits.quantised(_dense(kernel, outputs_first), [convolution]), x)
    both = [convolution, ActivationRange.of(kernel, -1, 1)]
    rounded = _run(eight_bits.quantised(_dense(kernel, outputs_first), both), x)
    error = np.linalg.norm(rounded - exact, axis=(0, 1)) / np.linalg.norm(exact, axis=(0, 1))
    assert error.max() < 0.05
    moved = np.linalg.norm(rounded - alone, axis=(0, 1)) / np.linalg.norm(exact, axis=(0, 1))
    assert moved.min() > 1e-3, "unknown, it stays as it is"
    halved = [convolution, ActivationRange.of(kernel, -0.5, 0.5)]
    clipped = _run(eight_bits.quantised(_dense(kernel, outputs_first), halved), x)
    np.testing.assert_allclose(clipped, x.clip(-0.5, 0.5) @ kernel.T, atol=0.02 * np.abs(exact).max())


def test_a_convolution_of_which_nothing_is_known_is_refused() -> None:
    kernels = _kernels(np.random.default_rng(0))
    ranges = [ActivationRange.of(kernel, 0, 1) for kernel in kernels[:2]]
    with pytest.raises(ValueError, match="no range is known"):
        eight_bits.quantised(_network(kernels), ranges)


def test_they_come_back_from_their_record_and_others_are_refused() -> None:
    ranges = (ActivationRange(1.5, -1.0, 1.0), ActivationRange(2.5, 0.0, 7.0))
    assert eight_bits.from_record(eight_bits.as_record(ranges)) == ranges
    for wrong in (
        {},
        {"convolutions": [[1, 2]]},
        {"convolutions": 3},
        {"convolutions": [[1, 2, float("nan")]]},
    ):
        with pytest.raises(ValueError, match="range"):
            eight_bits.from_record(wrong)


@pytest.mark.parametrize(
    ("flags", "fast"), [("fpu avx2 avx512_vnni", True), ("fpu avx_vnni", True), ("fpu avx2 avx512f", False)]
)
def test_only_cpus_with_the_instruction_are_fast_at_it(tmp_path: Path, flags: str, fast: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\nbugs\t\t: avx_vnni\n")
    assert eight_bits.fast_here(tmp_path / "cpuinfo") is fast
    assert not eight_bits.fast_here(tmp_path / "none")
