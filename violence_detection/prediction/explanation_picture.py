"""Draw an explanation: the window's frames in a row, how much each place and each moment matters, and a legend."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from violence_detection.prediction.clock import minutes
from violence_detection.prediction.explanation import Explanation
from violence_detection.system import storage
from violence_detection.system.figures import number
from violence_detection.system.own_files import WrittenFiles

#: Smallest change of log-odds that gets the full colour, so that noise does not look strong: P from 0.62 to 0.5.
_LEAST_SCALE = 0.5
#: Opacity of the colour on the place that matters most.
_OVERLAY = 0.55
#: Colours of the bars where P falls without the moment, which speaks for violence, and where it rises.
_FOR, _AGAINST = "#b3261e", "#14508c"


def write(explained: Explanation, path: Path, video: Path, written: WrittenFiles | None = None) -> None:
    """Write the picture (JPEG) of an explained window of `video`.

    `written`: the record of the folder, if the caller has it already; by default it is read. Raises UserError if a file
    is there that was not written for this video.
    """
    figure, written = _drawn(explained, video.name), written or WrittenFiles(path.parent)
    with written.replacing(path, video) as temporary, warnings.catch_warnings():
        # letters of a file name that the font lacks become boxes, which needs no warning
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(temporary, format="jpeg", pil_kwargs={"quality": 88})


def _drawn(explained: Explanation, name: str) -> Figure:
    n = len(explained.frames)
    height, width = explained.frames[0].shape[:2]
    rows = [1.0, 0.9, *([0.5] * len(explained.attention))]
    frame_inches = 1.55 * height / width
    # besides the frames, the height has room for the title, the bars with their labels, and the legend
    figure = Figure(
        figsize=(1.55 * n + 0.9, 0.8 + frame_inches * 1.1 + 1.5 * (len(rows) - 1) * 0.8 + 0.9), dpi=150
    )
    grid = figure.add_gridspec(
        len(rows), n, height_ratios=[frame_inches, *(1.3 * r for r in rows[1:])], hspace=0.35, wspace=0.03,
        left=0.06, right=0.985, top=0.86, bottom=0.2,
    )  # fmt: skip
    window = explained.window
    when = f"{minutes(window.start_s)} - {minutes(window.end_s)}"
    title = f"{_in_one_line(name)}   {when}   P(violent) {number(explained.p, 2)}"
    figure.suptitle(title, x=0.06, ha="left", fontsize=11, parse_math=False)
    scale = max(float(np.abs(explained.places).max()), _LEAST_SCALE)
    for i, (time_s, frame) in enumerate(zip(explained.times_s, explained.frames, strict=True)):
        axes = figure.add_subplot(grid[0, i])
        _draw_frame(axes, frame, explained.places, scale)
        axes.set_title(minutes(time_s), fontsize=8)
    _draw_bars(figure.add_subplot(grid[1, :]), explained)
    for row, (member, share) in enumerate(explained.attention.items(), 2):
        axes = figure.add_subplot(grid[row, :])
        axes.bar(np.arange(len(share)), share, width=0.9, color="#556071")
        axes.set_xlim(-0.5, len(share) - 0.5)
        axes.set_xticks([])
        axes.set_ylabel("attention", fontsize=8)
        axes.set_title(storage.utf8_name(member), fontsize=8, loc="left", parse_math=False)
        axes.tick_params(labelsize=7)
    _draw_legend(figure, scale, explained)
    return figure


def _in_one_line(name: str) -> str:
    """Return the name with `_` for characters that cannot be drawn in one line, such as a line break."""
    return "".join(c if c.isprintable() else "_" for c in storage.utf8_name(name))


def _draw_frame(axes: Axes, frame: np.ndarray, places: np.ndarray, scale: float) -> None:
    """Draw the frame with a colour over each place; the more a place matters, the less of the frame shows through."""
    height, width = frame.shape[:2]
    axes.imshow(frame, extent=(0, width, height, 0))
    colours = matplotlib.colormaps["bwr"](0.5 + places / (2 * scale))
    colours[..., 3] = _OVERLAY * np.clip(np.abs(places) / scale, 0, 1)
    axes.imshow(colours, extent=(0, width, height, 0), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])


def _draw_bars(axes: Axes, explained: Explanation) -> None:
    falls = explained.moments
    axes.bar(np.arange(len(falls)), falls, width=0.9, color=[_FOR if f >= 0 else _AGAINST for f in falls])
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xlim(-0.5, len(falls) - 0.5)
    room = max(float(np.abs(falls).max()), _LEAST_SCALE) * 1.3
    axes.set_ylim(min(float(falls.min()) * 1.2, -0.1 * room), room)
    for i, (fall, p) in enumerate(zip(falls, explained.p_without_moments, strict=True)):
        axes.text(i, max(fall, 0), f"P {number(p, 2)}", ha="center", va="bottom", fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_ylabel("without it", fontsize=8)


def _draw_legend(figure: Figure, scale: float, explained: Explanation) -> None:
    axes = figure.add_axes((0.06, 0.1, 0.3, 0.035))
    values = np.linspace(-scale, scale, 101)[None]
    colours = matplotlib.colormaps["bwr"](0.5 + values / (2 * scale))
    colours[..., 3] = _OVERLAY * np.abs(values) / scale
    axes.imshow(colours, aspect="auto", extent=(-scale, scale, 0, 1))
    axes.set_yticks([])
    axes.set_xticks([-scale, 0, scale], ["P rises", "no change", "P falls"], fontsize=8)
    text = (
        "Colour: how the log-odds of P(violent) change if this place is covered throughout the window; without\n"
        f"the place that matters most, P is {number(explained.p_without_places.min(), 2)}. Bars: the same if the "
        "video is held still for this moment,\nwith the P that remains. Red: what the model's P(violent) rests on."
    )
    figure.text(0.4, 0.055, text, fontsize=8, va="bottom")
