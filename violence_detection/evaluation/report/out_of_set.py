"""The figure out of set that is shown beside the accuracy at the top of the page: one that was measured, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from violence_detection.constants import DEFAULT_THRESHOLD
from violence_detection.datasets.generated.marker import SAMPLE_LABEL
from violence_detection.evaluation.elsewhere import has_both_classes
from violence_detection.evaluation.report.page_filters import listed
from violence_detection.system.figures import number

Record = Mapping[str, Any]
_BOTH = " that have both classes"


def headline(record: Record) -> dict[str, Any]:
    """The figure out of set to show, from the record of metrics.json: the first of these kinds that was measured.

    `measured_by` is its kind; where there are several figures of a kind, the lowest accuracy is taken:
    - "this": all judged clips are of data sets that training did not have, so that the accuracy itself is out of set;
    - "elsewhere": a set from elsewhere whose clips were not met in training (`what` says so if that was not fully
      checked);
    - "leave_one_dataset_out": models like this one, trained without that data set;
    - "data_sets": those judged clips whose data sets training did not have;
    - "": none. Then `one_class` names the sets from elsewhere with clips of one class only, and `met_in_training` those
      that share clips with training, where there are any.

    All kinds but "this" and "" come with `what`, in words; accuracy, ci95, n and n_groups; `asked`, the number of clips
    of which n could be judged; and `other_threshold`, whether they were called fights from another threshold than the
    judged clips (`what` gives it). `sample_label` is there for sets from elsewhere, as in elsewhere.record, and for
    left-out data sets. Without it the label of the judged clips holds, as for records of left-out data sets by earlier
    versions, which do not say whether their clips were generated.

    Not taken are: sets that share clips with training; models that were not made like this one; the judged clips, if
    any of them was met in training; and clips of one class only, on which a model that says the same of every video can
    be best.
    """
    parts = {} if record["seen_in_training"]["touched"] else record.get("by_training") or {}
    if "out_of_set" in parts and "in_set" not in parts:
        return {"measured_by": "this"}
    unseen = _unseen(record.get("elsewhere") or {})
    if sets := [(name, row) for name, row in unseen if has_both_classes(row)]:
        name, worst = sets[0]
        what = f"{name}, the worst of {len(sets)} sets from elsewhere" if len(sets) > 1 else name
        what += _BOTH if 1 < len(sets) < len(unseen) else ""
        what += "" if worst["unseen"] else " (whether training had its clips was not fully checked)"
        return {**_figure("elsewhere", what, worst), "sample_label": worst.get("sample_label", "")}
    left_out = record.get("leave_one_dataset_out") or {}
    if left_out.get("belongs") and (rows := list(filter(has_both_classes, left_out["datasets"]))):
        worst = min(rows, key=lambda row: (row["accuracy"], row["dataset"]))
        what = f"{worst['dataset']}, the worst of the data sets left out of training"
        what += _BOTH if len(rows) < len(left_out["datasets"]) else ""
        theirs = left_out.get("threshold", DEFAULT_THRESHOLD)
        is_other = theirs != record["threshold"]
        what += f", at threshold {number(theirs, 2)}" if is_other else ""
        return {
            **_figure("leave_one_dataset_out", what, worst),
            "other_threshold": is_other,
            **_labelled(left_out),
        }
    if "out_of_set" in parts and has_both_classes(parts["out_of_set"]):
        row = parts["out_of_set"]
        return _figure(
            "data_sets", f"{listed(row['datasets'], 'data set')}, which training did not have", row
        )
    met = sorted(n for n, row in (record.get("elsewhere") or {}).items() if row.get("unseen") is False)
    return {
        "measured_by": "",
        **({"one_class": [name for name, _ in unseen]} if unseen else {}),
        **({"met_in_training": met} if met else {}),
    }


def _unseen(sets: Mapping[str, Record]) -> list[tuple[str, Record]]:
    """The sets that are not known to share clips with training, the lowest accuracy first."""
    kept = [(name, row) for name, row in sets.items() if row.get("unseen") is not False and row["n"]]
    return sorted(kept, key=lambda item: (item[1]["accuracy"], item[0]))


def _labelled(left_out: Record) -> dict[str, str]:
    if "generated_samples" not in left_out:
        return {}
    return {"sample_label": SAMPLE_LABEL if left_out["generated_samples"] else ""}


def _figure(measured_by: str, what: str, row: Record) -> dict[str, Any]:
    return {
        "measured_by": measured_by,
        "what": what,
        **{key: row[key] for key in ("accuracy", "ci95", "n", "n_groups")},
        "asked": row.get("asked", row["n"]),
        "other_threshold": False,
    }
