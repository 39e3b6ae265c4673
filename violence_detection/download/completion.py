"""The record that a data set is whole: written last, checked later.

`<root>/raw/<dataset>/.complete.json` holds counts, bytes, the source, the archive's SHA-256 and one digest
over the tree; `.files.csv` beside it lists every file with size and SHA-256, `.original_names.json` those
that had to be renamed. The folder gets its name only with all of them inside.
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
#: Files that systems put into folders which a person opens, and change by themselves: no part of a data set.
_OF_SYSTEMS = re.compile(r"\._.*|\.DS_Store|Thumbs\.db|desktop\.ini", re.IGNORECASE | re.DOTALL)
_COLUMNS = ("path", "size_bytes", "sha256")


@dataclass(frozen=True)
class RecordedFile:
    """A published file: path below the data set's folder ("/" separated), size, SHA-256 (hex)."""

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
    """Write names, list and record into `folder`, in this order. Returns the record."""
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
    """The record, or None where there is none. Raises UserError when it is unreadable."""
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    try:
        return dict(storage.read_json(path))
    except (ValueError, TypeError) as e:
        raise UserError(
            f"{path} is damaged ({e}). Remove it to have the folder recorded as it is, or all to fetch anew"
        ) from e


def read_files(folder: Path) -> list[RecordedFile]:
    """The recorded files. Raises UserError when the list does not belong to the record."""
    path = folder / FILES_NAME
    try:
        rows = [RecordedFile(r["path"], int(r["size_bytes"]), r["sha256"]) for r in storage.read_csv(path)]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{path} is missing or damaged ({e}). Remove {folder} to fetch it anew") from e
    if tree_digest(rows) != (read(folder) or {}).get("tree_sha256"):
        raise UserError(f"{path} does not belong to {folder / RECORD_NAME}. Remove {folder} to fetch it anew")
    return rows


def tree_digest(files: Iterable[RecordedFile]) -> str:
    """One SHA-256 (hex) over all paths, sizes and hashes, independent of order."""
    digest = hashlib.sha256()
    for f in sorted(files, key=lambda f: f.path):
        digest.update(f"{f.path}\0{f.size_bytes}\0{f.sha256}\n".encode("utf-8", storage.NAME_ERRORS))
    return digest.hexdigest()


def tree_paths(folder: Path) -> list[str]:
    """All files below `folder` but our own and those of systems, sorted.

    Linked folders, as made by hand, are followed once.
    """
    found = [
        (parent.relative_to(folder) / name).as_posix()
        for parent, _, names in folders.walk(folder)
        for name in names
        if not _OF_SYSTEMS.fullmatch(name)
    ]
    return sorted(p for p in found if p not in OWN_NAMES)


def hash_tree(
    folder: Path, *, workers: int = 4, on_bytes: Callable[[int], None] = lambda n: None
) -> list[RecordedFile]:
    """Size and SHA-256 of every file below `folder`."""

    def one(path: str) -> RecordedFile:
        size_bytes = (folder / path).stat().st_size
        recorded = RecordedFile(path, size_bytes, storage.sha256_file(folder / path))
        on_bytes(size_bytes)
        return recorded

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(one, tree_paths(folder)))


def _checked_files(folder: Path) -> list[RecordedFile]:
    """The recorded files that must stay as they are: an archive may hold files of systems, too."""
    return [f for f in read_files(folder) if not _OF_SYSTEMS.fullmatch(f.path.rpartition("/")[2])]


def quick_problems(folder: Path) -> list[tuple[str, str]]:
    """(path, reason) for recorded files that are missing or have another size; reads no content."""
    problems = []
    for f in _checked_files(folder):
        path = folder / f.path
        if not path.is_file():
            problems.append((f.path, "missing"))
        elif path.stat().st_size != f.size_bytes:
            problems.append((f.path, f"{path.stat().st_size:,} bytes, recorded were {f.size_bytes:,}"))
    return problems


def problems(
    folder: Path, *, workers: int = 4, on_bytes: Callable[[int], None] = lambda n: None
) -> list[tuple[str, str]]:
    """(path, reason) for every file that is missing, changed, unreadable or not in the record; reads everything."""
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
