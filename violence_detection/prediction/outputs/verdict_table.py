"""`table`: a table for people, with a line per video and one for each of its events."""

from __future__ import annotations

from collections.abc import Sequence

from violence_detection.errors import UnreadableVideo
from violence_detection.prediction.clock import minutes
from violence_detection.prediction.events import Verdict
from violence_detection.prediction.formats import of_run
from violence_detection.system.figures import number

_HEAD = ("verdict", "P(violent)", "when", "video")
_NOT_JUDGED = "not judged"


def _is_head(line: str) -> bool:
    return line.split() == list(_HEAD)


@of_run("table", ".txt", _is_head)
def table(verdicts: Sequence[Verdict], failures: Sequence[UnreadableVideo]) -> dict[str, str]:
    """Return `<run>.txt`; at its end come the videos that were not judged, or not shown, with the reason."""
    rows = [_HEAD]
    for verdict in verdicts:
        rows.append((verdict.label, number(verdict.p_violent), _length(verdict), _in_a_line(verdict.path)))
        rows += [("", "", "", _in_a_line(verdict.warning))] if verdict.warning else []
        rows += [
            ("", number(e.p_violent), f"{minutes(e.start_s)} - {minutes(e.end_s)}", "")
            for e in verdict.events
        ]
    judged = {verdict.path for verdict in verdicts}
    for failure in failures:
        verdict_of = "" if failure.path in judged else _NOT_JUDGED
        rows.append((verdict_of, "", "", _in_a_line(f"{failure.path}: {failure.reason}")))
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


def _in_a_line(text: str) -> str:
    """Escape unprintable characters, such as a line break in a file name; undecodable bytes stay as they are."""
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in text)
