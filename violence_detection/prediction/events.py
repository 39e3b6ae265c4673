"""What was found in a video: windows with their probability, and the events that they make up."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from violence_detection.constants import CLASS_NAMES, EARLY_EXIT_KEY
from violence_detection.prediction.config import EventConfig

#: Times are rounded to hundredths; less than this is no gap between them.
_NO_GAP_S = 0.011


@dataclass(frozen=True)
class JudgedWindow:
    """A stretch of a video that was judged at once. Seconds from the beginning; P(violent) in [0, 1].

    `p_model`: what the model said, where a camera profile has made something else of it; None: the same. `still`: True
    where nothing moves, so that P(violent) is 0 without any network's look; None: judged.
    Raises ValueError for what is no probability, such as NaN.
    """

    start_s: float
    end_s: float
    p_violent: float
    p_model: float | None = None
    still: bool | None = None

    def __post_init__(self) -> None:
        for p in (self.p_violent, self.p_judged):
            if not 0 <= p <= 1:
                raise ValueError(f"{p} is no probability")

    @property
    def p_judged(self) -> float:
        """P(violent) as the model gave it."""
        return self.p_violent if self.p_model is None else self.p_model

    def as_judged(self) -> JudgedWindow:
        """The window as the model gave it, without what a camera profile has made of it."""
        return JudgedWindow(self.start_s, self.end_s, self.p_judged, still=self.still)

    def record(self) -> dict[str, Any]:
        """As it is written; `p_model` stands there only where it is another, `still` where it is."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, span_s: tuple[float, float], p_violent: float | None) -> JudgedWindow:
        """With the figures rounded that everybody gets: hundredths of a second, four places. P None: it is still."""
        still, p = (True, 0.0) if p_violent is None else (None, round(p_violent, 4))
        return cls(round(span_s[0], 2), round(span_s[1], 2), p, still=still)

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


def event_at(events: Sequence[Event], time_s: float) -> int:
    """The number, from 1, of the event that a moment lies in; 0: in none. `events` as find_events gives them."""
    number = bisect.bisect_right(events, time_s, key=lambda event: event.start_s)
    return number if number and time_s < events[number - 1].end_s else 0


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


def is_settled(window: JudgedWindow, middle_s: float, smoothing_s: float) -> bool:
    """Whether windows with a middle of `middle_s` or later leave the smoothed P(violent) of this one as it is."""
    return smoothing_s == 0 or middle_s > window.middle_s + smoothing_s / 2 + _NO_GAP_S


def find_events(windows: Sequence[JudgedWindow], settings: EventConfig) -> tuple[Event, ...]:
    """The events of a video's windows, in order of time, as are `windows`.

    Probabilities are smoothed. An event begins with the stretch (see `stretches`) of a window at or above the
    threshold, and goes on while the windows behind it stay at or above the offset; it goes on, too, where another
    would begin no more than `merge_gap_s` behind its end. What is shorter than `min_duration_s` is left out. For
    `cooldown_s` behind an event no other begins. At last padding is added, within what was judged; events
    that then touch are one. Hysteresis and duration as in pyannote.audio's Binarize (Bredin 2020).

    A video of one window is one event where the window reaches the threshold, whatever the other settings.
    """
    if not windows:
        return ()
    if len(windows) == 1:
        settings = settings.of_one_window()
    runs = WindowRuns(settings)
    values = smoothed(windows, settings.smoothing_s)
    for window, (start_s, end_s), p in zip(windows, stretches(windows), values, strict=True):
        runs.add(window, start_s, end_s, p)
    runs.end()
    within = windows[0].start_s, windows[-1].end_s
    groups = joined(runs.found, settings.padding_s, within)
    return tuple(event_of(group, settings.padding_s, within) for group in groups)


@dataclass
class WindowRun:
    """Windows that make up an event. `lost_s`: lost footage behind its end, which is no gap."""

    start_s: float
    end_s: float
    peak: JudgedWindow
    last: JudgedWindow
    lost_s: float = 0.0

    def is_long_enough(self, settings: EventConfig) -> bool:
        """Whether it is not left out as too short."""
        return self.end_s - self.start_s > settings.min_duration_s - _NO_GAP_S


class WindowRuns:
    """The rule by which windows make up events, a window at a time: see find_events.

    found: runs that are over and long enough; run: the one that may go on.
    """

    def __init__(self, settings: EventConfig):
        self.settings = settings
        self.found: list[WindowRun] = []
        self.run: WindowRun | None = None
        self._cool_s = -math.inf

    def add(self, window: JudgedWindow, start_s: float, end_s: float, p: float, lost_s: float = 0.0) -> None:
        """Take the next window, with its stretch and its smoothed P(violent), `lost_s` of lost footage before it."""
        settings, run = self.settings, self.run
        begins = p >= settings.threshold
        if run is not None:
            run.lost_s += lost_s
            gap_s = start_s - run.end_s - run.lost_s
            goes_on = gap_s < _NO_GAP_S and p >= settings.ends_below
            if goes_on or (begins and not self._is_over(run, start_s)):
                run.end_s, run.last, run.lost_s = end_s, window, 0.0
                run.peak = max(run.peak, window, key=lambda w: w.p_violent)
                return
            self.end_by(start_s)
        if self.run is None and begins and not start_s < self._cool_s - _NO_GAP_S:
            self.run = WindowRun(start_s, end_s, window, window)

    def end_by(self, time_s: float) -> None:
        """End the run if nothing that begins at this time or later can belong to it."""
        if self.run is not None and self._is_over(self.run, time_s):
            self.end()

    def end(self) -> None:
        """End the run."""
        if self.run is not None and self.run.is_long_enough(self.settings):
            self.found.append(self.run)
            self._cool_s = self.run.end_s + self.settings.cooldown_s
        self.run = None

    def _is_over(self, run: WindowRun, time_s: float) -> bool:
        return time_s - run.end_s - run.lost_s >= self.settings.merge_gap_s + _NO_GAP_S


def joined(runs: Sequence[WindowRun], padding_s: float, within: tuple[float, float]) -> list[list[WindowRun]]:
    """Runs in order of time, together where they touch once they are padded. `within`: what was judged, in seconds."""
    groups: list[list[WindowRun]] = []
    for run in runs:
        if padding_s and groups:
            before_s = round(_padded(groups[-1], padding_s, within)[1], 2)
            if _padded([run], padding_s, within)[0] <= before_s + _NO_GAP_S:
                groups[-1].append(run)
                continue
        groups.append([run])
    return groups


def is_final(group: Sequence[WindowRun], padding_s: float, end_s: float, next_s: float) -> bool:
    """Whether no run that begins at `next_s` or later touches this group, and its end lies within what was judged."""
    padded_s = group[-1].end_s + padding_s
    return padded_s <= end_s and (not padding_s or next_s - padding_s > round(padded_s, 2) + _NO_GAP_S)


def event_of(group: Sequence[WindowRun], padding_s: float, within: tuple[float, float]) -> Event:
    """The event of runs that belong together. `within`: what was judged, in seconds."""
    start_s, end_s = _padded(group, padding_s, within)
    peak = max((run.peak for run in group), key=lambda w: w.p_violent)
    return Event(round(start_s, 2), round(end_s, 2), peak.p_violent, round(peak.middle_s, 2))


def _padded(group: Sequence[WindowRun], padding_s: float, within: tuple[float, float]) -> tuple[float, float]:
    return max(group[0].start_s - padding_s, within[0]), min(group[-1].end_s + padding_s, within[1])


@dataclass(frozen=True)
class Verdict:
    """What was found in one video. `windows` in order of time; `events_by` decides label and events.

    duration_s: how long the video is; judged_s: how much of it the verdict rests on; warning: why the two differ, empty
    where they do not, or only since the pictures begin late. calibrated: whether probabilities are the model's
    calibrated ones. fps: moments a second, by which editors number them; 0: not known. profile: the name of the camera
    profile that was applied; empty: none. judged_with: the engines that ran the networks, with their precision; empty:
    not known. early_exit: whether the model's early exit was taken, if it has one; False: all members judged every
    window. model: identity of the model that judged, where verdicts are kept; empty: not known. real_path: where the
    file lay as it was judged, links followed; given_as: the path by which it was judged, where `path` is another. Both
    empty: not known.
    """

    path: str
    windows: tuple[JudgedWindow, ...]
    events_by: EventConfig
    duration_s: float
    judged_s: float
    warning: str = ""
    calibrated: bool = False
    fps: float = 0.0
    profile: str = ""
    judged_with: str = ""
    early_exit: bool = True
    model: str = ""
    real_path: str = ""
    given_as: str = ""

    @property
    def threshold(self) -> float:
        """The P(violent) from which a window counts as violent."""
        return self.events_by.threshold

    @property
    def p_violent(self) -> float:
        """That of the most violent window."""
        return max(window.p_violent for window in self.windows)

    @property
    def still_windows(self) -> int:
        """How many windows no network looked at, since nothing moves in them."""
        return sum(bool(window.still) for window in self.windows)

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
            **({"still_windows": self.still_windows} if self.still_windows else {}),
            "threshold": self.threshold,
            "calibrated": self.calibrated,
            **({"profile": self.profile} if self.profile else {}),
            **({"judged_with": self.judged_with} if self.judged_with else {}),
            **({} if self.early_exit else {EARLY_EXIT_KEY: False}),
            "events": [asdict(event) for event in events],
        }


@dataclass(frozen=True)
class JudgingNews:
    """Said while a video is judged: the windows that are new, up to which second, and of how many.

    `before`: an earlier run has judged them.
    """

    windows: tuple[JudgedWindow, ...]
    done_s: float
    total_s: float
    before: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether more of the video is to come."""
        return self.done_s < self.total_s - 0.5
