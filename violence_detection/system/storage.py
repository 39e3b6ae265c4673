"""Reading and writing files so that each is either complete or absent: written under a temporary name, then renamed."""

from __future__ import annotations

import codecs
import contextlib
import csv
import errno
import functools
import hashlib
import json
import logging
import math
import os
import platform
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO

import psutil

from violence_detection.errors import DamagedFile
from violence_detection.system import processes

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
#: Error handler for file names, which are bytes and not always UTF-8: with it, they survive reading and writing.
NAME_ERRORS: Final = "surrogateescape"
#: What `surrogateescape` puts in place of bytes that are not UTF-8 (and any other lone surrogate).
_NO_UTF8 = re.compile("[\ud800-\udfff]")
#: Characters that json.dumps does not escape: lone surrogates, and those that can control a terminal, break a line or
#: reverse the direction of text.
_ESCAPED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: A temporary name as `atomic_path` and the other functions here make it.
_TEMPORARY = re.compile(r"\..*\.(?P<machine>[\w-]+)\.(?P<pid>\d+)-\d+\.tmp(\.[^.]*)?")
_CHUNK_BYTES = 1 << 20
_NAME_HASH_DIGITS = 12
#: Another machine's temporary file that has not changed for this long counts as abandoned.
_ABANDONED_S = 3600.0
#: The columns of a failures file.
FAILURES_COLUMNS = ("path", "reason")
#: Error numbers of a disk that is full, over quota or read-only.
TAKES_NOTHING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
#: The longest file name that file systems accept.
_MOST_NAME_BYTES = 255
#: A temporary name keeps at least this much of the stem.
_SHORTEST_BYTES = 20


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on error it is removed.

    The temporary name keeps the suffix, because some writers choose the format by it, and is unique to this machine,
    process and thread: if several write the same file, the last one to finish wins and the file is complete.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    rest = f"{writer()}.tmp{path.suffix}"
    stem = shorten_name(
        path.stem, max(_MOST_NAME_BYTES - len(os.fsencode(rest)) - len(".."), _SHORTEST_BYTES)
    )
    temporary = path.with_name(f".{stem}.{rest}")
    try:
        with naming(path):
            yield temporary
            sync_file(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def writer() -> str:
    """The part of a temporary name that identifies this machine, process and thread."""
    return f"{machine()}.{os.getpid()}-{threading.get_ident()}"


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Add `path` to an OSError that says that a disk cannot be written: a failed write itself names no file."""
    try:
        yield
    except OSError as e:
        if e.errno in TAKES_NOTHING and e.filename is None:
            e.filename = str(path)
        raise


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """Create an empty marker file in `folder` within the context and yield its path.

    A process or machine that sees the file sees this same folder, not another one at the same path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".mark.{writer()}.tmp.")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@functools.cache
def machine() -> str:
    """An identifier, usable in a file name, of the space in which process numbers are unique.

    That is this machine since its last boot, or a container with process numbers of its own.
    """
    # host names are not unique, nor are the inode numbers of first process namespaces
    numbered_by = []
    with contextlib.suppress(OSError):  # not Linux: process numbers belong to the machine
        numbered_by.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        numbered_by.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return re.sub(r"[^A-Za-z0-9_-]", "_", platform.node() or "unnamed") + "_" + stable_hash(numbered_by, 10)


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files that dead writers left in `folder`, as far as this user may.

    A file of this machine is removed if its process is gone. A file of another machine on a shared volume, or from
    before this machine's last boot, is removed if it has not changed for an hour by the volume's clock.
    """
    now_s = functools.cache(lambda: clock_s(folder))
    for path in sorted(folder.glob(".*.tmp*")):
        writer = _TEMPORARY.fullmatch(path.name)
        if writer is None:  # not made by this module
            continue
        if writer["machine"] == machine():
            is_left = _is_not_of(int(writer["pid"]), path, now_s)
        else:
            is_left = _age_s(path, now_s()) > _ABANDONED_S
        if is_left:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _is_not_of(pid: int, path: Path, now_s: Callable[[], float]) -> bool:
    """Whether the process that wrote the file is gone, so that process `pid` is another one or none.

    A process counts as another one if it started more than an hour after the file's last change: process numbers are
    reused; a container's first process is always number 1. `now_s`: returns the time by the clock of the file's volume.
    """
    if not is_running(pid):
        return True
    try:
        runs_s = time.time() - psutil.Process(pid).create_time()
    except psutil.Error:
        return False
    return _age_s(path, now_s()) > max(runs_s, 0.0) + _ABANDONED_S


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended. A zombie, whose parent has not read its exit status, has ended."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return os.name == "posix" and _is_hidden(pid)


def _is_hidden(pid: int) -> bool:
    """Whether the process exists although /proc hides it from this user (mount option `hidepid`)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def clock_s(folder: Path) -> float:
    """The current time, in seconds since 1970, by the clock that sets the modification times of files in `folder`.

    On a shared volume that may be another machine's clock. Returns this machine's time if `folder` cannot be written.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".clock.{writer()}.tmp.") as f:
            f.write(b".")
            f.flush()
            os.fsync(f.fileno())  # so that the volume sets the time, not this machine's cache
            return Path(f.name).stat().st_mtime
    except OSError:
        return time.time()


def _age_s(path: Path, now_s: float) -> float:
    try:
        return now_s - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def sync_file(path: Path) -> None:
    """Flush the file's content to the disk; to be called before the rename that declares it complete."""
    with path.open("rb+") as f:
        os.fsync(f.fileno())


def sync_files(paths: Iterable[Path]) -> None:
    """`sync_file` for many files in parallel: they share the file system's journal commits, about 12 times as fast."""
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(sync_file, paths):
            pass


def copied(source: Path, to: Path) -> None:
    """Copy a file with its times and permissions, as far as this user may set them: on a network share, perhaps not."""
    shutil.copyfile(source, to)
    with contextlib.suppress(OSError):
        shutil.copystat(source, to)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically. File names in it that are not UTF-8 are written as their original bytes."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=NAME_ERRORS)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    write_text(path, as_json(value, indent=2, sort_keys=True) + "\n")


def as_json(value: Any, **how: Any) -> str:
    """JSON text with non-ASCII letters unescaped; `how`: arguments of json.dumps.

    Beyond what JSON requires, only lone surrogates (bytes of a file name that is not UTF-8) and characters that control
    a terminal are escaped. NaN and infinity, which JSON lacks, become null: such a figure is not defined.
    """
    text = json.dumps(_without_nan(value), allow_nan=False, **{"ensure_ascii": False, **how})
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return value


def read_text(path: Path, errors: str = "strict") -> str:
    """Read text that an editor or spreadsheet may have saved: UTF-8, or UTF-16 with a byte order mark.

    Line ends become "\\n" and a byte order mark is removed. `errors`: NAME_ERRORS if the text may contain file names
    that are not UTF-8. Raises DamagedFile, naming file and line, if the text cannot be decoded.
    """
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig", errors)
    except UnicodeDecodeError as e:
        line = content[: e.start].count(b"\n") + 1
        raise DamagedFile(f"{path} is not valid UTF-8 in line {line} ({e.reason}). Save it as UTF-8") from e
    return with_line_ends(text)


def with_line_ends(text: str) -> str:
    """The text with every line end, even one within a file name, replaced by "\\n", as `read_text` does."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines(text: str) -> list[str]:
    """Split a text at line ends only: `str.splitlines` also splits at other characters, which file names may have."""
    return re.split(r"\r\n|\r|\n", text.removesuffix("\n"))


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DamagedFile, naming the file, and the line of a syntax error."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as e:
        raise DamagedFile(
            f"{path} is damaged: {e.msg} in line {e.lineno}, column {e.colno}. Correct it, or replace it with an "
            "intact copy"
        ) from e
    except (RecursionError, ValueError) as e:
        found = "its lists or objects are nested too deeply" if isinstance(e, RecursionError) else str(e)
        raise DamagedFile(f"{path} is damaged: {found}. Replace it with an intact copy") from e


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` as CSV, atomically. Keys that are not in `columns` are ignored."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors=NAME_ERRORS) as f,
    ):
        write_rows(f, columns, rows)


def write_rows(f: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table with its header to a text file that was opened with `newline=""`.

    The csv module does not quote a lone carriage return, which every reader would take for the end of the row. Rows
    that contain one are therefore written with all cells in quotation marks.
    """
    plain = csv.DictWriter(f, columns, extrasaction="ignore", lineterminator="\n")
    quoted = csv.DictWriter(f, columns, extrasaction="ignore", lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writeheader()
    for row in rows:
        returns = any("\r" in str(row.get(name, "")) for name in columns)
        (quoted if returns else plain).writerow(row)


def quoting_of(table: pd.DataFrame) -> Literal[0, 1]:
    """The `quoting` for `DataFrame.to_csv`: all cells if any contains a carriage return, see `write_rows`."""
    texts = table.select_dtypes(exclude="number")
    returns = any("\r" in str(cell) for name in texts for cell in texts[name])
    return csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table from `write_csv`, even if a spreadsheet has since saved it with a byte order mark.

    Raises DamagedFile, naming the file, if it cannot be parsed.
    """
    with path.open(newline="", encoding="utf-8-sig", errors=NAME_ERRORS) as f:
        try:
            return list(csv.DictReader(f))
        except csv.Error as e:
            raise DamagedFile(f"{path} is damaged ({e}). Replace it with an intact copy") from e


def write_failures(path: Path, failures: Sequence[Mapping[str, str]]) -> None:
    """Write the failures file (columns path, reason), sorted and without credentials; without failures, remove it."""
    if failures:
        # Imported here, because callers that only read files do not need it.
        from violence_detection.system.redaction import without_secrets_in

        told: list[dict[str, str]] = without_secrets_in(list(failures))
        write_csv(path, FAILURES_COLUMNS, sorted(told, key=lambda f: (f["path"], f["reason"])))
    else:
        path.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content as 64 hexadecimal digits. Gives signs of life (processes.beat)."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(_CHUNK_BYTES):
            digest.update(chunk)
            processes.beat()
    return digest.hexdigest()


def stable_hash(value: Any, digits: int = 12) -> str:
    """A hash, in hexadecimal digits, of a value that JSON can represent; independent of machine and key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def stable_seed(*parts: object) -> int:
    """A 63-bit seed derived from the text of `parts` (seed, clip id, variant, ...), and from nothing else."""
    text = "\x1f".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", NAME_ERRORS)).digest()[:8], "big") >> 1


def shorten_name(name: str, max_bytes: int) -> str:
    """The name if it has at most `max_bytes` bytes; else its beginning and end around a hash of the whole name."""
    return name if len(os.fsencode(name)) <= max_bytes else marked_name(name, name, max_bytes)


def utf8_name(name: str) -> str:
    """The name for libraries that accept only UTF-8: each byte that is not valid UTF-8 becomes `_`."""
    return _NO_UTF8.sub("_", name)


def marked_name(name: str, hashed: str, max_bytes: int) -> str:
    """The name with a hash of `hashed`, in at most `max_bytes` bytes.

    `~hash` goes before the suffix; if that is too long, the middle of the name is replaced by `~hash~`.
    """
    mark = f"~{hashlib.sha256(hashed.encode('utf-8', NAME_ERRORS)).hexdigest()[:_NAME_HASH_DIGITS]}"
    stem, dot, suffix = name.rpartition(".")
    whole = f"{stem}{mark}{dot}{suffix}" if stem else f"{name}{mark}"
    if len(os.fsencode(whole)) <= max_bytes:
        return whole
    mark += "~"
    keep_bytes = (max_bytes - len(mark)) // 2
    encoded = os.fsencode(name)
    head = encoded[:keep_bytes].decode("utf-8", "ignore")
    tail = encoded[-keep_bytes:].decode("utf-8", "ignore")
    return f"{head}{mark}{tail}"


def read_journal(
    path: Path,
    fields: frozenset[str],
    optional: frozenset[str] = frozenset(),
    again: frozenset[str] = frozenset(),
) -> dict[str, dict[str, Any]]:
    """The entries of a journal file, see `journal_entries`; none if the file does not exist."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", errors="replace") as lines:
        return journal_entries(lines, fields, optional, again)


def journal_entries(
    lines: Iterable[str | bytes],
    fields: frozenset[str],
    optional: frozenset[str] = frozenset(),
    again: frozenset[str] = frozenset(),
) -> dict[str, dict[str, Any]]:
    """Entries of a journal, JSON lines with one finished item each, by their `key`, in the order of their last lines.

    A line counts if it has `key`, all of `fields`, any of `optional` and nothing else; the last line of a key replaces
    earlier ones. A line with exactly `key` and the fields in `again` confirms the entry of that key and updates these
    fields. All other lines are ignored.
    """
    known: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if not isinstance(entry, dict) or "key" not in entry:
            continue
        key = entry.pop("key")
        if set(entry) - optional == fields:
            known.pop(key, None)
            known[key] = entry
        elif again and set(entry) == again and key in known:
            known[key] = known.pop(key) | entry
    return known


@contextlib.contextmanager
def appending_journal(path: Path, sync: bool = False) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Yield a function that appends (key, fields) as one line at once, so that a killed run can continue from there.

    `sync`: flush each line to the disk before returning, for lines that took long to compute. A partial line, left by a
    killed process or a full disk, is ignored on reading and does not damage the next one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _end_torn_line(path)
    # Unbuffered: a buffer that a full disk refused would be written, and refused, again on closing.
    with path.open("ab", buffering=0) as out:
        is_torn = False

        def record(key: str, fields: Mapping[str, Any]) -> None:
            nonlocal is_torn
            line = json.dumps({"key": key, **fields}, allow_nan=False).encode() + b"\n"
            left = memoryview(b"\n" + line if is_torn else line)
            is_torn = True
            with naming(path):
                while left:
                    left = left[out.write(left) :]
                is_torn = False
                if sync:
                    os.fsync(out.fileno())

        yield record


def _end_torn_line(path: Path) -> None:
    """End a partial line, left by a run killed while writing, so that the next line is not appended to it."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as f:
        f.seek(-1, 2)
        if f.read(1) != b"\n":
            f.write(b"\n")
