"""Differences between models on the same clips, with intervals by source and Holm-corrected p-values.

Compared are any two of the members, their ensemble, and the ensemble on plain clips; and this evaluation with earlier
ones, each given as a report folder or as its metrics.json or predictions.csv, on the clips that both have judged. Sets
from elsewhere, which earlier reports contain too, are not compared.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import UserError
from violence_detection.evaluation import influence, intervals, metrics
from violence_detection.system import storage
from violence_detection.system.figures import number, p_value, plural
from violence_detection.training import run_folder

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

#: Figures that are compared.
COMPARED = ("accuracy", "roc_auc")
CORRECTION = "Holm 1979"
ENSEMBLE, PLAIN_ENSEMBLE = "ensemble", "ensemble, plain clips"
_COLUMNS = ("clip_id", "label", metrics.ENSEMBLE_COLUMN)
_METRICS_NAME, _PREDICTIONS_NAME = "metrics.json", "predictions.csv"
#: Column of predictions.csv: the set of a row. Key of metrics.json: the set that the report is about; the others are
#: sets from elsewhere.
_SET = "set"
#: Keys of metrics.json: number of clips, and how many of them were judged.
_COUNTS = ("asked", "n")


@dataclass(frozen=True)
class EarlierReport:
    """An earlier evaluation. `predictions`: clip_id, label and p_violent of the clips of its own set that were judged.

    `command`: the command that made it, or empty.
    """

    path: Path
    predictions: pd.DataFrame
    threshold: float
    command: str


def read_all(paths: Sequence[Path]) -> list[EarlierReport]:
    """Read earlier reports, each once: the p-values must not be corrected for one that is named twice, or a copy.

    Raises UserError as `read` does.
    """
    found: dict[tuple[str, ...], EarlierReport] = {}
    for path in paths:
        report = read(path)
        folder = _folder(path)
        content = tuple(storage.sha256_file(folder / name) for name in (_METRICS_NAME, _PREDICTIONS_NAME))
        if (first := found.setdefault(content, report)) is not report:
            log.warning("--compare: %s is the same report as %s and is compared once", path, first.path)
    return list(found.values())


def read(path: Path) -> EarlierReport:
    """Read an earlier report, given by its folder, its metrics.json or its predictions.csv.

    Raises UserError if the predictions or their threshold are missing or cannot be used.
    """
    folder = _folder(path)
    if not path.is_dir() and path.name not in (_METRICS_NAME, _PREDICTIONS_NAME):
        raise UserError(
            f"--compare: {path} is not a report. Give the folder that test_ensemble.py has written, or its "
            f"{_METRICS_NAME} or {_PREDICTIONS_NAME}"
        )
    for name in (_METRICS_NAME, _PREDICTIONS_NAME):
        if not (folder / name).is_file():
            raise UserError(
                f"--compare: there is no {name} in {folder}. Give a complete report, or make this one again with "
                "test_ensemble.py"
            )
    file = folder / _METRICS_NAME
    try:
        record = storage.read_json(file)
        threshold, command = float(record["threshold"]), str(record.get("command", ""))
        if not 0 <= threshold <= 1:
            raise UserError(f"the threshold is {threshold}, not in [0, 1]")
        if odd := [key for key in _COUNTS if not run_folder.is_count(record.get(key, 0))]:
            raise UserError(f"{odd[0]} is {record[odd[0]]!r}, not a number of clips")
        if not isinstance(record.get(_SET, ""), str):
            raise UserError(f"{_SET} is {record[_SET]!r}, not a name")
        file = folder / _PREDICTIONS_NAME
        found = _table(file)
        predictions = found[found[_SET] == record.get(_SET)] if _SET in found else found
        damage = _damage(predictions, record)
    except (ValueError, KeyError, TypeError, AttributeError, UserError) as e:
        raise _damaged(file, str(e) if isinstance(e, UserError) else repr(e)) from e
    if damage:
        raise _damaged(file, f"it has {damage}")
    return EarlierReport(path, predictions[list(_COLUMNS)].dropna(), threshold, command)


def _damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"--compare: {path} cannot be used ({why}). Copy it again from where it was made, or make it again with "
        "test_ensemble.py"
    )


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _damage(predictions: pd.DataFrame, record: Mapping[str, Any]) -> str:
    """What shows that predictions.csv was cut off or changed: what it has, to follow "it has"; or empty."""
    judged = predictions[metrics.ENSEMBLE_COLUMN].dropna()
    asked, n = record.get("asked", len(predictions)), record.get("n", len(judged))
    if predictions.empty:
        named = f"the set {record[_SET]!r}" if _SET in record else f"a set that its {_METRICS_NAME} names"
        return f"no clip of {named}"
    if wrong := sorted(set(predictions.label) - set(CLASS_NAMES)):
        return f"the unknown label {wrong[0]!r}"
    if predictions.clip_id.duplicated().any():
        return "a clip twice"
    if not judged.between(0, 1).all():
        return "a probability outside [0, 1]"
    if (asked, n) != (len(predictions), len(judged)):
        return (
            f"{len(judged)} of {len(predictions)} clips judged, but its {_METRICS_NAME} says {n} of {asked}"
        )
    return ""


def _table(path: Path) -> pd.DataFrame:
    """Read predictions.csv with all its sets; a set from elsewhere may contain copies of clips of the report's own set.

    Reports of earlier versions have one set and no column for it. Raises UserError for a missing column, ValueError if
    something cannot be read.
    """
    import pandas as pd

    # read sets as text: one may be named "nan" or "1"
    found = pd.read_csv(
        path,
        dtype={"clip_id": str, "label": str, _SET: str, metrics.ENSEMBLE_COLUMN: float},
        keep_default_na=False,
        na_values={metrics.ENSEMBLE_COLUMN: ["", "nan"]},
        encoding_errors=storage.NAME_ERRORS,
    )
    if lacking := [name for name in _COLUMNS if name not in found]:
        raise UserError(f"missing column: {lacking[0]}")
    return found


def between_models(
    predictions: pd.DataFrame, threshold: float, of_members: float | None = None
) -> dict[str, Any]:
    """Paired differences, first minus second, between any two of: members, ensemble, ensemble on plain clips.

    JSON-able: {"correction", "pairs": [{"first", "second", "n", "n_groups", <figure>: {"difference", "ci95", "p",
    "p_holm"}}]}. p_holm is corrected over all pairs of a figure. A single model judged on one view has no pairs.
    `of_members`: the members' threshold, if it differs from `threshold`.
    """
    own = threshold if of_members is None else of_members
    known = predictions[predictions[metrics.ENSEMBLE_COLUMN].notna()].sort_values("clip_id", kind="stable")
    columns = _models(predictions)
    is_fight = (known["label"] == metrics.FIGHT).to_numpy()
    groups = intervals.numbered(known["source_group"].astype(str).to_numpy())
    found = {
        name: _compared(
            is_fight,
            known[column].to_numpy(float),
            threshold if name in (ENSEMBLE, PLAIN_ENSEMBLE) else own,
        )
        for name, column in columns.items()
    }
    pairs = [
        {"first": first, "second": second, **_differences(found[first], found[second], groups)}
        for first, second in itertools.combinations(columns, 2)
    ]
    return {"correction": CORRECTION, "pairs": _corrected(pairs)}


def require_shared(reports: Sequence[EarlierReport], rows: pd.DataFrame) -> None:
    """Raise UserError if a report shares no clip with the same label with `rows` (of the manifest).

    Called before anything is judged.
    """
    here = set(zip(rows["clip_id"], rows["label"], strict=True))
    for report in reports:
        if here.isdisjoint(zip(report.predictions["clip_id"], report.predictions["label"], strict=True)):
            raise _nothing_shared(report, len(rows))


def _nothing_shared(report: EarlierReport, clips: int) -> UserError:
    return UserError(
        f"--compare: {report.path} and this evaluation share no clip with the same label "
        f"({len(report.predictions)} clips there, {clips} here). Compare with a report on the same clips"
    )


def with_earlier(
    predictions: pd.DataFrame, threshold: float, reports: Sequence[EarlierReport]
) -> dict[str, Any]:
    """This evaluation minus each earlier one, on the clips that both have judged and that have the same label in both.

    JSON-able: {"correction", "reports"}. A report has "n", "n_groups" and differences as in `between_models`, and
    "report", "report_command", "threshold" and "threshold_here", "shared", "other_label" (shared clips that have
    another label there and are left out), "here" and "there" (the figures on the clips compared). Raises UserError for
    a report that shares no clip with the same label.
    """
    known = predictions[predictions[metrics.ENSEMBLE_COLUMN].notna()]
    return {
        "correction": CORRECTION,
        "reports": _corrected([_with_one(known, threshold, report) for report in reports]),
    }


def lines(comparisons: Mapping[str, Any], earlier: Mapping[str, Any]) -> list[str]:
    """Lines for the log: differences to earlier reports, and which pairs of models differ beyond chance."""
    said = []
    for row in earlier["reports"]:
        left_out = f", {row['other_label']} with another label left out" if row["other_label"] else ""
        if row["threshold"] != row["threshold_here"]:
            left_out += (
                f", at threshold {number(row['threshold_here'])} here and {number(row['threshold'])} there"
            )
        said.append(
            f"compared with {row['report']} on {plural(row['n'], 'shared clip')} from "
            f"{plural(row['n_groups'], 'source')}{left_out}: "
            + "; ".join(_in_words(name, row[name]) for name in COMPARED)
        )
    pairs = [p for p in comparisons["pairs"] if p["accuracy"]["ci95"] is not None]
    if alone := len(comparisons["pairs"]) - len(pairs):
        said.append(f"{plural(alone, 'pair')} of models cannot be compared: all clips come from one source")
    if pairs:
        differing = [f"{p['first']} and {p['second']}" for p in pairs if p["accuracy"]["p_holm"] < 0.05]
        said.append(
            f"of {plural(len(pairs), 'pair')} of models {len(differing) or 'none'} differ in accuracy beyond chance "
            f"(p < 0.05, {CORRECTION})" + (f": {', '.join(differing)}" if differing else "")
        )
    return said


def _in_words(name: str, found: Mapping[str, Any]) -> str:
    if found["difference"] is None:
        return f"{name} not defined"
    text = f"{name} {100 * found['difference']:+.1f} points"
    if found["ci95"] is None:
        return f"{text} (no interval)"
    low, high = found["ci95"]
    return f"{text} ({100 * low:+.1f} to {100 * high:+.1f}), {p_value(found['p_holm'])} ({CORRECTION})"


def _models(predictions: pd.DataFrame) -> dict[str, str]:
    """Return name -> column of the models to compare. A single member is left out: it is the ensemble itself."""
    members = metrics.member_names(predictions)
    columns = {name: f"p_{name}" for name in members} if len(members) > 1 else {}
    columns[ENSEMBLE] = metrics.ENSEMBLE_COLUMN
    if metrics.PLAIN + metrics.ENSEMBLE_COLUMN in predictions.columns:
        columns[PLAIN_ENSEMBLE] = metrics.PLAIN + metrics.ENSEMBLE_COLUMN
    return columns


def _with_one(known: pd.DataFrame, threshold: float, report: EarlierReport) -> dict[str, Any]:
    there = report.predictions.rename(columns={metrics.ENSEMBLE_COLUMN: "p_there", "label": "label_there"})
    both = known.merge(there, on="clip_id").sort_values("clip_id", kind="stable")
    agreed = both[both["label"] == both["label_there"]]
    if agreed.empty:
        raise _nothing_shared(report, len(known))
    is_fight = (agreed["label"] == metrics.FIGHT).to_numpy()
    groups = intervals.numbered(agreed["source_group"].astype(str).to_numpy())
    here = _compared(is_fight, agreed[metrics.ENSEMBLE_COLUMN].to_numpy(float), threshold)
    then = _compared(is_fight, agreed["p_there"].to_numpy(float), report.threshold)
    return {
        "report": str(report.path),
        "report_command": report.command,
        "threshold": report.threshold,
        "threshold_here": threshold,
        "shared": len(both),
        "other_label": len(both) - len(agreed),
        "here": {name: f and f.value for name, f in here.items()},
        "there": {name: f and f.value for name, f in then.items()},
        **_differences(here, then, groups),
    }


_Figures = Mapping[str, influence.Figure | None]


def _compared(is_fight: np.ndarray, p_fight: np.ndarray, threshold: float) -> _Figures:
    return {
        "accuracy": influence.accuracy(is_fight, p_fight >= threshold),
        "roc_auc": influence.roc_auc(is_fight, p_fight),
    }


def _differences(first: _Figures, second: _Figures, groups: np.ndarray) -> dict[str, Any]:
    out: dict[str, Any] = {"n": len(groups), "n_groups": len(np.unique(groups))}
    for name in COMPARED:
        a, b = first[name], second[name]
        if a is None or b is None:
            out[name] = {"difference": None, "ci95": None, "p": None}
            continue
        value, ci95, p = intervals.difference(a, b, groups, imagined=1.0 if name == "accuracy" else 0.0)
        out[name] = {"difference": value, "ci95": ci95 and list(ci95), "p": p}
    return out


def _corrected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add p_holm to every p of `rows`, corrected over all rows of a figure; return the rows."""
    for name in COMPARED:
        for row, p in zip(rows, intervals.holm([row[name]["p"] for row in rows]), strict=True):
            row[name]["p_holm"] = p
    return rows
