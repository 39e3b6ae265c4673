"""What was found in a video: windows with their probability, and the events that they make up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from violence_detection.constants import CLASS_NAMES


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


@dataclass(frozen=True)
class Event:
    """A stretch of a video that is called violent. `p_violent` is that of its most violent window."""

    start_s: float
    end_s: float
    p_violent: float


def find_events(windows: Sequence[JudgedWindow], threshold: float) -> tuple[Event, ...]:
    """Runs of overlapping or touching windows at or above the threshold. `windows` are in order of time."""
    found: list[Event] = []
    for window in windows:
        if window.p_violent < threshold:
            continue
        if found and window.start_s <= found[-1].end_s:
            last = found.pop()
            found.append(Event(last.start_s, window.end_s, max(last.p_violent, window.p_violent)))
        else:
            found.append(Event(window.start_s, window.end_s, window.p_violent))
    return tuple(found)


@dataclass(frozen=True)
class Verdict:
    """What was found in one video. `windows` in order of time; `threshold` decides label and events.

    duration_s: how long the video is; judged_s: how much of it the verdict rests on; warning: why the two differ, empty
    where they do not. calibrated: whether probabilities are the model's calibrated ones.
    """

    path: str
    windows: tuple[JudgedWindow, ...]
    threshold: float
    duration_s: float
    judged_s: float
    warning: str = ""
    calibrated: bool = False

    @property
    def p_violent(self) -> float:
        """That of the most violent window."""
        return max(window.p_violent for window in self.windows)

    @property
    def label(self) -> str:
        """fight or nonfight."""
        return CLASS_NAMES[self.p_violent >= self.threshold]

    @property
    def events(self) -> tuple[Event, ...]:
        """When it is violent, in order of time."""
        return find_events(self.windows, self.threshold)

    def summary(self) -> dict[str, Any]:
        """As the scripts print it."""
        return {
            "path": self.path,
            "label": self.label,
            "p_violent": self.p_violent,
            "duration_s": self.duration_s,
            "judged_s": self.judged_s,
            **({"warning": self.warning} if self.warning else {}),
            "threshold": self.threshold,
            "calibrated": self.calibrated,
            "events": [asdict(event) for event in self.events],
        }
