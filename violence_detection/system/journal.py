"""A file of JSON lines, one a finished item, that a killed run goes on from.

A line is appended as soon as its item is done. Half a line, left by a process killed while writing, is as good as
absent and takes no other with it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


def read(path: Path, fields: frozenset[str]) -> dict[str, dict[str, Any]]:
    """Entries by their `key`, later lines before earlier ones. Lines without just `key` and `fields` do not count."""
    known: dict[str, dict[str, Any]] = {}
    if not path.is_file():
        return known
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(entry, dict) and set(entry) == {"key", *fields}:
                known[entry.pop("key")] = entry
    return known


@contextlib.contextmanager
def appending(path: Path) -> Iterator[Callable[[str, Mapping[str, Any]], None]]:
    """Yield a function that records (key, fields) as one line, at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _end_torn_line(path)
    with path.open("a", encoding="utf-8") as out:

        def record(key: str, fields: Mapping[str, Any]) -> None:
            out.write(json.dumps({"key": key, **fields}) + "\n")
            out.flush()

        yield record


def _end_torn_line(path: Path) -> None:
    """A run killed while writing leaves half a line; end it, so that the next one is not lost with it."""
    if not path.is_file() or path.stat().st_size == 0:
        return
    with path.open("rb+") as f:
        f.seek(-1, 2)
        if f.read(1) != b"\n":
            f.write(b"\n")
