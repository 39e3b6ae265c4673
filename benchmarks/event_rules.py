"""Rules that make events of windows at any threshold: the one of before, and find_events with its settings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from violence_detection.prediction import events
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import Event, JudgedWindow

#: Windows and a threshold to events.
Rule = Callable[[Sequence[JudgedWindow], float], Sequence[Event]]
#: What is tried to tune. Offsets: share of the threshold's odds; None is the default, half.
SMOOTHING_S, OFFSET_ODDS = (0.0, 5.0, 7.5, 10.0), (None, 1.0, 0.25)
MIN_DURATION_S, MERGE_GAP_S = (0.0, 3.0, 5.5), (0.0, 2.5, 5.0, 10.0)


def touching_windows(windows: Sequence[JudgedWindow], threshold: float) -> list[Event]:
    """The rule of before: windows at or above the threshold that touch are one event, from the first's beginning to the
    last's end.
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
    """The rule of these settings at any threshold. `offset_odds`: the offset has such a share of the threshold's odds;
    None: the default of EventConfig.
    """

    def rule(windows: Sequence[JudgedWindow], threshold: float) -> Sequence[Event]:
        return events.find_events(windows, at(settings, threshold, offset_odds))

    return rule


def at(settings: EventConfig, threshold: float, offset_odds: float | None) -> EventConfig:
    """The settings at a threshold, with the offset that goes with it."""
    offset = None
    if offset_odds is not None:
        offset = offset_odds * threshold / (1 - threshold + offset_odds * threshold)
    return replace(settings, threshold=threshold, offset=offset)


@dataclass(frozen=True)
class Choice:
    """Settings of events with the offset's share of the threshold's odds (None: the default)."""

    settings: EventConfig
    offset_odds: float | None

    @property
    def rule(self) -> Rule:
        """The rule of these settings."""
        return by_settings(self.settings, self.offset_odds)

    def record(self) -> dict[str, Any]:
        """For figures.json."""
        names = ("smoothing_s", "min_duration_s", "merge_gap_s")
        return {name: getattr(self.settings, name) for name in names} | {
            "offset_odds": self.offset_odds or 0.5
        }


def choices(settings: EventConfig) -> list[Choice]:
    """All settings that are tried; padding and cooldown are those given."""
    grid = itertools.product(SMOOTHING_S, MIN_DURATION_S, MERGE_GAP_S, OFFSET_ODDS)
    plain = replace(settings, threshold=0.5, offset=None)
    return [
        Choice(replace(plain, smoothing_s=smooth, min_duration_s=least, merge_gap_s=gap), odds)
        for smooth, least, gap, odds in grid
    ]
