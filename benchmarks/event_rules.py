"""Rules that turn windows into events at any threshold: the former one, and find_events with its settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from violence_detection.prediction import events
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import Event, JudgedWindow

#: Returns the events in windows at a threshold.
Rule = Callable[[Sequence[JudgedWindow], float], Sequence[Event]]
#: The settings that tuning tries. OFFSET_ODDS: the odds of the offset over those of the threshold; None is the default,
#: one half.
SMOOTHING_S, OFFSET_ODDS = (0.0, 5.0, 7.5, 10.0), (None, 1.0, 0.25)
MIN_DURATION_S, MERGE_GAP_S = (0.0, 3.0, 5.5), (0.0, 2.5, 5.0, 10.0)


def touching_windows(windows: Sequence[JudgedWindow], threshold: float) -> list[Event]:
    """The former rule: windows at or above the threshold that touch are one event.

    It lasts from the beginning of the first to the end of the last.
    """
    found: list[Event] = []
    for window in windows:
        p = window.p_violent
        if p < threshold:
            continue
        if found and window.start_s <= found[-1].end_s:
            last = found.pop()
            p, peak_s = max((last.p_violent, last.peak_s), (p, window.middle_s))
            found.append(Event(last.start_s, window.end_s, p, peak_s))
        else:
            found.append(Event(window.start_s, window.end_s, p, window.middle_s))
    return found


def by_settings(settings: EventConfig, offset_odds: float | None = None) -> Rule:
    """The rule of find_events with these settings, whose threshold is replaced.

    `offset_odds`: the odds of the offset over those of the threshold; None: the default of EventConfig.
    """

    def rule(windows: Sequence[JudgedWindow], threshold: float) -> Sequence[Event]:
        return events.find_events(windows, at(settings, threshold, offset_odds))

    return rule


def at(settings: EventConfig, threshold: float, offset_odds: float | None) -> EventConfig:
    """The settings at another threshold, with the offset that belongs to it; `offset_odds` as for `by_settings`."""
    offset = None
    if offset_odds is not None:
        offset = offset_odds * threshold / (1 - threshold + offset_odds * threshold)
    return replace(settings, threshold=threshold, offset=offset)


@dataclass(frozen=True)
class Choice:
    """Settings of events that tuning tries; `offset_odds` as for `by_settings`."""

    settings: EventConfig
    offset_odds: float | None

    @property
    def rule(self) -> Rule:
        """The rule of these settings."""
        return by_settings(self.settings, self.offset_odds)

    def record(self) -> dict[str, Any]:
        """The settings as figures.json has them."""
        names = ("smoothing_s", "min_duration_s", "merge_gap_s")
        return {name: getattr(self.settings, name) for name in names} | {
            "offset_odds": self.offset_odds or 0.5
        }


def choices(settings: EventConfig) -> list[Choice]:
    """All settings that tuning tries; padding and cooldown are those of `settings`."""
    grid = itertools.product(SMOOTHING_S, MIN_DURATION_S, MERGE_GAP_S, OFFSET_ODDS)
    plain = replace(settings, threshold=0.5, offset=None)
    return [
        Choice(replace(plain, smoothing_s=smooth, min_duration_s=least, merge_gap_s=gap), odds)
        for smooth, least, gap, odds in grid
    ]
