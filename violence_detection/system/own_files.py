"""Which files a run replaces or removes: those that such a run has written for the same source, and no others.

A record in each folder says for which source a file was written, and with which content. What somebody else put there,
what was changed since, and what another source has there under the same name are left alone: whoever writes takes
another name, or refuses before the work begins.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from violence_detection.errors import DamagedFile, UserError
from violence_detection.system import storage

#: The record, a line a file, in the folder of the files.
RECORD_NAME = ".written.jsonl"
_FIELDS = frozenset({"file", "source"})
#: A file is told from others by its size, its beginning and its end; one of up to twice as many bytes by all of it.
_END_BYTES = 1 << 18
#: Lines at the end of a record that are never forgotten: their files may be about to get their names.
_NEWEST_LINES = 1000


class WrittenFiles:
    """The files of a folder, and the source that each was written for: the real path of a video, say."""

    def __init__(self, folder: Path):
        self._record = folder / RECORD_NAME
        self._recording = threading.RLock()
        self._begin(0)
        self._read()

    def _begin(self, file_number: int) -> None:
        """Know nothing yet of the record, which is this file of its disk."""
        self._file_number, self._read_bytes = file_number, 0
        self._sources: dict[str, str] = {}
        self._names: dict[str, set[str]] = {}
        #: As keys have them, see _key.
        self._all_names: set[str] = set()

    def _read(self) -> None:
        """Read what this run or another has recorded since; all of it where the record is another file by now."""
        with self._recording:
            if not self._record.is_file():
                return self._begin(0)
            with self._record.open("rb") as lines:
                stat = os.fstat(lines.fileno())
                if stat.st_ino != self._file_number or stat.st_size < self._read_bytes:
                    self._begin(stat.st_ino)
                lines.seek(self._read_bytes)
                for key, entry in storage.journal_entries(self._whole(lines), _FIELDS).items():
                    self._know(key, str(entry["file"]), str(entry["source"]))

    def _whole(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines but for one of which another run has written half so far, which is read later."""
        for line in lines:
            if not line.endswith(b"\n"):
                return  # by the next line its rest may be there, which is none of its own
            self._read_bytes += len(line)
            yield line

    def _know(self, key: str, name: str, source: str) -> None:
        self._sources[key] = source
        self._names.setdefault(source, set()).add(name)
        self._all_names.add(name.casefold())

    def source_of(self, path: Path) -> str | None:
        """The source that a file of this folder was written for, as its content is now.

        None for one that such a run has not written, or that was changed since, and where there is none.
        """
        if path.name.casefold() not in self._all_names:
            self._read()
            if path.name.casefold() not in self._all_names:
                return None
        if not _is_file(path):  # a named pipe would be waited for
            return None
        try:
            key = _key(path, path.name)
        except OSError:  # nobody's to read
            return None
        if key not in self._sources:
            self._read()
        return self._sources.get(key)

    def names_of(self, source: str) -> frozenset[str]:
        """The names of the files that were written for a source; whether they are still there is not asked."""
        with self._recording:
            self._read()
            return frozenset(self._names.get(source, ()))

    def may_replace(self, path: Path, source: Path | str) -> bool:
        """Whether nothing is lost that is not this source's own: an empty file is nobody's."""
        known = self.source_of(path)
        if known is None:
            return not os.path.lexists(path) or (_is_file(path) and path.stat().st_size == 0)
        return known == os.path.realpath(source)

    @contextmanager
    def replacing(self, path: Path, source: Path | str) -> Iterator[Path]:
        """Yield a temporary path as storage.atomic_path does, for a file that is written for this source.

        Raises UserError where another's file is there, before and behind the writing.
        """
        self._check(path, source)
        with storage.atomic_path(path) as temporary:
            yield temporary
            self._check(path, source)
            # before it has its name: a run that is killed in between knows its file again
            self._keep(_key(temporary, path.name), path.name, os.path.realpath(source))

    def write_text(self, path: Path, source: Path | str, text: str) -> None:
        """As storage.write_text does. Raises UserError where another's file is there."""
        with self.replacing(path, source) as temporary:
            temporary.write_text(text, encoding="utf-8", errors=storage.NAME_ERRORS)

    def write_json(self, path: Path, source: Path | str, value: Any) -> None:
        """As storage.write_json does. Raises UserError where another's file is there."""
        self.write_text(path, source, storage.as_json(value, indent=2, sort_keys=True) + "\n")

    def remove(self, path: Path, source: Path | str) -> None:
        """Remove the file if it was written for this source."""
        if self.source_of(path) == os.path.realpath(source):
            path.unlink(missing_ok=True)

    def forget_gone(self) -> None:
        """Take what is no more out of the record, where that is most of it, as where somebody deletes old clips.

        It would else grow for ever, and with it what each reader of it has in memory.
        """
        self._read()
        if not self._read_bytes:
            return
        there = {path.name for path in self._record.parent.iterdir()}
        with self._recording:
            known = set().union(*self._names.values())
            if 2 * len(known & there) > len(known):
                return
            content = self._record.read_bytes()
            lines = content.splitlines(keepends=True)
            older, newest = lines[:-_NEWEST_LINES], lines[-_NEWEST_LINES:]
            kept = [line for line in older if _file_in(line) in there]
            if len(older) < 2 * len(kept) + _NEWEST_LINES:
                return
            with self._record.open("rb") as before:
                before.seek(len(content))
                with storage.atomic_path(self._record) as temporary, temporary.open("wb") as out:
                    out.writelines([*kept, *newest, before.read()])
                # what another run has added until the shorter one had the name
                with self._record.open("ab") as out:
                    out.write(before.read())
            storage.sync_file(self._record)
            self._read()

    def _check(self, path: Path, source: Path | str) -> None:
        if not self.may_replace(path, source):
            raise UserError(
                f"{path} is not what such a run wrote for {source}, and would be replaced. Move it away, or name "
                "another folder"
            )

    def _keep(self, key: str, name: str, source: str) -> None:
        if self._sources.get(key) == source:
            return
        with self._recording:
            with storage.appending_journal(self._record, sync=True) as record:
                record(key, {"file": name, "source": source})
            self._know(key, name, source)


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - never an error


def _file_in(line: bytes) -> str | None:
    """The name of the file that a line of the record is of; None for half a line, of a run that was killed."""
    try:
        return str(json.loads(line)["file"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _key(path: Path, name: str) -> str:
    """What a file of this name and content is found by. Names that differ in capitals alone are one on some disks."""
    with path.open("rb") as f:
        size_bytes = os.fstat(f.fileno()).st_size
        digest = hashlib.sha256(f.read(_END_BYTES))
        f.seek(max(size_bytes - _END_BYTES, f.tell()))
        digest.update(f.read(_END_BYTES))
    return storage.stable_hash([name.casefold(), size_bytes, digest.hexdigest()], digits=32)


def check_file(path: Path, flag: str, what: str, is_one: Callable[[Path], bool], remedy: str) -> None:
    """Raise UserError where a file that a flag names would replace what is not `what`, or is a folder.

    To be asked before the work whose result is written there. `is_one`: whether an existing file is one of `what`; an
    empty one may be anything. `remedy`: what is to be given instead.
    """
    if path.is_dir():
        raise UserError(f"{flag} {path} is a folder. Name a file in it")
    if not os.path.lexists(path):
        return
    if path.is_file() and (path.stat().st_size == 0 or is_one(path)):
        return
    raise UserError(f"{flag} {path} is there already and is not {what}: it would be replaced. {remedy}")


def json_object(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; empty where it holds something else. No more of a large file is read."""
    try:
        with path.open("rb") as f:
            begins = f.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        found = storage.read_json(path) if begins.startswith(b"{") else None
    except (OSError, DamagedFile, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def first_line(path: Path) -> str:
    """The first line of a text; of what is none, whatever stands there."""
    with path.open("rb") as f:
        return f.readline(4096).decode("utf-8-sig", errors="replace").rstrip("\r\n")
