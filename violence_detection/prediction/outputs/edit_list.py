"""`edl`: the events as an edit decision list (CMX 3600), which editing programs load as cuts of the video.

Time codes count the video's frames from 00:00:00:00 at its own rate, without drop frames: load the list into a project
of that rate. If the video's rate varies, they count moments at a constant rate. Time codes exist only up to 60 frames a
second: for a higher rate they count every second frame, or every third and so on, whichever comes closest to a whole
number of frames a second.
"""

from __future__ import annotations

from pathlib import Path

from violence_detection.prediction.clock import timecode
from violence_detection.prediction.events import Event, Verdict
from violence_detection.prediction.formats import of_video
from violence_detection.system.figures import number

#: Edits are numbered with three digits; the events beyond go into further files.
_MOST_EDITS = 999
#: The rate for verdicts of earlier versions, which do not tell the video's. Times stay right.
_FPS = 25.0
#: The most frames a second that time codes can count.
_HIGHEST_FPS = 60
#: A higher rate is divided down to one of at least this many frames a second.
_LOWEST_FPS = 24


def _ending(number: int) -> str:
    return f".part{number}.edl" if number > 1 else ".edl"


@of_video("edl", r"(\.part\d+)?\.edl", numbered=_ending)
def edit_list(verdict: Verdict) -> dict[str, str]:
    """Return `<video>.edl`, and `<video>.part2.edl` and so on for more than 999 events."""
    events = verdict.events
    parts = [events[i : i + _MOST_EDITS] for i in range(0, len(events), _MOST_EDITS)] or [()]
    return {_ending(n): _part(verdict, part) for n, part in enumerate(parts, 1)}


def _counted(fps: float) -> float:
    """The rate at which time codes count: that of the video, or above 60 the fraction closest to a whole number."""
    if round(fps) <= _HIGHEST_FPS:
        return fps
    parts = [fps / n for n in range(2, round(fps)) if _LOWEST_FPS <= round(fps / n) <= _HIGHEST_FPS]
    return min(parts, key=lambda part: round(abs(part / round(part) - 1), 3))


def _part(verdict: Verdict, events: tuple[Event, ...]) -> str:
    fps = _counted(verdict.fps or _FPS)
    name = "".join(c if c.isprintable() and c.isascii() else "_" for c in Path(verdict.path).name)
    lines = [f"TITLE: {name}", "FCM: NON-DROP FRAME", ""]
    record = 0
    for n, event in enumerate(events, 1):
        first = round(event.start_s * fps)
        end = max(round(event.end_s * fps), first + 1)
        at = [timecode(frame, fps) for frame in (first, end, record, record + end - first)]
        record += end - first
        lines += [
            f"{n:03d}  AX       V     C        {' '.join(at)}",
            f"* FROM CLIP NAME: {name}",
            f"* COMMENT: VIOLENT, P {number(event.p_violent, 2)}",
            "",
        ]
    return "\n".join(lines)
