"""Windows of long videos as they are judged, kept on the disk, so that a stopped run goes on within a video.

A line has the windows that came at once, under the key of the video (see verdict_journal) and the number of their
first. A video that has its verdict needs them no more: when the run ends, the others' lines alone stay, and with none
the file goes.
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
    """The file that stands beside a journal of verdicts."""
    return journal.with_name(f"{journal.name.removesuffix('.journal.jsonl')}.begun.jsonl")


class BegunVideos:
    """The windows that are known of videos without a verdict, and a place for those of the video in hand."""

    def __init__(self, path: Path, record: Callable[[str, Mapping[str, Any]], None]):
        self.path, self._record = path, record
        self._known = storage.read_journal(path, _FIELDS)
        self._done: set[str] = set()
        self._key, self._starts_s = "", [0.0]

    def begin(self, key: str) -> tuple[JudgedWindow, ...]:
        """Take the video of this key in hand; returns its first windows, as far as they are known without a gap."""
        self._key, self._starts_s = key, []
        windows: list[JudgedWindow] = []
        with contextlib.suppress(KeyError, TypeError, ValueError):  # there is no next line, or it is not ours
            while some := self._known[_line(key, len(windows))][_WINDOWS]:
                windows += [JudgedWindow(**window) for window in some]
        return tuple(windows)

    def tell(self, news: JudgingNews) -> None:
        """Keep what is new of the video in hand, unless its verdict comes next. A full disk costs no verdict."""
        while self._starts_s and self._starts_s[-1] >= news.windows[0].start_s:  # it is judged anew
            self._starts_s.pop()
        first = len(self._starts_s)
        self._starts_s += [window.start_s for window in news.windows]
        if news.before or not news.goes_on or not self._key:
            return
        windows = [w.as_judged().record() for w in news.windows]
        try:
            self._record(_line(self._key, first), {_WINDOWS: windows})
        except OSError as e:
            log.warning("cannot keep how far this video was judged (%s): stopped now, it begins anew", e)
            self._key = ""

    def done(self, key: str) -> None:
        """The video of this key has its verdict."""
        self._done.add(key)

    def tidy(self) -> None:
        """Leave the lines of videos without a verdict alone."""
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
    """The file, made if need be, for one run at a time. Raises OSError if it cannot be written."""
    with storage.appending_journal(path) as record:
        begun = BegunVideos(path, record)
        try:
            yield begun
        finally:
            with contextlib.suppress(OSError):  # it is as good with the lines of videos that are done
                begun.tidy()
