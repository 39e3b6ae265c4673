"""The kernel head in NumPy gives the results of the one in Keras, and leaves files that are not as written to Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from violence_detection.models.light_heads import KernelHead, kernel_head
from violence_detection.training import heads, saved_heads
from violence_detection.training.config import KERNEL, HeadConfig

#: The length of the features counts in the last input only.
SHAPES = {"a.rgb": (4, 6), "b.rgb": (1, 3), "movenet_poses.rgb": (2, 5)}
HEAD = HeadConfig(landmarks=5)
RECORD: dict[str, Any] = {
    "architecture": KERNEL,
    "inputs": {name: list(shape) for name, shape in SHAPES.items()},
    "head": HEAD.recorded(KERNEL),
}


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Any, Path]:
    """A Keras head whose random weights all affect its output, and its file."""
    rng = np.random.default_rng(0)
    model = heads.build(KERNEL, SHAPES, HEAD)
    model.set_weights([rng.normal(0, 0.5, w.shape) for w in model.weights])
    saved_heads.save_weights(model, tmp_path / "best_model.safetensors")
    return model, tmp_path / "best_model.safetensors"


def test_it_says_what_keras_says(stored: tuple[Any, Path]) -> None:
    model, file = stored
    rng = np.random.default_rng(1)
    inputs = {name: rng.normal(0, 2, (20, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    inputs["a.rgb"][3] = 0  # its mean over time has length 0
    inputs["a.rgb"][4] *= 1e-6
    inputs["movenet_poses.rgb"][5:] *= 0.1
    inputs["movenet_poses.rgb"][6] = 0
    head = kernel_head(file, RECORD)
    assert head is not None
    assert head.length_counts == {"movenet_poses.rgb"}
    expected = heads.predict(model, inputs)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(head.predict(inputs), expected, atol=1e-5)


def test_rounding_errors_are_no_features() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(0, 1, (5, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    head = KernelHead(
        {"a.rgb": vectors}, {"a.rgb": np.float32(1)}, rng.normal(0, 1, 5).astype(np.float32), np.float32(0)
    )
    features = rng.normal(0, 1, (1, 4, 6)).astype(np.float32)
    none, error, large = (head.predict({"a.rgb": size * features})[0] for size in (0, 1e-6, 1))
    assert abs(large - none) > 0.02
    assert abs(error - none) < 0.01 * abs(large - none)


@pytest.mark.parametrize("change", ["missing", "shape", "nan", "cut", "archive", "architecture"])
def test_what_is_not_as_it_was_written_is_left_to_keras(stored: tuple[Any, Path], change: str) -> None:
    _, file = stored
    values = load_file(file)
    if change == "missing":
        del values["logits/bias.1"]
    elif change == "shape":
        values["logits/bias.1"] = np.zeros(2, np.float32)
    elif change == "nan":
        values["logits/bias.1"] = np.full(1, np.nan, np.float32)
    save_file(values, file)
    if change == "cut":
        file.write_bytes(file.read_bytes()[:-8])
    if change == "archive":
        file = file.rename(file.with_suffix(".keras"))
    record = {**RECORD, "architecture": "average"} if change == "architecture" else RECORD
    assert kernel_head(file, record) is None
