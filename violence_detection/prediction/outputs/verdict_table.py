"""`table`: what people read, a line a video and one for each of its events."""

from __future__ import annotations

from collections.abc import Sequence

from violence_detection.prediction.clock import minutes
from violence_detection.prediction.events import Verdict
from violence_detection.prediction.formats import of_run

_HEAD = ("verdict", "P(violent)", "when", "video")


def _is_head(line: str) -> bool:
    return line.split() == list(_HEAD)


@of_run("table", ".txt", _is_head)
def table(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """`<run>.txt`."""
    rows = [_HEAD]
    for verdict in verdicts:
        rows.append((verdict.label, f"{verdict.p_violent:.3f}", _length(verdict), verdict.path))
        rows += [
            ("", f"{e.p_violent:.3f}", f"{minutes(e.start_s)} - {minutes(e.end_s)}", "")
            for e in verdict.events
        ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]
    return {".txt": "\n".join(lines) + "\n"}


def _length(verdict: Verdict) -> str:
    if verdict.warning:
        return f"{verdict.judged_s:.1f} of {verdict.duration_s:.1f} s"
    return f"{verdict.duration_s:.1f} s"
