"""Names in archives become safe relative paths: nothing outside the folder, nothing lost.

A name longer than the file system allows keeps its beginning and its end (data sets put labels in front and
the source video's id behind) around a hash of the whole; files whose names differ only in case get a hash
too, so that the tree is the same on file systems that do not tell case apart.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from violence_detection.system import storage

_DEFAULT_NAME_MAX_BYTES = 255
#: Of folders in folders; data sets have some ten.
_MOST_DEEP = 100


class UnsafeName(ValueError):
    """A name that leads outside the folder or cannot stand beside another."""


class Names:
    """Turns the names of one archive into paths, remembering those given out."""

    def __init__(self, max_bytes: int = _DEFAULT_NAME_MAX_BYTES, reserved: Iterable[str] = ()):
        self.max_bytes = max_bytes
        self._files: set[str] = {_fold(path) for path in reserved}
        self._folders: set[str] = set()

    @classmethod
    def for_folder(cls, folder: Path, reserved: Iterable[str] = ()) -> Names:
        """With the limit of the file system that holds `folder`; paths in `reserved` are not given out."""
        while not folder.exists():
            folder = folder.parent
        try:
            return cls(os.pathconf(folder, "PC_NAME_MAX"), reserved)
        except (OSError, ValueError, AttributeError):
            return cls(reserved=reserved)

    def file(self, name: str) -> str:
        """The path, "/" separated, for a file's published name; never given out before. Raises UnsafeName."""
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
            raise UnsafeName(f"entry {name!r} is a file and a folder at once")
        self._files.add(_fold(path))
        self._add_folders(parts[:-1], name)
        return path

    def folder(self, name: str) -> None:
        """Check a folder's name. Folders are made when a file needs them."""
        self._add_folders([storage.shorten_name(part, self.max_bytes) for part in safe_parts(name)], name)

    def _add_folders(self, parts: list[str], name: str) -> None:
        for depth in range(1, len(parts) + 1):
            folded = _fold("/".join(parts[:depth]))
            if folded in self._files:
                raise UnsafeName(f"entry {name!r} lies below a file")
            self._folders.add(folded)


def safe_parts(name: str) -> list[str]:
    """The parts of a relative path. Backslashes separate too: archives made on Windows hold them.

    Raises UnsafeName for absolute paths, drive letters, "..", control characters, and folders too many deep.
    """
    unified = name.replace("\\", "/")
    if unified.startswith("/") or re.match(r"[A-Za-z]:", unified):
        raise UnsafeName(f"entry {name!r} has an absolute path")
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise UnsafeName(f"entry {name!r} holds control characters")
    parts = [part for part in unified.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UnsafeName(f"entry {name!r} leads outside its folder")
    if len(parts) > _MOST_DEEP:
        raise UnsafeName(f"entry {name[:_MOST_DEEP]!r}... lies more than {_MOST_DEEP} folders deep")
    return parts


def _fold(path: str) -> str:
    """Equal for paths that some file system takes for one and the same."""
    return unicodedata.normalize("NFC", path).casefold()
