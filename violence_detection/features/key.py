"""What a feature's value depends on: the key of its cache, and the settings as each backbone takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.backbones import registry
from violence_detection.backbones.registry import Backbone
from violence_detection.features.config import FeatureConfig
from violence_detection.system import storage
from violence_detection.video import augment

if TYPE_CHECKING:
    from violence_detection.backbones.engines import Features

#: Features by model input, (N, T, C) or with views (N, V, T, C).
Inputs = dict[str, np.ndarray]

_FORMAT = 5
#: Frames that I3D took before each backbone had its own sampling; records of trained models still say so.
_I3D_FRAMES = 32
_MOVING_VERSION = 1  # of pictures.without_still
_ASKED_BY_BACKBONES = ("burst", "burst_spacing_s", "span_s", "letterbox")


def for_backbone(config: FeatureConfig, name: str) -> FeatureConfig:
    """The settings as one backbone takes them: a video backbone has its own number of frames, and streams."""
    sampling = registry.get(name).sampling
    return replace(
        config,
        backbone=(name,),
        streams=sampling.taken(config.streams),
        frames=sampling.frames or config.frames,
        burst=sampling.burst,
        burst_spacing_s=sampling.spacing_s or 0.0,
        span_s=sampling.span_s or 0.0,
        letterbox=sampling.letterbox,
    )


def record(config: FeatureConfig, backbone: str, stream: str, weights: Path | None) -> dict[str, Any]:
    """Everything that changes a feature's value, and so the cache's key; without weights all but them."""
    config = for_backbone(config, backbone)
    return {
        "format": _FORMAT,
        "backbone": backbone,
        **({"weights_sha256": storage.sha256_file(weights)} if weights else {}),
        "input_size": registry.get(backbone).input_size,
        "stream": stream,
        "frames": config.frames,
        "window_s": float(config.window_s),
        "motion": [float(config.motion_spacing_s), float(config.motion_gain)] if stream == "motion" else None,
        "augmentation": {"seed": config.augment_seed, **augment.settings()},
        "dtype": "float16",
        **_crop(config),
        **_of_stream(stream),
        **registry.get(backbone).sampling.record(),
    }


def _crop(config: FeatureConfig) -> dict[str, Any]:
    """How the crop is found. Nothing without one, so that caches made before it was known stay valid."""
    if not config.focus:
        return {}
    from violence_detection.video import focus

    return {"focus": [float(config.focus), focus.NOISE_LEVEL, focus.CEILING, focus.VERSION]}


def _of_stream(stream: str) -> dict[str, Any]:
    """How the pictures of the later streams are made; nothing for those that caches have always had."""
    from violence_detection.video import focus

    if stream == "crop":
        return {"crop": [focus.STREAM_SIDE, focus.NOISE_LEVEL, focus.CEILING, focus.VERSION]}
    return {"moving": _MOVING_VERSION} if stream == "moving" else {}


def input_name(backbone: str, stream: str) -> str:
    """The name of a model input: which backbone and stream it takes."""
    return f"{backbone}.{stream}"


def backbone_of(input_name: str) -> str:
    """The backbone of a model input."""
    return input_name.split(".")[0]


def folder_of(root: Path, record: Mapping[str, Any]) -> Path:
    """Where the features of that record lie."""
    return root / "features" / f"{record['backbone']}-{storage.stable_hash(record)}"


def as_recorded(config: FeatureConfig) -> dict[str, Any]:
    """The settings as the records of trained models have always held them, so that those made before stay valid.

    What a backbone asks for by itself is in the record of its features.
    """
    settings = {name: value for name, value in asdict(config).items() if name not in _ASKED_BY_BACKBONES}
    return {**settings, "i3d_frames": _I3D_FRAMES}


@dataclass(frozen=True)
class BackboneRun:
    """Backbones that see the same frames in one run: alone, or several with a common trunk.

    `config`: the settings as they take them. `judges`: what they give is P(fight) itself, and no features; then the
    numbers are not rounded as a cache's are.
    """

    config: FeatureConfig
    backbones: tuple[Backbone, ...]
    weights: Path
    judges: bool = field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """The backbones' names, joined."""
        return "+".join(backbone.name for backbone in self.backbones)

    @property
    def backbone(self) -> Backbone:
        """The backbones as one."""
        return registry.together(self.backbones)

    def without_ranges(self) -> BackboneRun:
        """The same, which may not judge in 8 bits."""
        return replace(self, backbones=tuple(replace(b, ranges=()) for b in self.backbones))

    def inputs(self, stream: str) -> list[str]:
        """The model inputs that images of a stream give, in the order of the backbones."""
        return [input_name(backbone.name, stream) for backbone in self.backbones]

    def by_input(self, stream: str, features: Features) -> dict[str, np.ndarray]:
        """What the engine gave for images of a stream: (T, C) float32 by model input."""
        values = features if len(self.backbones) > 1 else [features]
        return dict(zip(self.inputs(stream), values, strict=True))


def backbone_runs(config: FeatureConfig, weights_file: Path | None) -> list[BackboneRun]:
    """The backbones of the settings, those with one trunk together.

    Raises UserError where a backbone is unknown or its weights cannot be had, or `weights_file` is nobody's.
    """
    weights_file = registry.handed_over(config.backbone, weights_file)
    return [
        BackboneRun(for_backbone(config, group[0].name), group, group[0].weights_file(weights_file))
        for group in registry.by_trunk(config.backbone)
    ]
