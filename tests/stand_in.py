"""A backbone for tests of the code around it: 16 x 16 images, four numbers for each, and no framework to import.

As a script, it extracts features, for tests that kill it: stand_in.py DATA_ROOT VARIANTS CLIP...
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.backbones import engines, registry
from violence_detection.features import extract
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.video import augment

NAME = "stand_in"
SIZE = 16
STUCK = "STAND_IN_STUCK"
_CALLS_BEFORE_STUCK = 5  # of the eight calls for a clip with four variants and two streams
_FILM_FRAMES = 16
CONFIG = FeatureConfig(backbone=(NAME,), frames=5, window_s=2.0)


def features_of(images: np.ndarray) -> np.ndarray:
    """Return features (T, 4), float32, of images (T, 16, 16, 3), uint8: two moments, two sums by place and colour."""
    assert images.shape == (CONFIG.frames, SIZE, SIZE, 3)
    assert images.dtype == np.uint8
    flat = images.reshape(len(images), -1).astype(np.float32)
    wave = np.sin(np.arange(flat.shape[1], dtype=np.float32))
    parts = (flat.mean(1), flat.std(1), (flat * wave).mean(1), (flat * wave[::-1] ** 2).mean(1))
    return np.stack(parts, axis=1)


class ThisFile:
    """Weights that are always there."""

    def locate(self, given: Path | None, licence: str) -> Path:
        return given or Path(__file__)

    def keep(self, given: Path) -> bool:
        return False

    @property
    def takes(self) -> str:
        return ""


def install(
    put: Callable[[object, str, object], None] = setattr, runner: engines.Runner = features_of
) -> None:
    """Register the stand-in as a backbone that `extract` runs. `put`: setattr, or a monkeypatch's."""
    known = registry._load_networks()
    put(
        registry,
        "_backbones",
        {name: b for name, b in known.items() if name not in (NAME, "film", "one", "two")},
    )
    registry.register(NAME, input_size=SIZE, feature_dim=4, licence="", weights=ThisFile())(lambda _: None)
    put(engines, "create", lambda *_, **__: engines.Engine("stand-in", [runner, runner]))


def steps_of(images: np.ndarray) -> np.ndarray:
    """Return features (2, 1), float32, of frames (16, 16, 16, 3), uint8, as a video backbone: means of eight frames."""
    assert images.shape == (16, SIZE, SIZE, 3)
    return images.reshape(2, -1).mean(axis=1, dtype=np.float32)[:, None]


def install_film(put: Callable[[object, str, object], None]) -> FeatureConfig:
    """Install a video backbone, `film`, beside the image backbone. Returns the settings with both."""
    install(put)
    sampling = registry.BackboneSampling(_FILM_FRAMES, True, _FILM_FRAMES // 2, ("rgb",))
    registry.register(
        "film", input_size=SIZE, feature_dim=1, licence="", weights=ThisFile(), sampling=sampling
    )(lambda _: None)

    def create(
        _kind: str, backbone: registry.Backbone, _weights: Path, frames: int, *_: Any, **__: Any
    ) -> engines.Engine:
        assert frames == (_FILM_FRAMES if backbone.is_video else CONFIG.frames)
        return engines.Engine("stand-in", [steps_of if backbone.is_video else features_of])

    put(engines, "create", create)
    return replace(CONFIG, backbone=(NAME, "film"))


def install_twins(put: Callable[[object, str, object], None]) -> tuple[FeatureConfig, list[str]]:
    """Install two backbones with one trunk: the first outputs the features, the second twice the features.

    Returns the settings with both, and a list of what the engine was asked to run, clip by clip.
    """
    install(put)
    trunk = registry.Trunk("twins", lambda path, names: None)
    for name in ("one", "two"):
        registry.register(name, input_size=SIZE, feature_dim=4, licence="", weights=ThisFile(), trunk=trunk)(
            lambda _: None
        )
    ran: list[str] = []

    def create(_kind: str, backbone: registry.Backbone, *_: Any, **__: Any) -> engines.Engine:
        def run(images: np.ndarray) -> Any:
            ran.append(backbone.name)
            values = features_of(images)
            by_name = {"one": values, "two": 2 * values}
            made = [by_name[name] for name in backbone.name.split("+")]
            return made if len(made) > 1 else made[0]

        return engines.Engine("stand-in", [run])

    put(engines, "create", create)
    return replace(CONFIG, backbone=("one", "two")), ran


def install_slow() -> None:
    """Install the stand-in with a delay, which leaves time to kill a process while it works.

    If the environment variable STUCK names a file, the process stops in the middle of a clip and creates that file.
    """
    calls = itertools.count(1)
    stuck = os.environ.get(STUCK)

    def slow(images: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        if stuck and next(calls) >= _CALLS_BEFORE_STUCK:
            Path(stuck).touch()
            time.sleep(600)
        return features_of(images)

    install(runner=slow)


def wanted(paths: Sequence[Path], variants: int) -> list[extract.WantedClip]:
    """Return the clips to extract, named after their files, each with `variants` training variants."""
    names = augment.variant_names("v", variants)
    return [extract.WantedClip(path.stem, path, names) for path in sorted(paths)]


def write_features(data_root: Path, variants: int, paths: Sequence[Path]) -> None:
    """Extract the features; meant for a separate process, which may be killed."""
    install()
    extract.ensure(wanted(paths, variants), CONFIG, ExtractConfig(data_root=data_root, workers=2))


if __name__ == "__main__":
    write_features(Path(sys.argv[1]), int(sys.argv[2]), [Path(p) for p in sys.argv[3:]])
