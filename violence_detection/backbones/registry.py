"""The backbones by name: input size, sampling, features, licence, weights, and how each is built.

A backbone is a file in networks/ whose build function carries `@register(...)`; nothing else names it. A built image
backbone maps RGB images (B, S, S, 3), values 0..255, to features (B, C) float32. A video backbone maps the RGB frames
of one clip (F, S, S, 3) to features (T, C) float32, on a time axis of its own. Normalisation is inside.
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

#: Build a model from a weights file.
Build = Callable[[Path], "keras.Model"]
#: Build one model with the outputs of several backbones, in the order of their names.
BuildTogether = Callable[[Path, Sequence[str]], "keras.Model"]
B = TypeVar("B", bound=Build)


@dataclass(frozen=True)
class BackboneSampling:
    """Which frames of a clip a backbone takes, and what it makes of them.

    `frames`: how many; None: as many as the settings say. `together`: whether it sees the frames of a clip at once, as
    a video network does, or each by itself. `frames_per_step`: how many of them make one step of features. `streams`:
    those that it can take, the first of them where the settings name none of these; empty: all. `spacing_s`: seconds
    between the frames of one step, the steps being evenly spaced over the window; None: all frames are. `largest`: of
    the positions in a picture, how many of the largest values make a feature; None: that is the network's own affair.
    `span_s`: seconds of the window that it looks at, in its middle but for some test-time views; None: all of it.
    `letterbox`: it sees the picture in its own shape, with black beside it, not squeezed into a square.
    `one_shot`: of a window of a longer video that was cut it sees the shot in the middle alone (video/shots.py).
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
        """Raises ValueError where frames that are spaced by time do not fill their steps."""
        if self.spacing_s and (not self.frames or self.frames % self.frames_per_step):
            raise ValueError(
                f"frames {self.spacing_s} s apart come in steps of {self.frames_per_step}, not {self.frames} in all"
            )

    def taken(self, asked: tuple[str, ...]) -> tuple[str, ...]:
        """The streams that it takes of those asked for."""
        if not self.streams:
            return asked
        return tuple(s for s in asked if s in self.streams) or self.streams[:1]

    @property
    def burst(self) -> int:
        """Frames at each of the evenly spaced moments: those of a step where `spacing_s` sets them apart."""
        return self.frames_per_step if self.spacing_s else 1

    def record(self) -> dict[str, float]:
        """What of it changes a feature's value beside the number of frames; nothing where nothing is set.

        So the caches of backbones that know none of it keep their keys.
        """
        spacing = {"burst": self.burst, "burst_spacing_s": float(self.spacing_s)} if self.spacing_s else {}
        span = {"span_s": float(self.span_s)} if self.span_s else {}
        shape = {"letterbox": True} if self.letterbox else {}
        return spacing | span | shape | ({"largest": self.largest} if self.largest else {})


@dataclass(frozen=True)
class Trunk:
    """The layers that several backbones have in common, so that one run gives the features of all.

    They have the same weights, input size and sampling.
    """

    name: str
    build: BuildTogether


@dataclass(frozen=True)
class PerFrame:
    """A video backbone in two parts, for those that put frames together only at the end.

    `build`: a model from single pictures (1, S, S, 3) to what of them is put together, (1, ...). `join`: that of a
    clip's frames, (F, ...) float32, to the features (T, C) float32.
    """

    build: Build
    join: Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Backbone:
    """A backbone that can be built. Features are (steps, `feature_dim`) float32 a clip and stream.

    `gmacs`: billions of multiply-adds for one clip or variant, of those that need so many that the rough estimates
    of images do not hold; 0: they do. `bfloat16`: P(fight) of models trained on its float32 features was measured to
    hold in bfloat16 (docs/results.md, What judging costs), so that it may judge in it. `per_frame`: how windows that
    have frames in common share what is made of these, where they can. `ranges`: of its convolutions and dense
    layers, with which it may judge in 8 bits; empty: it may not. `length_counts`: the length of a clip's features, 0 to
    1, says how much they tell, to heads that compare clips; of others only the direction counts. `shows_places`:
    features tell where a clip was taken; those of people alone do not.
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
        """Length of the time axis of the features of so many frames."""
        return -(-frames // self.sampling.frames_per_step)

    def weights_file(self, given: Path | None) -> Path:
        """The weights: the file given, or the published one. Raises UserError with the remedy if it cannot be had."""
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
    """Decorate the function that builds a backbone from its weights file. Raises ValueError if the name is taken."""

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
    """All backbones; the files of networks/ register theirs when they are first imported."""
    from violence_detection.backbones import networks

    for module in pkgutil.iter_modules(networks.__path__):
        importlib.import_module(f"{networks.__name__}.{module.name}")
    return _backbones


def list_backbones() -> list[str]:
    """The names of all backbones, sorted."""
    return sorted(_load_networks())


def length_counts(name: str) -> bool:
    """Whether there is a backbone of that name whose features' length counts."""
    backbone = _load_networks().get(name)
    return backbone is not None and backbone.length_counts


def get(name: str) -> Backbone:
    """The backbone of that name. Raises UserError listing the names there are."""
    backbones = _load_networks()
    if name not in backbones:
        raise UserError(f"unknown backbone {name!r}. Use one of: {', '.join(sorted(backbones))}")
    return backbones[name]


def handed_over(names: Sequence[str], given: Path | None) -> Path | None:
    """What each of these backbones takes of a weights file that was given: the file, where all have the same weights.

    Of several weights it is put into the cache for those whose it is, and none takes anything. Raises UserError if it
    is nobody's.
    """
    sources: list[WeightSource] = []
    for backbone in map(get, names):
        if backbone.weights not in sources:
            sources.append(backbone.weights)
    if given is None or len(sources) < 2:
        return given
    from violence_detection.backbones import weights  # most are given none

    weights.keep_for_its_source(sources, given)
    return None


def by_trunk(names: Sequence[str]) -> list[tuple[Backbone, ...]]:
    """The backbones of these names, those with one trunk together, in order of appearance."""
    groups: dict[str, list[Backbone]] = {}
    for backbone in map(get, names):
        groups.setdefault(backbone.trunk.name if backbone.trunk else backbone.name, []).append(backbone)
    return [tuple(group) for group in groups.values()]


def together(backbones: Sequence[Backbone]) -> Backbone:
    """One backbone that gives the features of all of these, a list of arrays in their order; itself if it is alone.

    Raises ValueError where they have no trunk in common.
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
