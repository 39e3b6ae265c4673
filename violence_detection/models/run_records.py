"""The records of how a trained model was made, read from its folder for the roadmap's checklist and the model card.

Records may come from anybody. They are only shown, never acted on, so one that is missing or malformed counts as empty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.errors import UserError
from violence_detection.models import averaging, made_alike, model_files
from violence_detection.models.made_alike import HeldOutProvenance, Provenance
from violence_detection.system.figures import percentage
from violence_detection.training import run_folder, step_plan, trained_clips
from violence_detection.training.config import KERNEL, settings_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class MemberRecord:
    """One member: its weight in the average, its config.json and its result.json, each empty if there is none."""

    name: str
    weight: float
    config: Mapping[str, Any]
    result: Mapping[str, Any]

    @classmethod
    def of_file(cls, model: Path, name: str = "", weight: float = 1.0) -> MemberRecord:
        """The member with the records beside the model file `model`."""
        config, result = (_object(model.parent / n) for n in (run_folder.CONFIG_NAME, run_folder.RESULT_NAME))
        return cls(name, weight, config, result)

    @property
    def in_steps(self) -> bool:
        """Whether it was trained in steps, so that batch size and learning rate mattered: all but the kernel head."""
        return self.of("architecture") != KERNEL

    @property
    def in_epochs(self) -> bool:
        """Whether its training was counted in epochs, not in a number of steps fixed in advance."""
        return "epochs" in settings_of(str(self.of("architecture"))) and self.of(step_plan.RECORD_KEY) is None

    @property
    def chose_epoch(self) -> bool:
        """Whether the epoch that is kept was chosen on the selection part."""
        return self.in_epochs and self.of("train", "keep") != "last"

    @property
    def input_streams(self) -> list[tuple[str, str, str]]:
        """Backbone, stream and number of frames of each input, as text.

        They come from the records of its features if there are any: a backbone with its own sampling takes other frames
        than the settings ask for.
        """
        inputs = self.of("feature_records")
        found = [r for r in inputs.values() if isinstance(r, Mapping)] if isinstance(inputs, Mapping) else []
        if found:
            return [(str(r.get("backbone")), str(r.get("stream")), str(r.get("frames"))) for r in found]
        asked, frames = self.of("features", "streams"), str(self.of("features", "frames"))
        return [
            (self.name, str(stream), frames) for stream in (asked if isinstance(asked, list) else [asked])
        ]

    def of(self, *keys: str) -> Any:
        """The value at these nested keys of its config; None if it is not there."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


@dataclass(frozen=True)
class RunRecords:
    """The records of a model and of the folds, tuned members and figures in or above its folder.

    `clips`: every labelled clip that any member was made with, with the columns of trained_on.csv.
    `mined`: how many clips were searched for hard ones. `tuned`: the members that were fine-tuned on these.
    `tuned_beside`: whether fine-tuned members are in a folder below this one.
    `cross_validation`: the folds' figures, if the folds' models were made with the clips, settings and members of this
    one; otherwise empty, and `no_cross_validation` says why. `other_folds`: in what existing folds differ from it.
    `final_fit`: what ensemble.json says of a final fit; empty for other models. `left_out`: for a final fit, the
    figures on left-out data sets by models made like it; empty if there are none.
    `adapted_to`: how many stretches of footage without labels the model was adapted to afterwards. `trained_on_all`:
    whether it is known to be trained on every labelled clip that there was.
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
    other_folds: tuple[str, ...] = ()
    adapted_to: int = 0
    trained_on_all: bool = False

    def values(self, *keys: str, of: Sequence[MemberRecord] | None = None) -> list[Any]:
        """The values at these nested keys of the members' configs, each once, in order. `of`: only these members."""
        found: list[Any] = []
        for member in self.members if of is None else of:
            if (value := member.of(*keys)) not in found:
                found.append(value)
        return found

    @property
    def streams(self) -> str:
        """The streams that the members' backbones take, sorted, as text."""
        return ", ".join(sorted({stream for member in self.members for _, stream, _ in member.input_streams}))

    @property
    def frames(self) -> str:
        """How many frames of a clip the backbones take, as text; with the backbones' names if the numbers differ."""
        takers: dict[str, set[str]] = {}
        for backbone, _, frames in (stream for member in self.members for stream in member.input_streams):
            takers.setdefault(frames, set()).add(backbone)
        if len(takers) == 1:
            return next(iter(takers))
        in_order = sorted(takers.items(), key=lambda item: (len(item[0]), item[0]))
        return ", ".join(f"{frames} ({', '.join(sorted(names))})" for frames, names in in_order)

    @property
    def epochs_ran(self) -> list[int]:
        """How many epochs the trainings of members ran, each number once, sorted; only members trained in epochs."""
        found = [member.result.get("epochs_run") for member in self.members if member.in_epochs]
        return sorted({n for n in found if run_folder.is_count(n)})

    @property
    def chose_epoch(self) -> bool:
        """Whether any member's epoch was chosen on the selection part."""
        return any(member.chose_epoch for member in self.members)

    @property
    def has_selection(self) -> bool:
        """Whether clips were kept from training for selection. A member that does not record it counts as if so."""
        return any(member.of("clips", "selection") != 0 for member in self.members)

    @property
    def folds_in_words(self) -> str:
        """The folds' accuracy in a sentence, or that the folds are of other settings; empty if there are no folds."""
        if self.other_folds:
            other = ", ".join(self.other_folds)
            return f"Cross-validation: folds of other settings than this model (other {other}), so no figure of them."
        record = self.cross_validation
        try:
            low, high = record["cv_accuracy_ci95"]
            how = (
                f"Each of {len(record['folds'])} data sets judged by other models of the same settings, which were "
                "trained on the others alone"
                if self.folds_are_data_sets
                else f"Cross-validation, {len(record['folds'])} folds by source on the same manifest, other models of "
                "the same settings"
            )
            return (
                f"{how}: {percentage(record['cv_accuracy'])} % of {record['cv_n']} clips from "
                f"{record['cv_n_groups']} sources (95 % interval {percentage(low)} % to {percentage(high)} %)."
            )
        except (KeyError, TypeError, ValueError):
            return ""

    @property
    def folds_are_data_sets(self) -> bool:
        """Whether each fold held out one data set, rather than sources of every data set."""
        return bool(self.cross_validation.get("by_dataset"))

    @property
    def is_ensemble(self) -> bool:
        """Whether its folder has an ensemble.json."""
        return (self.folder / run_folder.ENSEMBLE_NAME).is_file()


def read(path: Path) -> RunRecords:
    """Read the records of a model file, a model folder or an ensemble folder. Raises UserError if there is no model."""
    import pandas as pd

    listed = model_files.listed(path)
    members, tables = [], []
    for name, file, weight in listed:
        members.append(MemberRecord.of_file(file, name, weight))
        tables.append(trained_clips.read(file.parent))
    folder = path if path.is_dir() else path.parent
    own = trained_clips.read(folder) if (folder / run_folder.ENSEMBLE_NAME).is_file() else None
    there = [table for table in (*tables, own) if table is not None]
    empty = pd.DataFrame(columns=list(trained_clips.COLUMNS), dtype=str)
    mined = 0 if own is None else int((own.role == trained_clips.MINED).sum())
    final_fit = _final_fit(folder)
    every = pd.concat([empty, *there], ignore_index=True).drop_duplicates("clip_id")
    is_footage = every.role == trained_clips.ADAPTED
    clips = every[~is_footage]
    provenance = Provenance.of([m.config for m in members], clips, _object(folder / run_folder.ENSEMBLE_NAME))
    folds = _Folds(final_fit["cross_validation"]) if final_fit else _cross_validation(folder, provenance)
    return RunRecords(
        folder=folder,
        members=tuple(members),
        clips=clips,
        mined=mined,
        tuned=tuple(n for n, file, _ in listed if mined and file.parent.parent == folder),
        tuned_beside=not mined and (folder / run_folder.TUNED_FOLDER / run_folder.ENSEMBLE_NAME).is_file(),
        cross_validation=folds.record,
        no_cross_validation=folds.why_not,
        final_fit=final_fit,
        left_out=_left_out(folder, provenance) if final_fit else {},
        other_folds=folds.other,
        adapted_to=int(is_footage.sum()),
        trained_on_all=bool(
            final_fit or _object(folder / run_folder.ENSEMBLE_NAME).get(run_folder.EVERY_CLIP_KEY)
        ),
    )


@dataclass(frozen=True)
class _Folds:
    """The record of a model's folds; if none counts, it is empty, `why_not` says why and `other` what differs."""

    record: Mapping[str, Any] = field(default_factory=dict)
    why_not: str = ""
    other: tuple[str, ...] = ()


def _final_fit(folder: Path) -> Mapping[str, Any]:
    """What ensemble.json of a final fit says of it, with its folds' figures; empty for any other model."""
    found = _object(folder / run_folder.ENSEMBLE_NAME).get(run_folder.FINAL_KEY)
    if not isinstance(found, dict) or not isinstance(found.get("cross_validation"), dict):
        return {}
    folds = found["cross_validation"].get("folds")
    return found if isinstance(folds, list) and folds else {}


def _left_out(folder: Path, provenance: Provenance) -> Mapping[str, Any]:
    """The figures on left-out data sets; empty unless they are known to be of models made like this one."""
    record = _object(folder / run_folder.LEFT_OUT_NAME)
    try:
        held_out = HeldOutProvenance.left_out(record)
    except made_alike.MALFORMED:
        return {}
    return (
        {}
        if made_alike.differences(provenance, held_out) or made_alike.unknown(provenance, held_out)
        else record
    )


def _cross_validation(folder: Path, provenance: Provenance) -> _Folds:
    """The folds in the folder, or in the one above it, if their models were made like this one.

    The folder above is searched only if this one has tuned members or is the ensemble of all folds.
    """
    places = (folder, folder.parent) if folder.name in (run_folder.TUNED_FOLDER, "folds") else (folder,)
    path = next(
        (p / run_folder.FOLDS_RECORD_NAME for p in places if (p / run_folder.FOLDS_RECORD_NAME).is_file()),
        None,
    )
    if path is None:
        return _Folds(why_not=f"no {run_folder.FOLDS_RECORD_NAME} in {folder}")
    record = _object(path)
    if not isinstance(record.get("folds"), list) or not record["folds"]:
        return _Folds(why_not=f"{path} lists no folds")
    try:
        held_out = _held_out_provenance(path.parent, record, all_together=folder.name == "folds")
    except (*made_alike.MALFORMED, UserError):
        return _Folds(why_not=f"{path} does not say which members and data sets its folds had")
    if held_out is None:
        return _Folds(
            why_not=f"{path} is there, but not the models of its folds, which record how they were made"
        )
    if other := made_alike.differences(provenance, held_out):
        return _Folds(
            why_not=f"folds of other settings (other {', '.join(other)}): {path}", other=tuple(other)
        )
    if why := made_alike.unknown(provenance, held_out):
        return _Folds(why_not=f"{path} may be of other clips than the model: {why}")
    return _Folds(record)


def _held_out_provenance(
    folder: Path, record: Mapping[str, Any], all_together: bool
) -> HeldOutProvenance | None:
    """How the models of the folds below `folder` were made; None if one of them is missing.

    `all_together`: the model that they are compared with is an ensemble of them all.
    """
    members = [str(name) for name in record["members"]]
    numbers = [int(fold["fold"]) for fold in record["folds"]]
    clips = {str(name): int(row["n"]) for name, row in record["cv_by_dataset"].items()}
    configs: dict[str, list[Mapping[str, Any]]] = {}
    tables = []
    for number in numbers:
        for name in members:
            below = folder / f"fold_{number}" / name
            if not (config := _object(below / run_folder.CONFIG_NAME)):
                return None
            configs.setdefault(str(config.get("architecture")), []).append(config)
            tables.append(trained_clips.read(below))
    return HeldOutProvenance(
        members=members * len(numbers) if all_together else members,
        made_with={name: [made_alike.made_with(c) for c in found] for name, found in configs.items()},
        clips=clips,
        clips_sha256=None,
        added=_added(tables, clips),
        in_logits=record.get(run_folder.FOLD_TEMPERATURES_KEY) is not None,
        early_exit=record.get(averaging.EARLY_EXIT_KEY),
        closer_look=bool(record.get(averaging.CLOSER_LOOK_KEY)),
    )


def _added(tables: Sequence[pd.DataFrame | None], measured: Mapping[str, int]) -> frozenset[str] | None:
    """The data sets that were trained on but not measured on; None if a table is missing or names no data sets."""
    known = [table for table in tables if table is not None and (table.dataset != "").all()]
    if len(known) < len(tables):
        return None
    return frozenset(str(name) for table in known for name in table.dataset) - set(measured)


def _object(path: Path) -> Mapping[str, Any]:
    try:
        return run_folder.read_object(path)
    except UserError:
        return {}
