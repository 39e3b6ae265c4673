"""Backbones by name: input size, sampling, features, licence, weights and build function.

A backbone is a build function in a file of networks/ that carries `@register(...)`; it is named nowhere else. A built
image backbone maps RGB images (B, S, S, 3), values 0..255, to features (B, C) float32. A video backbone maps the RGB
frames of one clip (F, S, S, 3) to features (T, C) float32, on a time axis of its own. Both normalise their input
themselves.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from violence_detection.errors import UserError

if TYPE_CHECKING:
    import keras
    import numpy as np

    from violence_detection.backbones.eight_bits import ActivationRange
    from violence_detection.backbones.weights import WeightSource

#: Builds a model from a weights file.
Build = Callable[[Path], "keras.Model"]
#: Builds one model from a weights file, with the outputs of the named backbones in the order of their names.
BuildTogether = Callable[[Path, Sequence[str]], "keras.Model"]
B = TypeVar("B", bound=Build)


@dataclass(frozen=True)
class BackboneSampling:
    """Which frames of a clip a backbone takes, and how they become features.

    `frames`: the number of frames; None: the number in the settings.
    `together`: whether it sees all frames of a clip at once, as a video network does, or each by itself.
    `frames_per_step`: the number of frames that make one step of features.
    `streams`: the streams that it can take; empty: all. Where the settings name none of them, it takes the first.
    `spacing_s`: seconds between the frames of one step, the steps being evenly spaced over the window; None: all frames
    are evenly spaced.
    `largest`: how many of the largest values among a picture's positions are averaged to a feature; None: the network
    decides.
    `span_s`: seconds of the window that it sees, in the middle except for some test-time views; None: the whole window.
    `letterbox`: whether it sees the picture in its own shape, with black beside it, not squeezed into a square.
    `one_shot`: whether it sees only the shot in the middle where a window of a longer video has a cut (video/shots.py).
    """

    frames: int | None = None
    together: bool = False
    frames_per_step: int = 1
    streams: tuple[str, ...] = ()
    spacing_s: float | None = None
    largest: int | None = None
    span_s: float | None = None
    letterbox: bool = False
    one_shot: bool = True

    def __post_init__(self) -> None:
        """Raise ValueError if `spacing_s` is set and `frames` is not a multiple of `frames_per_step`."""
        if self.spacing_s and (not self.frames or self.frames % self.frames_per_step):
            raise ValueError(
                f"frames {self.spacing_s} s apart come in steps of {self.frames_per_step}, and `frames` is "
                f"{self.frames}, not a multiple of that"
            )

    def streams_taken(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """The streams that it takes where the settings name the streams `asked`."""
        if not self.streams:
            return asked
        return tuple(s for s in asked if s in self.streams) or self.streams[:1]

    @property
    def burst(self) -> int:
        """Frames at each of the evenly spaced moments: those of one step if `spacing_s` is set, else 1."""
        return self.frames_per_step if self.spacing_s else 1

    def record(self) -> dict[str, float]:
        """The settings, besides the number of frames, that change a feature's value; only those that are set.

        So the caches of backbones that set none of them keep their keys.
        """
        spacing = {"burst": self.burst, "burst_spacing_s": float(self.spacing_s)} if self.spacing_s else {}
        span = {"span_s": float(self.span_s)} if self.span_s else {}
        shape = {"letterbox": True} if self.letterbox else {}
        return spacing | span | shape | ({"largest": self.largest} if self.largest else {})


@dataclass(frozen=True)
class Trunk:
    """Layers that several backbones have in common, so that one run gives the features of all of them.

    The backbones have the same weights, input size and sampling.
    """

    name: str
    build: BuildTogether


@dataclass(frozen=True)
class PerFrame:
    """A video backbone in two parts, for one that combines frames only at the end.

    `build`: builds a model from one picture (1, S, S, 3) to its results, (1, ...). `join`: makes the features (T, C)
    float32 from the results of a clip's frames, (F, ...) float32.
    """

    build: Build
    join: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Backbone:
    """A backbone that can be built. Its features are (steps, `feature_dim`) float32 per clip and stream.

    `gmacs`: billions of multiply-adds per clip or variant, for a backbone so costly that the rough estimates for image
    backbones do not hold; 0: they hold.
    `bfloat16`: whether it may judge in bfloat16, because P(fight) of models trained on its float32 features was
    measured to hold in it (docs/results.md, What judging costs).
    `per_frame`: its two parts, if windows can share the results of the frames that they have in common.
    `ranges`: the ranges of its convolutions and dense layers, with which it may judge in 8 bits; empty: it may not.
    `length_counts`: whether the length of a clip's features, 0 to 1, tells heads that compare clips how much the
    features say. For other backbones only the direction counts.
    `shows_places`: whether features tell where a clip was recorded; those of people alone do not.
    """

    name: str
    input_size: int
    feature_dim: int
    licence: str
    weights: WeightSource
    build: Build
    sampling: BackboneSampling = BackboneSampling()
    trunk: Trunk | None = None
    gmacs: float = 0.0
    bfloat16: bool = False
    per_frame: PerFrame | None = None
    ranges: tuple[ActivationRange, ...] = ()
    length_counts: bool = False
    shows_places: bool = True

    @property
    def is_video(self) -> bool:
        """Whether it takes the frames of a clip together, not one by one."""
        return self.sampling.together

    def steps(self, frames: int) -> int:
        """Length of the time axis of the features that `frames` frames give."""
        return -(-frames // self.sampling.frames_per_step)

    def weights_file(self, given: Path | None) -> Path:
        """The weights file: `given`, or else the published one. Raises UserError, with the remedy, if there is none."""
        return self.weights.locate(given, self.licence)


_backbones: dict[str, Backbone] = {}


def register(
    name: str,
    *,
    input_size: int,
    feature_dim: int,
    licence: str,
    weights: WeightSource,
    sampling: BackboneSampling = BackboneSampling(),
    trunk: Trunk | None = None,
    gmacs: float = 0.0,
    bfloat16: bool = False,
    per_frame: PerFrame | None = None,
    ranges: tuple[ActivationRange, ...] = (),
    length_counts: bool = False,
    shows_places: bool = True,
) -> Callable[[B], B]:
    """Decorate the function that builds the backbone from its weights file. Raises ValueError if the name is taken."""

    def decorate(build: B) -> B:
        if name in _backbones:
            raise ValueError(
                f"a backbone {name!r} is registered already, by {_backbones[name].build.__module__}"
            )
        _backbones[name] = Backbone(
            name,
            input_size,
            feature_dim,
            licence,
            weights,
            build,
            sampling,
            trunk,
            gmacs,
            bfloat16,
            per_frame,
            ranges,
            length_counts,
            shows_places,
        )
        return build

    return decorate


def _load_networks() -> dict[str, Backbone]:
    """All backbones. The files of networks/ register theirs when they are first imported."""
    from violence_detection.backbones import networks

    for module in pkgutil.iter_modules(networks.__path__):
        importlib.import_module(f"{networks.__name__}.{module.name}")
    return _backbones


def list_backbones() -> list[str]:
    """The names of all backbones, sorted."""
    return sorted(_load_networks())


def length_counts(name: str) -> bool:
    """Whether `name` is a backbone whose features' length counts (see `Backbone`)."""
    backbone = _load_networks().get(name)
    return backbone is not None and backbone.length_counts


def get(name: str) -> Backbone:
    """The backbone called `name`. Raises UserError, listing the names, if there is none."""
    backbones = _load_networks()
    if name not in backbones:
        raise UserError(f"unknown backbone {name!r}. Use one of: {', '.join(sorted(backbones))}")
    return backbones[name]


def handed_over(names: Sequence[str], given: Path | None) -> Path | None:
    """The weights file that each of these backbones is to be given: `given`, if all have the same weights.

    If they have several, `given` is put into the cache for the backbones whose weights it contains, and the result is
    None. Raises UserError if it contains the weights of none of them.
    """
    sources: list[WeightSource] = []
    for backbone in map(get, names):
        if backbone.weights not in sources:
            sources.append(backbone.weights)
    if given is None or len(sources) < 2:
        return given
    from violence_detection.backbones import weights  # lazy: most runs are given no file

    weights.keep_for_its_source(sources, given)
    return None


def by_trunk(names: Sequence[str]) -> list[tuple[Backbone, ...]]:
    """The backbones of these names, grouped by trunk, in order of appearance."""
    groups: dict[str, list[Backbone]] = {}
    for backbone in map(get, names):
        groups.setdefault(backbone.trunk.name if backbone.trunk else backbone.name, []).append(backbone)
    return [tuple(group) for group in groups.values()]


def together(backbones: Sequence[Backbone]) -> Backbone:
    """One backbone that gives the features of all of these, as a list of arrays in their order; a single one itself.

    Raises ValueError if they have no trunk in common.
    """
    first = backbones[0]
    if len(backbones) == 1:
        return first
    trunk, names = first.trunk, [b.name for b in backbones]
    if trunk is None or any(b.trunk != trunk for b in backbones):
        raise ValueError(f"backbones without a common trunk: {', '.join(names)}")
    return replace(
        first,
        name="+".join(names),
        build=lambda path: trunk.build(path, names),
        ranges=first.ranges if all(b.ranges for b in backbones) else (),
    )
