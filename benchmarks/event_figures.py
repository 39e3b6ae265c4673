"""Measure events in recordings whose fights are known: recall, false events an hour and delay, at all thresholds.

A fight is found `by overlap` if an event has an intersection over union of 0.3 or more with it (as in temporal action
localisation, ActivityNet: Caba Heilbron et al. 2015), and `by onset` if an event begins within 3 s of its beginning (a
collar, as in sound event detection: Mesaros et al. 2016, Applied Sciences 6). Each event finds at most one fight, and
events are matched so that as many fights as possible are found. An event is `false` if less than 0.3 of it is within
fights (the detection tolerance criterion of PSDS: Bilen et al. 2020, ICASSP): a short alarm within a long fight is not
false, but one that goes on long after a fight is. `Unmatched` is stricter: an event that finds no fight by overlap. The
delay of a fight is the time from its beginning to the end of the first window with which an event touches it, if only
the windows up to this one are known.

Intervals are 95 %, from a bootstrap over recordings or over the sources that they show (Efron & Tibshirani 1993). If
many recordings show the same clips, only the bootstrap over sources reflects how little footage there is.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse, stats
from scipy.sparse import csgraph
from scipy.special import expit

from benchmarks.event_rules import Rule
from violence_detection.prediction.events import Event, JudgedWindow

#: Smallest intersection over union that finds a fight, and smallest share of an event in fights if it is not false.
OVERLAP = 0.3
#: Largest distance of the beginnings of an event and of a fight that it finds by onset.
ONSET_S = 3.0
#: From 0.0474 to 0.9991 in equal steps of the log odds; 0.5 is one of them.
THRESHOLDS = tuple(round(float(p), 4) for p in expit(np.arange(-3, 7.01, 0.25)))
#: False events an hour at which recall is averaged to compare settings: the mean of a FROC curve at fixed rates, as in
#: Setio et al. 2017, Med. Image Anal. 42, but with rates that suit recordings.
RATES = (0.5, 1.0, 2.0, 4.0, 8.0)
#: Bootstrap samples.
_DRAWS = 2000

Span = tuple[float, float]


@dataclass(frozen=True)
class Shown:
    """A stretch of a recording, up to the next one: it shows a clip of this source."""

    start_s: float
    source: str


@dataclass(frozen=True)
class Recording:
    """A judged recording: its windows, its fights and the stretches that it shows, without gaps, all in order of time.

    `style`: the data set that it shows. `part`: number of the model that judged it, if there are several.
    """

    name: str
    style: str
    duration_s: float
    windows: tuple[JudgedWindow, ...]
    fights: tuple[Span, ...]
    shown: tuple[Shown, ...]
    part: int = 0

    def source_at(self, time_s: float) -> str:
        """The source that is shown at a time."""
        starts = [piece.start_s for piece in self.shown]
        return self.shown[max(bisect.bisect_right(starts, time_s) - 1, 0)].source

    def sources_within(self, start_s: float, end_s: float) -> set[str]:
        """The sources that are shown between two times."""
        ends = [*(piece.start_s for piece in self.shown[1:]), self.duration_s]
        return {
            piece.source
            for piece, shown_to_s in zip(self.shown, ends, strict=True)
            if piece.start_s < end_s and shown_to_s > start_s
        }

    def hours_by_source(self) -> dict[str, float]:
        """For how many hours each source is shown."""
        ends = [*(piece.start_s for piece in self.shown[1:]), self.duration_s]
        out: dict[str, float] = {}
        for piece, end_s in zip(self.shown, ends, strict=True):
            out[piece.source] = out.get(piece.source, 0.0) + (end_s - piece.start_s) / 3600
        return out


def linked(recordings: Sequence[Recording]) -> np.ndarray:
    """Group numbers (recordings,): equal for recordings that share a source, directly or through other recordings."""
    sources = sorted({piece.source for recording in recordings for piece in recording.shown})
    number = {source: i for i, source in enumerate(sources)}
    shows = np.zeros((len(recordings), len(sources)), bool)
    for i, recording in enumerate(recordings):
        shows[i, [number[piece.source] for piece in recording.shown]] = True
    together = sparse.csr_matrix(shows.astype(int) @ shows.T.astype(int))
    return np.asarray(csgraph.connected_components(together, directed=False)[1])


def overlap(a: Span, b: Span) -> float:
    """Intersection over union of two stretches, 0 to 1."""
    common = min(a[1], b[1]) - max(a[0], b[0])
    return max(common, 0.0) / (max(a[1], b[1]) - min(a[0], b[0])) if common > 0 else 0.0


def pairs(
    fights: Sequence[Span], found: Sequence[Event], fits: Callable[[Span, Event], bool]
) -> dict[int, int]:
    """Match each fight with at most one event that `fits`, and vice versa, so that as many fights as possible match.

    Returns fight number -> event number.
    """
    if not fights or not found:
        return {}
    table = np.array([[fits(fight, event) for event in found] for fight in fights], bool)
    if not table.any():
        return {}
    match = csgraph.maximum_bipartite_matching(sparse.csr_matrix(table), perm_type="column")
    return {i: int(j) for i, j in enumerate(match) if j >= 0}


def _overlaps(fight: Span, event: Event) -> bool:
    return overlap(fight, (event.start_s, event.end_s)) >= OVERLAP - 1e-9


def _begins_with(fight: Span, event: Event) -> bool:
    return abs(event.start_s - fight[0]) <= ONSET_S + 1e-9


def share_in_fights(event: Event, fights: Sequence[Span]) -> float:
    """The share of an event's duration that is within fights, 0 to 1. The fights must not overlap one another."""
    common = (min(event.end_s, end_s) - max(event.start_s, start_s) for start_s, end_s in fights)
    return sum(max(seconds, 0.0) for seconds in common) / event.duration_s


def _touches(fight: Span, event: Event) -> bool:
    return event.start_s < fight[1] and event.end_s > fight[0]


#: What is counted for each source in each recording.
COUNTS = ("hours", "fights", "by_overlap", "by_onset", "false", "unmatched", "events")


@dataclass(frozen=True)
class Tally:
    """Counts, `values` (cells, thresholds, COUNTS).

    A cell is a source in a recording, with its fights and the events that peak while it is shown. `recordings`,
    `sources` (cells,): their names.
    """

    thresholds: tuple[float, ...]
    recordings: np.ndarray
    sources: np.ndarray
    values: np.ndarray

    def of(self, name: str) -> np.ndarray:
        """One of COUNTS, (cells, thresholds)."""
        return np.asarray(self.values[:, :, COUNTS.index(name)])

    def only(self, number: int) -> Tally:
        """The tally at one threshold, given by its number."""
        one = slice(number, number + 1)
        return replace(self, thresholds=self.thresholds[one], values=self.values[:, one])

    def of_sources(self, sources: Collection[str]) -> Tally:
        """The tally of some sources only."""
        cells = np.isin(self.sources, sorted(sources))
        return replace(
            self, recordings=self.recordings[cells], sources=self.sources[cells], values=self.values[cells]
        )

    def ratio(self, over: str, under: str) -> np.ndarray:
        """One count over another, for all cells together: (thresholds,); NaN where the latter is 0."""
        return _divided(self.of(over).sum(0), self.of(under).sum(0))

    def draws(self, over: str, under: str, by: str, seed: int = 0) -> np.ndarray:
        """The ratio in bootstrap samples of recordings or sources, (draws, thresholds).

        `by`: "recording" or "source". The same seed draws the same samples from the same cells.
        """
        _, unit = np.unique(self.recordings if by == "recording" else self.sources, return_inverse=True)
        count = int(np.max(unit)) + 1
        weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), _DRAWS)
        sums = []
        for name in (over, under):
            of_unit = np.zeros((count, len(self.thresholds)))
            np.add.at(of_unit, unit, self.of(name))
            sums.append(weights @ of_unit)
        return _divided(*sums)

    def interval(self, over: str, under: str, by: str) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end of the 95 % interval of the ratio, (thresholds,) each.

        Where no event was counted, the upper end for events an hour is the rate at which none occurs with a probability
        of 1 in 40 (Garwood 1936, Biometrika 28).
        """
        low, high = _middle(self.draws(over, under, by))
        if under == "hours":
            most = stats.chi2.ppf(0.975, 2) / 2 / self.of("hours").sum(0)
            high = np.where(self.of(over).sum(0) == 0, most, high)
        return low, high

    def froc(self) -> float:
        """The mean over RATES of the best recall by overlap with at most that many false events an hour."""
        return float(_froc(self.ratio("by_overlap", "fights"), self.ratio("false", "hours")))

    def at_rate(self, rate: float) -> int:
        """Number of the threshold with the best recall by overlap among those with at most `rate` false events an hour.

        If all have more, the number of the highest threshold.
        """
        false, recall = self.ratio("false", "hours"), self.ratio("by_overlap", "fights")
        allowed = np.flatnonzero(false <= rate)
        return int(allowed[np.argmax(recall[allowed])]) if len(allowed) else len(self.thresholds) - 1


def _middle(drawn: np.ndarray) -> np.ndarray:
    """2.5th and 97.5th percentile over the draws, (2, ...), without the draws that are NaN."""
    if np.isnan(drawn).all():
        return np.full((2, *drawn.shape[1:]), np.nan)
    percentiles = np.nanpercentile if np.isnan(drawn).any() else np.percentile
    return np.asarray(percentiles(drawn, [2.5, 97.5], axis=0))


def _divided(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(under > 0, over / under, np.nan)


def _froc(recall: np.ndarray, false: np.ndarray) -> np.ndarray:
    """For curves (..., thresholds): the mean over RATES of the best recall at no more false events an hour, (...)."""
    best = [np.where(false <= rate, recall, 0.0).max(-1) for rate in RATES]
    return np.mean(best, axis=0)


def froc_gain(first: Tally, second: Tally, by: str = "recording") -> tuple[float, tuple[float, float]]:
    """The mean recall of `first` minus that of `second`, on the same recordings, and its 95 % interval."""
    drawn = [
        _froc(t.draws("by_overlap", "fights", by), t.draws("false", "hours", by)) for t in (first, second)
    ]
    low, high = _middle(drawn[0] - drawn[1])
    return first.froc() - second.froc(), (float(low), float(high))


def joined(tallies: Sequence[Tally]) -> Tally:
    """Join tallies of one rule on different footage. The thresholds are those of the first, even if others differ."""
    return Tally(
        tallies[0].thresholds,
        np.concatenate([t.recordings for t in tallies]),
        np.concatenate([t.sources for t in tallies]),
        np.concatenate([t.values for t in tallies]),
    )


def tally(recordings: Sequence[Recording], rule: Rule, thresholds: Sequence[float] = THRESHOLDS) -> Tally:
    """Count what the rule finds in the recordings at each threshold."""
    names, sources, values = [], [], []
    for recording in recordings:
        hours = recording.hours_by_source()
        row = {source: i for i, source in enumerate(hours)}
        cells = np.zeros((len(row), len(thresholds), len(COUNTS)))
        cells[:, :, 0] = np.array(list(hours.values()))[:, None]
        fight_rows = [row[recording.source_at(start_s + 1e-3)] for start_s, _ in recording.fights]
        for i in fight_rows:
            cells[i, :, 1] += 1
        for t, threshold in enumerate(thresholds):
            _count(cells[:, t], recording, rule(recording.windows, threshold), row, fight_rows)
        names += [recording.name] * len(row)
        sources += list(row)
        values.append(cells)
    return Tally(tuple(thresholds), np.array(names), np.array(sources), np.concatenate(values))


def _count(
    cells: np.ndarray, recording: Recording, found: Sequence[Event], row: dict[str, int], fight_rows: Sequence[int]
) -> None:  # fmt: skip
    """Add the events found at one threshold to `cells` (sources, COUNTS).

    `row`: of each source; `fight_rows`: of the source of each fight.
    """
    by_overlap = pairs(recording.fights, found, _overlaps)
    for column, matched in ((2, by_overlap), (3, pairs(recording.fights, found, _begins_with))):
        for i in matched:
            cells[fight_rows[i], column] += 1
    matched_events = set(by_overlap.values())
    for number, event in enumerate(found):
        cell = cells[row[recording.source_at(event.peak_s)]]
        cell[6] += 1
        cell[5] += number not in matched_events
        cell[4] += share_in_fights(event, recording.fights) < OVERLAP - 1e-9


def delays(recordings: Sequence[Recording], rule: Rule, threshold: float) -> list[float]:
    """The delay, in seconds, of each fight that an event touches."""
    out = []
    for recording in recordings:
        found = rule(recording.windows, threshold)
        for fight in recording.fights:
            if any(_touches(fight, event) for event in found):
                delay = _delay(recording.windows, fight, rule, threshold)
                out += [] if delay is None else [delay]
    return out


def _delay(windows: Sequence[JudgedWindow], fight: Span, rule: Rule, threshold: float) -> float | None:
    for count, window in enumerate(windows, 1):
        if window.end_s <= fight[0]:
            continue
        if any(_touches(fight, event) for event in rule(windows[:count], threshold)):
            return window.end_s - fight[0]
    return None


def figures_at(found: Tally, number: int) -> dict[str, Any]:
    """The figures at one threshold, given by its number, with intervals by recording and by source."""
    one = found.only(number)
    out: dict[str, Any] = {"threshold": one.thresholds[0]}
    out |= {name: int(one.of(name).sum()) for name in COUNTS[1:]}
    out["hours"] = round(float(one.of("hours").sum()), 2)
    for name, over, under in MEASURES:
        out[name] = rounded(one.ratio(over, under)[0])
        for by in ("recording", "source"):
            low, high = one.interval(over, under, by)
            out[f"{name}_ci95_by_{by}"] = [rounded(low[0]), rounded(high[0])]
    return out


#: Name, numerator and denominator of each figure.
MEASURES = (
    ("recall_by_overlap", "by_overlap", "fights"), ("recall_by_onset", "by_onset", "fights"),
    ("false_an_hour", "false", "hours"), ("unmatched_an_hour", "unmatched", "hours"),
)  # fmt: skip


def rounded(value: float) -> float | None:
    """Round to four decimals; None if the value is not finite."""
    return round(float(value), 4) if np.isfinite(value) else None
