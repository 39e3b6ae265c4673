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
#: What each of them has in it, so that it is known as one of a report.
MARKS = {METRICS_NAME: '"accuracy"', PREDICTIONS_NAME: "clip_id", PAGE_NAME: "what the model is worth"}
_FAILURES_SHOWN = 50
_TEMPLATES = Path(__file__).with_name("templates")

#: What stands in place of the trivial baselines where there is nothing to fit them on.
NO_BASELINES = "not computed: no training clips in this set"

#: Keys of `audits` in metrics.json; the page says which are absent.
AUDITS = ("leakage", "shortcuts", "labels")

#: Which judged set a row of predictions.csv is of: val (or train), or the name of own clips or of a set from elsewhere.
SET_COLUMN = "set"
_PUBLISHED_AS = "source_path"  # shown where the predictions have it


@dataclass(frozen=True)
class ReportContext:
    """What the figures cannot tell: where they come from.

    `sample_label`: what figures are labelled with, as the clips, or those trained on, are generated samples; `overlap`
    says what was looked for and found of them in training; `split` says which clips they are; `created` is an ISO date;
    `model` are (name, value) lines that identify it; `failures` are {path, reason} of all sets, `n_failures` of them of
    the judged one; `baselines` come from metrics.trivial_baselines, and are None where there are no training clips to
    fit them on, as `no_baselines` says; `data` says what the clips are; `attention` says where members looked in the
    worst mistakes; `by_training` are the figures of by_training.figures; `sections` are further keys of metrics.json,
    each shown by a partial of the page; `frames` gives some frames of the clip at a path
    (see film_strip.frames_below), and `bars_note` what is to be said of the attention below them.

    `set_name`: what the judged set is called in predictions.csv; `elsewhere` (see elsewhere.record) and
    `elsewhere_predictions` are of further sets, by name; `selected_by`: the rules that chose epoch and threshold;
    `false_alarms`: of the judged set;
    `leave_one_dataset_out`: see elsewhere.left_out; `groups`: set -> tables of clip_groups; `audits`: by name.
    `averaged`: what several members say together, in words. `trained_on_all`: whether training had every labelled
    clip.
    `val_ledger` is the record of val_ledger.Looks, `checklist` what checklist.fill made.
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
    """Write the whole report and return the page's path. metrics.json comes last: without it, it is not done.

    `result` is what metrics.figures gave for `predictions`.
    """
    # files of two runs under one record would be worse than none
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
    """The figures with all that is needed to believe them; JSON-able. The page shows nothing else."""
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

    `record` is that of metrics_record, `film` the frames of each of its mistakes.
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
    """The page's, compiled once for all pages of a process."""
    return pages.environment(_TEMPLATES, page_filters.FILTERS).get_template("report.html.j2")


def _film(mistake: dict[str, Any], frames: FramesMaker | None) -> list[StripFrame]:
    """The frames of a mistake, whose record gets their times, or why there are none."""
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
    """Rows of all sets, sorted by path within each; a clip that was not predicted has an empty score."""
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
