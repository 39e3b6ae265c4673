"""Write down an evaluation: the report's folder, the JSON line, and a table for the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from violence_detection.backbones import registry
from violence_detection.datasets.generated.marker import is_generated
from violence_detection.evaluation import (
    by_training,
    checklist,
    clip_groups,
    comparisons,
    elsewhere,
    metrics,
)
from violence_detection.evaluation.audits import label_audit, leakage
from violence_detection.evaluation.measure import Evaluation
from violence_detection.models import run_records
from violence_detection.system import storage
from violence_detection.system.figures import number, percentage
from violence_detection.training import run_folder

log = logging.getLogger(__name__)


def write(scored: Evaluation, folder: Path, command: str) -> Path:
    """Write the report, and what the audits found, into `folder`; return the path of its page, index.html.

    `command`: the command line, for the record.
    """
    from violence_detection.evaluation.report import film_strip
    from violence_detection.evaluation.report import report as report_page

    records, run = scored.model.records, run_records.read(scored.path)
    seen_s, bars_note = _shown_span(scored)
    context = report_page.ReportContext(
        command=command,
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        model=[
            ("members", ", ".join(m.name for m in scored.model.members)),
            ("backbone", ", ".join(scored.model.features.backbone)),
            ("streams", run.streams),
            ("frames a clip", run.frames),
            ("variants a training clip", _by_member(records, lambda r: r["augment"])),
            ("views averaged here", f"{scored.views}{', and a closer look' * scored.model.closer_look}"),
            ("probabilities", scored.result["calibration"]["said"]),
            ("operating point", scored.result["operating_point"]),
            ("clips trained on", _by_member(records, _trained_on)),
            (
                "selection clips (papers: validation)",
                _by_member(records, lambda r: r["clips"]["selection"]),
            ),
            ("manifest it was trained on", _by_member(records, lambda r: r["manifest_sha256"][:12])),
            ("version", _by_member(records, lambda r: r["version"])),
        ],
        seeds=sorted({r["train"]["seed"] for r in records}),
        sample_label=scored.sample_label,
        overlap=scored.overlap,
        split=_split(scored),
        data=scored.clips.kind,
        no_baselines=f"not computed: {scored.clips.no_baselines}",
        baselines=None if scored.clips.train is None else metrics.trivial_baselines(scored.clips.train),
        failures=scored.failures,
        n_failures=scored.n_failures,
        attention=scored.attention,
        by_training=by_training.figures(scored.predictions, scored.model.threshold, scored.overlap.datasets),
        frames=film_strip.frames_below(scored.clips.base, seen_s, scored.model.features.frames),
        bars_note=bars_note,
        set_name=scored.clips.name,
        selected_by=elsewhere.selected_by(scored.model),
        false_alarms=clip_groups.false_alarms(scored.predictions, scored.model.threshold),
        elsewhere={name: elsewhere.record(one) for name, one in scored.elsewhere.items()},
        elsewhere_predictions={name: one.predictions for name, one in scored.elsewhere.items()},
        leave_one_dataset_out=scored.left_out,
        groups=scored.groups,
        audits=scored.audits,
        val_ledger=scored.val_ledger,
        averaged=scored.model.averaged.in_words() if len(scored.model.members) > 1 else "",
        trained_on_all=run.trained_on_all,
        checklist=checklist.fill(_facts(scored, run)),
    )
    _write_audits(scored, folder)
    return report_page.write_report(folder, scored.result, scored.predictions, context)


def _shown_span(scored: Evaluation) -> tuple[float, str]:
    """The seconds in the middle of a clip to show frames of, and a note for the attention drawn below them, or "".

    Without attention the whole window is shown. With it only what the backbones see is shown, as bars below frames that
    no backbone saw would be misplaced; if backbones see spans of different lengths, the whole window with a note.
    """
    window_s = scored.model.features.window_s
    backbones = scored.model.features.backbone
    spans = {min(registry.get(name).sampling.span_s or window_s, window_s) for name in backbones}
    if not any(scored.attention.values()):
        return window_s, ""
    if len(spans) == 1:
        return min(spans), ""
    return window_s, (
        f"Some backbones look only at the middle {min(spans):g} s of a clip: bars that are drawn below all of its "
        "frames may be about these seconds only."
    )


def _write_audits(scored: Evaluation, folder: Path) -> None:
    """Write what the audits found about single clips beside the report: nearest training clips and suspect labels."""
    from violence_detection.evaluation.report import film_strip

    if scored.nearest is not None:
        nearest = scored.nearest.astype(object).where(scored.nearest.notna(), "").to_dict("records")
        storage.write_csv(
            folder / leakage.NEAREST_NAME,
            leakage.NEAREST_COLUMNS,
            ({str(k): v for k, v in r.items()} for r in nearest),
        )
    if scored.suspects is not None:
        root = scored.clips.data_root
        page = label_audit.write(
            scored.suspects,
            folder,
            film_strip.frames_below(
                root / "combined_all", scored.model.features.window_s, scored.model.features.frames
            ),
            is_generated(root),
            root,
        )
        log.info("labels to look at: %s", page)


def _facts(scored: Evaluation, run: run_records.RunRecords) -> checklist.Facts:
    """The facts that fill in the roadmap's checklist."""
    clips, result = scored.clips, scored.result
    return checklist.Facts(
        run=run,
        manifest=clips.train,
        manifest_sha256=clips.manifest_sha256,
        is_val=clips.is_val,
        sample_label=scored.sample_label,
        views=scored.views,
        accuracy=result["accuracy"],
        ci95=result["ci95"],
        n=result["n"],
        coverage=result["coverage"],
        overlap=scored.overlap,
        looks=scored.looks,
        val_ledger=scored.val_ledger,
    )


def _split(scored: Evaluation) -> str:
    """Which clips were judged, and whether the model was trained on the same manifest, in words."""
    clips = scored.clips
    if not clips.manifest_sha256:
        return clips.split
    theirs = {r["manifest_sha256"] for r in scored.model.records}
    which = "the manifest" if theirs == {clips.manifest_sha256} else "another manifest than the one"
    return f"{clips.split} ({clips.manifest_sha256[:12]}), {which} that the model was trained on"


def _trained_on(record: Mapping[str, Any]) -> int:
    """The number of clips that a member was trained on, each counted once however often it is drawn."""
    return int(record.get(run_folder.DISTINCT_KEY, record["clips"]["train"]))


def _by_member(records: Sequence[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], Any]) -> str:
    """The value in each member's record, in words; only once if all members have the same."""
    values = list(dict.fromkeys(str(value(record)) for record in records))
    return values[0] if len(values) == 1 else f"{', '.join(values)} (by member)"


def summary(scored: Evaluation, page: Path) -> dict[str, Any]:
    """The summary that the script prints as a line of JSON."""
    result = scored.result
    figures = ("accuracy", "ci95", "n")
    return {
        **{k: result[k] for k in figures},
        "roc_auc": result["roc_auc"],
        "operating_point": result["operating_point"],
        "threshold": result["threshold"],
        "temperature": result["calibration"]["temperature"],
        "by_dataset": {name: {k: r[k] for k in figures} for name, r in result["by_dataset"].items()},
        "members": [{k: m[k] for k in ("name", "accuracy", "ci95")} for m in result["members"]],
        "plain": {k: result["plain"][k] for k in figures} if "plain" in result else None,
        "compared": [
            {k: row[k] for k in ("report", "n", *comparisons.COMPARED)}
            for row in result["earlier_reports"]["reports"]
        ],
        "elsewhere": {
            name: {k: elsewhere.record(one)[k] for k in (*figures, "unseen", "generated")}
            for name, one in scored.elsewhere.items()
        },
        "shortcut_alarms": [f"{a['dataset']}: {a['check']}" for a in scored.audits["shortcuts"]["alarms"]],
        "generated_samples": scored.generated,
        "clips_trained_on": scored.overlap.same_clip.record()["found"],
        "seen_in_training": scored.overlap.record(),
        "report": str(page),
    }


def log_table(scored: Evaluation, page: Path) -> None:
    """Log the figures as a table."""
    result = scored.result
    rows = [(m["name"], m) for m in result["members"]] if len(result["members"]) > 1 else []
    rows += [("overall, plain clips", result["plain"])] if "plain" in result else []
    rows += [("overall", result)]
    rows += [(f"  {name}", r) for name, r in result["by_dataset"].items()]
    rows += [(f"elsewhere: {name}", one.result) for name, one in scored.elsewhere.items()]
    named = {"": scored, **{f"elsewhere: {name}: ": one for name, one in scored.elsewhere.items()}}
    for name, one in named.items():
        if one.sample_label and (one is scored or one.sample_label != scored.sample_label):
            log.info(
                "%s%s: these figures show that the parts work together; they say nothing about real videos",
                name,
                one.sample_label.upper(),
            )
    log.info("%-28s %8s  %-15s %5s  %s", "", "accuracy", "95 % interval", "n", "AUC")
    for name, r in rows:
        log.info("%-28s %s", name, _row(r))
    for line in comparisons.lines(result["comparisons"], result["earlier_reports"]):
        log.info("%s", line)
    said = result["calibration"]
    log.info("probabilities: %s; calibration error on these clips %.3f", said["said"], said["ece_after"])
    log.info("report: %s", page)


def _row(r: Mapping[str, Any]) -> str:
    """The figures of one row of the table, as text."""
    if not r["n"]:
        return f"not judged, 0 of {r['asked']}"
    interval = " - ".join(map(percentage, r["ci95"]))
    auc = "-" if r["roc_auc"] is None else number(r["roc_auc"])
    short = "" if r["n"] == r["asked"] else f"  {r['n']} of {r['asked']} judged"
    return f"{percentage(r['accuracy']):>7}%  {interval:15} {r['n']:5}  {auc}{short}"
