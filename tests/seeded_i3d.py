"""Random weights with the names and shapes of I3D's, from fixed seeds, for tests that need no trained weights."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from violence_detection.backbones import registry
from violence_detection.backbones.networks import i3d
from violence_detection.backbones.registry import BackboneSampling
from violence_detection.system import storage

PICTURES = "i3d_pictures"


def weights() -> dict[str, np.ndarray]:
    """Return random arrays with the published names and shapes, each from a seed of its own."""
    units = [("Conv3d_1a_7x7", 7, 3, 64), ("Conv3d_2b_1x1", 1, 64, 64), ("Conv3d_2c_3x3", 3, 64, 192)]
    channels = 192
    for name, (a, b0, b, c0, c, d) in i3d._MODULES.items():
        units += [
            (f"{name}/Branch_0/Conv3d_0a_1x1", 1, channels, a),
            (f"{name}/Branch_1/Conv3d_0a_1x1", 1, channels, b0),
            (f"{name}/Branch_1/Conv3d_0b_3x3", 3, b0, b),
            (f"{name}/Branch_2/Conv3d_0a_1x1", 1, channels, c0),
            (f"{name}/Branch_2/Conv3d_0b_3x3", 3, c0, c),
            (f"{name}/Branch_3/Conv3d_0b_1x1", 1, channels, d),
        ]
        channels = a + b + c + d
    out = {}
    for name, k, before, after in units:
        rng = np.random.default_rng(storage.stable_seed(name))
        kernel = rng.standard_normal((k, k, k, before, after), np.float32)
        out[f"params/{name}/Conv_0/kernel"] = kernel * np.float32((2 / (before * k**3)) ** 0.5)
        norm, shape = f"{name}/BatchNorm_0", (1, 1, 1, 1, after)
        out[f"params/{norm}/bias"] = rng.standard_normal(after, np.float32) / 4
        out[f"batch_stats/{norm}/mean"] = rng.standard_normal(shape, np.float32) / 4
        out[f"batch_stats/{norm}/var"] = 0.5 + rng.random(shape, np.float32)
    classifier = "params/Logits/Conv3d_0c_1x1/Conv_0"
    rng = np.random.default_rng(storage.stable_seed(classifier))
    out[f"{classifier}/kernel"] = rng.standard_normal((1, 1, 1, 1024, 400), np.float32) / 32
    out[f"{classifier}/bias"] = rng.standard_normal(400, np.float32)
    return out


def write(path: Path) -> Path:
    """Write the weights to a file like the published one."""
    path.write_bytes(pickle.dumps(weights()))
    return path


@dataclass(frozen=True)
class LocalWeights:
    """Weights that are always there, in the file `path`."""

    path: Path

    def locate(self, given: Path | None, licence: str) -> Path:
        return given or self.path

    def keep(self, given: Path) -> bool:
        return False

    @property
    def takes(self) -> str:
        return ""


def shrink(put: Callable[[object, str, object], None]) -> None:
    """Give I3D two narrow modules instead of nine: training it then takes seconds. `put`: a monkeypatch's setattr."""
    put(i3d, "_MODULES", dict.fromkeys(("Mixed_3b", "Mixed_5c"), (8, 4, 8, 4, 8, 8)))


def install_pictures(put: Callable[[object, str, object], None], path: Path, side: int, frames: int) -> None:
    """Let `i3d_pictures` output small pictures and start from the weights at `path`."""
    known = registry._load_networks()
    small = replace(
        known[PICTURES],
        input_size=side,
        feature_dim=side * side * 3,
        weights=LocalWeights(path),
        sampling=BackboneSampling(frames=frames, together=True, streams=("rgb",), span_s=2.56),
    )
    put(registry, "_backbones", {**known, PICTURES: small})


@contextmanager
def small_pictures(folder: Path, side: int, frames: int) -> Iterator[Path]:
    """Make pictures and I3D small within the with block. Yields the file of the weights, written to `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch.setattr)
        path = write(folder / "i3d.ckpt")
        install_pictures(patch.setattr, path, side, frames)
        yield path
