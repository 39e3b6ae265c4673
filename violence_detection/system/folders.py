"""Walks through folders that follow symbolic links without running in circles."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(
    top: Path, seen: set[str] | None = None, on_error: Callable[[OSError], object] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield (folder, names of its folders, names of its files) for `top` and all folders below, following links.

    Like `os.walk`, but each real folder is yielded once, however many links lead to it. Names are sorted, so which link
    is followed does not depend on the file system. Folders whose names the caller removes from the list are skipped.
    `seen`: real paths that earlier walks have visited, which are skipped; this walk adds its own. `on_error`: called
    with the error of each folder that cannot be listed.
    """
    seen = set() if seen is None else seen
    for folder, subfolders, names in os.walk(top, followlinks=True, onerror=on_error):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders.sort()
        yield Path(folder), subfolders, sorted(names)


def nearest(name: str, top: Path) -> Path | None:
    """The file or folder `name` fewest levels below `top`; among equals, the first by sorted path. None if none exists.

    Links are followed as in `walk`.
    """
    seen: set[str] = set()
    level = [top]
    while level:
        below: list[Path] = []
        for folder in level:
            real = os.path.realpath(folder)
            if real in seen:
                continue
            seen.add(real)
            if os.path.lexists(folder / name):
                return folder / name
            below += _folders_in(folder)
        level = below
    return None


def _folders_in(folder: Path) -> list[Path]:
    """The subfolders, sorted; none if the folder cannot be listed."""
    try:
        return [path for path in sorted(folder.iterdir()) if os.path.isdir(path)]  # noqa: PTH112 - never an error
    except OSError:
        return []
