"""What was found in a video: windows with their probability, and the events that they make up."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from violence_detection.constants import CLASS_NAMES
from violence_detection.prediction.config import EventConfig

#: Times are rounded to hundredths; less than this is no gap between them.
_NO_GAP_S = 0.011


@dataclass(frozen=True)
class JudgedWindow:
    """A stretch of a video that was judged at once. Seconds from the beginning; P(violent) in [0, 1].

    Raises ValueError for what is no probability, such as NaN.
    """

    start_s: float
    end_s: float
    p_violent: float

    def __post_init__(self) -> None:
        if not 0 <= self.p_violent <= 1:
            raise ValueError(f"{self.p_violent} is no probability")

    @classmethod
    def of(cls, span_s: tuple[float, float], p_violent: float) -> JudgedWindow:
        """With the figures rounded that everybody gets: hundredths of a second, four places."""
        return cls(round(span_s[0], 2), round(span_s[1], 2), round(p_violent, 4))

    @property
    def middle_s(self) -> float:
        """The moment that it is about."""
        return (self.start_s + self.end_s) / 2


@dataclass(frozen=True)
class Event:
    """A stretch of a video that is called violent. `p_violent` is that of its most violent window, as it was judged.

    peak_s: the middle of that window.
    """

    start_s: float
    end_s: float
    p_violent: float
    peak_s: float

    @property
    def p_peak(self) -> float:
        """The same as p_violent."""
        return self.p_violent

    @property
    def duration_s(self) -> float:
        """How long it lasts."""
        return self.end_s - self.start_s


def stretches(windows: Sequence[JudgedWindow]) -> list[tuple[float, float]]:
    """For each window the (start, end) in seconds that it stands for: of what two share, each has the nearer half.

    `windows` in order of time. Together the stretches are what the windows cover, and none overlap.
    """
    starts, ends = [w.start_s for w in windows], [w.end_s for w in windows]
    for i, (before, after) in enumerate(itertools.pairwise(windows)):
        if after.start_s <= before.end_s:
            ends[i] = starts[i + 1] = (after.start_s + before.end_s) / 2
    return list(zip(starts, ends, strict=True))


def smoothed(windows: Sequence[JudgedWindow], smoothing_s: float) -> list[float]:
    """For each window the mean P(violent) of those whose middles lie within half of `smoothing_s` of its own."""
    if smoothing_s == 0:
        return [w.p_violent for w in windows]
    out: list[float] = []
    first = end = 0
    for window in windows:
        while windows[first].middle_s < window.middle_s - smoothing_s / 2 - _NO_GAP_S:
            first += 1
        while end < len(windows) and windows[end].middle_s <= window.middle_s + smoothing_s / 2 + _NO_GAP_S:
            end += 1
        out.append(sum(w.p_violent for w in windows[first:end]) / (end - first))
    return out


def find_events(windows: Sequence[JudgedWindow], settings: EventConfig) -> tuple[Event, ...]:
    """The events of a video's windows, in order of time, as are `windows`.

    Probabilities are smoothed. An event begins with the stretch (see `stretches`) of a window at or above the
    threshold, and goes on while the windows behind it stay at or above the offset; it goes on, too, where another
    would begin no more than `merge_gap_s` behind its end. What is shorter than `min_duration_s` is left out. For
    `cooldown_s` behind an event no other begins. At last padding is added, within what was judged; events
    that then touch are one. Hysteresis and duration as in pyannote.audio's Binarize (Bredin 2020).

    A video of one window is one event where the window reaches the threshold, whatever the other settings.
    """
    if len(windows) == 1:
        (window,) = windows
        settings = EventConfig(settings.threshold, settings.offset)
    found: list[_Run] = []
    run: _Run | None = None
    values = smoothed(windows, settings.smoothing_s)
    for window, (start_s, end_s), p in zip(windows, stretches(windows), values, strict=True):
        begins = p >= settings.threshold
        if run is not None:
            gap_s = start_s - run.end_s
            goes_on = gap_s < _NO_GAP_S and p >= settings.ends_below
            if goes_on or (begins and gap_s < settings.merge_gap_s + _NO_GAP_S):
                run.end_s = end_s
                run.peak = max(run.peak, window, key=lambda w: w.p_violent)
                continue
            if gap_s < settings.merge_gap_s + _NO_GAP_S:
                continue
            found += run.long_enough(settings)
            run = None
        if begins and not (found and start_s < found[-1].end_s + settings.cooldown_s - _NO_GAP_S):
            run = _Run(start_s, end_s, window)
    found += run.long_enough(settings) if run else []
    return _padded(found, settings.padding_s, windows)


@dataclass
class _Run:
    """Windows that make up an event."""

    start_s: float
    end_s: float
    peak: JudgedWindow

    def long_enough(self, settings: EventConfig) -> list[_Run]:
        return [self] if self.end_s - self.start_s > settings.min_duration_s - _NO_GAP_S else []


def _padded(runs: Sequence[_Run], padding_s: float, windows: Sequence[JudgedWindow]) -> tuple[Event, ...]:
    out: list[Event] = []
    for run in runs:
        start_s = max(run.start_s - padding_s, windows[0].start_s)
        end_s = min(run.end_s + padding_s, windows[-1].end_s)
        p, peak_s = run.peak.p_violent, run.peak.middle_s
        if padding_s and out and start_s <= out[-1].end_s + _NO_GAP_S:
            last = out.pop()
            start_s = last.start_s
            p, peak_s = max((last.p_violent, last.peak_s), (p, peak_s), key=lambda peak: peak[0])
        out.append(Event(round(start_s, 2), round(end_s, 2), p, round(peak_s, 2)))
    return tuple(out)


@dataclass(frozen=True)
class Verdict:
    """What was found in one video. `windows` in order of time; `events_by` decides label and events.

    duration_s: how long the video is; judged_s: how much of it the verdict rests on; warning: why the two differ, empty
    where they do not. calibrated: whether probabilities are the model's calibrated ones. fps: moments a second, by
    which editors number them; 0: not known.
    """

    path: str
    windows: tuple[JudgedWindow, ...]
    events_by: EventConfig
    duration_s: float
    judged_s: float
    warning: str = ""
    calibrated: bool = False
    fps: float = 0.0

    @property
    def threshold(self) -> float:
        """The P(violent) from which a window counts as violent."""
        return self.events_by.threshold

    @property
    def p_violent(self) -> float:
        """That of the most violent window."""
        return max(window.p_violent for window in self.windows)

    @property
    def label(self) -> str:
        """fight, where there is an event, or nonfight."""
        return CLASS_NAMES[bool(self.events)]

    @property
    def events(self) -> tuple[Event, ...]:
        """When it is violent, in order of time."""
        return find_events(self.windows, self.events_by)

    def summary(self) -> dict[str, Any]:
        """As the scripts print it."""
        events = self.events
        return {
            "path": self.path,
            "label": CLASS_NAMES[bool(events)],
            "p_violent": self.p_violent,
            "duration_s": self.duration_s,
            "judged_s": self.judged_s,
            **({"warning": self.warning} if self.warning else {}),
            "threshold": self.threshold,
            "calibrated": self.calibrated,
            "events": [asdict(event) for event in events],
        }


@dataclass(frozen=True)
class JudgingNews:
    """Said while a video is judged: the windows that are new, up to which second, and of how many."""

    windows: tuple[JudgedWindow, ...]
    done_s: float
    total_s: float
