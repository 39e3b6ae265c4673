"""`jsonl`: a line of JSON per window."""

from __future__ import annotations

from violence_detection.prediction import kept_windows
from violence_detection.prediction.events import Verdict
from violence_detection.prediction.formats import of_video
from violence_detection.system import storage


@of_video("jsonl", r"\.windows\.jsonl")
def window_lines(verdict: Verdict) -> dict[str, str]:
    """Return `<video>.windows.jsonl`."""
    return {
        ".windows.jsonl": "".join(f"{storage.as_json(row)}\n" for row in kept_windows.rows(verdict)),
    }
