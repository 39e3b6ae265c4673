"""Turn the names in an archive into safe relative paths: none leads outside the folder, and no file replaces another.

A name longer than the file system allows keeps its beginning and its end around a hash of the whole name, because data
sets put the label in front and the source video's id at the end. If file names differ only in case or in Unicode
normalisation, all but the first get a hash too. The unpacked tree is then the same on case-insensitive file systems.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from violence_detection.system import storage

_DEFAULT_NAME_MAX_BYTES = 255
#: Most parts that a path may have, the file name included. Published data sets have about ten.
_MAX_PARTS = 100


class UnsafeName(ValueError):
    """A name that is empty, leads outside the folder, or conflicts with another entry of the archive."""


class Names:
    """The paths for the names of one archive. No path is assigned twice."""

    def __init__(self, max_bytes: int = _DEFAULT_NAME_MAX_BYTES, reserved: Iterable[str] = ()):
        self.max_bytes = max_bytes
        self._files: set[str] = {_fold(path) for path in reserved}
        self._folders: set[str] = set()

    @classmethod
    def for_folder(cls, folder: Path, reserved: Iterable[str] = ()) -> Names:
        """Use the name length limit of the file system that holds `folder`, which need not exist yet.

        Paths in `reserved` are never assigned.
        """
        while not folder.exists():
            folder = folder.parent
        try:
            return cls(os.pathconf(folder, "PC_NAME_MAX"), reserved)
        except (OSError, ValueError, AttributeError):
            return cls(reserved=reserved)

    def file(self, name: str) -> str:
        """Assign a new path, separated by "/", to a file's published name. Raises UnsafeName."""
        parts = [storage.shorten_name(part, self.max_bytes) for part in safe_parts(name)]
        if not parts:
            raise UnsafeName(f"entry {name!r} has no name")
        published = parts[-1]
        path = "/".join(parts)
        attempt = 0
        while _fold(path) in self._files:
            attempt += 1
            parts[-1] = storage.marked_name(published, f"{name}\x1f{attempt}", self.max_bytes)
            path = "/".join(parts)
        if _fold(path) in self._folders:
            raise UnsafeName(f"entry {name!r} is both a file and a folder")
        self._files.add(_fold(path))
        self._add_folders(parts[:-1], name)
        return path

    def folder(self, name: str) -> None:
        """Check a folder's name and note it. Raises UnsafeName. Folders are created only when a file needs them."""
        self._add_folders([storage.shorten_name(part, self.max_bytes) for part in safe_parts(name)], name)

    def _add_folders(self, parts: list[str], name: str) -> None:
        for depth in range(1, len(parts) + 1):
            folded = _fold("/".join(parts[:depth]))
            if folded in self._files:
                raise UnsafeName(f"entry {name!r} is below a file")
            self._folders.add(folded)


def safe_parts(name: str) -> list[str]:
    """Split a relative path into its parts, at "/" and at the backslashes of archives made on Windows.

    Empty parts and "." are dropped. Raises UnsafeName for absolute paths, drive letters, "..", control characters, and
    more than 100 parts.
    """
    unified = name.replace("\\", "/")
    if unified.startswith("/") or re.match(r"[A-Za-z]:", unified):
        raise UnsafeName(f"entry {name!r} has an absolute path")
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise UnsafeName(f"entry {name!r} contains control characters")
    parts = [part for part in unified.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafeName(f"entry {name!r} leads outside its folder")
    if len(parts) > _MAX_PARTS:
        raise UnsafeName(
            f"entry {name[:_MAX_PARTS]!r}... is nested too deeply: more than {_MAX_PARTS} path parts"
        )
    return parts


def _fold(path: str) -> str:
    """A key that is equal for paths that some file systems treat as the same: other case, other normalisation."""
    return unicodedata.normalize("NFC", path).casefold()
