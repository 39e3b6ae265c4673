"""Whether models that judged held-out clips were made like a given model, so that their figures speak for it.

Such models are those of folds (cross_validation.json) and those trained without one data set
(leave_one_dataset_out.json). Compared are the members with their settings, how they are averaged, and the clips. Seeds
are not compared, nor is what is chosen on clips: weights, temperatures and thresholds.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from violence_detection.models import averaging
from violence_detection.system import storage
from violence_detection.training import run_folder, trained_clips

if TYPE_CHECKING:
    import pandas as pd

#: Roles that only clips of data sets that the model is measured on may have.
_SELECTING = (trained_clips.SELECTION, trained_clips.WEIGHTS)
#: Key in `made_with` of leave_one_dataset_out.json: by architecture, what the function `made_with` gives for a member.
_MEMBERS_KEY = "members"
#: Key in `made_with`: the hash of the ids of the left-out clips.
_CLIPS_KEY = "left_out_clips"
#: Key in `made_with`: the data sets that were trained on but never left out.
_ADDED_KEY = "added_datasets"
#: Exceptions that a malformed record raises when it is read; records may come from anybody.
MALFORMED = (LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Provenance:
    """How a model was made.

    `records`: config.json of each member. `clips`: the rows of trained_on.csv. `measured`: the data sets that it
    selects and is measured on; None: not recorded. `in_logits`, `early_exit`: how its members are averaged, see
    averaging.py; the early exit as it is stored in JSON. `closer_look`: whether it takes a closer look.
    """

    records: Sequence[Mapping[str, Any]]
    clips: pd.DataFrame
    measured: frozenset[str] | None
    in_logits: bool
    early_exit: Mapping[str, Any] | None
    closer_look: bool

    @classmethod
    def of(
        cls, records: Sequence[Mapping[str, Any]], clips: pd.DataFrame, ensemble: Mapping[str, Any]
    ) -> Provenance:
        """How a model was made, from its members' records, its clips, and ensemble.json (empty for a single model)."""
        members = ensemble.get("members")
        own = [m.get(averaging.TEMPERATURE_KEY) for m in members or () if isinstance(m, Mapping)]
        return cls(
            records,
            clips[clips.role != trained_clips.ADAPTED],
            _measured(ensemble),
            bool(own) and all(value is not None for value in own),
            ensemble.get(averaging.EARLY_EXIT_KEY),
            bool(ensemble.get(averaging.CLOSER_LOOK_KEY)),
        )


@dataclass(frozen=True)
class HeldOutProvenance:
    """How models were made that together judged each clip of some data sets while it was held out.

    `members`: their architectures. `made_with`: by architecture, what the function `made_with` gives for one or several
    models. `clips`: data set -> number of held-out clips. `clips_sha256`: hash of the ids of these. `added`: the data
    sets that were trained on but never held out. The last two are None if an earlier version did not record them.
    """

    members: Sequence[str]
    made_with: Mapping[str, Sequence[Mapping[str, str]]]
    clips: Mapping[str, int]
    clips_sha256: str | None
    added: frozenset[str] | None
    in_logits: bool
    early_exit: Mapping[str, Any] | None
    closer_look: bool

    @classmethod
    def left_out(cls, found: Mapping[str, Any]) -> HeldOutProvenance:
        """How the models of leave_one_dataset_out.json were made, by its content. Raises one of `MALFORMED`."""
        noted = found["made_with"]
        members = [str(name) for name in found["members"]]
        added = noted.get(_ADDED_KEY)
        return cls(
            members,
            {name: [dict(parts)] for name, parts in noted.get(_MEMBERS_KEY, {members[0]: noted}).items()},
            {str(d["dataset"]): int(d["n"]) for d in found["datasets"]},
            noted.get(_CLIPS_KEY),
            None if added is None else frozenset(added),
            "members_scaled_by" in found,
            found.get(averaging.EARLY_EXIT_KEY),
            bool(found.get(averaging.CLOSER_LOOK_KEY)),
        )


def made_with(record: Mapping[str, Any]) -> dict[str, str]:
    """What a model's record (config.json) says that it was made with: part -> hash; without the seed."""
    train = record.get("train")
    parts = {
        "clips": record.get("manifest_sha256"),
        "features": [record.get("features"), record.get("feature_records")],
        "augmentation": record.get("augment"),
        "head": record.get("head"),
        "training settings": {k: v for k, v in train.items() if k != "seed"}
        if isinstance(train, dict)
        else None,
    }
    return {name: storage.stable_hash(value) for name, value in parts.items()}


def noted(
    records: Sequence[Mapping[str, Any]], left_out: Collection[str], added: Collection[str]
) -> dict[str, Any]:
    """The value of `made_with` in leave_one_dataset_out.json.

    `records`: config.json of each member of one of the models. `left_out`: ids of all clips that were left out in turn.
    `added`: the data sets that were trained on but never left out.
    """
    return {
        **made_with(records[0]),
        _MEMBERS_KEY: {str(record["architecture"]): made_with(record) for record in records},
        _CLIPS_KEY: _ids_sha256(left_out),
        _ADDED_KEY: sorted(added),
    }


def differences(provenance: Provenance, held_out: HeldOutProvenance) -> list[str]:
    """What differs between the two, sorted: parts of `made_with`, clips, members, average, early exit, closer look.

    The average is compared only if the members are the same, the early exit only if the average is the same too.
    """
    other = [
        name
        for record in provenance.records
        for parts in held_out.made_with.get(str(record.get("architecture")), ())
        for name, value in made_with(record).items()
        if parts.get(name) != value
    ]
    if _has_other_clips(provenance, held_out):
        other.append("clips")
    if sorted(held_out.members) != sorted(str(record.get("architecture")) for record in provenance.records):
        other.append("members")
    elif provenance.in_logits != held_out.in_logits:
        other.append("average")
    elif provenance.early_exit != held_out.early_exit:
        other.append("early exit")
    if provenance.closer_look != held_out.closer_look:
        other.append("closer look")
    return sorted(set(other))


def unknown(provenance: Provenance, held_out: HeldOutProvenance) -> str:
    """Why it is not known whether the clips are the same; empty if it is."""
    if provenance.clips.empty or (provenance.clips.dataset == "").any():
        return f"the model has no {trained_clips.CLIPS_NAME} that names its clips and their data sets"
    if held_out.added is None and (others := sorted(set(provenance.clips.dataset) - set(held_out.clips))):
        return (
            f"an earlier version did not record whether those models were trained on {', '.join(others)} too"
        )
    return ""


def _has_other_clips(provenance: Provenance, held_out: HeldOutProvenance) -> bool:
    """Whether the clips are known to differ from those of the model.

    Added data sets are compared by name alone: their clips that share a source with a held-out clip are not trained on,
    so the clips themselves may differ.
    """
    if provenance.clips.empty or (provenance.clips.dataset == "").any():
        return False
    kept = set(held_out.clips)
    if provenance.measured is not None and provenance.measured != kept:
        return True
    if not set(provenance.clips.dataset[provenance.clips.role.isin(_SELECTING)]) <= kept:
        return True
    ours = provenance.clips[provenance.clips.dataset.isin(kept)].drop_duplicates("clip_id")
    if ours.dataset.value_counts().to_dict() != {name: n for name, n in held_out.clips.items() if n}:
        return True
    if held_out.clips_sha256 is not None and _ids_sha256(ours.clip_id) != held_out.clips_sha256:
        return True
    return held_out.added is not None and set(provenance.clips.dataset) - kept != held_out.added


def _ids_sha256(clip_ids: Collection[str]) -> str:
    return storage.stable_hash(sorted(clip_ids), 64)


def _measured(ensemble: Mapping[str, Any]) -> frozenset[str] | None:
    """The data sets that ensemble.json says the model is measured on; for a final fit, those of its folds."""
    names = ensemble.get(run_folder.MEASURED_KEY)
    if names is None:
        final = ensemble.get(run_folder.FINAL_KEY)
        folds = final.get("cross_validation") if isinstance(final, Mapping) else None
        names = folds.get("cv_by_dataset") if isinstance(folds, Mapping) else None
    return frozenset(map(str, names)) if isinstance(names, list | Mapping) else None
