"""What a trained model's own folder says of how it was made: read for the roadmap's checklist and the model card.

Records may come from somebody else. They are only shown, never acted on, so one that is missing or odd is an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.errors import UserError
from violence_detection.models import model_files
from violence_detection.training import run_folder, trained_clips

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class MemberRecord:
    """One member: its share in the average, and its config.json and result.json; `result` is empty without one."""

    name: str
    weight: float
    config: Mapping[str, Any]
    result: Mapping[str, Any]

    def of(self, *keys: str) -> Any:
        """A value of its config, None where it is not there."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


@dataclass(frozen=True)
class RunRecords:
    """The records of a model and of what stands beside it.

    `clips`: every clip that any member was made with, columns of trained_on.csv. `mined`: how many were looked at for
    hard ones; `tuned`: the members that were then tuned; `tuned_beside`: whether such members stand in another folder.
    `cross_validation`: the folds' figures, where they were made from the same manifest; else empty, and
    `no_cross_validation` says why. `final_fit`: what ensemble.json says of a fit on every clip, else empty;
    `left_out`: of such a fit what models of its settings gave on data sets left out, where that was measured.
    """

    folder: Path
    members: tuple[MemberRecord, ...]
    clips: pd.DataFrame
    mined: int
    tuned: tuple[str, ...]
    tuned_beside: bool
    cross_validation: Mapping[str, Any]
    no_cross_validation: str
    final_fit: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, Any] = field(default_factory=dict)

    def values(self, *keys: str) -> list[Any]:
        """What the members' configs have, each once, in their order."""
        found: list[Any] = []
        for member in self.members:
            if (value := member.of(*keys)) not in found:
                found.append(value)
        return found

    @property
    def is_ensemble(self) -> bool:
        """Whether its members stand in an ensemble.json."""
        return (self.folder / run_folder.ENSEMBLE_NAME).is_file()


def read(path: Path) -> RunRecords:
    """The records of a model file, a model folder or an ensemble folder. Raises UserError if there is no model."""
    import pandas as pd

    listed = model_files.listed(path)
    members, tables = [], []
    for name, file, weight in listed:
        config = _object(file.parent / run_folder.CONFIG_NAME)
        members.append(MemberRecord(name, weight, config, _object(file.parent / run_folder.RESULT_NAME)))
        tables.append(trained_clips.read(file.parent))
    folder = path if path.is_dir() else path.parent
    own = trained_clips.read(folder) if (folder / run_folder.ENSEMBLE_NAME).is_file() else None
    there = [table for table in (*tables, own) if table is not None]
    empty = pd.DataFrame(columns=list(trained_clips.COLUMNS), dtype=str)
    mined = 0 if own is None else int((own.role == trained_clips.MINED).sum())
    final_fit = _final_fit(folder)
    found, why_not = (
        (final_fit["cross_validation"], "")
        if final_fit
        else _cross_validation(folder, {str(m.of("manifest_sha256")) for m in members})
    )
    return RunRecords(
        folder=folder,
        members=tuple(members),
        clips=pd.concat([empty, *there], ignore_index=True).drop_duplicates("clip_id"),
        mined=mined,
        tuned=tuple(n for n, file, _ in listed if mined and file.parent.parent == folder),
        tuned_beside=not mined and (folder / run_folder.TUNED_FOLDER / run_folder.ENSEMBLE_NAME).is_file(),
        cross_validation=found,
        no_cross_validation=why_not,
        final_fit=final_fit,
        left_out=_object(folder / run_folder.LEFT_OUT_NAME) if final_fit else {},
    )


def _final_fit(folder: Path) -> Mapping[str, Any]:
    """What a final fit keeps of the folds that say what it is worth; empty for any other model."""
    found = _object(folder / run_folder.ENSEMBLE_NAME).get(run_folder.FINAL_KEY)
    if not isinstance(found, dict) or not isinstance(found.get("cross_validation"), dict):
        return {}
    folds = found["cross_validation"].get("folds")
    return found if isinstance(folds, list) and folds else {}


def _cross_validation(folder: Path, manifests: set[str]) -> tuple[Mapping[str, Any], str]:
    """The figures of folds cut from the same manifest, in the folder or above it; else why there are none."""
    places = (folder, folder.parent) if folder.name in (run_folder.TUNED_FOLDER, "folds") else (folder,)
    path = next(
        (p / run_folder.FOLDS_RECORD_NAME for p in places if (p / run_folder.FOLDS_RECORD_NAME).is_file()),
        None,
    )
    if path is None:
        return {}, f"no {run_folder.FOLDS_RECORD_NAME} in {folder}"
    record = _object(path)
    configs = sorted(path.parent.glob(f"fold_*/*/{run_folder.CONFIG_NAME}"))
    theirs = {str(_object(config).get("manifest_sha256")) for config in configs}
    if not isinstance(record.get("folds"), list) or not record["folds"]:
        return {}, f"{path} names no folds"
    if not theirs:
        return {}, f"{path} is there, but not the models of its folds, which say of what clips it is"
    if theirs != manifests:
        return {}, f"{path} is of another manifest than the model"
    return record, ""


def _object(path: Path) -> Mapping[str, Any]:
    try:
        return run_folder.read_object(path)
    except UserError:
        return {}
