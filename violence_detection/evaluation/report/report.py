"""The report: metrics.json, predictions.csv, plots, and one page that needs no network."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from violence_detection.constants import CLASS_NAMES
from violence_detection.datasets.generated.marker import SAMPLE_LABEL
from violence_detection.evaluation import checklist, elsewhere, metrics, mistakes
from violence_detection.evaluation.mistakes import Attention
from violence_detection.evaluation.report import film_strip, limits, out_of_set, page_filters, report_plots
from violence_detection.evaluation.report.film_strip import FramesMaker, StripFrame, data_uri
from violence_detection.evaluation.training_overlap import Overlap
from violence_detection.system import pages, storage

METRICS_NAME = "metrics.json"
PREDICTIONS_NAME = "predictions.csv"
PAGE_NAME = "index.html"
#: Text in each of these files, by which it is recognised as part of a report.
MARKS = {METRICS_NAME: '"accuracy"', PREDICTIONS_NAME: "clip_id", PAGE_NAME: "what the model is worth"}
_FAILURES_SHOWN = 50
_TEMPLATES = Path(__file__).with_name("templates")

#: Shown in place of the trivial baselines if there are no clips to fit them on.
NO_BASELINES = "not computed: no training clips in this set"

#: Keys of `audits` in metrics.json; the page says which are absent.
AUDITS = ("leakage", "shortcuts", "labels")

#: Column of predictions.csv with the set that a row is of: val (or train), or the name of own clips or of a set from
#: elsewhere.
SET_COLUMN = "set"
#: Column with the path that a clip was published under; written if the predictions have it.
_PUBLISHED_AS = "source_path"


@dataclass(frozen=True)
class ReportContext:
    """What a report says besides the figures: where they come from.

    The run: `command`, the command line; `created`, an ISO time; `seeds`, those of the training runs; `title`, of the
    page.

    The model: `model`, (name, value) lines that identify it; `averaged`, in words how several members are averaged;
    `trained_on_all`, whether training had every labelled clip; `selected_by`, the rules that chose epoch and threshold;
    `attention`, where members looked in the worst mistakes.

    The judged clips: `set_name`, what they are called in predictions.csv; `split`, which clips they are; `data`, of
    what kind; `sample_label`, the label of all figures if these clips, or those trained on, are generated samples, else
    empty; `overlap`, what of them was looked for and found in training; `failures`, {path, reason} of all sets, of
    which `n_failures` are of this one; `false_alarms`, see clip_groups.false_alarms; `by_training`, see
    by_training.figures; `frames`, which returns frames of the clip at a path (see film_strip.frames_below), and
    `bars_note`, a note for the attention drawn below them; `val_ledger`, the record of val_ledger.Looks.

    Beside them: `baselines`, from metrics.trivial_baselines, or None and `no_baselines`, which says why; `elsewhere`
    (see elsewhere.record) and `elsewhere_predictions`, of further sets, by name; `leave_one_dataset_out`, see
    elsewhere.left_out; `groups`, set -> tables of clip_groups; `audits`, by name; `checklist`, from checklist.fill;
    `sections`, further keys of metrics.json, each of which a partial of the page shows.
    """

    command: str
    created: str
    model: Sequence[tuple[str, str]]
    seeds: Sequence[int]
    overlap: Overlap
    split: str
    data: str = "published clips"
    title: str = "Violence detection"
    sample_label: str = ""
    no_baselines: str = NO_BASELINES
    baselines: Mapping[str, Any] | None = None
    failures: Sequence[Mapping[str, str]] = ()
    n_failures: int = 0
    attention: Attention = field(default_factory=dict)
    by_training: Mapping[str, Any] | None = None
    sections: Mapping[str, Any] = field(default_factory=dict)
    frames: FramesMaker | None = field(default=None, compare=False)
    bars_note: str = ""
    set_name: str = "val"
    selected_by: Mapping[str, str] = field(default_factory=dict)
    false_alarms: Mapping[str, Any] = field(default_factory=dict)
    elsewhere: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    elsewhere_predictions: Mapping[str, pd.DataFrame] = field(default_factory=dict, compare=False)
    leave_one_dataset_out: Mapping[str, Any] | None = None
    groups: Mapping[str, Any] = field(default_factory=dict)
    audits: Mapping[str, Any] = field(default_factory=dict)
    val_ledger: Mapping[str, Any] = field(default_factory=dict)
    averaged: str = ""
    trained_on_all: bool = False
    checklist: Sequence[checklist.Box] = ()

    @property
    def generated(self) -> bool:
        """Whether the clips, or those trained on, are generated samples."""
        return bool(self.sample_label)


def write_report(
    folder: Path, result: Mapping[str, Any], predictions: pd.DataFrame, context: ReportContext
) -> Path:
    """Write the whole report and return the page's path. metrics.json comes last: a report without it is not complete.

    `result`: what metrics.figures returned for `predictions`.
    """
    # an interrupted run must not leave its files beside the record or the page of an earlier one
    for name in (METRICS_NAME, PAGE_NAME):
        (folder / name).unlink(missing_ok=True)
    note = context.sample_label
    images = []
    for name in report_plots.NOT_ALWAYS:
        (folder / f"{name}.png").unlink(missing_ok=True)
    for plot in report_plots.make_plots(result, predictions):
        rendered = {
            name: report_plots.render(plot, theme, note) for name, theme in report_plots.THEMES.items()
        }
        _write_bytes(folder / f"{plot.name}.png", rendered["light"])
        images.append({"plot": plot, **{name: data_uri(png) for name, png in rendered.items()}})
    _write_predictions(
        folder / PREDICTIONS_NAME, {context.set_name: predictions, **context.elsewhere_predictions}
    )
    record = metrics_record(result, predictions, context)
    film = [_film(mistake, context.frames) for mistake in record["mistakes"]]
    page = folder / PAGE_NAME
    storage.write_text(page, render_page(record, context, images, film))
    storage.write_json(folder / METRICS_NAME, record)
    return page


def metrics_record(
    result: Mapping[str, Any], predictions: pd.DataFrame, context: ReportContext
) -> dict[str, Any]:
    """The record for metrics.json: the figures, and what is needed to believe them. The page shows nothing else."""
    record = {
        **result,
        "wrong": _wrong_count(result),
        "n_datasets": sum(row["n"] > 0 for row in result["by_dataset"].values()),
        "data": SAMPLE_LABEL if context.sample_label == SAMPLE_LABEL else context.data,
        "sample_label": context.sample_label,
        "generated_sample_clips": context.generated,
        "clips_trained_on": context.overlap.same_clip.record()["found"],
        "seen_in_training": context.overlap.record(),
        "by_training": dict(context.by_training) if context.by_training else None,
        "split": context.split,
        "command": context.command,
        "created": context.created,
        "model": dict(context.model),
        "seeds": list(context.seeds),
        "baselines": dict(context.baselines) if context.baselines else None,
        "baselines_note": "" if context.baselines else context.no_baselines,
        "set": context.set_name,
        "averaged": context.averaged,
        "trained_on_all": context.trained_on_all,
        "selected_by": dict(context.selected_by),
        **context.false_alarms,
        "elsewhere": dict(context.elsewhere),
        "leave_one_dataset_out": context.leave_one_dataset_out,
        "groups": dict(context.groups),
        "audits": dict(context.audits),
        "val_ledger": dict(context.val_ledger),
        "checklist": [box.record() for box in context.checklist],
        "n_failures": context.n_failures,
        "failures": [dict(f) for f in _sorted_failures(context)],
        "mistakes": mistakes.records(predictions, float(result["threshold"]), context.attention),
        "bars_note": context.bars_note,
        **context.sections,
    }
    record["out_of_set"] = out_of_set.headline(record)
    return {**record, "limits": [asdict(limit) for limit in limits.limits(record, AUDITS)]}


def render_page(
    record: Mapping[str, Any],
    context: ReportContext,
    images: Sequence[Mapping[str, Any]],
    film: Sequence[Sequence[StripFrame]] = (),
) -> str:
    """The page as HTML; everything that comes from outside is escaped.

    `record`: from metrics_record. `images`: each plot with its data URI by theme. `film`: the frames of each mistake in
    the record.
    """
    failures = record["failures"]
    from_elsewhere = elsewhere.worst_first(context.elsewhere)
    return _template().render(
        result=record,
        context=context,
        images=images,
        classes=CLASS_NAMES,
        sample_label=context.sample_label,
        clips_are_drawn=context.sample_label == SAMPLE_LABEL,
        film=film,
        failures=failures[:_FAILURES_SHOWN],
        failures_left_out=max(len(failures) - _FAILURES_SHOWN, 0),
        predictions_name=PREDICTIONS_NAME,
        metrics_name=METRICS_NAME,
        from_elsewhere=from_elsewhere,
    )


@functools.cache
def _template() -> jinja2.Template:
    """The page's template, compiled once per process."""
    return pages.environment(_TEMPLATES, page_filters.FILTERS).get_template("report.html.j2")


def _film(mistake: dict[str, Any], frames: FramesMaker | None) -> list[StripFrame]:
    """The frames of a mistake. Its record gets their times, `frames_s`, or why there are none, `frames_missing`."""
    mistake |= {"frames_s": [], "frames_missing": ""}
    if frames is None:
        return []
    film, mistake["frames_missing"] = film_strip.or_reason(frames, mistake["path"])
    mistake["frames_s"] = [frame.time_s for frame in film]
    return film


def _wrong_count(result: Mapping[str, Any]) -> int:
    (_, false_fights), (missed, _) = result["confusion_matrix"]
    return int(false_fights + missed)


def _write_predictions(path: Path, sets: Mapping[str, pd.DataFrame]) -> None:
    """Write the rows of all sets, sorted by path within each; the score of a clip that was not judged is empty."""
    first = next(iter(sets.values()))
    others = [c for c in metrics.REQUIRED_COLUMNS if c != metrics.ENSEMBLE_COLUMN]
    published = [_PUBLISHED_AS] if _PUBLISHED_AS in first.columns else []
    before = [metrics.UNCALIBRATED_COLUMN] if metrics.UNCALIBRATED_COLUMN in first.columns else []
    columns = [*others, *published, *before, *metrics.probability_columns(first), SET_COLUMN]
    rows: list[dict[Any, Any]] = []
    for name, predictions in sets.items():
        ordered = predictions.sort_values(["path", "clip_id"], kind="stable").assign(**{SET_COLUMN: name})
        rows += ordered[columns].astype(object).where(ordered[columns].notna(), "").to_dict("records")
    storage.write_csv(path, columns, ({str(k): v for k, v in row.items()} for row in rows))


def _write_bytes(path: Path, content: bytes) -> None:
    with storage.atomic_path(path) as temporary:
        temporary.write_bytes(content)


def _sorted_failures(context: ReportContext) -> list[Mapping[str, str]]:
    return sorted(context.failures, key=lambda f: (f["path"], f["reason"]))
