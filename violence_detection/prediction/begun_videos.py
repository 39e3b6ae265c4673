"""Store the windows of long videos as they are judged, so that a run that was stopped resumes within a video.

Each line of the file holds the windows that were judged together. Its key is that of the video (see verdict_journal)
and the number of the first of these windows. When the run ends, only the lines of videos without a verdict are kept;
if there are none, the file is deleted.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from violence_detection.prediction.events import JudgedWindow, JudgingNews
from violence_detection.system import storage

log = logging.getLogger(__name__)
_WINDOWS = "windows"
_FIELDS = frozenset({_WINDOWS})


def path_for(journal: Path) -> Path:
    """Path of the file of begun videos that belongs to a journal of verdicts, in the same folder."""
    return journal.with_name(f"{journal.name.removesuffix('.journal.jsonl')}.begun.jsonl")


class BegunVideos:
    """The stored windows of videos that have no verdict yet. New windows of the current video are added.

    `record` appends a line (key, fields) to the file `path`.
    """

    def __init__(self, path: Path, record: Callable[[str, Mapping[str, Any]], None]):
        self.path, self._record = path, record
        self._known = storage.read_journal(path, _FIELDS)
        self._done: set[str] = set()
        self._key, self._starts_s = "", [0.0]

    def begin(self, key: str) -> tuple[JudgedWindow, ...]:
        """Make the video with this key the current one; return its stored windows, from the first up to any gap."""
        self._key, self._starts_s = key, []
        windows: list[JudgedWindow] = []
        with contextlib.suppress(KeyError, TypeError, ValueError):  # no further line, or a damaged one
            while some := self._known[_line(key, len(windows))][_WINDOWS]:
                windows += [JudgedWindow(**window) for window in some]
        return tuple(windows)

    def tell(self, news: JudgingNews) -> None:
        """Store the new windows of the current video, unless they end it: then its verdict comes next.

        A full disk is only logged, so that the video still gets its verdict.
        """
        # windows that come a second time, because judging began again from the start, replace the earlier ones
        while self._starts_s and self._starts_s[-1] >= news.windows[0].start_s:
            self._starts_s.pop()
        first = len(self._starts_s)
        self._starts_s += [window.start_s for window in news.windows]
        if news.before or not news.goes_on or not self._key:
            return
        windows = [w.as_judged().record() for w in news.windows]
        try:
            self._record(_line(self._key, first), {_WINDOWS: windows})
        except OSError as e:
            log.warning(
                "cannot store the progress of this video (%s). If this run is stopped, the next judges the rest again",
                e,
            )
            self._key = ""

    def done(self, key: str) -> None:
        """Note that the video with this key has its verdict, so that its lines can be dropped."""
        self._done.add(key)

    def tidy(self) -> None:
        """Drop the lines of videos that have a verdict; delete the file if no line is left."""
        left = {
            line: entry
            for line, entry in storage.read_journal(self.path, _FIELDS).items()
            if str(line).rpartition(".")[0] not in self._done
        }
        if not left:
            self.path.unlink(missing_ok=True)
        elif self._done:
            lines = [json.dumps({"key": line, **entry}) for line, entry in left.items()]
            storage.write_text(self.path, "\n".join(lines) + "\n")


def _line(key: str, first: int) -> str:
    return f"{key}.{first}"


@contextlib.contextmanager
def kept(path: Path) -> Iterator[BegunVideos]:
    """Open the file, creating it if needed, and tidy it at the end. Raises OSError if it cannot be written.

    Two runs must not use it at once; the lock of the journal sees to that.
    """
    with storage.appending_journal(path) as record:
        begun = BegunVideos(path, record)
        try:
            yield begun
        finally:
            with contextlib.suppress(OSError):  # superfluous lines do no harm
                begun.tidy()
