"""A trained model with all that is needed to use it: its members, weights, and its own preprocessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.constants import DEFAULT_THRESHOLD
from violence_detection.errors import UserError
from violence_detection.system import storage

if TYPE_CHECKING:
    import keras

    from violence_detection.features.config import FeatureConfig
    from violence_detection.features.key import BackboneRun, Inputs
    from violence_detection.models.averaging import Averaging, EarlyExit
    from violence_detection.models.calibration import Calibration


@dataclass(frozen=True)
class Member:
    """One trained head, its share in the average, and where logits are averaged what its own is divided by.

    `head`: a keras.Model, or what judges in its place (KernelHead, JudgedByEngine); None: it is loaded from `file`
    when it is needed, with `published` weights if it holds its difference from these.
    """

    name: str
    head: Any
    weight: float
    temperature: float | None = None
    file: Path | None = None
    published: Path | None = None

    @cached_property
    def model(self) -> keras.Model:
        """The head as Keras has it. Raises UserError if it must be loaded and is damaged."""
        if self.file is None or not (self.head is None or self._judges_itself):
            return self.head
        from violence_detection.training import saved_heads

        return saved_heads.load(self.file, self.published)

    @property
    def _judges_itself(self) -> bool:
        from violence_detection.models.light_heads import KernelHead  # loaded with the members
        from violence_detection.models.whole_networks import JudgedByEngine

        return isinstance(self.head, KernelHead | JudgedByEngine)

    def predict(self, inputs: Inputs) -> np.ndarray:
        """P(fight), (N,) in [0, 1], for inputs name -> (N, T, C)."""
        if self._judges_itself:
            judged: np.ndarray = self.head.predict(inputs)
            return judged
        from violence_detection.training import heads

        return heads.predict(self.model, inputs)

    def attention(self, inputs: Inputs) -> list[np.ndarray]:
        """How much each time step counts, (N, T) for each time axis that it pools by attention."""
        if self._judges_itself:
            return []
        from violence_detection.training import heads

        return heads.attention(self.model, inputs)


@dataclass(frozen=True)
class TrainedModel:
    """One or several heads on the same features. `folder` and `record` (config.json) are the first member's.

    `folders`: those with a table of the clips that it was made with, the ensemble's and each member's. `records`: those
    of all members. `early_exit`: the member that judges first, and alone where it sees no fight; `by_all`: not at this
    operating point, where all judge. `closer_look`: whether the last view is one. `calibration`: None where there is
    nothing stored of it, as for models of a test.
    """

    folder: Path
    folders: tuple[Path, ...]
    members: tuple[Member, ...]
    features: FeatureConfig
    record: Mapping[str, Any]
    records: tuple[Mapping[str, Any], ...] = ()
    threshold: float = DEFAULT_THRESHOLD
    calibration: Calibration | None = None
    early_exit: EarlyExit | None = None
    by_all: bool = False
    closer_look: bool = False

    def at(self, point: str, threshold: float = DEFAULT_THRESHOLD) -> TrainedModel:
        """The same with the threshold of an operating point; `threshold` is that of `balanced`.

        All members judge where the early exit would decide for them, as the point's record or the threshold says.
        Raises UserError if the model has no such point stored.
        """
        if self.calibration is None:
            return replace(self, threshold=threshold, by_all=False)
        return replace(
            self,
            threshold=self.calibration.threshold(point, threshold),
            by_all=self.calibration.leaves_out(self.early_exit, point, threshold),
        )

    def by_all_members(self) -> TrainedModel:
        """The same without the early exit."""
        return replace(self, by_all=self.early_exit is not None)

    @property
    def exits(self) -> EarlyExit | None:
        """The early exit where it is taken."""
        return None if self.by_all else self.early_exit

    @property
    def applied(self) -> Calibration | None:
        """The calibration of the probabilities that it gives: with the early exit, or without."""
        if self.by_all and self.calibration is not None:
            return self.calibration.without_exit
        return self.calibration

    @property
    def member_threshold(self) -> float:
        """What `threshold` is of members' probabilities and of their mean, before the model's temperature."""
        if self.applied is None:
            return self.threshold
        return float(self.applied.before(np.array([self.threshold]))[0])

    def with_own(self, temperatures: Mapping[str, float]) -> TrainedModel:
        """The same with temperatures of its members' own, by name: the mean is of their logits."""
        return replace(
            self, members=tuple(replace(m, temperature=temperatures[m.name]) for m in self.members)
        )

    @property
    def calibrated(self) -> bool:
        """Whether `average` gives calibrated probabilities."""
        return self.applied is not None and self.applied.calibrated

    def predict(self, inputs: Inputs, members: Sequence[Member] | None = None) -> dict[str, np.ndarray]:
        """P(fight) of each member, name -> (N,) in [0, 1], for inputs name -> (N, T, C); by its own temperature.

        `members`: only these, by default all.
        """
        from violence_detection.models import averaging  # loaded with the model

        found = {}
        for m in self.members if members is None else members:
            p = m.predict(inputs)
            found[m.name] = p if m.temperature in (None, 1.0) else averaging.scaled(p, 1 / m.temperature)
        return found

    def attention(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """How much each time step counts, (N, T) with rows that sum to 1, of the members that pool by attention.

        A member with several time axes has one entry for each, "<member>, <T> steps".
        """
        found: dict[str, np.ndarray] = {}
        for m in self.members:
            shares = m.attention(inputs)
            for share in shares:
                found[m.name if len(shares) == 1 else f"{m.name}, {share.shape[1]} steps"] = share
        return found

    def average(self, by_member: Mapping[str, np.ndarray]) -> np.ndarray:
        """P(violent), (N,): the members' weighted mean, calibrated where the model is.

        What a member says alone is by its own temperature already.
        """
        p = self.uncalibrated(by_member)
        if self.applied is None:
            return p
        calibrated, settled = self.applied.apply(p), self.averaged.settled(by_member)
        return calibrated if settled is None else np.where(settled, p, calibrated)

    def uncalibrated(self, by_member: Mapping[str, np.ndarray]) -> np.ndarray:
        """The members' weighted mean, (N,): not finite where any member's is, whatever its weight."""
        from violence_detection.models import averaging  # loaded with the model

        weights = [m.weight for m in self.members]
        return averaging.together({m.name: by_member[m.name] for m in self.members}, weights, self.averaged)

    @property
    def averaged(self) -> Averaging:
        """How the members' probabilities become one at this operating point."""
        from violence_detection.models.averaging import Averaging

        return Averaging(all(m.temperature is not None for m in self.members), self.exits)

    @property
    def first(self) -> tuple[Member, ...]:
        """The members that judge first, and alone where they are sure: one, or none."""
        return tuple(m for m in self.members if self.exits and m.name == self.exits.member)

    def inputs_of(self, member: Member) -> tuple[str, ...]:
        """The names of the inputs that it looks at."""
        from violence_detection.models.whole_networks import JudgedByEngine

        if isinstance(member.head, JudgedByEngine):
            return (member.head.input_name,)
        place = [m.name for m in self.members].index(member.name)
        return tuple(self.records[place]["inputs"])

    def trained_with(self, backbones: Sequence[str]) -> list[str]:
        """The engines that may have made the features of these backbones for training, of any member."""
        made_by = self.record["feature_engines"]
        return sorted(
            {e for name, engines in made_by.items() if name.split(".")[0] in backbones for e in engines}
        )

    def average_views(self, inputs: Inputs, members: Sequence[Member] | None = None) -> dict[str, np.ndarray]:
        """P(fight) of each member, or of these, for inputs name -> (N, V, T, C) of the V views together."""
        from violence_detection.models import averaging  # loaded with the model

        views = next(iter(inputs.values())).shape[1]
        per_view = [
            self.predict({n: v[:, i].astype(np.float32) for n, v in inputs.items()}, members)
            for i in range(views)
        ]
        return {
            name: averaging.over_views(np.stack([p[name] for p in per_view]), self.closer_look)
            for name in per_view[0]
        }

    def backbone_runs(self, weights_file: Path | None = None) -> list[BackboneRun]:
        """The backbones that make its features, checked to make them as in training.

        Raises UserError if their weights cannot be had, or the features would be others.
        """
        from violence_detection.backbones import registry  # needed once, to begin
        from violence_detection.features import key

        # of all that its members look at: judging takes whole networks out of the settings
        backbones = sorted({key.backbone_of(name) for record in self.records for name in record["inputs"]})
        runs = key.backbone_runs(self.features, registry.handed_over(backbones, weights_file))
        for run in runs:
            for backbone in run.backbones:
                check_weights(self, backbone.name, run.weights)
                check_features(self, backbone.name, run.weights)
        return [run if self._takes_eight_bits(run) else run.without_ranges() for run in runs]

    def _takes_eight_bits(self, run: BackboneRun) -> bool:
        """Whether all that look at its features are kernel heads: of other heads it was not measured."""
        from violence_detection.training.config import KERNEL

        made = {name for stream in run.config.streams for name in run.inputs(stream)}
        looking = [record for record in self.records if not made.isdisjoint(record["inputs"])]
        return all(record["architecture"] == KERNEL for record in looking)

    @property
    def trained_on_samples(self) -> bool:
        return bool(self.record.get("generated_samples"))


def load(path: Path, backbone_weights: Path | None = None) -> TrainedModel:
    """Load a model file, a model folder or an ensemble folder.

    `backbone_weights`: a file of the published weights, for members that hold their difference from them; where the
    model's backbones have several weights it is put into the cache for those whose it is.

    Raises UserError, with the command that makes one, if there is no model, it is damaged, or its record is missing.
    """
    from violence_detection.backbones import registry  # needed once, to load
    from violence_detection.features.config import FeatureConfig
    from violence_detection.models import calibration, model_files
    from violence_detection.training import model_record, run_folder

    files = model_files.listed(path)
    records = [model_record.read(model_files.record_path(file)) for _, file, _ in files]
    feature_records: dict[str, Any] = {}
    for r in records:
        feature_records |= r["feature_records"]
    if any(feature_records[n] != found for r in records for n, found in r["feature_records"].items()):
        raise UserError(
            f"the members of {path} were trained on different features; train them again together"
        )
    # a member may look at some of the backbones alone
    backbones = tuple(dict.fromkeys(b for r in records for b in r["features"]["backbone"]))
    backbone_weights = registry.handed_over(backbones, backbone_weights)
    own, early_exit = model_files.temperatures(path) or {}, model_files.early_exit(path)
    members = tuple(
        Member(name, _head(file, record, backbone_weights), weight, own.get(name), file, backbone_weights)
        for (name, file, weight), record in zip(files, records, strict=True)
    )
    known = {f.name for f in fields(FeatureConfig)}
    stored: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in records[0]["features"].items() if k in known
    }
    stored["backbone"] = backbones
    folders = tuple(file.parent for _, file, _ in files)
    record = {
        **records[0],
        "feature_records": feature_records,
        "feature_engines": _engines_of_all(records),
    }
    has_table = (path / run_folder.CLIPS_NAME).is_file() and path not in folders
    return TrainedModel(
        folders[0],
        # a shipped model has one table for all of its members
        (path,) if has_table and model_files.is_shipped(path) else (path, *folders) if has_table else folders,
        members,
        FeatureConfig(**stored),
        record,
        tuple(records),
        calibration=calibration.read(path),
        early_exit=early_exit,
        closer_look=model_files.closer_look(path),
    )


def _head(file: Path, record: Mapping[str, Any], published: Path | None) -> Any:
    """What judges with a stored head: without Keras where that can be; a whole network only once it is needed.

    But with published weights that were given: whether they are the right ones is to be said at once.
    """
    from violence_detection.models.light_heads import kernel_head
    from violence_detection.training.config import PICTURES_OF

    if record["architecture"] in PICTURES_OF and published is None:
        return None
    if light := kernel_head(file, record):
        return light
    from violence_detection.training import saved_heads

    return saved_heads.load(file, published)


def _engines_of_all(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        for name, engines in record.get("feature_engines", {}).items():
            found.setdefault(name, set()).update(engines)
    return {name: sorted(engines) for name, engines in found.items()}


def check_weights(model: TrainedModel, backbone: str, weights: Path) -> None:
    """Raise UserError if the backbone weights here are not those the model was trained on."""
    trained_on = {
        r["weights_sha256"] for r in model.record["feature_records"].values() if r["backbone"] == backbone
    }
    here = storage.sha256_file(weights)
    if trained_on != {here}:
        raise UserError(
            f"{model.folder} was trained on {backbone} weights with SHA-256 {', '.join(sorted(trained_on))}, but "
            f"{weights} has {here}. Give the original file with --backbone-weights FILE"
        )


def check_features(model: TrainedModel, backbone: str, weights: Path | None = None) -> None:
    """Raise UserError if features are made differently here than when the model was trained.

    How training clips are augmented may differ: no plain clip is touched by it. Without `weights`, nor do they count.
    """
    from violence_detection.features import key  # needed once, to begin

    for trained_on in model.record["feature_records"].values():
        if trained_on["backbone"] != backbone:
            continue
        here = key.record(model.features, backbone, trained_on["stream"], weights)
        keys = (here.keys() | trained_on.keys()) - {"augmentation", *(() if weights else ("weights_sha256",))}
        if other := [k for k in sorted(keys) if here.get(k) != trained_on.get(k)]:
            raise UserError(
                f"{model.folder} was trained by another version of these scripts, on features made differently "
                f"({', '.join(f'{k}: {trained_on.get(k)}, now {here.get(k)}' for k in other)}). Train it again, or use "
                "the version that trained it"
            )


def load_model(file: Path) -> keras.Model:
    """One trained head, from the better of its two files. Raises UserError if it is damaged."""
    from violence_detection.training import run_folder, saved_heads

    return saved_heads.load(run_folder.stored(file))
