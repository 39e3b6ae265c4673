"""`srt`: the events as subtitles (SubRip), which players show while the video plays."""

from __future__ import annotations

from violence_detection.prediction.clock import subtitle_time
from violence_detection.prediction.events import Verdict
from violence_detection.prediction.formats import of_video
from violence_detection.system.figures import number


@of_video("srt", r"\.srt")
def subtitles(verdict: Verdict) -> dict[str, str]:
    """Return `<video>.srt`; without events it is empty."""
    shown = [
        f"{n}\n{subtitle_time(e.start_s)} --> {subtitle_time(e.end_s)}\nviolent, P {number(e.p_violent, 2)}\n\n"
        for n, e in enumerate(verdict.events, 1)
    ]
    return {".srt": "".join(shown)}
