"""The report: metrics.json, predictions.csv, plots, and one page that needs no network."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
import pandas as pd

from violence_detection.constants import CLASS_NAMES
from violence_detection.datasets.generated.marker import SAMPLE_LABEL
from violence_detection.errors import UnreadableVideo
from violence_detection.evaluation import metrics
from violence_detection.evaluation.report import report_plots
from violence_detection.evaluation.training_overlap import Overlap
from violence_detection.system import storage
from violence_detection.video import decode, sampling

METRICS_NAME = "metrics.json"
PREDICTIONS_NAME = "predictions.csv"
PAGE_NAME = "index.html"
_MISTAKES_SHOWN = 12
_FAILURES_SHOWN = 50
_STRIP_FRAMES = 6
_STRIP_HEIGHT_PX = 90
_TEMPLATES = Path(__file__).with_name("templates")

#: What stands in place of the trivial baselines where there is nothing to fit them on.
NO_BASELINES = "not computed: no training clips in this set"

#: What stands in place of a figure that these clips do not define, such as the AUC of one class.
_UNDEFINED = "not defined"

_PUBLISHED_AS = "source_path"  # shown where the predictions have it

StripMaker = Callable[[str], bytes]


@dataclass(frozen=True)
class ReportContext:
    """What the figures cannot tell: where they come from.

    `generated`: the clips, or those trained on, are generated samples; `overlap` says what was looked for and found of
    them in training; `split` says which clips they are; `created` is an ISO date; `model` are (name, value) lines
    that identify it; `failures` are {path, reason}; `baselines` come from metrics.trivial_baselines, and are None
    where there are no training clips to fit them on, as `no_baselines` says; `data` says what the clips are;
    `strip` gives the PNG bytes of a clip's frames for its path (see strips_below) and may raise
    UnreadableVideo.
    """

    command: str
    created: str
    model: Sequence[tuple[str, str]]
    seeds: Sequence[int]
    overlap: Overlap
    split: str
    data: str = "published clips"
    title: str = "Violence detection"
    generated: bool = False
    no_baselines: str = NO_BASELINES
    baselines: Mapping[str, Any] | None = None
    failures: Sequence[Mapping[str, str]] = ()
    strip: StripMaker | None = field(default=None, compare=False)


def write_report(
    folder: Path, result: Mapping[str, Any], predictions: pd.DataFrame, context: ReportContext
) -> Path:
    """Write the whole report and return the page's path. metrics.json comes last: without it, it is not done.

    `result` is what metrics.figures gave for `predictions`.
    """
    (folder / METRICS_NAME).unlink(
        missing_ok=True
    )  # files of two runs under one record would be worse than none
    note = SAMPLE_LABEL if context.generated else ""
    plots = report_plots.make_plots(result, predictions)
    images = []
    for plot in plots:
        rendered = {
            name: report_plots.render(plot, theme, note) for name, theme in report_plots.THEMES.items()
        }
        _write_bytes(folder / f"{plot.name}.png", rendered["light"])
        images.append({"plot": plot, **{name: _data_uri(png) for name, png in rendered.items()}})
    _write_predictions(folder / PREDICTIONS_NAME, predictions)
    page = folder / PAGE_NAME
    storage.write_text(page, render_page(result, predictions, context, images))
    storage.write_json(folder / METRICS_NAME, metrics_record(result, context))
    return page


def metrics_record(result: Mapping[str, Any], context: ReportContext) -> dict[str, Any]:
    """The figures with all that is needed to believe them; JSON-able."""
    return {
        **result,
        "data": SAMPLE_LABEL if context.generated else context.data,
        "generated_sample_clips": context.generated,
        "clips_trained_on": context.overlap.same_clip.record()["found"],
        "seen_in_training": context.overlap.record(),
        "split": context.split,
        "command": context.command,
        "created": context.created,
        "model": dict(context.model),
        "seeds": list(context.seeds),
        "baselines": dict(context.baselines) if context.baselines else None,
        "baselines_note": "" if context.baselines else context.no_baselines,
        "failures": [dict(f) for f in _sorted_failures(context)],
    }


def render_page(
    result: Mapping[str, Any],
    predictions: pd.DataFrame,
    context: ReportContext,
    images: Sequence[Mapping[str, Any]],
) -> str:
    """The page as HTML; everything that comes from outside is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["percent"] = _percent
    environment.filters["number"] = _number
    environment.filters["interval"] = _interval
    environment.filters["breakable"] = _breakable
    failures = _sorted_failures(context)
    return environment.get_template("report.html.j2").render(
        result=result,
        context=context,
        images=images,
        classes=CLASS_NAMES,
        sample_label=SAMPLE_LABEL,
        mistakes=_mistakes(predictions, float(result["threshold"]), context.strip),
        wrong=_wrong_count(result),
        failures=failures[:_FAILURES_SHOWN],
        failures_left_out=max(len(failures) - _FAILURES_SHOWN, 0),
        predictions_name=PREDICTIONS_NAME,
    )


def strips_below(root: Path, n_frames: int = _STRIP_FRAMES) -> StripMaker:
    """A maker of frame strips for clips whose paths are below `root`."""
    return lambda path: clip_strip(root / path, n_frames)


def clip_strip(path: Path, n_frames: int = _STRIP_FRAMES, height_px: int = _STRIP_HEIGHT_PX) -> bytes:
    """Evenly spaced frames of a clip side by side, as PNG. Raises UnreadableVideo."""
    import cv2

    def shrink(frame: np.ndarray) -> np.ndarray:
        width_px = max(round(frame.shape[1] * height_px / frame.shape[0]), 1)
        return cv2.resize(frame, (width_px, height_px), interpolation=cv2.INTER_AREA)

    _, frames = decode.read(
        path, lambda info: sampling.sample_indices(info.n_frames, n_frames).tolist(), shrink
    )
    strip = np.concatenate([frames[i] for i in sorted(frames)], axis=1)  # (height_px, sum of widths, 3)
    ok, png = cv2.imencode(".png", strip)
    if not ok:
        raise UnreadableVideo(path, "its frames cannot be written as PNG")
    return png.tobytes()


def _mistakes(predictions: pd.DataFrame, threshold: float, strip: StripMaker | None) -> list[dict[str, Any]]:
    """The worst mistakes as the template shows them."""
    members = metrics.member_names(predictions)
    shown = []
    for row in metrics.worst_mistakes(predictions, threshold, _MISTAKES_SHOWN).to_dict("records"):
        mistake: dict[str, Any] = {key: row[key] for key in ("path", "dataset", "source_group", "label")}
        mistake["p"] = float(row[metrics.ENSEMBLE_COLUMN])
        mistake["members"] = [(m, float(row[f"p_{m}"])) for m in members if pd.notna(row[f"p_{m}"])]
        published = row.get(_PUBLISHED_AS, "")
        mistake["source_path"] = published if published != row["path"] else ""
        mistake["strip"], mistake["strip_missing"] = "", ""
        if strip:
            try:
                mistake["strip"] = _data_uri(strip(str(row["path"])))
            except UnreadableVideo as e:
                mistake["strip_missing"] = e.reason
        shown.append(mistake)
    return shown


def _wrong_count(result: Mapping[str, Any]) -> int:
    (_, false_fights), (missed, _) = result["confusion_matrix"]
    return int(false_fights + missed)


def _write_predictions(path: Path, predictions: pd.DataFrame) -> None:
    """Rows sorted by path; a clip that was not predicted has an empty score."""
    members = [f"p_{m}" for m in metrics.member_names(predictions)]
    others = [c for c in metrics.REQUIRED_COLUMNS if c != metrics.ENSEMBLE_COLUMN]
    published = [_PUBLISHED_AS] if _PUBLISHED_AS in predictions.columns else []
    columns = [*others, *published, *members, metrics.ENSEMBLE_COLUMN]
    ordered = predictions.sort_values(["path", "clip_id"], kind="stable")[columns]
    rows = ordered.astype(object).where(ordered.notna(), "").to_dict("records")
    storage.write_csv(path, columns, ({str(k): v for k, v in row.items()} for row in rows))


def _write_bytes(path: Path, content: bytes) -> None:
    with storage.atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _sorted_failures(context: ReportContext) -> list[Mapping[str, str]]:
    return sorted(context.failures, key=lambda f: (f["path"], f["reason"]))


def _percent(share: float | None) -> str:
    return _UNDEFINED if share is None else f"{100 * share:.1f}\u00a0%"


def _number(value: float | None, digits: int = 3) -> str:
    return _UNDEFINED if value is None else f"{value:.{digits}f}"


def _interval(ci95: Sequence[float] | None) -> str:
    return "–" if ci95 is None else f"{100 * ci95[0]:.1f}–{100 * ci95[1]:.1f}\u00a0%"


def _breakable(name: str) -> markupsafe.Markup:
    """The escaped name, with places where a narrow screen may break it."""
    escaped = str(markupsafe.escape(name))
    return markupsafe.Markup(escaped.replace("_", "_<wbr>").replace("/", "/<wbr>"))  # escaped above
