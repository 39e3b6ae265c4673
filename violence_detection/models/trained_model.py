"""A trained model, ready to use: its members, their weights in the average, and its own preprocessing."""

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
    """One trained head of a model, with its weight in the average.

    `head`: a keras.Model, or a KernelHead or JudgedByEngine that judges in its place; None: it is loaded from `file`
    once it is needed. `temperature`: what its logit is divided by, if the model averages logits; otherwise None.
    `published`: a file of published weights, for a head that is stored as the difference from them.
    """

    name: str
    head: Any
    weight: float
    temperature: float | None = None
    file: Path | None = None
    published: Path | None = None

    @cached_property
    def model(self) -> keras.Model:
        """The head as a keras.Model, loaded if need be. Raises UserError if its file is damaged."""
        if self.file is None or not (self.head is None or self._judges_itself):
            return self.head
        from violence_detection.training import saved_heads

        return saved_heads.load(self.file, self.published)

    @property
    def _judges_itself(self) -> bool:
        from violence_detection.models.light_heads import KernelHead  # only once a model is used
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
        """The attention of each time step, (N, T) for each time axis that the head pools by attention; may be empty."""
        if self._judges_itself:
            return []
        from violence_detection.training import heads

        return heads.attention(self.model, inputs)


@dataclass(frozen=True)
class TrainedModel:
    """One or several heads on the same features.

    `folder`: that of the first member. `folders`: those that may have a table of the clips that the model was made
    with: the ensemble's and each member's. `record`: config.json of the first member, with the feature records and
    engines of all; `records`: config.json of each member. `early_exit`: the rule by which one member may judge alone.
    `by_all`: the early exit is not taken at this operating point, so that all members judge. `closer_look`: whether the
    last view of a clip is the closer look. `calibration`: None if there is none, as for models in tests.
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
        """The model at an operating point; `threshold` is the threshold of `balanced`.

        The early exit is not taken if the record of the point says so, or if at `balanced` the threshold is so low that
        the exit would decide there. Raises UserError if no such point is stored with the model.
        """
        if self.calibration is None:
            return replace(self, threshold=threshold, by_all=False)
        return replace(
            self,
            threshold=self.calibration.threshold(point, threshold),
            by_all=self.calibration.leaves_out(self.early_exit, point, threshold),
        )

    def by_all_members(self) -> TrainedModel:
        """The model with its early exit not taken."""
        return replace(self, by_all=self.early_exit is not None)

    @property
    def exits(self) -> EarlyExit | None:
        """The early exit if it is taken, otherwise None."""
        return None if self.by_all else self.early_exit

    @property
    def applied(self) -> Calibration | None:
        """The calibration that fits the probabilities it gives: with the early exit or, if `by_all`, without."""
        if self.by_all and self.calibration is not None:
            return self.calibration.without_exit
        return self.calibration

    @property
    def member_threshold(self) -> float:
        """`threshold` as a probability of members and of their mean, before the model's temperature is applied."""
        if self.applied is None:
            return self.threshold
        return float(self.applied.before(np.array([self.threshold]))[0])

    def with_own(self, temperatures: Mapping[str, float]) -> TrainedModel:
        """The model with these temperatures of its members, by name, so that their logits are averaged."""
        return replace(
            self, members=tuple(replace(m, temperature=temperatures[m.name]) for m in self.members)
        )

    @property
    def calibrated(self) -> bool:
        """Whether `average` gives calibrated probabilities."""
        return self.applied is not None and self.applied.calibrated

    def predict(self, inputs: Inputs, members: Sequence[Member] | None = None) -> dict[str, np.ndarray]:
        """P(fight) of each member, member name -> (N,) in [0, 1], for inputs name -> (N, T, C).

        A member's own temperature is applied. `members`: only these; None: all.
        """
        from violence_detection.models import averaging  # only once a model is used

        found = {}
        for m in self.members if members is None else members:
            p = m.predict(inputs)
            found[m.name] = p if m.temperature in (None, 1.0) else averaging.scaled(p, 1 / m.temperature)
        return found

    def attention(self, inputs: Inputs) -> dict[str, np.ndarray]:
        """The attention of each time step, for members that pool by attention: name -> (N, T), rows sum to 1.

        A member with several time axes has an entry for each, named "<member>, <T> steps".
        """
        found: dict[str, np.ndarray] = {}
        for m in self.members:
            shares = m.attention(inputs)
            for share in shares:
                found[m.name if len(shares) == 1 else f"{m.name}, {share.shape[1]} steps"] = share
        return found

    def average(self, by_member: Mapping[str, np.ndarray]) -> np.ndarray:
        """P(violent), (N,): the members' weighted mean, calibrated if the model is.

        Where the early exit lets one member judge alone, its probability stays as it is: its own temperature has been
        applied. `by_member`: as `predict` returns it.
        """
        p = self.uncalibrated(by_member)
        if self.applied is None:
            return p
        calibrated, settled = self.applied.apply(p), self.averaged.settled(by_member)
        return calibrated if settled is None else np.where(settled, p, calibrated)

    def uncalibrated(self, by_member: Mapping[str, np.ndarray]) -> np.ndarray:
        """The members' weighted mean, (N,): not finite where any member's P(fight) is not, even if its weight is 0."""
        from violence_detection.models import averaging  # only once a model is used

        weights = [m.weight for m in self.members]
        return averaging.together({m.name: by_member[m.name] for m in self.members}, weights, self.averaged)

    @property
    def averaged(self) -> Averaging:
        """How the members' probabilities are averaged at this operating point."""
        from violence_detection.models.averaging import Averaging

        return Averaging(all(m.temperature is not None for m in self.members), self.exits)

    @property
    def first(self) -> tuple[Member, ...]:
        """The member that judges first if the early exit is taken, otherwise none."""
        return tuple(m for m in self.members if self.exits and m.name == self.exits.member)

    def inputs_of(self, member: Member) -> tuple[str, ...]:
        """The names of the member's inputs."""
        from violence_detection.models.whole_networks import JudgedByEngine

        if isinstance(member.head, JudgedByEngine):
            return (member.head.input_name,)
        place = [m.name for m in self.members].index(member.name)
        return tuple(self.records[place]["inputs"])

    def trained_with(self, backbones: Sequence[str]) -> list[str]:
        """The engines, sorted, that may have made the training features of these backbones for any member."""
        made_by = self.record["feature_engines"]
        return sorted(
            {e for name, engines in made_by.items() if name.split(".")[0] in backbones for e in engines}
        )

    def average_views(self, inputs: Inputs, members: Sequence[Member] | None = None) -> dict[str, np.ndarray]:
        """P(fight) of each member over V views, member name -> (N,), for inputs name -> (N, V, T, C).

        `members`: only these; None: all.
        """
        from violence_detection.models import averaging  # only once a model is used

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

        `weights_file`: a file of their weights; None: found or fetched. Raises UserError if weights cannot be had or
        are not those of training, or if features would be made differently than in training.
        """
        from violence_detection.backbones import registry  # only to start judging
        from violence_detection.features import key

        # from the members' inputs, not from the settings, which lack backbones of whole networks while judging
        backbones = sorted({key.backbone_of(name) for record in self.records for name in record["inputs"]})
        runs = key.backbone_runs(self.features, registry.handed_over(backbones, weights_file))
        for run in runs:
            for backbone in run.backbones:
                check_weights(self, backbone.name, run.weights)
                check_features(self, backbone.name, run.weights)
        return [run if self._takes_eight_bits(run) else run.without_ranges() for run in runs]

    def _takes_eight_bits(self, run: BackboneRun) -> bool:
        """Whether only kernel heads take features of this run: with other heads 8 bits were not measured."""
        from violence_detection.training.config import KERNEL

        made = {name for stream in run.config.streams for name in run.inputs(stream)}
        looking = [record for record in self.records if not made.isdisjoint(record["inputs"])]
        return all(record["architecture"] == KERNEL for record in looking)

    @property
    def trained_on_samples(self) -> bool:
        """Whether it was trained on generated sample clips."""
        return bool(self.record.get("generated_samples"))


def load(path: Path, backbone_weights: Path | None = None) -> TrainedModel:
    """Load a model file, a model folder or an ensemble folder.

    `backbone_weights`: a file of published weights, for members that are stored as the difference from them. If the
    model's backbones have different weights files, it is put into the cache for the backbones that it belongs to.

    Raises UserError, naming the remedy, if there is no model, if it or its record is damaged or missing, or if its
    members were trained on different features.
    """
    from violence_detection.backbones import registry  # only to load
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
            f"the members of {path} were trained on different features. Train them again together"
        )
    # a member may use only some of the backbones
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
        # a shipped model has one table for all its members, and no others
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
    """A stored head, as `Member.head` takes it: a kernel head without Keras if possible, otherwise a keras.Model.

    None for a whole network, which is loaded only when needed; but it is loaded now if `published` weights are given,
    so that wrong ones are reported at once.
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
    """Raise UserError if `weights` is not the weights file that `backbone` made the training features with."""
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

    The augmentation of training clips may differ, since it does not touch plain clips. Without `weights`, the hash of
    the weights is not compared either.
    """
    from violence_detection.features import key  # only to start judging

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
    """Load one trained head, from `.safetensors` if that file exists, otherwise from `.keras`.

    Raises UserError if it is missing or damaged.
    """
    from violence_detection.training import run_folder, saved_heads

    return saved_heads.load(run_folder.stored(file))
