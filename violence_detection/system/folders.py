"""Folders and what is below them: links are followed, but no circle of them is walked for ever."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(
    top: Path, seen: set[str] | None = None, on_error: Callable[[OSError], object] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """(folder, names of its folders, names of its files) of all below `top`, as `os.walk`, links to folders followed.

    Each real folder comes once, whatever links lead to it; which of them is followed does not depend on the file
    system. Folders whose names the caller takes out of the list are not looked into. `seen`: the real paths that
    earlier walks have met; new ones are added. `on_error` is told of folders that cannot be listed.
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
    """The file or folder called `name` below `top` that is fewest folders away, of equals the first by path.

    Links are followed as in `walk`. None where there is none.
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
    """Sorted; none of a folder that cannot be listed."""
    try:
        return [path for path in sorted(folder.iterdir()) if os.path.isdir(path)]  # noqa: PTH112 - never an error
    except OSError:
        return []
