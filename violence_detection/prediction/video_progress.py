"""Progress of judging a long video: a bar with speed and time left, and its events in the log as they are found."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from violence_detection.prediction.clock import minutes
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.event_follower import END, EventFollower
from violence_detection.prediction.events import JudgingNews
from violence_detection.system import console
from violence_detection.system.figures import number

log = logging.getLogger(__name__)

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f} of {total:.0f} s{postfix}, {remaining} left"


class VideoProgress:
    """A progress bar for the video being judged. A video whose windows all come at once gets none."""

    def __init__(self, events_by: EventConfig):
        self._events_by = events_by
        self._path, self._since_s, self._before_s = Path(), 0.0, 0.0
        self._bar: Any = None
        self._begin()
        self._said = 0

    def _begin(self) -> None:
        """Forget all windows and events seen so far."""
        self._follower = EventFollower(self._events_by, lambda _: "")
        self._last_s, self._ended = -math.inf, 0

    @contextmanager
    def of(self, path: Path) -> Iterator[None]:
        """Context in which the video at `path` is judged; closes its bar at the end."""
        self._path, self._since_s, self._before_s = path, time.monotonic(), 0.0
        self._begin()
        self._said = 0
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def tell(self, news: JudgingNews) -> None:
        """Move the bar, and log the events that no later window can change.

        A damaged video may be judged again from its beginning; its windows then come a second time, and events that
        were logged before are not logged again.
        """
        if news.windows[0].start_s <= self._last_s:
            self._begin()
            self._before_s = 0.0
        self._last_s = news.windows[-1].start_s
        if news.before:
            log.info("%s: judged to %s by an earlier run", self._path, minutes(news.done_s))
            self._before_s = news.done_s
        if self._bar is None and not news.goes_on:
            return
        if self._bar is None:
            self._bar = console.progress(
                total=news.total_s,
                initial=self._before_s,
                desc=self._path.name,
                bar_format=_BAR,
                position=1,
                leave=False,
            )
        rate = (news.done_s - self._before_s) / max(time.monotonic() - self._since_s, 1e-3)
        self._bar.set_postfix_str(f"{rate:.1f} times real time", refresh=False)
        self._bar.update(min(news.done_s, news.total_s) - self._bar.n)  # the stated length may be too short
        if news.goes_on:
            self._say_events(news)

    def _say_events(self, news: JudgingNews) -> None:
        for new in (new for window in news.windows for new in self._follower.push(window)):
            if new.kind != END:
                continue
            self._ended += 1
            if self._ended > self._said:
                self._said, event = self._ended, new.event
                log.info(
                    "%s: violent at %s - %s, %s (judged to %s of %s)",
                    self._path, minutes(event.start_s), minutes(event.end_s), number(event.p_violent),
                    minutes(news.done_s), minutes(news.total_s),
                )  # fmt: skip
