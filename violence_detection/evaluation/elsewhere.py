"""Figures on clips from elsewhere (out of set) beside those on clips like the training clips (in set), worst first.

Each figure comes with what chose the epoch and the threshold: a figure is worth less if the clips that it was measured
on had a part in those choices (Gulrajani & Lopez-Paz, "In Search of Lost Domain Generalization", ICLR 2021).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.datasets.generated.marker import SAMPLE_LABEL
from violence_detection.errors import UserError
from violence_detection.evaluation import clip_groups, held_out_table, intervals, training_overlap
from violence_detection.models import made_alike
from violence_detection.models.made_alike import HeldOutProvenance, Provenance
from violence_detection.models.trained_model import DEFAULT_THRESHOLD, TrainedModel
from violence_detection.system.figures import is_share, number
from violence_detection.training import run_folder, step_plan
from violence_detection.training.config import KERNEL, PICTURES_OF

if TYPE_CHECKING:
    from violence_detection.evaluation.measure import Evaluation

#: The record of --leave-one-dataset-out, which train_ensemble_models.py writes (ensemble/leave_one_out.py).
LEFT_OUT_NAME = run_folder.LEFT_OUT_NAME
#: TrainConfig.keep -> what chose the epoch, in words.
EPOCH = {
    "best": 'the lowest loss on the selection part, cut from train by source ("training-domain validation set")',
    "last": "the last of a number fixed beforehand",
}
_AT_ONCE = "nothing (a kernel head is fitted at once)"
_AT_ONCE_BEFORE = "none: fitted at once"  # in records of earlier versions
_STEPS = "the number of steps that folds by source, or left-out data sets, chose"
#: Comparisons that decide whether a set is unseen; sources are reported apart, as they often cannot be compared.
_OVERLAPS = ("same_clip", "near_copy")
#: Tolerance for figures that were rounded; they are written with four decimals.
_ROUNDED = 1e-3


def selected_by(model: TrainedModel) -> dict[str, str]:
    """Return what chose the model's epochs and its threshold, in words: {epoch, threshold}."""
    epochs = dict.fromkeys(map(_epoch_of, model.records))
    threshold = (
        f"fixed at {DEFAULT_THRESHOLD} before any clip was judged"
        if model.threshold == DEFAULT_THRESHOLD
        else f"{number(model.threshold, 4)}, stored with the model"
    )
    return {"epoch": "; ".join(epochs), "threshold": threshold}


def _epoch_of(record: Mapping[str, Any]) -> str:
    """What chose the epoch of a member, in words, from its config.json."""
    if record.get("architecture") == KERNEL:
        return _AT_ONCE
    if record.get("architecture") in PICTURES_OF:
        return EPOCH["last"]
    if step_plan.RECORD_KEY in record:
        return _STEPS
    return EPOCH.get(record["train"].get("keep", "best"), "not known")


def left_out_epoch(architectures: Iterable[str], said: str) -> str:
    """What chose the epochs of models that were trained without a data set, in words.

    `said` is the answer for the architectures whose epoch is chosen at all. It may also be an earlier result of
    this function for the same architectures, as records have it.
    """
    rules = {KERNEL: _AT_ONCE, **dict.fromkeys(PICTURES_OF, EPOCH["last"])}
    parts = (part for name in architectures for part in rules.get(name, said).split("; "))
    return "; ".join(dict.fromkeys(_AT_ONCE if part == _AT_ONCE_BEFORE else part for part in parts))


def record(measured: Evaluation) -> dict[str, Any]:
    """All figures of a set, and what it shares with training, for metrics.json.

    `unseen` is False if any of its clips was met in training, by content, fingerprint or source; else True if content
    and fingerprints of all clips could be compared, and None if not. `sources_checked`: whether sources could be
    compared too.
    """
    overlap = measured.overlap.record()
    checked = all(overlap[name]["checked"] and not overlap[name]["not_checked"] for name in _OVERLAPS)
    return {
        **measured.result,
        **clip_groups.false_alarms(measured.predictions, measured.model.threshold),
        "split": measured.clips.split,
        "data": SAMPLE_LABEL if measured.clips.generated else measured.clips.kind,
        "generated": measured.clips.generated,
        "sample_label": measured.sample_label,
        "classes": sorted(set(measured.predictions.label[measured.predictions.p_violent.notna()])),
        "seen_in_training": overlap,
        "unseen": False if overlap["touched"] else True if checked else None,
        "unseen_in_words": _unseen_in_words(overlap, checked),
        "val_ledger": dict(measured.val_ledger),
        "sources_checked": overlap["same_source"]["checked"],
        "selected_by": selected_by(measured.model),
    }


def _unseen_in_words(overlap: Mapping[str, Any], checked: bool) -> str:
    if overlap["touched"]:
        return f"no: {overlap['touched']} of {overlap['clips']} clips were met in training, or copies of them"
    if not checked:
        whys = [overlap[name]["not_checked"] for name in _OVERLAPS if overlap[name]["not_checked"]]
        return f"not fully checked: {'; '.join(whys)}"
    sources = (
        ""
        if overlap["same_source"]["checked"]
        else "; its sources could not be compared, as you alone know them"
    )
    return f"yes: none of {overlap['clips']} clips by content or fingerprint{sources}"


def worst_first(sets: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Figures of the sets with their names, lowest accuracy first."""
    return sorted(({"name": n, **s} for n, s in sets.items()), key=lambda s: (s["accuracy"], s["name"]))


def has_both_classes(row: Mapping[str, Any]) -> bool:
    """Whether clips of both classes were judged, which is when there is an AUC."""
    return row["roc_auc"] is not None


def of_both_classes(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The sets with clips of both classes; all sets if there is none.

    With clips of one class only, a model that always answers with that class is right on all of them.
    """
    return [row for row in rows if has_both_classes(row)] or rows


def mean_of_left_out(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over left-out data sets with equal weights, and 95 % intervals by source; None where not defined.

    `rows`: as ensemble.leave_one_out records them; those with clips of one class only are left out (of_both_classes).
    The intervals are the wider the more of the sources have clips in other data sets too (`n_groups_shared`). Records
    of earlier versions do not have that number; it is then taken to be 0.
    """
    rows = of_both_classes(rows)
    found: dict[str, Any] = {}
    for name, interval in (("accuracy", "ci95"), ("roc_auc", "roc_auc_ci95"), ("accuracy_at_median", None)):
        known = [row for row in rows if row.get(name) is not None]
        found[name] = round(sum(row[name] for row in known) / len(known), 4) if known else None
        if interval:
            ends = [row[interval] for row in known if row.get(interval)]
            whole = known and len(ends) == len(known)
            alike = intervals.sharing([row.get("n_groups_shared", 0) / row["n_groups"] for row in known])
            found[interval] = (
                [round(x, 4) for x in intervals.of_mean([row[name] for row in known], ends, alike)]
                if whole
                else None
            )
    return found


#: Keys of the record that say how it was made; they are not figures.
_NO_FIGURES = (
    "jobs", "made_with", run_folder.LABELS_KEY, run_folder.FOLD_TEMPERATURES_KEY, held_out_table.SHA256_KEY,
)  # fmt: skip


def left_out(folder: Path, model: TrainedModel) -> dict[str, Any] | None:
    """What leave-one-dataset-out measured, from the model's folder, and whether that says something about this model.

    `belongs` is True if the models measured had the clips, settings and members of this one, False if not, None if that
    cannot be told; `whose` says it in words. Returns None if there is no such file. Raises UserError if it is damaged.
    """
    path = folder / LEFT_OUT_NAME
    if not path.is_file():
        return None
    found = run_folder.read_object(path)
    if not _is_whole(found):
        raise _no_record(path)
    belongs, whose = _ownership(found, model, path)
    kept = {k: v for k, v in found.items() if k not in _NO_FIGURES}
    if belongs:  # not recorded by earlier versions
        kept.setdefault("generated_samples", model.trained_on_samples)
    return {
        **kept,
        "selected_by": left_out_epoch(map(str, found["members"]), _epoch_choice(found, model, belongs)),
        "mean": mean_of_left_out(kept["datasets"]),
        "file": str(path),
        "belongs": belongs,
        "whose": whose,
        "runs": len(found.get("jobs", [])),
    }


def _epoch_choice(found: Mapping[str, Any], model: TrainedModel, belongs: bool | None) -> str:
    """What chose the epoch, according to the record.

    Earlier versions recorded a choice even for the last epoch, which nothing chooses.
    """
    if belongs and all(r["train"].get("keep") == "last" for r in model.records):
        return EPOCH["last"]
    return str(found["selected_by"])


def _is_whole(found: Mapping[str, Any]) -> bool:
    """Whether the record has all that the report shows of it, of the right kind.

    Checked on reading: found when the report is written, a damaged record would cost the evaluation's own figures.
    """
    rows = found.get("datasets")
    words = (found.get(key) for key in ("selected_by", "threshold_by"))
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(isinstance(found.get(key), list) for key in ("seeds", "members"))
        and all(isinstance(word, str) for word in words)
        and all(map(_is_row, rows))
    )


def _is_row(row: Any) -> bool:
    if not isinstance(row, Mapping) or not isinstance(row.get("dataset"), str) or not _has_figures(row):
        return False
    n_shared = row.get("n_groups_shared", 0)
    counts = (row.get("n"), row.get("n_groups"), n_shared)
    counted = all(map(run_folder.is_count, counts)) and n_shared <= row["n_groups"] > 0
    others = (row.get(key, "absent") for key in ("roc_auc", "recall", "false_alarms", "accuracy_sd"))
    beside = row.get("in_set", "absent")
    return (
        counted
        and all(value is None or is_share(value) for value in (*others, row.get("accuracy_at_median")))
        and (row.get("roc_auc_ci95") is None or _is_interval(row["roc_auc_ci95"], row.get("roc_auc")))
        and (beside is None or (isinstance(beside, Mapping) and _has_figures(beside)))
    )


def _has_figures(row: Mapping[str, Any]) -> bool:
    """Whether the row has an accuracy with its interval."""
    return is_share(row.get("accuracy")) and _is_interval(row.get("ci95"), row["accuracy"])


def _is_interval(value: Any, figure: Any) -> bool:
    """Whether `value` is an interval (low, high) in [0, 1] that contains `figure`, rounding aside."""
    if not (isinstance(value, list) and len(value) == 2 and all(map(is_share, value))):
        return False
    low, high = value
    return is_share(figure) and low - _ROUNDED <= figure <= high + _ROUNDED


def _ownership(found: Mapping[str, Any], model: TrainedModel, path: Path) -> tuple[bool | None, str]:
    again = "run the same train_ensemble_models.py command again: it records that, and trains nothing"
    if not isinstance(found.get("made_with"), dict):
        return None, f"made by an earlier version, which did not record the clips and settings; {again}"
    try:
        held_out = HeldOutProvenance.left_out(found)
    except made_alike.MALFORMED as e:
        raise _no_record(path) from e
    provenance = _provenance(model)
    if other := made_alike.differences(provenance, held_out):
        return False, f"made by other models than this one (other {', '.join(other)}): {path}"
    if why := made_alike.unknown(provenance, held_out):
        return None, f"made with its settings and members, but perhaps with other clips: {why}; {again}"
    return True, "made with the clips, settings and members of this model, by train_ensemble_models.py"


def _provenance(model: TrainedModel) -> Provenance:
    """How the model was made, to be compared with how the models of left-out data sets were."""
    files = (folder / run_folder.ENSEMBLE_NAME for folder in model.folders)
    ensemble = next((run_folder.read_object(file) for file in files if file.is_file()), {})
    clips, lost = training_overlap.known_clips(model)
    provenance = Provenance.of(model.records, clips.iloc[:0] if lost else clips, ensemble)
    exits = model.early_exit.record() if model.early_exit else None
    in_logits = all(member.temperature is not None for member in model.members)
    return replace(provenance, in_logits=in_logits, early_exit=exits)


def _no_record(path: Path) -> UserError:
    return run_folder.damaged(path, "it is not a record of --leave-one-dataset-out")
