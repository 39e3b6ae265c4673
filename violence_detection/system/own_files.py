"""Protects files from being replaced or removed by a run that did not write them for the same source.

A record in each folder says for which source a file was written, and with what content. A file that somebody else put
there, that was changed since, or that belongs to another source is left alone: the caller chooses another name, or
refuses before the work begins.
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

#: The record in each folder: one JSON line per file.
RECORD_NAME = ".written.jsonl"
_FIELDS = frozenset({"file", "source"})
#: Bytes hashed at the beginning and at the end of a file, to recognise its content. Files up to twice this size are
#: hashed completely.
_END_BYTES = 1 << 18
#: This many lines at the end of a record are never dropped: their files may not have been renamed into place yet.
_NEWEST_LINES = 1000


class WrittenFiles:
    """The files of a folder and the source that each was written for, such as the real path of a video."""

    def __init__(self, folder: Path):
        self._record = folder / RECORD_NAME
        self._recording = threading.RLock()
        self._begin(0)
        self._read()

    def _begin(self, file_number: int) -> None:
        """Forget everything that was read; the record is now the file with this inode number."""
        self._file_number, self._read_bytes = file_number, 0
        self._sources: dict[str, str] = {}
        self._names: dict[str, set[str]] = {}
        #: Case-folded, as in the keys of `_key`.
        self._all_names: set[str] = set()

    def _read(self) -> None:
        """Read lines that this run or others have added since; the whole record if it was replaced by another file."""
        with self._recording:
            if not self._record.is_file():
                return self._begin(0)
            with self._record.open("rb") as lines:
                stat = os.fstat(lines.fileno())
                if stat.st_ino != self._file_number or stat.st_size < self._read_bytes:
                    self._begin(stat.st_ino)
                lines.seek(self._read_bytes)
                for key, entry in storage.journal_entries(self._whole(lines), _FIELDS).items():
                    self._remember(key, str(entry["file"]), str(entry["source"]))

    def _whole(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """The lines up to one that another run has written only partly so far; that one is read next time."""
        for line in lines:
            if not line.endswith(b"\n"):
                return  # later lines are not read: the next one could be the rest of this line, written meanwhile
            self._read_bytes += len(line)
            yield line

    def _remember(self, key: str, name: str, source: str) -> None:
        self._sources[key] = source
        self._names.setdefault(source, set()).add(name)
        self._all_names.add(name.casefold())

    def source_of(self, path: Path) -> str | None:
        """The source that a file of this folder, with its current content, was written for.

        None if the file does not exist, was not written by such a run, was changed since, or cannot be read.
        """
        if path.name.casefold() not in self._all_names:
            self._read()
            if path.name.casefold() not in self._all_names:
                return None
        if not _is_file(path):  # opening a named pipe would block
            return None
        try:
            key = _key(path, path.name)
        except OSError:  # cannot be read
            return None
        if key not in self._sources:
            self._read()
        return self._sources.get(key)

    def names_of(self, source: str) -> frozenset[str]:
        """Names of all files recorded for a source, whether or not they still exist."""
        with self._recording:
            self._read()
            return frozenset(self._names.get(source, ()))

    def may_replace(self, path: Path, source: Path | str) -> bool:
        """Whether `path` is free: it does not exist, is an empty file, or was written for `source` and is unchanged."""
        known = self.source_of(path)
        if known is None:
            return not os.path.lexists(path) or (_is_file(path) and path.stat().st_size == 0)
        return known == os.path.realpath(source)

    @contextmanager
    def replacing(self, path: Path, source: Path | str) -> Iterator[Path]:
        """Yield a temporary path, as storage.atomic_path does, for a file that is written for `source`.

        Raises UserError, before and after the writing, if `path` exists and `may_replace` does not allow it.
        """
        self._check(path, source)
        with storage.atomic_path(path) as temporary:
            yield temporary
            self._check(path, source)
            # recorded before the rename, so that the file is recognised even if this run is killed in between
            self._keep(_key(temporary, path.name), path.name, os.path.realpath(source))

    def write_text(self, path: Path, source: Path | str, text: str) -> None:
        """Like storage.write_text. Raises UserError if `may_replace` does not allow it."""
        with self.replacing(path, source) as temporary:
            temporary.write_text(text, encoding="utf-8", errors=storage.NAME_ERRORS)

    def write_json(self, path: Path, source: Path | str, value: Any) -> None:
        """Like storage.write_json. Raises UserError if `may_replace` does not allow it."""
        self.write_text(path, source, storage.as_json(value, indent=2, sort_keys=True) + "\n")

    def remove(self, path: Path, source: Path | str) -> None:
        """Remove the file if it was written for `source` and is unchanged; else do nothing."""
        if self.source_of(path) == os.path.realpath(source):
            path.unlink(missing_ok=True)

    def forget_gone(self) -> None:
        """Drop deleted files from the record if they are most of it, for example where somebody deletes old clips.

        Otherwise the record, and the memory of every run that reads it, would grow without end.
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
                # lines that another run appended to the old file before the rename
                with self._record.open("ab") as out:
                    out.write(before.read())
            storage.sync_file(self._record)
            self._read()

    def _check(self, path: Path, source: Path | str) -> None:
        if not self.may_replace(path, source):
            raise UserError(
                f"{path} would be replaced, but is not what an earlier run wrote for {source}. Move it away, or name "
                "another folder"
            )

    def _keep(self, key: str, name: str, source: str) -> None:
        if self._sources.get(key) == source:
            return
        with self._recording:
            with storage.appending_journal(self._record, sync=True) as record:
                record(key, {"file": name, "source": source})
            self._remember(key, name, source)


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - never an error


def _file_in(line: bytes) -> str | None:
    """The file name in a line of the record; None if the line is damaged, for example cut off by a killed run."""
    try:
        return str(json.loads(line)["file"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _key(path: Path, name: str) -> str:
    """The key of a file's name and content. The name is case-folded, because some disks do not distinguish case."""
    with path.open("rb") as f:
        size_bytes = os.fstat(f.fileno()).st_size
        digest = hashlib.sha256(f.read(_END_BYTES))
        f.seek(max(size_bytes - _END_BYTES, f.tell()))
        digest.update(f.read(_END_BYTES))
    return storage.stable_hash([name.casefold(), size_bytes, digest.hexdigest()], digits=32)


def check_file(path: Path, flag: str, what: str, is_one: Callable[[Path], bool], remedy: str) -> None:
    """Raise UserError if `path`, given by `flag`, is a folder or an existing file that is not `what`.

    To be called before the work whose result replaces the file. `what`: the expected kind of file, for the message.
    `is_one`: whether an existing file is of that kind; an empty file always passes. `remedy`: ends the message.
    """
    if path.is_dir():
        raise UserError(f"{flag} {path} is a folder. Name a file in it")
    if not os.path.lexists(path):
        return
    if path.is_file() and (path.stat().st_size == 0 or is_one(path)):
        return
    raise UserError(f"{flag} {path} already exists and is not {what}: it would be replaced. {remedy}")


def json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty if the file contains anything else or cannot be read.

    A file that does not begin with `{` is not read further, however large it is.
    """
    try:
        with path.open("rb") as f:
            begins = f.read(64).removeprefix(b"\xef\xbb\xbf").lstrip()
        found = storage.read_json(path) if begins.startswith(b"{") else None
    except (OSError, DamagedFile, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def first_line(path: Path) -> str:
    """The first line of a text file, up to 4,096 bytes; a file that is not text gives whatever its bytes decode to."""
    with path.open("rb") as f:
        return f.readline(4096).decode("utf-8-sig", errors="replace").rstrip("\r\n")
