"""Which entries of a feature cache have had every checksum compared, so that a start need not read the whole cache.

    <folder>/verified.json      clip_id -> [size in bytes, time of change in ns, "v0 v1 ..."]
An entry counts as verified while its size and time of change are those noted. These are notes alone: losing them costs
one pass over the cache. Damage that leaves size and time alone is found when the entry is read.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from pathlib import Path

from violence_detection.system import storage

FILE_NAME = "verified.json"
LOCK_NAME = "write.lock"
_SAVE_AFTER = 500

_mutex = threading.RLock()  # one for all: the notes must stay picklable

Stamp = tuple[int, int]
Note = tuple[Stamp, frozenset[str]]


def stamp(path: Path) -> Stamp | None:
    """(size in bytes, time of change in ns) of a file; None if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


class VerifiedIndex:
    """The notes of one folder, to which several processes may add. Safe to use from several threads."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._known: dict[str, Note] = {}
        self._changed: dict[str, Note | None] = {}
        self.reload()

    def reload(self) -> None:
        """See what others have noted since."""
        with _mutex:
            self._known = _read(self.folder / FILE_NAME)
            for clip_id, note in self._changed.items():
                if note:
                    self._known[clip_id] = note
                else:
                    self._known.pop(clip_id, None)

    def variants(self, clip_id: str, now: Stamp) -> frozenset[str] | None:
        """The variants of an entry that was verified and has not changed since; None otherwise."""
        noted = self._known.get(clip_id)
        return noted[1] if noted and noted[0] == now else None

    def note(self, clip_id: str, now: Stamp, variants: Iterable[str]) -> None:
        """Note an entry, read or written whole, as it is `now`."""
        with _mutex:
            self._known[clip_id] = self._changed[clip_id] = (now, frozenset(variants))
            if len(self._changed) >= _SAVE_AFTER:
                self.save()

    def forget(self, clip_id: str) -> None:
        """The entry is damaged or gone, whatever its size and time say."""
        with _mutex:
            self._known.pop(clip_id, None)
            self._changed[clip_id] = None

    def save(self) -> None:
        """Write what is new beside what others have noted meanwhile."""
        with _mutex:
            if not self._changed:
                return
            with storage.locked(self.folder / LOCK_NAME):
                self.reload()
                self._changed = {}
                notes = {
                    clip: [*at, " ".join(sorted(names))] for clip, (at, names) in sorted(self._known.items())
                }
                storage.write_text(self.folder / FILE_NAME, json.dumps(notes) + "\n")


def _read(path: Path) -> dict[str, Note]:
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        return {clip: ((size, time), frozenset(names.split())) for clip, (size, time, names) in noted.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):  # absent or damaged: nothing is noted
        return {}
