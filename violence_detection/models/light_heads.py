"""The kernel head in NumPy, which judges without Keras, whose import alone takes seconds.

It is read from the file that `saved_heads` wrote. If anything in that file is not as expected, `kernel_head` returns
None, and the caller loads the file with `saved_heads`, which says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from violence_detection.backbones import registry
from violence_detection.features import key
from violence_detection.training import run_folder, whole_numbers
from violence_detection.training.config import KERNEL
from violence_detection.training.likeness import likeness, unit

#: Suffix of a tensor that has the steps of another one, as in saved_heads.py.
STEP = ".step"


@dataclass(frozen=True)
class KernelHead:
    """The LandmarkSimilarity of each input, the mean of these, and a logistic layer; see training/heads.py.

    `vectors`: by input, the M landmarks, (M, C) float32 of unit length. `gammas`: by input, the gamma of its Gaussian
    kernel. `kernel` (M,) float32 and `bias`: of the logistic layer. `length_counts`: the inputs whose vectors, and
    whose landmarks, keep their lengths.
    """

    vectors: Mapping[str, np.ndarray]
    gammas: Mapping[str, np.float32]
    kernel: np.ndarray
    bias: np.float32
    length_counts: frozenset[str] = frozenset()

    def predict(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """P(fight), (N,) float64 in [0, 1], for inputs name -> (N, T, C); those of other heads are ignored."""
        return 1 / (1 + np.exp(-self.logits(self.units(inputs)).astype(np.float64)))

    def units(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The means over time of the head's inputs (N, T, C): (N, C) float32, at unit length unless lengths count."""
        means = {name: inputs[name].astype(np.float32).mean(axis=1) for name in self.vectors}
        return {name: mean if name in self.length_counts else unit(mean) for name, mean in means.items()}

    def likeness(self, units: Mapping[str, np.ndarray]) -> np.ndarray:
        """The likeness of N clips to the M landmarks, (N, M) in [0, 1]. `units`: as the method `units` returns them."""
        found = [
            likeness(units[name], vectors, self.gammas[name], name in self.length_counts)
            for name, vectors in self.vectors.items()
        ]
        alike: np.ndarray = np.mean(found, axis=0)
        return alike

    def logits(self, units: Mapping[str, np.ndarray]) -> np.ndarray:
        """The head's logits, (N,). `units`: as the method `units` returns them."""
        said: np.ndarray = self.likeness(units) @ self.kernel + self.bias
        return said


def stored_as_whole(stored: Any, name: str) -> bool:
    """Whether an open safetensors file has `name` as int8, with the step of each column in a tensor beside it."""
    names = set(stored.keys())
    return {name, name + STEP} <= names and stored.get_slice(name).get_dtype() == "I8"


def kernel_head(file: Path, record: Mapping[str, Any]) -> KernelHead | None:
    """The kernel head in a `.safetensors` file; None if the file has another suffix or head, or is damaged.

    `record`: the content of the config.json beside it.
    """
    if record.get("architecture") != KERNEL or file.suffix != run_folder.WEIGHTS_SUFFIX:
        return None
    shapes, landmarks = record["inputs"], record["head"]["landmarks"]
    wanted: dict[str, tuple[int, ...]] = {"logits/kernel.1": (landmarks, 1), "logits/bias.1": (1,)}
    for name, (_, channels) in shapes.items():
        wanted |= {f"{name}.similarity/vectors.1": (landmarks, channels), f"{name}.similarity/gamma.1": (1,)}
    try:
        with safetensors.safe_open(file, framework="np") as stored:
            steps = {name for name in wanted if stored_as_whole(stored, name)}
            if set(stored.keys()) != {*wanted, *(name + STEP for name in steps)}:
                return None
            if any(tuple(stored.get_slice(name).get_shape()) != shape for name, shape in wanted.items()):
                return None
            values = {name: stored.get_tensor(name).astype(np.float32) for name in wanted}
            for name in steps:
                values[name] = whole_numbers.joined(values[name], stored.get_tensor(name + STEP))
    except (safetensors.SafetensorError, OSError, ValueError):
        return None
    if not all(np.isfinite(array).all() for array in values.values()):
        return None
    return KernelHead(
        {name: values[f"{name}.similarity/vectors.1"] for name in shapes},
        {name: values[f"{name}.similarity/gamma.1"][0] for name in shapes},
        values["logits/kernel.1"][:, 0],
        values["logits/bias.1"][0],
        frozenset(name for name in shapes if registry.length_counts(key.backbone_of(name))),
    )
