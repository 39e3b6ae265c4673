"""P(violent) over the time of a video, as an SVG path."""

from __future__ import annotations

from collections.abc import Sequence

from violence_detection.prediction.events import JudgedWindow, stretches

#: Size of the SVG's coordinate system, whatever size it is shown at.
WIDTH, HEIGHT = 1000.0, 100.0
#: More steps than a screen has columns cannot be seen; beyond this, the highest step of each column is drawn.
_MOST_STEPS = 2000
#: Stretches with a gap up to this count as touching: their times are rounded to hundredths of a second.
_TOUCHING_S = 0.011


def path(windows: Sequence[JudgedWindow], duration_s: float) -> str:
    """The path: a step for each window, as wide as the window's stretch, with gaps where nothing was judged.

    `windows`: in order of time. The path can be filled: each part begins and ends at the bottom. Empty without windows.
    """
    parts: list[str] = []
    end_before = -1.0
    for start_s, end_s, p in steps(windows, duration_s):
        left, right, y = x_of(start_s, duration_s), x_of(end_s, duration_s), HEIGHT * (1 - p)
        if start_s - end_before > _TOUCHING_S:
            parts += [f"V{HEIGHT:g}"] if parts else []
            parts.append(f"M{left:g},{HEIGHT:g}")
        parts.append(f"V{y:.2f}H{right:g}")
        end_before = end_s
    return "".join([*parts, f"V{HEIGHT:g}"]) if parts else ""


def x_of(time_s: float, duration_s: float) -> float:
    """The x coordinate of a time, from 0 to WIDTH."""
    return round(WIDTH * min(max(time_s / duration_s, 0.0), 1.0), 2) if duration_s > 0 else 0.0


def steps(windows: Sequence[JudgedWindow], duration_s: float) -> list[tuple[float, float, float]]:
    """(start_s, end_s, P) of each step: that of a window or, in a long video, of a column with its highest P."""
    every = [(a, b, w.p_violent) for w, (a, b) in zip(windows, stretches(windows), strict=True)]
    if len(every) <= _MOST_STEPS:
        return every
    column_s = duration_s / _MOST_STEPS
    out: list[tuple[float, float, float]] = []
    for start_s, end_s, p in every:
        if out and start_s < out[-1][0] + column_s and start_s - out[-1][1] <= _TOUCHING_S:
            first_s, _, before = out[-1]
            out[-1] = first_s, end_s, max(before, p)
        else:
            out.append((start_s, end_s, p))
    return out
