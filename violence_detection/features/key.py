"""What a feature's value depends on: the cache's key, and the settings as each backbone uses them."""

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
#: The number of frames that I3D used before each backbone had its own sampling; still in the records of trained models.
_I3D_FRAMES = 32
#: Version of pictures.without_still. Change it when the pictures of the stream `moving` would.
_MOVING_VERSION = 1
#: Settings that a backbone decides and users cannot set.
_ASKED_BY_BACKBONES = ("burst", "burst_spacing_s", "span_s", "letterbox")


def for_backbone(config: FeatureConfig, name: str) -> FeatureConfig:
    """The settings as one backbone uses them: a video backbone has its own number of frames, and its own streams."""
    sampling = registry.get(name).sampling
    return replace(
        config,
        backbone=(name,),
        streams=sampling.streams_taken(config.streams),
        frames=sampling.frames or config.frames,
        burst=sampling.burst,
        burst_spacing_s=sampling.spacing_s or 0.0,
        span_s=sampling.span_s or 0.0,
        letterbox=sampling.letterbox,
    )


def record(config: FeatureConfig, backbone: str, stream: str, weights: Path | None) -> dict[str, Any]:
    """Everything that changes a feature's value, from which the cache's key is made.

    `weights`: the weights file; without it the record lacks `weights_sha256`.
    """
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
    """How the crop of --focus is found. Empty without it, so that caches older than --focus stay valid."""
    if not config.focus:
        return {}
    from violence_detection.video import focus

    return {"focus": [float(config.focus), focus.NOISE_LEVEL, focus.CEILING, focus.VERSION]}


def _of_stream(stream: str) -> dict[str, Any]:
    """How the pictures of `crop` and `moving` are made. Empty for older streams, so that their caches stay valid."""
    from violence_detection.video import focus

    if stream == "crop":
        return {"crop": [focus.STREAM_SIDE, focus.NOISE_LEVEL, focus.CEILING, focus.VERSION]}
    return {"moving": _MOVING_VERSION} if stream == "moving" else {}


def input_name(backbone: str, stream: str) -> str:
    """The name of a model input: the backbone and the stream."""
    return f"{backbone}.{stream}"


def backbone_of(input_name: str) -> str:
    """The backbone of a model input."""
    return input_name.split(".")[0]


def folder_of(root: Path, record: Mapping[str, Any]) -> Path:
    """The folder of the features that a record describes. `root`: the data root."""
    return root / "features" / f"{record['backbone']}-{storage.stable_hash(record)}"


def as_recorded(config: FeatureConfig) -> dict[str, Any]:
    """The settings in the form that the records of trained models have always had, so that older records stay valid.

    Settings that a backbone decides are left out; they are in the record of its features.
    """
    settings = {name: value for name, value in asdict(config).items() if name not in _ASKED_BY_BACKBONES}
    return {**settings, "i3d_frames": _I3D_FRAMES}


@dataclass(frozen=True)
class BackboneRun:
    """Backbones that see the same frames in one run: a single one, or several with a common trunk.

    `config`: the settings as they use them. `judges`: their output is P(fight) itself instead of features, and is not
    rounded to float16 as cached features are.
    """

    config: FeatureConfig
    backbones: tuple[Backbone, ...]
    weights: Path
    judges: bool = field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        """The backbones' names, joined by "+"."""
        return "+".join(backbone.name for backbone in self.backbones)

    @property
    def backbone(self) -> Backbone:
        """The backbones as one (registry.together)."""
        return registry.together(self.backbones)

    def without_ranges(self) -> BackboneRun:
        """The same without activation ranges, so that it cannot judge in 8 bits."""
        return replace(self, backbones=tuple(replace(b, ranges=()) for b in self.backbones))

    def inputs(self, stream: str) -> list[str]:
        """The model inputs that are made of a stream's images, in the order of the backbones."""
        return [input_name(backbone.name, stream) for backbone in self.backbones]

    def by_input(self, stream: str, features: Features) -> dict[str, np.ndarray]:
        """The features that the engine returned for a stream's images, by model input: (T, C) float32."""
        values = features if len(self.backbones) > 1 else [features]
        return dict(zip(self.inputs(stream), values, strict=True))


def backbone_runs(config: FeatureConfig, weights_file: Path | None) -> list[BackboneRun]:
    """The backbones of the settings, those with a common trunk in one run.

    Raises UserError if a backbone is unknown, its weights cannot be had, or `weights_file` fits none of them.
    """
    weights_file = registry.handed_over(config.backbone, weights_file)
    return [
        BackboneRun(for_backbone(config, group[0].name), group, group[0].weights_file(weights_file))
        for group in registry.by_trunk(config.backbone)
    ]
