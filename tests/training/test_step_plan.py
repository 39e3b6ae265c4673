"""The number of steps of a run that has no selection part to end it."""

from __future__ import annotations

import dataclasses

import pytest

from violence_detection.training import step_plan
from violence_detection.training.config import TrainConfig
from violence_detection.training.step_plan import StepPlan

CONFIG = TrainConfig(epochs=50, batch_size=64, schedule_epochs=20, warmup_epochs=3)


@pytest.mark.parametrize(("clips", "steps"), [(1, 1), (10, 1), (64, 1), (65, 2), (640, 10)])
def test_an_epoch_has_the_steps_that_its_clips_fill(clips: int, steps: int) -> None:
    assert step_plan.steps_an_epoch(CONFIG, clips) == steps


def test_epochs_are_counted_in_steps() -> None:
    assert step_plan.of_epochs(CONFIG, 10) == StepPlan(steps=200, horizon=200, warmup=30)
    assert step_plan.of_epochs(CONFIG, 10, epochs=7) == StepPlan(steps=70, horizon=200, warmup=30)
    short = dataclasses.replace(CONFIG, epochs=2)
    assert step_plan.of_epochs(short, 10) == StepPlan(steps=20, horizon=20, warmup=10)


def test_of_several_folds_the_middle_is_taken_the_lower_of_two() -> None:
    plans = [StepPlan(50, 200, 30), StepPlan(90, 190, 30), StepPlan(70, 210, 33), StepPlan(10, 200, 30)]
    assert step_plan.middle(plans) == StepPlan(50, 200, 30)


def test_a_record_says_its_plan_or_counts_epochs() -> None:
    plan = StepPlan(50, 200, 30)
    assert step_plan.of_record({"steps": dataclasses.asdict(plan)}) == plan
    assert step_plan.of_record({"train": {}}) is None
