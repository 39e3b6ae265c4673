"""The completion record of a data set: written after everything else, checked later.

`<root>/raw/<dataset>/.complete.json` contains the number of files, their bytes, the source with the archive's SHA-256,
and one digest over all files. `.files.csv` beside it lists every file with its size and SHA-256, and
`.original_names.json` the files that were renamed. The folder gets its final name only when all of these are in it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.datasets.catalogue import COMPLETION_RECORD
from violence_detection.errors import UserError
from violence_detection.system import folders, storage

RECORD_NAME = COMPLETION_RECORD
FILES_NAME = ".files.csv"
NAMES_NAME = ".original_names.json"
OWN_NAMES = frozenset({RECORD_NAME, FILES_NAME, NAMES_NAME})
#: Files that operating systems put into folders and change on their own. They do not belong to a data set.
_SYSTEM_FILES = re.compile(r"\._.*|\.DS_Store|Thumbs\.db|desktop\.ini", re.IGNORECASE | re.DOTALL)
_COLUMNS = ("path", "size_bytes", "sha256")


@dataclass(frozen=True)
class RecordedFile:
    """A file of a data set: its path below the data set's folder, separated by "/", its size and its SHA-256 (hex)."""

    path: str
    size_bytes: int
    sha256: str


def write(
    folder: Path,
    dataset: str,
    source: Mapping[str, Any],
    files: Sequence[RecordedFile],
    renamed: Mapping[str, str],
) -> dict[str, Any]:
    """Write the renamed files (path: published name), the list of files and then the record. Returns the record."""
    files = sorted(files, key=lambda f: f.path)
    if renamed:
        storage.write_json(folder / NAMES_NAME, renamed)
    storage.write_csv(folder / FILES_NAME, _COLUMNS, (vars(f) for f in files))
    record = {
        "dataset": dataset,
        "source": dict(source),
        "files": len(files),
        "bytes": sum(f.size_bytes for f in files),
        "renamed": len(renamed),
        "tree_sha256": tree_digest(files),
    }
    storage.write_json(folder / RECORD_NAME, record)
    return record


def read(folder: Path) -> dict[str, Any] | None:
    """Read the record; None if there is none. Raises UserError when it is damaged."""
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    try:
        return dict(storage.read_json(path))
    except (ValueError, TypeError) as e:
        raise UserError(
            f"{path} is damaged ({e}). Remove it to have the folder recorded as it is, or remove the whole folder to "
            "download it again"
        ) from e


def read_files(folder: Path) -> list[RecordedFile]:
    """Read the recorded files. Raises UserError when the list is missing, damaged, or not the record's."""
    path = folder / FILES_NAME
    try:
        rows = [RecordedFile(r["path"], int(r["size_bytes"]), r["sha256"]) for r in storage.read_csv(path)]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} is missing or damaged ({e}). Remove {folder} to download it again") from e
    if tree_digest(rows) != (read(folder) or {}).get("tree_sha256"):
        raise UserError(f"{path} does not match {folder / RECORD_NAME}. Remove {folder} to download it again")
    return rows


def tree_digest(files: Iterable[RecordedFile]) -> str:
    """One SHA-256 (hex) over all paths, sizes and hashes. The order of `files` does not matter."""
    digest = hashlib.sha256()
    for f in sorted(files, key=lambda f: f.path):
        digest.update(f"{f.path}\0{f.size_bytes}\0{f.sha256}\n".encode("utf-8", storage.NAME_ERRORS))
    return digest.hexdigest()


def tree_paths(folder: Path) -> list[str]:
    """The paths of all files below `folder`, sorted, without our records and files of the operating system.

    Links to folders are followed, each real folder once.
    """
    found = [
        (parent.relative_to(folder) / name).as_posix()
        for parent, _, names in folders.walk(folder)
        for name in names
        if not _SYSTEM_FILES.fullmatch(name)
    ]
    return sorted(p for p in found if p not in OWN_NAMES)


def hash_tree(
    folder: Path, *, workers: int = 4, on_bytes: Callable[[int], None] = lambda n: None
) -> list[RecordedFile]:
    """Read every file that `tree_paths` lists and return its size and SHA-256. `on_bytes` gets each file's size."""

    def one(path: str) -> RecordedFile:
        size_bytes = (folder / path).stat().st_size
        recorded = RecordedFile(path, size_bytes, storage.sha256_file(folder / path))
        on_bytes(size_bytes)
        return recorded

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, tree_paths(folder)))


def _checked_files(folder: Path) -> list[RecordedFile]:
    """The recorded files that must not change: all but system files, which an archive may contain too."""
    return [f for f in read_files(folder) if not _SYSTEM_FILES.fullmatch(f.path.rpartition("/")[2])]


def quick_problems(folder: Path) -> list[tuple[str, str]]:
    """(path, reason) for each recorded file that is missing or has another size, without reading any content."""
    problems = []
    for f in _checked_files(folder):
        path = folder / f.path
        if not path.is_file():
            problems.append((f.path, "missing"))
        elif path.stat().st_size != f.size_bytes:
            problems.append((f.path, f"{path.stat().st_size:,} bytes, but {f.size_bytes:,} were recorded"))
    return problems


def problems(
    folder: Path, *, workers: int = 4, on_bytes: Callable[[int], None] = lambda n: None
) -> list[tuple[str, str]]:
    """(path, reason) for each file that is missing, changed, unreadable or not in the record, sorted. Reads every file.

    `on_bytes` gets the recorded size of each file before it is read.
    """
    found = quick_problems(folder)
    known_bad = {path for path, _ in found}
    recorded = {f.path: f for f in _checked_files(folder)}
    found += [(path, "not in the record") for path in tree_paths(folder) if path not in recorded]
    to_read = [f for path, f in recorded.items() if path not in known_bad]

    def wrong(f: RecordedFile) -> str:
        on_bytes(f.size_bytes)
        try:
            return "" if storage.sha256_file(folder / f.path) == f.sha256 else "content changed"
        except OSError as e:
            return f"cannot be read: {e.strerror}"

    with ThreadPoolExecutor(workers) as pool:
        found += [
            (f.path, reason) for f, reason in zip(to_read, pool.map(wrong, to_read), strict=True) if reason
        ]
    return sorted(found)
