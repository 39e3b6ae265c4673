"""Whether models that judged clips kept apart were made like a model: what they gave is then a figure of its kind.

Such models are those of folds (cross_validation.json) and those that were trained without a data set
(leave_one_dataset_out.json). Compared are the members with their settings, how they are averaged, and the clips. Their
seed is left out, and so is what is chosen on clips: weights, temperatures, thresholds.
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

#: Roles of clips of the data sets alone that a model is measured on.
_SELECTING = (trained_clips.SELECTION, trained_clips.WEIGHTS)
#: In `made_with` of a record: parts by member, the hash of the left-out clips' ids, the data sets trained on alone.
_MEMBERS_KEY, _CLIPS_KEY, _ADDED_KEY = "members", "left_out_clips", "added_datasets"
#: What a record that is odd is met by: it may come from somebody else.
ODD = (LookupError, TypeError, ValueError, AttributeError)


@dataclass(frozen=True)
class Made:
    """How a model was made. `records`: its members' config.json; `clips`: columns of trained_on.csv.

    `measured`: the data sets that it selects and is measured on, None where that was not noted. `in_logits`, and
    `early_exit` as files have it: how its members are averaged. `closer_look`: whether it takes one.
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
    ) -> Made:
        """Of its members' records, their clips, and its ensemble.json, which is empty for a single model."""
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
class JudgedApart:
    """What is known of models that judged clips kept apart, by turns each clip of some data sets.

    `members`: their architectures; `made_with`: by architecture the parts of `made_with`, of one or several models.
    `clips`: data set -> how many; `clips_sha256`: of all their ids, `added`: the data sets that were trained on alone;
    each None where an earlier version has not noted it.
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
    def left_out(cls, found: Mapping[str, Any]) -> JudgedApart:
        """Of leave_one_dataset_out.json. Raises one of `ODD` if it is none."""
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
    """By part, a hash of what a model's record (config.json) says that it was made with; its seed is left out."""
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
    """What leave_one_dataset_out.json holds under `made_with`.

    `records`: config.json of each member, of one of the models; `left_out`: ids of the clips that were, by turns;
    `added`: the data sets that were trained on alone.
    """
    return {
        **made_with(records[0]),
        _MEMBERS_KEY: {str(record["architecture"]): made_with(record) for record in records},
        _CLIPS_KEY: _ids_sha256(left_out),
        _ADDED_KEY: sorted(added),
    }


def differences(made: Made, apart: JudgedApart) -> list[str]:
    """What is other of the two: clips, members, average, early exit, closer look, or a part of `made_with`."""
    other = [
        name
        for record in made.records
        for parts in apart.made_with.get(str(record.get("architecture")), ())
        for name, value in made_with(record).items()
        if parts.get(name) != value
    ]
    if _has_other_clips(made, apart):
        other.append("clips")
    if sorted(apart.members) != sorted(str(record.get("architecture")) for record in made.records):
        other.append("members")
    elif made.in_logits != apart.in_logits:
        other.append("average")
    elif made.early_exit != apart.early_exit:
        other.append("early exit")
    if made.closer_look != apart.closer_look:
        other.append("closer look")
    return sorted(set(other))


def unknown(made: Made, apart: JudgedApart) -> str:
    """Why it cannot be told whether the clips are the same; empty where it can."""
    if made.clips.empty or (made.clips.dataset == "").any():
        return f"of the model no {trained_clips.CLIPS_NAME} names the clips and their data sets"
    if apart.added is None and (others := sorted(set(made.clips.dataset) - set(apart.clips))):
        return f"an earlier version did not note whether {', '.join(others)} was trained on too"
    return ""


def _has_other_clips(made: Made, apart: JudgedApart) -> bool:
    """Whether the clips are known to be others than those of the model.

    An added data set is compared by its name: those of its clips that share a source with a clip kept apart are not
    trained on.
    """
    if made.clips.empty or (made.clips.dataset == "").any():
        return False
    kept = set(apart.clips)
    if made.measured is not None and made.measured != kept:
        return True
    if not set(made.clips.dataset[made.clips.role.isin(_SELECTING)]) <= kept:
        return True
    ours = made.clips[made.clips.dataset.isin(kept)].drop_duplicates("clip_id")
    if ours.dataset.value_counts().to_dict() != {name: n for name, n in apart.clips.items() if n}:
        return True
    if apart.clips_sha256 is not None and _ids_sha256(ours.clip_id) != apart.clips_sha256:
        return True
    return apart.added is not None and set(made.clips.dataset) - kept != apart.added


def _ids_sha256(clip_ids: Collection[str]) -> str:
    return storage.stable_hash(sorted(clip_ids), 64)


def _measured(ensemble: Mapping[str, Any]) -> frozenset[str] | None:
    """The data sets that ensemble.json says it is measured on; of a final fit those of its folds."""
    names = ensemble.get(run_folder.MEASURED_KEY)
    if names is None:
        final = ensemble.get(run_folder.FINAL_KEY)
        folds = final.get("cross_validation") if isinstance(final, Mapping) else None
        names = folds.get("cv_by_dataset") if isinstance(folds, Mapping) else None
    return frozenset(map(str, names)) if isinstance(names, list | Mapping) else None
