"""The report's list of limits: what its figure does not show. Read from the record in metrics.json, never computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from violence_detection.constants import CLASS_NAMES
from violence_detection.evaluation.report.page_filters import interval, listed, percent
from violence_detection.system.figures import plural

#: The gravest first: a fault was found; something must be known; it was not checked; it was checked and is well.
ALARM, NOTE, UNKNOWN, FINE = STATES = ("alarm", "note", "unknown", "fine")

#: Fewer sources than this say little about others. (At 30, the interval's t quantile is 4 % above the normal one.)
_FEW_SOURCES = 30
#: A calibration error above this is a note.
_LARGE_CALIBRATION_ERROR = 0.1

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Limit:
    """One line of the list. `state`: one of STATES; `name`: what it is about; `text`: what is said about it."""

    state: str
    name: str
    text: str


def limits(record: Record, sections: Sequence[str] = ()) -> list[Limit]:
    """All lines, the gravest first.

    A section of the record, or of its `audits`, adds a line of its own by a key `limit`: {state, name, text}.
    `sections`: keys of all audits that can be made; one line names those that this run has not made.
    """
    audits = record.get("audits") or {}
    own: list[Callable[[Record], Limit | None]] = [
        _overlap, _one_class, _elsewhere, _looks, _shortcuts, _sources, _worst_dataset, _format_alone, _coverage,
        _calibration,
    ]  # fmt: skip
    found = [limit for make in own if (limit := make(record)) is not None]
    for section in (*record.values(), *audits.values()):
        if isinstance(section, Mapping) and isinstance(section.get("limit"), Mapping):
            found.append(Limit(**{key: section["limit"][key] for key in ("state", "name", "text")}))
    if absent := [n.replace("_", " ") for n in sections if not audits.get(n)]:
        found.append(Limit(UNKNOWN, "Other audits", f"not made in this run: {', '.join(absent)}"))
    return sorted(found, key=lambda limit: STATES.index(limit.state))


def _overlap(record: Record) -> Limit:
    seen, name = record["seen_in_training"], "Seen in training"
    if seen["touched"]:
        return Limit(
            ALARM, name,
            f"{seen['touched']} of the {seen['clips']} clips were trained on, are copies of such clips, or share a "
            "source with them",
        )  # fmt: skip
    ways = {"same_clip": "by content", "same_source": "by source name", "near_copy": "by fingerprint"}
    open_ways = [said for key, said in ways.items() if seen[key]["not_checked"]]
    if not open_ways:
        return Limit(
            FINE,
            name,
            f"none of the {seen['clips']} clips was found in training, by content, source or fingerprint",
        )
    checked = [said for key, said in ways.items() if not seen[key]["not_checked"]]
    found = f"none found {' or '.join(checked)}, but " if checked else ""
    return Limit(UNKNOWN, name, f"{found}not fully checked {' or '.join(open_ways)} (see below)")


def _one_class(record: Record) -> Limit | None:
    """A note if only one class was judged: a model that gives every video that label is right on all these clips."""
    judged = [name for name, part in record["coverage"].items() if part["predicted"]]
    if len(judged) != 1:
        return None
    told = "false alarms" if judged[0] == CLASS_NAMES[0] else "missed fights"
    said = (
        f"all judged clips are labelled {judged[0]}: they show {told} only, and a model that calls every video "
        f"{judged[0]} has none"
    )
    return Limit(NOTE, "One class", said)


def _elsewhere(record: Record) -> Limit | None:
    """The accuracy out of set; an alarm if its interval lies wholly below that of the judged clips."""
    found, name = record.get("out_of_set") or {}, "Elsewhere"
    if found.get("measured_by") == "this":
        return None
    if found.get("one_class"):
        sets = listed(found["one_class"], "set")
        return Limit(
            UNKNOWN, name, f"not measured on both classes; clips of one class give no accuracy: {sets}"
        )
    if not found.get("measured_by") and found.get("met_in_training"):
        sets = listed(found["met_in_training"], "set")
        return Limit(
            UNKNOWN,
            name,
            f"not measured on clips that are all new to it: training had clips of {sets}, or copies of them",
        )
    if not found.get("measured_by"):
        return Limit(UNKNOWN, name, "accuracy on videos from elsewhere was not measured")
    said = f"{percent(found['accuracy'])} ({interval(found['ci95'])}) on {found['what']}"
    said += f" ({label})" if (label := found.get("sample_label")) else ""
    if found["n"] < found["asked"]:
        said += f"; {found['n']} of {found['asked']} clips could be judged"
    # at another threshold, it cannot be told what is lost by the threshold and what by the videos
    comparable = record["ci95"] is not None and not found["other_threshold"]
    worse = comparable and found["ci95"][1] < record["ci95"][0]
    return Limit(ALARM if worse else NOTE, name, said)


def _looks(record: Record) -> Limit | None:
    """How often val was looked at before, from its ledger."""
    ledger = record.get("val_ledger") or {}
    if "limit" in ledger or not ledger.get("text"):
        return None
    state = UNKNOWN if not ledger["checked"] else NOTE if ledger["looks_before"] else FINE
    return Limit(state, "Looks at val", ledger["text"])


def _shortcuts(record: Record) -> Limit | None:
    """Whether probes that see no violence tell the classes apart."""
    found, name = (record.get("audits") or {}).get("shortcuts") or {}, "Shortcuts"
    if not found or "limit" in found:
        return None
    if found["alarms"]:
        datasets: dict[str, list[str]] = {}
        for alarm in found["alarms"]:
            datasets.setdefault(alarm["check"].replace("_", " "), []).append(alarm["dataset"])
        which = ", ".join(f"{check} on {listed(names, 'data set')}" for check, names in datasets.items())
        return Limit(ALARM, name, f"the classes can be told apart without looking at what happens: {which}")
    told = found["comparisons"] - found["too_few"]
    if not told:
        none = "no data set has enough clips and sources of both classes"
        return Limit(UNKNOWN, name, "too few sources to tell" if found["comparisons"] else none)
    where = f"in the {plural(told, 'comparison')} with enough sources"
    return Limit(FINE, name, f"small classifiers that see no violence do not tell the classes apart, {where}")


def _sources(record: Record) -> Limit:
    clips = f"{plural(record['n'], 'clip')} from {plural(record['n_groups'], 'source')}"
    if record["n_groups"] >= _FEW_SOURCES:
        return Limit(FINE, "Sources", f"{clips}; the interval counts clips of one source as related")
    return Limit(
        NOTE, "Few sources", f"{clips}: so few say little about other sources, and the interval is wide"
    )


def _worst_dataset(record: Record) -> Limit | None:
    rows = [(row["accuracy"], name, row) for name, row in record["by_dataset"].items() if row["n"]]
    if len(rows) < 2:
        return None
    accuracy, name, row = min(rows, key=lambda r: (r[0], r[1]))
    return Limit(
        NOTE, "Worst data set",
        f"{name}, {percent(accuracy)} ({interval(row['ci95'])}) of {_clips(row)}",
    )  # fmt: skip


def _clips(row: Record) -> str:
    return (
        plural(row["n"], "clip")
        if row["n"] == row["asked"]
        else f"the {row['n']} of {row['asked']} clips that were judged"
    )


def _format_alone(record: Record) -> Limit | None:
    """An alarm if a rule that sees no frame, only the file format, reaches the interval of the model's accuracy.

    Only a note if the model makes no error and the rule does: with few sources the interval of a model without errors
    is wide, wider than with one error, so that reaching it says nothing for the rule.
    """
    rule = (record["baselines"] or {}).get("metadata_only")
    if rule is None or record["ci95"] is None:
        return None
    said = f"picture size, frame rate and length alone reach {percent(rule['accuracy'])}"
    if record["accuracy"] == 1 > rule["accuracy"] >= record["ci95"][0]:
        text = f"{said}; the model is right on all clips, but they come from too few sources for a narrow interval"
        return Limit(NOTE, "File format", text)
    if rule["accuracy"] >= record["ci95"][0]:
        where = "above" if rule["accuracy"] > record["ci95"][1] else "within"
        return Limit(ALARM, "File format", f"{said}, which is {where} the model’s interval")
    return Limit(FINE, "File format", said)


def _coverage(record: Record) -> Limit:
    if record["n"] == record["asked"]:
        if lost := record["n_failures"]:
            said = f"every clip that could be used was judged; {plural(lost, 'failure')} (see below)"
            return Limit(NOTE, "Coverage", said)
        return Limit(FINE, "Coverage", "every clip asked for was judged")
    judged = f"{record['n']} of {record['asked']} clips were judged"
    return Limit(NOTE, "Coverage", f"{judged}; the others failed")


def _calibration(record: Record) -> Limit | None:
    section = record.get("calibration") or {}
    if "limit" in section:
        return None  # the section's own line says more
    said = f"probabilities are off by {record['ece']:.3f} on average (calibration error)"
    large = record["ece"] > _LARGE_CALIBRATION_ERROR
    return Limit(NOTE if large else FINE, "Calibration", said)
