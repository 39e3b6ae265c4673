"""Files that are either whole or absent: temporary name, rename, completion record last."""

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
#: Names of files are bytes, and some are no UTF-8: read and written so, they come back as they were.
NAME_ERRORS: Final = "surrogateescape"
_NO_UTF8 = re.compile("[\ud800-\udfff]")
#: What JSON must escape, and what it leaves to us though it controls a terminal, breaks a line or turns letters round.
_ESCAPED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: The name that `atomic_path` gives.
_TEMPORARY = re.compile(r"\..*\.(?P<machine>[\w-]+)\.(?P<pid>\d+)-\d+\.tmp(\.[^.]*)?")
_CHUNK_BYTES = 1 << 20
_NAME_HASH_DIGITS = 12
#: A temporary file of another machine that has not changed for so long has no writer any more.
_ABANDONED_S = 3600.0
FAILURES_COLUMNS = ("path", "reason")
#: What a disk says that takes nothing.
TAKES_NOTHING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
#: What file systems take as a name; and what is left of one at least.
_MOST_NAME_BYTES, _SHORTEST_BYTES = 255, 20


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on error it is removed.

    The temporary name keeps the suffix (some writers choose the format by it) and is unique to this machine, process
    and thread, so several writers of the same file do not disturb each other: the last rename wins, whole.
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
    """Who writes, as part of a temporary name."""
    return f"{machine()}.{os.getpid()}-{threading.get_ident()}"


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an error of a disk that takes nothing name what was written: the system's own names no file."""
    try:
        yield
    except OSError as e:
        if e.errno in TAKES_NOTHING and e.filename is None:
            e.filename = str(path)
        raise


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[Path]:
    """Yield a file of no other content in `folder`, there meanwhile: whoever sees it sees this very folder."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".mark.{writer()}.tmp.")
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


@functools.cache
def machine() -> str:
    """This machine since it was started, or container with process numbers of its own, as part of a file name."""
    numbered_by = []  # names of machines repeat, and so do their first process namespaces
    with contextlib.suppress(OSError):  # not Linux: process numbers are the machine's
        numbered_by.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        numbered_by.append(str(Path("/proc/self/ns/pid").stat().st_ino))
    return re.sub(r"[^A-Za-z0-9_-]", "_", platform.node() or "unnamed") + "_" + stable_hash(numbered_by, 10)


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files that their writers have left behind, as far as this user may.

    A writer on this machine is asked for by its process number; of other machines, on a shared volume, and from before
    this one was started, only what has not changed for an hour goes. What is old the volume's own clock says.
    """
    now_s = functools.cache(lambda: clock_s(folder))
    for path in sorted(folder.glob(".*.tmp*")):
        writer = _TEMPORARY.fullmatch(path.name)
        if writer is None:  # somebody else's way of naming things
            continue
        if writer["machine"] == machine():
            is_left = _is_not_of(int(writer["pid"]), path, now_s)
        else:
            is_left = _age_s(path, now_s()) > _ABANDONED_S
        if is_left:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _is_not_of(pid: int, path: Path, now_s: Callable[[], float]) -> bool:
    """Whether no process with this number can be writing the file: there is none, or it began long behind the last
    change, as in a container whose first process is always number 1. `now_s`: by the clock of the file's volume.
    """
    if not is_running(pid):
        return True
    try:
        runs_s = time.time() - psutil.Process(pid).create_time()
    except psutil.Error:
        return False
    return _age_s(path, now_s()) > max(runs_s, 0.0) + _ABANDONED_S


def is_running(pid: int) -> bool:
    """Whether there is such a process. One that has ended counts as gone, even if nobody has asked how."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return os.name == "posix" and _is_hidden(pid)


def _is_hidden(pid: int) -> bool:
    """Whether there is a process that this user may not see (`hidepid`)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def clock_s(folder: Path) -> float:
    """The time now by the clock that says when files in `folder` were changed, in seconds since 1970.

    On a shared volume that may be another machine's. This one's where nothing can be written there.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".clock.{writer()}.tmp.") as f:
            f.write(b".")
            f.flush()
            os.fsync(f.fileno())  # so that it is the volume's clock, and not this machine's guess at it
            return Path(f.name).stat().st_mtime
    except OSError:
        return time.time()


def _age_s(path: Path, now_s: float) -> float:
    try:
        return now_s - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def sync_file(path: Path) -> None:
    """Have the file's content on the disk before its name tells that it is whole."""
    with path.open("rb+") as f:
        os.fsync(f.fileno())


def sync_files(paths: Iterable[Path]) -> None:
    """`sync_file` for many: side by side they share the journal's commits, a dozen times faster than in turn."""
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(sync_file, paths):
            pass


def copied(source: Path, to: Path) -> None:
    """Copy a file with its times and rights, as far as this user may set them: on another's share nobody else may."""
    shutil.copyfile(source, to)
    with contextlib.suppress(OSError):
        shutil.copystat(source, to)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically. File names that are no UTF-8 are written as the bytes that they are."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors=NAME_ERRORS)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, atomically."""
    write_text(path, as_json(value, indent=2, sort_keys=True) + "\n")


def as_json(value: Any, **how: Any) -> str:
    """JSON with letters as they are, but for what stands in Python for the bytes of a file name that is no UTF-8, and
    for what would control a terminal.

    What is no number (NaN, infinite) becomes null: JSON has no word for it, and a figure that is not defined is none.
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
    """Text that a person may have saved: UTF-8, or UTF-16 that says so, as editors and spreadsheets write them.

    Lines end in "\\n" and a byte order mark is left out. `errors`: NAME_ERRORS where names of files may be no UTF-8.
    Raises DamagedFile, naming file and line, for what is neither.
    """
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf16 else "utf-8-sig", errors)
    except UnicodeDecodeError as e:
        line = content[: e.start].count(b"\n") + 1
        raise DamagedFile(f"{path} is no UTF-8 text in line {line} ({e.reason}). Save it as UTF-8") from e
    return with_line_ends(text)


def with_line_ends(text: str) -> str:
    """The text as `read_text` gives it: each line end is one "\n", also one in the name of a file."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines(text: str) -> list[str]:
    """The lines of a text file, also where a name in it has characters that `str.splitlines` takes for their ends."""
    return re.split(r"\r\n|\r|\n", text.removesuffix("\n"))


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DamagedFile, naming the file, and the line where it is one."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as e:
        raise DamagedFile(
            f"{path} is damaged: {e.msg} in line {e.lineno}, column {e.colno}. Mend it, or put a whole one in its place"
        ) from e
    except (RecursionError, ValueError) as e:
        found = "lists or objects within others without end" if isinstance(e, RecursionError) else str(e)
        raise DamagedFile(f"{path} is damaged: {found}. Put a whole one in its place") from e


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows (mappings with at least `columns`) as CSV, atomically."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors=NAME_ERRORS) as f,
    ):
        write_rows(f, columns, rows)


def write_rows(f: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table with its header to a text file that leaves ends of lines alone (`newline=""`).

    csv quotes no carriage return that stands alone, and each reader takes it for the end of a row: a row with one has
    all its cells in quotation marks.
    """
    plain = csv.DictWriter(f, columns, extrasaction="ignore", lineterminator="\n")
    quoted = csv.DictWriter(f, columns, extrasaction="ignore", lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writeheader()
    for row in rows:
        returns = any("\r" in str(row.get(name, "")) for name in columns)
        (quoted if returns else plain).writerow(row)


def quoting_of(table: pd.DataFrame) -> Literal[0, 1]:
    """How `DataFrame.to_csv` is to quote a table: all cells where one has a carriage return, as `write_rows` says."""
    texts = table.select_dtypes(exclude="number")
    returns = any("\r" in str(cell) for name in texts for cell in texts[name])
    return csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table that `write_csv` wrote, also where a spreadsheet has saved it with a byte order mark.

    Raises DamagedFile, naming the file, for what is no table.
    """
    with path.open(newline="", encoding="utf-8-sig", errors=NAME_ERRORS) as f:
        try:
            return list(csv.DictReader(f))
        except csv.Error as e:
            raise DamagedFile(f"{path} is damaged ({e}). Put a whole one in its place") from e


def write_failures(path: Path, failures: Sequence[Mapping[str, str]]) -> None:
    """Write the failures file (columns path, reason); without failures an old one is removed."""
    if failures:
        from violence_detection.system.redaction import without_secrets_in  # who reads only needs none

        told: list[dict[str, str]] = without_secrets_in(list(failures))
        write_csv(path, FAILURES_COLUMNS, sorted(told, key=lambda f: (f["path"], f["reason"])))
    else:
        path.unlink(missing_ok=True)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(_CHUNK_BYTES):
            digest.update(chunk)
            processes.beat()
    return digest.hexdigest()


def stable_hash(value: Any, digits: int = 12) -> str:
    """Hash of a JSON-able value: the same on any machine and in any key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts (seed, clip id, variant ...), independent of order of calls."""
    text = "\x1f".join(str(p) for p in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", NAME_ERRORS)).digest()[:8], "big") >> 1


def shorten_name(name: str, max_bytes: int) -> str:
    """A name of at most `max_bytes` in UTF-8; a longer one keeps both ends around a hash of the whole."""
    return name if len(os.fsencode(name)) <= max_bytes else marked_name(name, name, max_bytes)


def utf8_name(name: str) -> str:
    """A name that libraries take which know no other than UTF-8: `_` for each byte that is none."""
    return _NO_UTF8.sub("_", name)


def marked_name(name: str, hashed: str, max_bytes: int) -> str:
    """`name` with `~hash~` in the middle of a long name, before the suffix of a short one."""
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
    """The entries of a file of JSON lines, see journal_entries; none where there is no such file."""
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
    """Entries of JSON lines, one a finished item, by their `key`, in the order of their last lines.

    Of a key the last line counts. A line of just `key` and `again` says that an earlier one holds again, and changes
    these fields of it. Other lines without just `key` and `fields`, and some of `optional`, do not count.
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
    """Yield a function that records (key, fields) as one line, at once, so that a killed run goes on from there.

    `sync`: have each line on the disk before going on, for lines that took long to make. Half a line, left by a process
    killed while writing or by a full disk, is as good as absent and takes no other with it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _end_torn_line(path)
    # Without a buffer: what a full disk has refused would be written once more on closing, and refused again.
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
    """A run killed while writing leaves half a line; end it, so that the next one is not lost with it."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as f:
        f.seek(-1, 2)
        if f.read(1) != b"\n":
            f.write(b"\n")
