"""Measure events in recordings whose fights are known: recall, false events an hour and delay, at all thresholds.

    python benchmarks/bench_recordings.py --recordings recordings --models MODEL --output bench
    python benchmarks/bench_recordings.py --recordings recordings --models FOLD_0 FOLD_1 --output bench --tune
    python benchmarks/bench_recordings.py --recordings recordings --output bench --tune     # judges nothing

--recordings is the folder that make_recordings.py wrote, and --models the models that it was run with: one for all
parts, or one per part. Verdicts are kept in that folder (judged.json.journal.jsonl). If the command is killed, running
it again continues where it was; without --models, the recordings that are judged already are measured. What counts as
found, and what the intervals are, is described in benchmarks/event_figures.py. These rules are compared:
    touching   windows at or above the threshold that touch are one event (the former rule)
    events     find_events with the given settings (--smoothing-s ...), at each threshold
    tuned      with --tune: settings chosen on recordings of half of the sources, measured on the other half, both ways
--tune needs two sets of recordings that share no source. --calibrated measures thresholds of each camera, chosen on
quiet footage as test_violence_model.py --calibrate chooses them (benchmarks/event_calibration.py). --operating-points
measures the thresholds that are stored with the models: each part at those of its own model.

Writes <output>/curves.csv, curves.png and figures.json, and prints one JSON line.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import event_calibration, event_figures, event_points, event_rules, event_tuning
from benchmarks.event_figures import MEASURES, Recording, Shown, Tally
from benchmarks.event_rules import Rule
from benchmarks.event_tuning import BALANCED, FEW
from violence_detection import cli
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction import batch, kept_windows, verdict_journal
from violence_detection.prediction.config import EventConfig, PredictConfig
from violence_detection.prediction.events import Verdict
from violence_detection.system import console, disks, storage
from violence_detection.system.console import log

_JUDGED = "judged.json"


def main(argv: Sequence[str] | None = None) -> int:
    p = cli.parser(__doc__)
    p.add_argument("--recordings", type=Path, required=True, help="output folder of make_recordings.py")
    p.add_argument(
        "--models", type=Path, nargs="+", default=[], help="one model for all parts, or one per part"
    )
    p.add_argument(
        "--output", type=Path, default=Path("bench_recordings"), help="(default: bench_recordings)"
    )
    p.add_argument(
        "--tune", action="store_true", help="choose the events' settings on one half, measure on the other"
    )
    p.add_argument(
        "--calibrated",
        action="store_true",
        help="measure thresholds chosen on quiet footage of the same camera's other sources",
    )
    p.add_argument(
        "--operating-points", action="store_true", help="measure the thresholds stored with --models"
    )
    cli.add_config(p, PredictConfig, skip=("model", "operating_point"))
    args = cli.parse(p, argv)
    args.output.mkdir(parents=True, exist_ok=True)
    disks.check_writable(args.output, "--output")
    configs = [
        cli.build(PredictConfig, argparse.Namespace(**vars(args), model=model)) for model in args.models
    ]
    settings = cli.build(EventConfig, args)
    points = [event_points.thresholds(m, settings.threshold) for m in args.models if args.operating_points]
    if args.operating_points and not points:
        raise UserError(
            "--operating-points needs the models that have the thresholds: name them with --models"
        )
    failures = judge(args.recordings, configs) if configs else []
    recordings, missing = read(args.recordings, settings)
    if missing:
        log.warning("%d recordings are not judged; the figures are those of the others", missing)
    summary = {
        "recordings": len(recordings),
        "not_judged": missing,
        "hours": round(sum(r.duration_s for r in recordings) / 3600, 2),
        "fights": sum(len(r.fights) for r in recordings),
        "sources": len({piece.source for r in recordings for piece in r.shown}),
        **measured(recordings, settings, args.output),
        **({"tuned": event_tuning.tuned(recordings, settings)} if args.tune else {}),
        **({"calibrated": event_calibration.calibrated(recordings, settings)} if args.calibrated else {}),
        **({"operating_points": event_points.measured(recordings, settings, points)} if points else {}),
        "failures": failures,
    }
    storage.write_json(args.output / "figures.json", summary)
    cli.print_summary(summary)
    return cli.exit_code(failures)


def judge(folder: Path, configs: Sequence[PredictConfig]) -> list[dict[str, str]]:
    """Judge the recordings of a folder that exist and are not judged yet; return the failures.

    `configs`: one for all parts, or one per part. Raises UserError for any other number.
    """
    rows = storage.read_csv(_table(folder, "recordings.csv"))
    parts = len({row["part"] for row in rows})
    if len(configs) not in (1, parts):
        raise UserError(
            f"the recordings have {parts} parts: name one model with --models, or one per part in order"
        )
    journal = verdict_journal.path_for(folder / _JUDGED)
    failures = []
    for i, config in enumerate(configs):
        paths = [folder / row["file"] for row in rows if len(configs) == 1 or row["part"] == str(i)]
        judged = batch.judge_all([path for path in paths if path.is_file()], config, journal)
        failures += [v.failure() for v in judged if isinstance(v, UnreadableVideo)]
    return failures


def read(folder: Path, settings: EventConfig) -> tuple[list[Recording], int]:
    """The judged recordings of a folder, and how many are not judged. Raises UserError if none have been judged."""
    journal = verdict_journal.path_for(folder / _JUDGED)
    if not journal.is_file():
        raise UserError(f"the recordings in {folder} have not been judged: name the model with --models")
    verdicts = {Path(v.path).name: v for v in kept_windows.read(journal, settings)}
    fights = _by_file(storage.read_csv(_table(folder, "truth.csv")))
    footage = _by_file(storage.read_csv(_table(folder, "footage.csv")))
    rows = storage.read_csv(_table(folder, "recordings.csv"))
    found = [
        _recording(row, verdicts[row["file"]], fights.get(row["file"], []), footage[row["file"]])
        for row in rows
        if row["file"] in verdicts
    ]
    return found, len(rows) - len(found)


def _table(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise UserError(
            f"{folder} contains no {name}: make the recordings with benchmarks/make_recordings.py"
        )
    return path


def _by_file(rows: Iterable[Mapping[str, str]]) -> dict[str, list[Mapping[str, str]]]:
    out: dict[str, list[Mapping[str, str]]] = {}
    for row in rows:
        out.setdefault(row["file"], []).append(row)
    return out


def _recording(
    row: Mapping[str, str], verdict: Verdict, fights: Sequence[Mapping[str, str]],
    footage: Sequence[Mapping[str, str]],
) -> Recording:  # fmt: skip
    return Recording(
        row["file"],
        row["style"],
        float(row["duration_s"]),
        verdict.windows,
        tuple((float(f["start_s"]), float(f["end_s"])) for f in fights),
        tuple(Shown(float(f["start_s"]), f["source"]) for f in footage),
        int(row["part"]),
    )


def measured(recordings: Sequence[Recording], settings: EventConfig, output: Path) -> dict[str, Any]:
    """Measure both rules at all thresholds; write curves.csv and curves.png, return figures at some thresholds."""
    rules: dict[str, Rule] = {
        "touching": event_rules.touching_windows,
        "events": event_rules.by_settings(settings),
    }
    tallies = {name: event_figures.tally(recordings, rule) for name, rule in rules.items()}
    waits = {
        name: [event_figures.delays(recordings, rule, t) for t in event_figures.THRESHOLDS]
        for name, rule in console.progress(list(rules.items()), total=len(rules), desc="delays")
    }
    columns, rows = curve_rows(tallies, waits)
    storage.write_csv(output / "curves.csv", columns, rows)
    draw(output / "curves.png", tallies, waits)
    at_half = event_figures.THRESHOLDS.index(0.5)
    out: dict[str, Any] = {}
    for name, found in tallies.items():
        points = {
            "at_0.5": at_half,
            "at_1_an_hour": found.at_rate(BALANCED),
            "at_0.1_an_hour": found.at_rate(FEW),
        }
        out[name] = {
            point: {**event_figures.figures_at(found, number), "delay_s": _delay(waits[name][number])}
            for point, number in points.items()
        } | {"mean_recall": round(found.froc(), 4), "by_style_at_0.5": by_style(recordings, rules[name])}
    return out


def by_style(recordings: Sequence[Recording], rule: Rule) -> dict[str, Any]:
    """Recall by overlap and false events an hour of each data set at threshold 0.5."""
    out = {}
    for style in sorted({r.style for r in recordings}):
        found = event_figures.tally([r for r in recordings if r.style == style], rule, [0.5])
        out[style] = {
            "hours": round(float(found.of("hours").sum()), 2),
            "fights": int(found.of("fights").sum()),
            "recall_by_overlap": event_figures.rounded(found.ratio("by_overlap", "fights")[0]),
            "false_an_hour": event_figures.rounded(found.ratio("false", "hours")[0]),
        }
    return out


def _delay(waits: Sequence[float]) -> dict[str, float | None]:
    """Median and 90th percentile of the delays; None for each if there are none."""
    if not waits:
        return {"median": None, "p90": None}
    return {"median": round(float(np.median(waits)), 2), "p90": round(float(np.quantile(waits, 0.9)), 2)}


def curve_rows(
    tallies: Mapping[str, Tally], waits: Mapping[str, Sequence[Sequence[float]]]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of curves.csv: a row for each rule and threshold."""
    rows: list[dict[str, Any]] = []
    for name, found in tallies.items():
        columns: dict[str, Any] = {}
        for figure, over, under in MEASURES:
            columns[figure] = found.ratio(over, under)
            for by in ("recording", "source"):
                columns[f"{figure}_low_by_{by}"], columns[f"{figure}_high_by_{by}"] = found.interval(
                    over, under, by
                )
        for i, threshold in enumerate(found.thresholds):
            delay = _delay(waits[name][i])
            rows.append(
                {"rule": name, "threshold": threshold}
                | {column: event_figures.rounded(values[i]) for column, values in columns.items()}
                | {"delay_s_median": delay["median"], "delay_s_p90": delay["p90"]}
            )
    return list(rows[0]), rows


_COLOURS = {"touching": "#b3261e", "events": "#2f6fbf"}


def draw(path: Path, tallies: Mapping[str, Tally], waits: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Plot recall, with its interval by source, and median delay against false events an hour."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    axes = figure.subplots(1, 3)
    names = {"by_overlap": "recall, overlap of 0.3", "by_onset": "recall, onset within 3 s"}
    for name, found in tallies.items():
        colour = _COLOURS[name]
        rate = np.maximum(found.ratio("false", "hours"), 0.02)
        for axis, measure in zip(axes, names, strict=False):
            low, high = found.interval(measure, "fights", "source")
            axis.fill_between(rate, low, high, color=colour, alpha=0.12, linewidth=0)
            axis.plot(rate, found.ratio(measure, "fights"), ".-", color=colour, label=name)
        median = [float(np.median(w)) if w else np.nan for w in waits[name]]
        axes[2].plot(rate, median, ".-", color=colour, label=name)
    for axis, label in zip(axes, (*names.values(), "median delay, s"), strict=True):
        axis.set(xscale="log", xlabel="false events an hour (none: 0.02)", ylabel=label)
        axis.axvline(BALANCED, color="#6a7482", linewidth=0.8, linestyle=":")
        axis.grid(color="#d5dae2", linewidth=0.5)
    axes[0].set_ylim(0, 1)
    axes[1].set_ylim(0, 1)
    axes[0].legend(frameon=False)
    with storage.atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_figure(str(temporary), format="png", dpi=110)


if __name__ == "__main__":
    cli.run_main(main)
