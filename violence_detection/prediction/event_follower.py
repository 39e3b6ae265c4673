"""Follow events while their windows are still arriving, and report news of each under one id from beginning to end.

The rule is that of events.find_events, applied window by window. The last news of each event is exactly the event that
find_events makes of the same windows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from violence_detection.prediction import events
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import Event, JudgedWindow, WindowRun, WindowRuns

NEW, UPDATE, END = "new", "update", "end"


@dataclass(frozen=True)
class EventNews:
    """News of an event. `kind`: NEW, UPDATE or END. `event`: as far as it is known now; final with END."""

    kind: str
    event_id: str
    event: Event


@dataclass
class _ReportedEvent:
    """An open event that was reported: its first run, by which it is recognised, and the event as last reported."""

    run: WindowRun
    event_id: str
    event: Event


class EventFollower:
    """Takes the windows of one camera in order of time, and returns the news of events.

    `name_event` makes the id of a new event. An event is reported as soon as no later window can undo it, and ended as
    soon as none can change it. Memory does not grow with the number of windows.
    """

    def __init__(self, settings: EventConfig, name_event: Callable[[Event], str]):
        self._settings, self._name_event = settings, name_event
        self._runs = WindowRuns(settings)
        #: Windows that smoothing or a neighbour's stretch may still need, each with the seconds lost before it.
        self._recent: list[tuple[JudgedWindow, float]] = []
        #: How many of them, from the first, have been added to the runs.
        self._n_added = 0
        self._count = 0
        self._begin_s = 0.0
        self._reported: list[_ReportedEvent] = []

    def push(self, window: JudgedWindow, lost_s: float = 0.0) -> list[EventNews]:
        """Add the next window and return the news.

        `lost_s`: seconds of lost footage before the window, which do not count as a gap between violent windows.
        """
        if not self._count:
            self._begin_s = window.start_s
        self._count += 1
        self._recent.append((window, lost_s))
        self._take(window.middle_s)
        return self._news(self._next_begins_s(), ends_are_known=False)

    def pass_time(self, time_s: float) -> list[EventNews]:
        """Note that no window will begin before `time_s`, as while a camera is away; return the news.

        A time before the end of the last window changes nothing.
        """
        if not self._count or time_s < self._recent[-1][0].end_s:
            return []
        self._take(time_s)
        if self._n_added == len(self._recent):
            self._runs.end_by(time_s)
            return self._news(time_s, ends_are_known=True)
        return self._news(self._next_begins_s(), ends_are_known=True)

    def finish(self) -> list[EventNews]:
        """Note that no more windows will come; return the news. All open events end."""
        if not self._count:
            return []
        if self._count == 1:
            self._settings = self._runs.settings = self._settings.of_one_window()
        self._take(None)
        self._runs.end()
        return self._news(None, ends_are_known=True)

    def _take(self, middle_s: float | None) -> None:
        """Add to the runs the windows that no window with a middle of `middle_s` or later can change; None: all."""
        windows = [window for window, _ in self._recent]
        spans = events.stretches(windows)
        values = events.smoothed(windows, self._settings.smoothing_s)
        run = self._runs.run
        if run is not None and self._n_added and run.last is windows[self._n_added - 1]:
            run.end_s = spans[self._n_added - 1][1]
        for number in range(self._n_added, len(windows)):
            if middle_s is not None and not events.is_settled(
                windows[number], middle_s, self._settings.smoothing_s
            ):
                break
            self._runs.add(windows[number], *spans[number], values[number], self._recent[number][1])
            self._n_added += 1
        self._forget()

    def _forget(self) -> None:
        """Drop the windows that neither smoothing nor the stretch of the next window needs."""
        waiting = self._recent[min(self._n_added, len(self._recent) - 1)][0]
        needed = [
            number
            for number, (window, _) in enumerate(self._recent[: max(self._n_added - 1, 0)])
            if not events.is_settled(window, waiting.middle_s, self._settings.smoothing_s)
        ]
        first = needed[0] if needed else max(self._n_added - 1, 0)
        del self._recent[:first]
        self._n_added -= first

    def _next_begins_s(self) -> float:
        """A time, in seconds, before which no stretch begins that has yet to be added to the runs."""
        return self._recent[self._n_added - 1][0].middle_s if self._n_added else self._begin_s

    def _news(self, next_s: float | None, ends_are_known: bool) -> list[EventNews]:
        """Compare the events as known now with what was reported, and return the news.

        `next_s`: no further stretch begins before it; None: there is no further stretch. `ends_are_known`: whether the
        end of the last window's stretch is final, since no window follows that could share a part of it.
        """
        run = self._runs.run
        padding_s, last_s = self._settings.padding_s, self._recent[-1][0].end_s
        if run is not None and next_s is not None:
            next_s = run.start_s
        certain = [run] if run is not None and self._is_certain(run, ends_are_known) else []
        within = self._begin_s, last_s
        out: list[EventNews] = []
        for group in events.joined([*self._runs.found, *certain], padding_s, within):
            out += self._news_of(group[0], events.event_of(group, padding_s, within))
            is_open = run is not None and group[-1] is run
            if not is_open and (next_s is None or events.is_final(group, padding_s, last_s, next_s)):
                out.append(self._ended(group))
        return out

    def _is_certain(self, run: WindowRun, ends_are_known: bool) -> bool:
        """Whether the run will be long enough whatever comes. A next window may take up to half of the last one."""
        if not ends_are_known and run.last is self._recent[-1][0]:
            run = replace(run, end_s=run.last.middle_s)
        return run.is_long_enough(self._settings)

    def _news_of(self, run: WindowRun, event: Event) -> list[EventNews]:
        reported = next((t for t in self._reported if t.run is run), None)
        if reported is None:
            reported = _ReportedEvent(run, self._name_event(event), event)
            self._reported.append(reported)
            return [EventNews(NEW, reported.event_id, event)]
        if reported.event == event:
            return []
        reported.event = event
        return [EventNews(UPDATE, reported.event_id, event)]

    def _ended(self, group: list[WindowRun]) -> EventNews:
        reported = next(t for t in self._reported if t.run is group[0])
        self._reported.remove(reported)
        self._runs.found = [run for run in self._runs.found if all(run is not g for g in group)]
        return EventNews(END, reported.event_id, reported.event)
