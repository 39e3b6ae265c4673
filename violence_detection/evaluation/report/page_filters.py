"""Filters of the page's template: they write figures and names, and the small drawings beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import markupsafe

from violence_detection.system.figures import MOST_DIGITS, UNDEFINED, number, p_value, percentage, plural

_NEAR_ONE = 0.95


def percent(share: float | None) -> str:
    """A share in per cent: 0.8 as 80.0 %."""
    return UNDEFINED if share is None else f"{percentage(share)}\u00a0%"


def similarity(cosine: float | None) -> str:
    """A cosine with two decimals; above 0.95 with as many as show how far it is from 1, where limits differ: 0.9989."""
    if cosine is None:
        return UNDEFINED
    digits = 2 if not _NEAR_ONE < cosine < 1 else min(1 - math.floor(math.log10(1 - cosine)), MOST_DIGITS)
    return number(cosine, digits)


def interval(ci95: Sequence[float] | None) -> str:
    """An interval in per cent: (0.5, 0.75) as 50.0–75.0 %."""
    return "–" if ci95 is None else f"{percentage(ci95[0])}–{percentage(ci95[1])}\u00a0%"


def moment(iso: str) -> str:
    """An ISO time as people read it: 2026-01-02T03:04:05+0000 as 2026-01-02 03:04:05 +0000."""
    return re.sub(r"(\d)T(\d\d:\d\d:\d\d)", r"\1 \2 ", iso)


def listed(names: Sequence[str], what: str, most: int = 5) -> str:
    """The names, or, if there are more than `most`, how many of `what` they are."""
    return ", ".join(names) if len(names) <= most else plural(len(names), what)


def breakable(name: str) -> markupsafe.Markup:
    """The escaped name, which a narrow screen may break after _ and /."""
    escaped = str(markupsafe.escape(name))
    return markupsafe.Markup(escaped.replace("_", "_<wbr>").replace("/", "/<wbr>"))  # escaped above


def interval_bar(row: Mapping[str, Any]) -> markupsafe.Markup:
    """An accuracy and its interval, drawn on a line from 0 to 100 % with a mark at 50 %; the page also says them."""
    if row.get("accuracy") is None:
        return markupsafe.Markup("")
    low, high = (100 * v for v in row["ci95"])
    at = 100 * row["accuracy"]
    return markupsafe.Markup(
        '<svg class="interval" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" x="0" y="4" width="100" height="2"/>'
        f'<rect class="span" x="{low:.2f}" y="3" width="{max(high - low, 0.4):.2f}" height="4"/>'
        '<rect class="half" x="49.85" y="1" width=".3" height="8"/>'
        f'<rect class="point" x="{min(max(at - 0.6, 0), 98.8):.2f}" y="0" width="1.2" height="10"/></svg>'
    )


def score_bar(p: float, threshold: float) -> markupsafe.Markup:
    """A probability, drawn as a bar on a line from 0 to 1 with a mark at the threshold."""
    return markupsafe.Markup(
        '<svg class="score" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" x="0" y="2" width="100" height="6"/>'
        f'<rect class="{"fight" if p >= threshold else "nonfight"}" x="0" y="2" width="{100 * p:.2f}" height="6"/>'
        f'<rect class="point" x="{min(100 * threshold, 99.4):.2f}" y="0" width=".6" height="10"/></svg>'
    )


def attention_part(shares: Sequence[float], frame: int, frames: int) -> markupsafe.Markup:
    """Attention bars of the time steps that one frame of a film strip stands for, as an SVG as wide as the frame.

    `shares`: those of all steps of the clip, 1 in sum. `frame`: the number of the frame, of `frames`, from 0. A bar
    that reaches the dashed line counts as much as it would if all steps counted alike. The drawing is at least twice as
    high as that line.
    """
    steps = len(shares)
    width = steps / frames
    start = frame * width
    top = max(max(shares), 2 / steps)
    bars = []
    for step, share in enumerate(shares):
        left, right = max(step - start, 0.0), min(step + 1 - start, width)
        if right - left > 1e-9:
            height = 10 * share / top
            bars.append(
                f'<rect x="{left + 0.06:.3f}" y="{10 - height:.3f}" '
                f'width="{max(right - left - 0.12, 0.02):.3f}" height="{height:.3f}"/>'
            )
    even = 10 - 10 / (steps * top)
    return markupsafe.Markup(
        f'<svg class="attention" viewBox="0 0 {width:.3f} 10" preserveAspectRatio="none" aria-hidden="true">'
        f'{"".join(bars)}<line x1="0" x2="{width:.3f}" y1="{even:.3f}" y2="{even:.3f}"/></svg>'
    )


FILTERS: Mapping[str, Callable[..., Any]] = {
    "percent": percent,
    "number": number,
    "p_value": p_value,
    "similarity": similarity,
    "interval": interval,
    "moment": moment,
    "plural": plural,
    "listed": listed,
    "breakable": breakable,
    "interval_bar": interval_bar,
    "score_bar": score_bar,
    "attention_part": attention_part,
}
