"""Optimiser steps of a run: how many, and how the learning rate moves over them.

A run with a selection part counts epochs. One without, the final fit on every clip, has its steps in its record, under
`steps`: an epoch of more clips has more steps, so the same number of epochs would train for longer.
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
    """`steps`: made in all. The learning rate rises for `warmup` steps, then falls until step `horizon`."""

    steps: int
    horizon: int
    warmup: int


def steps_an_epoch(config: TrainConfig, clips: int) -> int:
    """Steps in which an epoch goes through so many train clips once."""
    return -(-clips // min(config.batch_size, clips))


def of_epochs(config: TrainConfig, steps_an_epoch: int, epochs: int | None = None) -> StepPlan:
    """The plan of a run that counts epochs; `epochs` made of them, by default until the learning rate has fallen."""
    horizon = min(config.epochs, config.schedule_epochs)
    warmup = min(config.warmup_epochs, horizon - 1)
    made = horizon if epochs is None else epochs
    return StepPlan(made * steps_an_epoch, horizon * steps_an_epoch, warmup * steps_an_epoch)


def given(record: Mapping[str, Any]) -> StepPlan | None:
    """The plan in a run's record (config.json); None where it counts epochs."""
    return StepPlan(**record[RECORD_KEY]) if RECORD_KEY in record else None


def middle(plans: Sequence[StepPlan]) -> StepPlan:
    """The median of each number, the lower one of two."""
    return StepPlan(
        *(statistics.median_low(getattr(p, name) for p in plans) for name in ("steps", "horizon", "warmup"))
    )
