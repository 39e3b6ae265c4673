"""`edl`: the events as an edit decision list (CMX 3600), which editors load as cuts of the video.

Time codes count the video's frames from 00:00:00:00 at its own rate, without drop frames: load it into a project of
that rate. Of a video whose rate varies they count as a screen of constant rate shows it; of one of more than 60 frames
a second, for which there are no time codes, each second frame, or each third and so on: as leaves whole ones a second.
"""

from __future__ import annotations

from pathlib import Path

from violence_detection.prediction.clock import timecode
from violence_detection.prediction.events import Event, Verdict
from violence_detection.prediction.formats import of_video
from violence_detection.system.figures import number

#: The format numbers its edits with three digits; further ones stand in a further file.
_MOST_EDITS = 999
#: Where the rate is not known (verdicts of before): times stay right, frames are counted at this one.
_FPS = 25.0
#: Time codes count no more frames a second, and no fewer where they need not.
_HIGHEST_FPS, _LOWEST_FPS = 60, 24


def _ending(number: int) -> str:
    return f".part{number}.edl" if number > 1 else ".edl"


@of_video("edl", r"(\.part\d+)?\.edl", numbered=_ending)
def edit_list(verdict: Verdict) -> dict[str, str]:
    """`<video>.edl`, and `<video>.part2.edl` and so on for more than 999 events."""
    events = verdict.events
    parts = [events[i : i + _MOST_EDITS] for i in range(0, len(events), _MOST_EDITS)] or [()]
    return {_ending(n): _part(verdict, part) for n, part in enumerate(parts, 1)}


def _counted(fps: float) -> float:
    """The rate that time codes count at: where it must be a part of the video's, as whole a one as there is."""
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
