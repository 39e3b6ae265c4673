"""The optimiser steps of a run: how many, and how the learning rate changes over them.

A run counts epochs, or has its number of steps in its record, under `steps`. The latter is for fine-tuned networks, and
for runs without a selection part, such as the final fit on every clip: an epoch of more clips has more steps, so the
same number of epochs would train for longer.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from violence_detection.training.config import TrainConfig

RECORD_KEY = "steps"


@dataclass(frozen=True)
class StepPlan:
    """A run of `steps` steps. The learning rate rises for `warmup` steps, then falls until step `horizon`."""

    steps: int
    horizon: int
    warmup: int


def steps_an_epoch(config: TrainConfig, clips: int) -> int:
    """The number of steps in an epoch, which goes once through all of the `clips` train clips."""
    return -(-clips // min(config.batch_size, clips))


def of_epochs(config: TrainConfig, steps_an_epoch: int, epochs: int | None = None) -> StepPlan:
    """The plan of a run that counts epochs, for `epochs` of them, or by default until the learning rate has fallen."""
    horizon = min(config.epochs, config.schedule_epochs)
    warmup = min(config.warmup_epochs, horizon - 1)
    made = horizon if epochs is None else epochs
    return StepPlan(made * steps_an_epoch, horizon * steps_an_epoch, warmup * steps_an_epoch)


def of_record(record: Mapping[str, Any]) -> StepPlan | None:
    """The plan in a run's record (config.json); None if the run counts epochs."""
    return StepPlan(**record[RECORD_KEY]) if RECORD_KEY in record else None


def middle(plans: Sequence[StepPlan]) -> StepPlan:
    """The median of each number over the plans; of an even number of plans, the lower of the middle two."""
    return StepPlan(
        *(statistics.median_low(getattr(p, name) for p in plans) for name in ("steps", "horizon", "warmup"))
    )
