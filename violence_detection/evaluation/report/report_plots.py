"""The plots of the report, as PNG bytes in a light and a dark theme."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from violence_detection.constants import CLASS_NAMES
from violence_detection.evaluation import calibration, metrics
from violence_detection.system.figures import number, percentage

#: Plots that not all predictions allow; a report first removes those that an earlier one left in its folder.
NOT_ALWAYS = ("roc",)
_WIDTH_INCHES, _HEIGHT_INCHES = 5.0, 3.75
#: Height of a row of names, by which a plot grows for each row beyond those that fit into the usual height.
_ROW_INCHES, _ROWS_IN_HEIGHT = 0.45, 6
#: Height of a line of a legend below the axes.
_LEGEND_LINE_INCHES = 0.18
#: Members from which on the legend is below the axes.
_LEGEND_BELOW_FROM = 6
#: Most characters of a name; of a longer one the middle is left out.
_LONGEST_NAME = 26
_DPI = 150
_LINE_STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Theme:
    """Colours of a plot. `faint`: reference lines. `others`: the members.

    `fight` and `nonfight` differ in lightness too, for readers who cannot tell their hues apart.
    """

    ground: str
    text: str
    grid: str
    faint: str
    fight: str
    nonfight: str
    accent: str
    others: tuple[str, ...]


LIGHT = Theme("#ffffff", "#1d2430", "#d5dae2", "#8a94a3", "#b3261e", "#5b8fd6", "#14508c",
              ("#8a5a00", "#4b7f2b", "#7a3f9d", "#00727a", "#9c3d68", "#5f6672"))  # fmt: skip
DARK = Theme("#161b24", "#e6eaf0", "#39424f", "#8a94a3", "#ff8a80", "#5f8fd0", "#8ec5ff",
             ("#e6b450", "#8fce6a", "#cf9bee", "#5bd0d6", "#f08db8", "#aeb6c2"))  # fmt: skip
THEMES: Mapping[str, Theme] = {"light": LIGHT, "dark": DARK}

Drawing = Callable[[Axes, Theme], None]


@dataclass(frozen=True)
class Plot:
    """One plot. `name`: its file name without suffix; `description`: what it shows, in words."""

    name: str
    title: str
    description: str
    draw: Drawing
    height_inches: float = _HEIGHT_INCHES

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of the picture."""
        return round(_WIDTH_INCHES * _DPI), round(self.height_inches * _DPI)


def make_plots(result: Mapping[str, Any], predictions: pd.DataFrame) -> list[Plot]:
    """The plots that these predictions allow; the ROC curve only if there are clips of both classes.

    `result`: what metrics.figures returned for `predictions`.
    """
    known = predictions[predictions[metrics.ENSEMBLE_COLUMN].notna()]
    is_fight = (known["label"] == metrics.FIGHT).to_numpy()
    p = known[metrics.ENSEMBLE_COLUMN].to_numpy(float)
    before = (
        known[metrics.UNCALIBRATED_COLUMN].to_numpy(float)
        if metrics.UNCALIBRATED_COLUMN in known and "calibration" in result
        else None
    )
    threshold = float(result["threshold"])
    (true_non, false_fight), (missed, true_fight) = result["confusion_matrix"]
    plots = [
        Plot(
            "accuracy_by_dataset", "Accuracy by data set",
            _datasets_in_words(result),
            lambda ax, theme: _draw_datasets(ax, theme, result),
            _HEIGHT_INCHES + _ROW_INCHES * max(len(result["by_dataset"]) + 1 - _ROWS_IN_HEIGHT, 0),
        ),
        Plot(
            "confusion_matrix", "Confusion matrix",
            f"{true_fight} of {true_fight + missed} fights were found, {missed} missed; {false_fight} of "
            f"{true_non + false_fight} peaceful clips were called fights.",
            lambda ax, theme: _draw_confusion(ax, theme, np.array(result["confusion_matrix"])),
        ),
        Plot(
            "scores", "Scores by class",
            f"How the scores of fights and of peaceful clips are spread; threshold {number(threshold, 2)}.",
            lambda ax, theme: _draw_scores(ax, theme, is_fight, p, threshold),
        ),
        Plot(
            "reliability", "Reliability",
            f"Observed against predicted share of fights; calibration error {result['ece']:.3f}"
            + ("." if before is None else f", before calibration {result['calibration']['ece_before']:.3f}."),
            lambda ax, theme: _draw_reliability(ax, theme, is_fight, p, before),
        ),
    ]  # fmt: skip
    if result["roc_auc"] is not None:
        averaged = " for the members' average" if len(result["members"]) > 1 else ""
        roc = Plot(
            "roc", "ROC", f"Area under the curve {number(result['roc_auc'])}{averaged}.",
            lambda ax, theme: _draw_roc(ax, theme, predictions),
            _HEIGHT_INCHES + (_LEGEND_LINE_INCHES * (len(result["members"]) + 2) if _has_many(result) else 0),
        )  # fmt: skip
        plots.insert(1, roc)
    return plots


def render(plot: Plot, theme: Theme, note: str = "") -> bytes:
    """Draw a plot as PNG. `note`, such as that the clips are generated, is drawn on it, so that copies keep it."""
    buffer = io.BytesIO()
    canvas = FigureCanvasAgg(drawn(plot, theme, note))
    # not by Figure.savefig, which would draw it twice, first for the layout
    canvas.print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def drawn(plot: Plot, theme: Theme, note: str = "") -> Figure:
    """The figure of a plot in the theme's colours, as `render` saves it."""
    figure = Figure(
        figsize=(_WIDTH_INCHES, plot.height_inches), dpi=_DPI, layout="constrained", facecolor=theme.ground
    )
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    ax.set_facecolor(theme.ground)
    plot.draw(ax, theme)
    ax.set_title(f"{plot.title}\n{note}" if note else plot.title, color=theme.text, fontsize=11)
    ax.tick_params(colors=theme.text, labelsize=9)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_color(theme.text)
    for spine in ax.spines.values():
        spine.set_color(theme.grid)
    for legend in filter(None, (ax.get_legend(), *figure.legends)):
        legend.get_frame().set(facecolor=theme.ground, edgecolor=theme.grid, alpha=0.9)
        for text in legend.get_texts():
            text.set_color(theme.text)
    return figure


def _has_many(result: Mapping[str, Any]) -> bool:
    """Whether there are so many members that a legend inside the axes would hide the curves."""
    return len(result["members"]) >= _LEGEND_BELOW_FROM


def _shortened(name: str) -> str:
    """The name, or only both ends of one so long that it would take the plot's room."""
    half = _LONGEST_NAME // 2 - 1
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]} … {name[-half:]}"


def _datasets_in_words(result: Mapping[str, Any]) -> str:
    rows = result["by_dataset"].items()
    return "; ".join(
        f"{name}: {percentage(row['accuracy'])} % of {row['n']}"
        if row["n"]
        else f"{name}: not judged, 0 of {row['asked']}"
        for name, row in rows
    )


def _draw_datasets(ax: Axes, theme: Theme, result: Mapping[str, Any]) -> None:
    """Draw accuracy and interval of each data set, and those of all clips at the bottom."""
    rows = [("all", result), *sorted(result["by_dataset"].items(), reverse=True)]
    shown = [(name, row) for name, row in rows if row["accuracy"] is not None]
    for y, (name, row) in enumerate(shown):
        colour = theme.accent if name == "all" else theme.text
        low, high = (100 * v for v in row["ci95"])
        ax.plot([low, high], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt")
        ax.plot(100 * row["accuracy"], y, "o", color=colour, markersize=8)
        ax.annotate(percentage(row["accuracy"]), (100 * row["accuracy"], y), (0, 8), color=colour,
                    ha="center", textcoords="offset points", fontsize=9)  # fmt: skip
    ax.set_yticks(range(len(shown)), [f"{_shortened(name)}\nn = {row['n']}" for name, row in shown])
    ax.set_ylim(-0.6, len(shown) - 0.3)
    lowest = min(100 * row["ci95"][0] for _, row in shown)
    ax.set_xlim(min(50.0, np.floor(lowest / 10) * 10), 101)
    ax.axvline(50, color=theme.faint, linestyle=":")
    ax.grid(axis="x", color=theme.grid, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel("accuracy, %, with 95 % interval")


def _draw_roc(ax: Axes, theme: Theme, predictions: pd.DataFrame) -> None:
    from sklearn.metrics import roc_auc_score, roc_curve

    members = metrics.member_names(predictions)
    colours = len(theme.others)
    lines = [
        (
            _shortened(m),
            f"p_{m}",
            theme.others[i % colours],
            1.2,
            _LINE_STYLES[i // colours % len(_LINE_STYLES)],
        )
        for i, m in enumerate(members)
    ]
    whole = "ensemble" if len(members) > 1 else "model"
    lines.append((whole, metrics.ENSEMBLE_COLUMN, theme.accent, 2.6, "-"))
    ax.plot([0, 1], [0, 1], color=theme.faint, linestyle=":", linewidth=1.5)
    for name, column, colour, width, style in lines:
        known = predictions[predictions[column].notna()]
        is_fight = known["label"] == metrics.FIGHT
        if is_fight.nunique() < 2:
            continue
        false_alarm, recall, _ = roc_curve(is_fight, known[column])
        auc = roc_auc_score(is_fight, known[column])
        ax.plot(
            false_alarm, recall, color=colour, linewidth=width, linestyle=style, label=f"{name} {number(auc)}"
        )
    ax.set(
        xlabel="peaceful clips called fights", ylabel="fights found", xlim=(-0.01, 1.01), ylim=(-0.01, 1.02)
    )
    if len(members) < _LEGEND_BELOW_FROM:
        ax.legend(title=None, loc="lower right", fontsize=8)
    else:
        ax.figure.legend(loc="outside lower center", fontsize=8)


def _draw_confusion(ax: Axes, theme: Theme, matrix: np.ndarray) -> None:
    """Draw the counts, shaded by their share of the row; rows are the labels."""
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    for row in range(2):
        for column in range(2):
            colour = theme.accent if row == column else theme.fight
            strength = 0.12 + 0.5 * share[row, column]
            ax.fill_between(
                [column - 0.5, column + 0.5], row - 0.5, row + 0.5, color=colour, alpha=strength, lw=0
            )
            ax.text(column, row, f"{matrix[row, column]}\n{percentage(share[row, column])} %",
                    ha="center", va="center", color=theme.text, fontsize=14)  # fmt: skip
    ax.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5), xlabel="called", ylabel="is")
    ax.set_xticks(range(2), CLASS_NAMES)
    ax.set_yticks(range(2), CLASS_NAMES)


def _draw_reliability(
    ax: Axes, theme: Theme, is_fight: np.ndarray, p: np.ndarray, before: np.ndarray | None
) -> None:
    """Draw the observed against the predicted share of fights; `before`: probabilities before temperature scaling."""
    bins = calibration.calibration_bins(is_fight, p)
    ax.plot([0, 1], [0, 1], color=theme.faint, linestyle=":", linewidth=1.5, label="perfect")
    if before is not None:
        raw = calibration.calibration_bins(is_fight, before)
        ax.plot(raw.p_mean, raw.share, "o--", color=theme.text, linewidth=1, markersize=3, alpha=0.7,
                label="observed, before calibration")  # fmt: skip
    ax.plot(bins.p_mean, bins.share, color=theme.accent, linewidth=1.5, label="observed")
    ax.scatter(bins.p_mean, bins.share, s=20 + 300 * bins.n / len(p), color=theme.accent, alpha=0.75)
    ax.set(xlabel="predicted probability of a fight (dot size: clips)", ylabel="share that are fights",
           xlim=(-0.03, 1.03), ylim=(-0.03, 1.06))  # fmt: skip
    ax.legend(loc="best", fontsize=8)


def _draw_scores(ax: Axes, theme: Theme, is_fight: np.ndarray, p: np.ndarray, threshold: float) -> None:
    edges = np.linspace(0, 1, 21)
    ax.hist([p[~is_fight], p[is_fight]], bins=list(edges), stacked=True, color=[theme.nonfight, theme.fight],
            label=["nonfight", "fight"], edgecolor=theme.ground, linewidth=0.5)  # fmt: skip
    ax.axvline(
        threshold, color=theme.text, linestyle="--", linewidth=1.2, label=f"threshold {number(threshold, 2)}"
    )
    ax.set(xlabel="probability of a fight", ylabel="clips", xlim=(0, 1))
    ax.legend(loc="upper center", fontsize=8)
