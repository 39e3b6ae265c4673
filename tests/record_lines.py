"""A long record of written files, as of the outputs of many videos, and a count of the lines read from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from violence_detection.system import storage
from violence_detection.system.own_files import RECORD_NAME


def of_others(folder: Path, number: int) -> None:
    """Write a record that names `number` files of other videos."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"key": str(n), "file": f"{n}.event001.mp4", "source": f"/v/{n}.mp4"} for n in range(number)]
    (folder / RECORD_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))


def counted(replace: Callable[[object, str, object], None]) -> list[bytes]:
    """Return a list that collects the lines of records read from now on. `replace`: setattr of pytest's monkeypatch."""
    read: list[bytes] = []
    journal_entries = storage.journal_entries

    def entries(lines: Iterable[bytes], *how: Any) -> dict[str, dict[str, Any]]:
        taken = list(lines)
        read.extend(taken)
        return journal_entries(taken, *how)

    replace(storage, "journal_entries", entries)
    return read
