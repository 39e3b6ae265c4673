"""Events in recordings whose fights are known: recall, false events an hour and delay over all thresholds.

    python benchmarks/bench_recordings.py --recordings recordings --models MODEL --output bench
    python benchmarks/bench_recordings.py --recordings recordings --models FOLD_0 FOLD_1 --output bench --tune
    python benchmarks/bench_recordings.py --recordings recordings --output bench --tune     judges nothing again

--recordings is what make_recordings.py writes, and --models what it was given: one model for all parts, or each part's.
Verdicts are kept in the folder of the recordings (judged.json.journal.jsonl). Killed, the same command goes on where it
was; without --models what is judged so far is measured. What counts as found, and what the intervals are:
benchmarks/event_figures.py. Rules that are compared:
    touching   windows at or above the threshold that touch are one event (the rule of before)
    events     find_events with the settings given (--smoothing-s ...), at each threshold
    tuned      with --tune: settings chosen on recordings of half of the sources, measured on the other half, both ways
--tune looks for recordings that share no source; without such there is nothing to tune.

Writes <output>/curves.csv, curves.png and figures.json, and prints one JSON line.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks import event_figures
from benchmarks.event_figures import MEASURES, Recording, Rule, Shown, Tally
from violence_detection import cli
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction import batch, kept_windows, verdict_journal
from violence_detection.prediction.config import EventConfig, PredictConfig
from violence_detection.prediction.events import Verdict
from violence_detection.system import console, storage
from violence_detection.system.console import log

#: What --tune tries. Offsets: share of the threshold's odds; None is the default, half.
SMOOTHING_S, OFFSET_ODDS = (0.0, 5.0, 7.5, 10.0), (None, 1.0, 0.25)
MIN_DURATION_S, MERGE_GAP_S = (0.0, 3.0, 5.5), (0.0, 2.5, 5.0, 10.0)
#: False events an hour at which a threshold is chosen: balanced, and few false alarms.
BALANCED, FEW = 1.0, 0.1
_JUDGED = "judged.json"


def main(argv: Sequence[str] | None = None) -> int:
    p = cli.parser(__doc__)
    p.add_argument("--recordings", type=Path, required=True, help="folder of make_recordings.py")
    p.add_argument(
        "--models", type=Path, nargs="+", default=[], help="one for all parts, or the model of each part"
    )
    p.add_argument(
        "--output", type=Path, default=Path("bench_recordings"), help="(default: bench_recordings)"
    )
    p.add_argument(
        "--tune", action="store_true", help="choose settings of events on half, measure on the other"
    )
    cli.add_config(p, PredictConfig, skip=("model", "operating_point"))
    args = cli.parse(p, argv)
    args.output.mkdir(parents=True, exist_ok=True)
    storage.check_writable(args.output, "--output")
    configs = [
        cli.build(PredictConfig, argparse.Namespace(**vars(args), model=model)) for model in args.models
    ]
    failures = judge(args.recordings, configs) if configs else []
    settings = cli.build(EventConfig, args)
    recordings, missing = read(args.recordings, settings)
    if missing:
        log.warning("%d recordings of the list are not judged, so the figures are of the others", missing)
    summary = {
        "recordings": len(recordings),
        "not_judged": missing,
        "hours": round(sum(r.duration_s for r in recordings) / 3600, 2),
        "fights": sum(len(r.fights) for r in recordings),
        "sources": len({piece.source for r in recordings for piece in r.shown}),
        **measured(recordings, settings, args.output),
        **({"tuned": tuned(recordings, settings)} if args.tune else {}),
        "failures": failures,
    }
    storage.write_json(args.output / "figures.json", summary)
    cli.print_summary(summary)
    return cli.exit_code(failures)


def judge(folder: Path, configs: Sequence[PredictConfig]) -> list[dict[str, str]]:
    """Judge the recordings of a folder that are made and not judged yet; returns the failures.

    `configs`: one for all parts, or one a part. Raises UserError for any other number.
    """
    rows = storage.read_csv(_table(folder, "recordings.csv"))
    parts = len({row["part"] for row in rows})
    if len(configs) not in (1, parts):
        raise UserError(f"the recordings have {parts} parts: give one of --models, or one a part, in order")
    journal = verdict_journal.path_for(folder / _JUDGED)
    failures = []
    for i, config in enumerate(configs):
        paths = [folder / row["file"] for row in rows if len(configs) == 1 or row["part"] == str(i)]
        judged = batch.judge_all([path for path in paths if path.is_file()], config, journal)
        failures += [{"path": v.path, "reason": v.reason} for v in judged if isinstance(v, UnreadableVideo)]
    return failures


def read(folder: Path, settings: EventConfig) -> tuple[list[Recording], int]:
    """The judged recordings of a folder, and how many of its list are not judged. Raises UserError where none is."""
    journal = verdict_journal.path_for(folder / _JUDGED)
    if not journal.is_file():
        raise UserError(f"{folder} is not judged yet: name the model with --models")
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
        raise UserError(f"{folder} has no {name}: make the recordings with benchmarks/make_recordings.py")
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
    )


def measured(recordings: Sequence[Recording], settings: EventConfig, output: Path) -> dict[str, Any]:
    """Both rules over all thresholds: curves.csv, curves.png; returns figures at some thresholds."""
    rules: dict[str, Rule] = {
        "touching": event_figures.touching_windows,
        "events": event_figures.by_settings(settings),
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
    """Recall by overlap and false events an hour at 0.5 of each data set."""
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
    """Median and nine tenths of the delays; None where nothing was found."""
    if not waits:
        return {"median": None, "p90": None}
    return {"median": round(float(np.median(waits)), 2), "p90": round(float(np.quantile(waits, 0.9)), 2)}


def curve_rows(
    tallies: Mapping[str, Tally], waits: Mapping[str, Sequence[Sequence[float]]]
) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of curves.csv: a row a rule and threshold."""
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
    """The curves, recall and delay against false events an hour, with the interval of recall by source."""
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


@dataclass(frozen=True)
class Choice:
    """Settings of events with the offset's share of the threshold's odds (None: the default)."""

    settings: EventConfig
    offset_odds: float | None

    @property
    def rule(self) -> Rule:
        return event_figures.by_settings(self.settings, self.offset_odds)

    def record(self) -> dict[str, Any]:
        """For figures.json."""
        names = ("smoothing_s", "min_duration_s", "merge_gap_s")
        return {name: getattr(self.settings, name) for name in names} | {
            "offset_odds": self.offset_odds or 0.5
        }


def choices(settings: EventConfig) -> list[Choice]:
    """All settings that are tried; padding and cooldown are those given."""
    grid = itertools.product(SMOOTHING_S, MIN_DURATION_S, MERGE_GAP_S, OFFSET_ODDS)
    return [
        Choice(
            dataclasses.replace(
                settings,
                threshold=0.5,
                offset=None,
                smoothing_s=smooth,
                min_duration_s=least,
                merge_gap_s=gap,
            ),
            odds,
        )
        for smooth, least, gap, odds in grid
    ]


def tuned(recordings: Sequence[Recording], settings: EventConfig) -> list[dict[str, Any]]:
    """Settings chosen on one half and measured on the other, in both directions.

    Chosen is the best mean recall (event_figures.RATES), of equals the first, and then thresholds for BALANCED and FEW.
    """
    halves = apart(recordings)
    if not all(any(r.fights for r in half) for half in halves):
        raise UserError("one half of the recordings has no fight: make more hours of them")
    out = []
    for tune_on, measure_on in (halves, halves[::-1]):
        tries = choices(settings)
        found = [
            event_figures.tally(tune_on, choice.rule)
            for choice in console.progress(tries, total=len(tries), desc="tuning", unit="settings")
        ]
        best = int(np.argmax([t.froc() for t in found]))
        before: dict[str, Rule] = {
            "touching": event_figures.touching_windows,
            "events": event_figures.by_settings(settings),
        }
        rules = {name: (rule, event_figures.tally(tune_on, rule)) for name, rule in before.items()}
        rules["tuned"] = tries[best].rule, found[best]
        other = {name: event_figures.tally(measure_on, rule) for name, (rule, _) in rules.items()}
        gains = {
            over: event_figures.froc_gain(other["tuned"], other[over]) for over in ("touching", "events")
        }
        out.append(
            {
                "tuned_on": len(tune_on),
                "measured_on": len(measure_on),
                "settings": tries[best].record(),
                "mean_recall_where_tuned": {name: round(t.froc(), 4) for name, (_, t) in rules.items()},
                "mean_recall": {name: round(t.froc(), 4) for name, t in other.items()},
                "mean_recall_gain": {
                    over: {"gain": round(gain, 4), "ci95_by_recording": [round(x, 4) for x in interval]}
                    for over, (gain, interval) in gains.items()
                },
                **{
                    name: {
                        point: event_figures.figures_at(other[name], chosen.at_rate(rate))
                        for point, rate in (("balanced", BALANCED), ("few_false_alarms", FEW))
                    }
                    for name, (_, chosen) in rules.items()
                },
            }
        )
    return out


def apart(recordings: Sequence[Recording]) -> tuple[list[Recording], list[Recording]]:
    """Recordings in two parts of about equal length that share no source. Raises UserError where that cannot be."""
    from scipy import sparse
    from scipy.sparse import csgraph

    sources = sorted({piece.source for r in recordings for piece in r.shown})
    number = {source: i for i, source in enumerate(sources)}
    shows = np.zeros((len(recordings), len(sources)), bool)
    for i, recording in enumerate(recordings):
        shows[i, [number[piece.source] for piece in recording.shown]] = True
    _, group = csgraph.connected_components(
        sparse.csr_matrix(shows.astype(int) @ shows.T.astype(int)), directed=False
    )
    halves: tuple[list[Recording], list[Recording]] = ([], [])
    by_length = sorted(
        set(group.tolist()),
        key=lambda g: -sum(r.duration_s for r, h in zip(recordings, group, strict=True) if h == g),
    )
    for g in by_length:
        shorter = min(halves, key=lambda half: sum(r.duration_s for r in half))
        shorter += [r for r, h in zip(recordings, group, strict=True) if h == g]
    if not all(halves):
        raise UserError(
            "all recordings are linked by sources that they share, so there is no half to tune on. Make them with "
            "--parts 2, or with the models of two folds"
        )
    return halves


if __name__ == "__main__":
    cli.run_main(main)
