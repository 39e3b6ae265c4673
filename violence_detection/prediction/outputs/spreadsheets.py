"""`csv`: one table of a video's windows and one of its events."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from violence_detection.prediction import kept_windows
from violence_detection.prediction.events import Event, Verdict
from violence_detection.prediction.formats import of_video
from violence_detection.system import storage


@of_video("csv", r"\.(windows|events)\.csv")
def spreadsheets(verdict: Verdict) -> dict[str, str]:
    """Return `<video>.windows.csv` and `<video>.events.csv`."""
    events = [
        {"path": verdict.path, "event": n, **asdict(event)} for n, event in enumerate(verdict.events, 1)
    ]
    return {
        ".windows.csv": _csv(kept_windows.COLUMNS, kept_windows.rows(verdict)),
        ".events.csv": _csv(("path", "event", *(f.name for f in fields(Event))), events),
    }


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    storage.write_rows(out, columns, rows)
    return out.getvalue()
