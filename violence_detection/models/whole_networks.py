"""Judging with heads that are whole networks on pictures: they run on an engine, as backbones do.

In training such a head takes pictures from the feature cache, where a backbone put them unchanged (PICTURES_OF in
training/config.py). To judge, backbone and head become one network from frames to P(fight), which an engine compiles.
Neither pictures in 16 bits nor the backbone's published weights are then needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from violence_detection.backbones import eight_bits, registry
from violence_detection.backbones.eight_bits import ActivationRange
from violence_detection.backbones.registry import Backbone
from violence_detection.errors import UserError
from violence_detection.features import key
from violence_detection.features.key import BackboneRun
from violence_detection.training import run_folder
from violence_detection.training.config import PICTURES_OF

if TYPE_CHECKING:
    import keras

    from violence_detection.models.trained_model import Member, TrainedModel


@dataclass(frozen=True)
class JudgedByEngine:
    """Stands in for a head that an engine has run: its P(fight) is one of the inputs, name -> (N, 1, 1)."""

    input_name: str

    def predict(self, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        """P(fight), (N,) float64 in [0, 1], taken from the inputs."""
        return inputs[self.input_name][:, 0, 0].astype(np.float64)


def taken_out(model: TrainedModel) -> tuple[TrainedModel, list[BackboneRun]]:
    """The model with its whole networks replaced by JudgedByEngine, and the runs that give their P(fight).

    A model without whole networks is returned as it is, with no runs. Raises UserError if pictures would be made
    differently than in training.
    """
    from violence_detection.models import trained_model

    pictures: set[str] = set()
    runs: list[BackboneRun] = []
    members: list[Member] = []
    for member, record in zip(model.members, model.records, strict=False):
        name = PICTURES_OF.get(record.get("architecture", ""))
        if name:
            if name not in pictures:
                trained_model.check_features(model, name)
            pictures.add(name)
            run = _run(model, registry.get(name), member, record)
            (judged,) = run.inputs(run.config.streams[0])
            member, runs = replace(member, head=JudgedByEngine(judged)), [*runs, run]
        members.append(member)
    if not runs:
        return model, []
    left = tuple(name for name in model.features.backbone if name not in pictures)
    features = replace(model.features, backbone=left)
    return replace(model, members=tuple(members), features=features), runs


def _run(model: TrainedModel, pictures: Backbone, member: Member, record: Mapping[str, Any]) -> BackboneRun:
    """The head as a backbone that gives P(fight), (1, 1). Its name has spaces, so no registered backbone has it."""
    config = key.for_backbone(model.features, pictures.name)
    shape = (config.frames, pictures.input_size, pictures.input_size, 3)
    assert member.file
    head = replace(
        pictures,
        name=f"judged by {member.name}",
        feature_dim=1,
        build=lambda _: _network(shape, member, record),
        sampling=replace(pictures.sampling, frames_per_step=config.frames),
        ranges=_ranges(member.file.parent),
    )
    return BackboneRun(config, (head,), member.file, judges=True)


def _ranges(folder: Path) -> tuple[ActivationRange, ...]:
    """What judging in 8 bits needs; empty if the model has no such file. Raises UserError if the file is damaged."""
    path = folder / run_folder.RANGES_NAME
    if not path.is_file():
        return ()
    try:
        return eight_bits.from_record(run_folder.read_object(path))
    except ValueError as e:
        raise UserError(f"{path} cannot be used ({e}). Remove it to judge with 16 bits") from e


def _network(shape: tuple[int, int, int, int], member: Member, record: Mapping[str, Any]) -> keras.Model:
    """A network from RGB frames (F, S, S, 3), values 0..255, to P(fight) (1, 1), in the current dtype policy."""
    import keras
    from keras import ops

    from violence_detection.training import saved_heads

    frames = keras.Input(shape[1:], name="frames")
    clip = ops.reshape(frames, (1, shape[0], -1))
    head = saved_heads.copy_of(member.model, record)
    return keras.Model(frames, head(dict.fromkeys(record["inputs"], clip)), name="whole_network")
