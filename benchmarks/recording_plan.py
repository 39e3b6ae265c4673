"""Plan what a made recording shows when: fights at known times among quiet clips of the same data set.

Nothing is read or written here; make_recordings.py makes the video. The same clips and seed give the same plan.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

#: Shortest and longest fight, in seconds. Lengths are drawn log-uniformly.
FIGHT_S = (2.0, 20.0)
#: Shortest and longest scene without a fight that is asked for, in seconds. Drawn uniformly.
SCENE_S = (8.0, 40.0)
#: Least time without a fight at the beginning, between two fights and at the end, in seconds.
QUIET_S = 15.0
#: Picture sizes, (width, height).
SIZES = ((640, 360), (480, 360), (320, 240))
#: Frames per second.
RATES = (10.0, 12.5, 15.0, 25.0)
#: Constant rate factors of x264; higher is coarser.
QUALITIES = (21, 26, 31)
#: Mean time from the end of one abrupt change of the light to the next, in seconds. Drawn exponentially.
JUMP_EVERY_S = 90.0
#: Shortest and longest change of the light, in seconds.
JUMP_LASTS_S = (4.0, 60.0)
#: Smallest and largest factor of the brightness.
JUMP_GAIN = (0.65, 1.4)
#: Smallest and largest number that is then added to it; brightness goes up to 255.
JUMP_OFFSET = (-25.0, 25.0)


T = TypeVar("T")


@dataclass(frozen=True)
class Clip:
    """A labelled clip. `path`: relative to the data root, or, behind `quiet/`, to the folder of quiet footage.

    A source's clips follow one another in the natural order of their paths.
    """

    path: str
    is_fight: bool
    dataset: str
    source: str
    duration_s: float


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording that shows a clip, or its beginning, mirrored or not."""

    clip: Clip
    start_s: float
    end_s: float
    mirrored: bool


@dataclass(frozen=True)
class Jump:
    """A change of light from `start_s` to `end_s`: pixel values (0 to 255) become value * gain + offset."""

    start_s: float
    end_s: float
    gain: float
    offset: float


@dataclass(frozen=True)
class Plan:
    """A recording: what it shows, in order and without gaps, and how it is recorded.

    `style`: the data set whose clips it shows. `size`: (width, height). `crf`: x264's constant rate factor. `fights`:
    (start, end) of each, in seconds.
    """

    name: str
    style: str
    size: tuple[int, int]
    fps: float
    crf: int
    pieces: tuple[Piece, ...]
    fights: tuple[tuple[float, float], ...]
    jumps: tuple[Jump, ...]

    @property
    def duration_s(self) -> float:
        return self.pieces[-1].end_s


@dataclass
class Stock:
    """The clips of one kind, and how often each was shown.

    Clips shown least often are chosen first. No clip is shown twice in a recording if that can be avoided; `repeats`
    counts how often it was.
    """

    clips: Sequence[Clip]
    shown: Counter[str] = field(default_factory=Counter)
    repeats: int = 0

    def __post_init__(self) -> None:
        self._in_recording: Counter[str] = Counter()
        self._sources: dict[str, list[Clip]] = {}
        for clip in sorted(self.clips, key=lambda c: _natural(c.path)):
            self._sources.setdefault(clip.source, []).append(clip)

    def begin_recording(self) -> None:
        self._in_recording.clear()

    def scene(self, wanted_s: float, least_s: float, rng: np.random.Generator) -> list[Clip]:
        """Choose successive clips of one source, and count them as shown.

        They last at least `wanted_s` seconds in all. If the next clip would repeat in the recording more often than the
        first, or the source has no more, they last less, but at least `least_s`. Raises ValueError if no source has
        clips of `least_s` seconds.
        """
        fits = [c for c in self.clips if self._length_s(c.source) >= least_s]
        if not fits:
            raise ValueError(f"no source has clips of {least_s:g} s in total")
        rarest = min(self._rank(c) for c in fits)
        first = _drawn(sorted((c for c in fits if self._rank(c) == rarest), key=lambda c: c.path), rng)
        row = self._sources[first.source]
        at = row.index(first)
        chosen: list[Clip] = []
        length_s = 0.0
        for clip in (*row[at:], *row[:at]):
            again = self._in_recording[clip.path] > self._in_recording[first.path]
            if length_s >= wanted_s or (again and length_s >= least_s):
                break
            chosen.append(clip)
            length_s += clip.duration_s
        for clip in chosen:
            self.repeats += self._in_recording[clip.path] > 0
            self._in_recording[clip.path] += 1
            self.shown[clip.path] += 1
        return chosen

    def _rank(self, clip: Clip) -> tuple[int, int]:
        return self._in_recording[clip.path], self.shown[clip.path]

    def _length_s(self, source: str) -> float:
        return sum(c.duration_s for c in self._sources[source])


def plan(
    name: str, style: str, quiet: Stock, fights: Stock | None, minutes: float, fights_an_hour: float,
    rng: np.random.Generator,
) -> Plan:  # fmt: skip
    """Plan a recording of `minutes`, or up to a scene longer. `fights`: None for one in which nobody fights.

    The time between fights is drawn such that there are about `fights_an_hour`.
    """
    quiet.begin_recording()
    if fights:
        fights.begin_recording()
    pieces: list[Piece] = []
    spans: list[tuple[float, float]] = []
    at_s, end_s = 0.0, 60 * minutes
    while at_s < end_s:
        until_s = end_s
        if fights:
            mean_s = max(3600 / fights_an_hour - 2 * QUIET_S, QUIET_S)
            until_s = min(end_s, at_s + QUIET_S + float(rng.exponential(mean_s)))
        while at_s < until_s:
            wanted_s = min(float(rng.uniform(*SCENE_S)), max(until_s - at_s, SCENE_S[0]))
            at_s = _show(pieces, quiet.scene(wanted_s, 0.0, rng), at_s, np.inf, rng)
        if fights and at_s < end_s - QUIET_S - FIGHT_S[1]:
            length_s = float(np.exp(rng.uniform(*np.log(FIGHT_S))))
            begun_s = at_s
            at_s = _show(pieces, fights.scene(length_s, FIGHT_S[0], rng), at_s, length_s, rng)
            spans.append((begun_s, at_s))
    width_height, fps, crf = _drawn(SIZES, rng), _drawn(RATES, rng), _drawn(QUALITIES, rng)
    return Plan(name, style, width_height, fps, crf, tuple(pieces), tuple(spans), _jumps(at_s, rng))


def _show(
    pieces: list[Piece], clips: Sequence[Clip], at_s: float, most_s: float, rng: np.random.Generator
) -> float:
    """Append the clips to `pieces`, cut off after `most_s` in all; return when the last one ends."""
    end_s, mirrored = at_s + most_s, bool(rng.integers(2))
    for clip in clips:
        stop_s = min(at_s + clip.duration_s, end_s)
        pieces.append(Piece(clip, at_s, stop_s, mirrored))
        at_s = stop_s
    return at_s


def _jumps(duration_s: float, rng: np.random.Generator) -> tuple[Jump, ...]:
    found: list[Jump] = []
    at_s = float(rng.exponential(JUMP_EVERY_S))
    while at_s < duration_s:
        end_s = at_s + float(rng.uniform(*JUMP_LASTS_S))
        found.append(Jump(at_s, end_s, float(rng.uniform(*JUMP_GAIN)), float(rng.uniform(*JUMP_OFFSET))))
        at_s = end_s + float(rng.exponential(JUMP_EVERY_S))
    return tuple(found)


def _drawn(values: Sequence[T], rng: np.random.Generator) -> T:
    return values[int(rng.integers(len(values)))]


def _natural(path: str) -> list[tuple[int, str]]:
    """A key for sorting by the numbers in a path, so that fi9 comes before fi10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def stocks_of(clips: Sequence[Clip]) -> dict[str, tuple[Stock, Stock | None]]:
    """For each data set, sorted by name: its quiet clips and its fights, which are None if it has none.

    Raises ValueError if a data set has no quiet clips.
    """
    found: dict[str, tuple[Stock, Stock | None]] = {}
    for style in sorted({c.dataset for c in clips}):
        quiet = [c for c in clips if c.dataset == style and not c.is_fight]
        fights = [c for c in clips if c.dataset == style and c.is_fight]
        if not quiet:
            raise ValueError(f"data set {style} has no quiet clips")
        found[style] = Stock(quiet), Stock(fights) if fights else None
    return found


def plans(
    stocks: Mapping[str, tuple[Stock, Stock | None]], minutes: float, hours: float, fights_an_hour: float, seed: int,
    prefix: str = "",
) -> list[Plan]:  # fmt: skip
    """Plan recordings of at least `hours` in all, the data sets taking turns. Names begin with `prefix`.

    The recordings of a data set without fights have none.
    """
    rng = np.random.default_rng(seed)
    styles = list(stocks)
    made: list[Plan] = []
    while sum(p.duration_s for p in made) < 3600 * hours:
        style = styles[len(made) % len(styles)]
        name = f"{prefix}{len(made):03d}_{style}.mp4"
        made.append(plan(name, style, *stocks[style], minutes, fights_an_hour, rng))
    return made
