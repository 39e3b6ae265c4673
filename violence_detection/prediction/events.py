"""What was found in a video: judged windows, the events that they make up, and the verdict."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from violence_detection.constants import CLASS_NAMES, EARLY_EXIT_KEY
from violence_detection.prediction.config import EventConfig

#: Times are rounded to hundredths of a second, so a difference below this is not a gap.
_NO_GAP_S = 0.011


@dataclass(frozen=True)
class JudgedWindow:
    """A stretch of a video that was judged at once, in seconds from the video's beginning, with P(violent) in [0, 1].

    `p_model`: the model's own P(violent) if a camera profile changed it, else None. `still`: True if nothing moves, so
    that P(violent) is 0 and no network judged the window; else None.
    Raises ValueError for a probability that is NaN or outside [0, 1].
    """

    start_s: float
    end_s: float
    p_violent: float
    p_model: float | None = None
    still: bool | None = None

    def __post_init__(self) -> None:
        for p in (self.p_violent, self.p_judged):
            if not 0 <= p <= 1:
                raise ValueError(f"{p} is not a probability")

    @property
    def p_judged(self) -> float:
        """P(violent) as the model gave it, before any camera profile."""
        return self.p_violent if self.p_model is None else self.p_model

    def as_judged(self) -> JudgedWindow:
        """Return the window as the model judged it, without any camera profile."""
        return JudgedWindow(self.start_s, self.end_s, self.p_judged, still=self.still)

    def record(self) -> dict[str, Any]:
        """Return the fields to be written to files. `p_model` and `still` are left out if they are None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, span_s: tuple[float, float], p_violent: float | None) -> JudgedWindow:
        """Make a window with times rounded to hundredths of a second and P(violent) to four places.

        `span_s`: start and end. `p_violent`: None for a still window.
        """
        still, p = (True, 0.0) if p_violent is None else (None, round(p_violent, 4))
        return cls(round(span_s[0], 2), round(span_s[1], 2), p, still=still)

    @property
    def middle_s(self) -> float:
        """The middle of the window, in seconds."""
        return (self.start_s + self.end_s) / 2


@dataclass(frozen=True)
class Event:
    """A stretch of a video that is called violent, in seconds from the video's beginning.

    `p_violent`: that of its most violent window, without smoothing. `peak_s`: the middle of that window.
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
        """Length of the event, in seconds."""
        return self.end_s - self.start_s


def event_at(events: Sequence[Event], time_s: float) -> int:
    """Return the number, from 1, of the event that contains the moment `time_s`; 0 if none does.

    `events`: as find_events returns them.
    """
    number = bisect.bisect_right(events, time_s, key=lambda event: event.start_s)
    return number if number and time_s < events[number - 1].end_s else 0


def stretches(windows: Sequence[JudgedWindow]) -> list[tuple[float, float]]:
    """Return for each window its stretch, the (start, end) in seconds for which its P(violent) counts.

    Where two windows overlap, each gets the half that is nearer to it. So the stretches cover what the windows cover,
    and do not overlap. `windows`: in order of time.
    """
    starts, ends = [w.start_s for w in windows], [w.end_s for w in windows]
    for i, (before, after) in enumerate(itertools.pairwise(windows)):
        if after.start_s <= before.end_s:
            ends[i] = starts[i + 1] = (after.start_s + before.end_s) / 2
    return list(zip(starts, ends, strict=True))


def smoothed(windows: Sequence[JudgedWindow], smoothing_s: float) -> list[float]:
    """Return for each window the mean P(violent) of the windows whose middles are within smoothing_s / 2 of its own."""
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
    """Return whether windows with a middle of `middle_s` or later cannot change this window's smoothed P(violent)."""
    return smoothing_s == 0 or middle_s > window.middle_s + smoothing_s / 2 + _NO_GAP_S


def find_events(windows: Sequence[JudgedWindow], settings: EventConfig) -> tuple[Event, ...]:
    """Make events of a video's windows, which must be in order of time; return them in order of time.

    First, probabilities are smoothed. An event begins with the stretch (see `stretches`) of a window at or above the
    threshold, and continues while the following windows are at or above the offset. It also continues if another event
    would begin no more than `merge_gap_s` after its end. Events shorter than `min_duration_s` are left out. For
    `cooldown_s` after an event no other begins. Finally, padding is added, within what was judged, and events that
    then touch are joined. Hysteresis and minimum duration work as in pyannote.audio's Binarize (Bredin 2020).

    A video of one window is one event if the window reaches the threshold; the other settings do not count.
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
    """Consecutive windows that make up an event, before padding. Times are in seconds.

    `peak`: the most violent window. `last`: the last window. `lost_s`: lost footage after the end, which does not count
    as a gap before the next window.
    """

    start_s: float
    end_s: float
    peak: JudgedWindow
    last: JudgedWindow
    lost_s: float = 0.0

    def is_long_enough(self, settings: EventConfig) -> bool:
        """Whether the run reaches `min_duration_s`."""
        return self.end_s - self.start_s > settings.min_duration_s - _NO_GAP_S


class WindowRuns:
    """The rule by which windows make up events (see find_events), applied window by window.

    `found`: runs that are over and long enough. `run`: the run that may still continue, if any.
    """

    def __init__(self, settings: EventConfig):
        self.settings = settings
        self.found: list[WindowRun] = []
        self.run: WindowRun | None = None
        self._cool_s = -math.inf

    def add(self, window: JudgedWindow, start_s: float, end_s: float, p: float, lost_s: float = 0.0) -> None:
        """Add the next window.

        `start_s`, `end_s`: its stretch. `p`: its smoothed P(violent). `lost_s`: seconds of lost footage before it.
        """
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
        """End the run if no window whose stretch begins at `time_s` or later can belong to it."""
        if self.run is not None and self._is_over(self.run, time_s):
            self.end()

    def end(self) -> None:
        """End the run; it is dropped if it is too short."""
        if self.run is not None and self.run.is_long_enough(self.settings):
            self.found.append(self.run)
            self._cool_s = self.run.end_s + self.settings.cooldown_s
        self.run = None

    def _is_over(self, run: WindowRun, time_s: float) -> bool:
        return time_s - run.end_s - run.lost_s >= self.settings.merge_gap_s + _NO_GAP_S


def joined(runs: Sequence[WindowRun], padding_s: float, within: tuple[float, float]) -> list[list[WindowRun]]:
    """Group runs, which are in order of time, that touch once they are padded; without padding each is a group.

    `within`: start and end of what was judged, in seconds.
    """
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
    """Return whether the padded group ends by `end_s`, the end of what was judged, and no later run can touch it.

    `next_s`: the earliest time at which a later run may begin.
    """
    padded_s = group[-1].end_s + padding_s
    return padded_s <= end_s and (not padding_s or next_s - padding_s > round(padded_s, 2) + _NO_GAP_S)


def event_of(group: Sequence[WindowRun], padding_s: float, within: tuple[float, float]) -> Event:
    """Make the event of a group of runs. `within`: start and end of what was judged, in seconds."""
    start_s, end_s = _padded(group, padding_s, within)
    peak = max((run.peak for run in group), key=lambda w: w.p_violent)
    return Event(round(start_s, 2), round(end_s, 2), peak.p_violent, round(peak.middle_s, 2))


def _padded(group: Sequence[WindowRun], padding_s: float, within: tuple[float, float]) -> tuple[float, float]:
    return max(group[0].start_s - padding_s, within[0]), min(group[-1].end_s + padding_s, within[1])


@dataclass(frozen=True)
class Verdict:
    """What was found in one video.

    - `windows`: in order of time; label and events are made of them by the settings `events_by`.
    - `duration_s`: length of the video. `judged_s`: how much of it the verdict rests on. `warning`: why the two differ;
      empty if they do not, or only because the pictures begin later than the video.
    - `calibrated`: whether the probabilities are calibrated ones.
    - `fps`: moments a second, by which video editors number frames; 0 if not known.
    - `profile`: name of the camera profile that was applied; empty if none.
    - `judged_with`: the engines that ran the networks, with their precision; empty if not known.
    - `early_exit`: False if all members of the model judged every window; True if its early exit was taken, and for a
      model that has none.
    - `model`: identity of the model that judged; known only where verdicts are stored, else empty.
    - `real_path`: the path of the file when it was judged, links resolved; empty if not known.
    - `given_as`: the path by which the video was judged, if `path` is a different one; else empty.
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
        """P(violent) from which a window counts as violent."""
        return self.events_by.threshold

    @property
    def p_violent(self) -> float:
        """P(violent) of the most violent window."""
        return max(window.p_violent for window in self.windows)

    @property
    def still_windows(self) -> int:
        """Number of windows that no network judged, because nothing moves in them."""
        return sum(bool(window.still) for window in self.windows)

    @property
    def label(self) -> str:
        """`fight` if there is an event, else `nonfight`."""
        return CLASS_NAMES[bool(self.events)]

    @property
    def events(self) -> tuple[Event, ...]:
        """The violent stretches, in order of time."""
        return find_events(self.windows, self.events_by)

    def summary(self) -> dict[str, Any]:
        """Return the fields of the video in the JSON line that the scripts print."""
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
    """Progress of judging a video: its next windows, and up to which second of how many it is judged.

    `before`: the windows were judged by an earlier run.
    """

    windows: tuple[JudgedWindow, ...]
    done_s: float
    total_s: float
    before: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether more than half a second of the video is still to be judged."""
        return self.done_s < self.total_s - 0.5
