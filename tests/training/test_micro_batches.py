"""Cutting a batch into parts: into how many, and for how many devices."""

from __future__ import annotations

import dataclasses

import pytest
import synthetic

from violence_detection.errors import UserError
from violence_detection.training import micro_batches, trainer


@pytest.mark.parametrize(
    ("batch_size", "devices", "at_least", "parts"),
    [
        (16, 1, 1, 1),
        (16, 2, 3, 4),
        (15, 1, 2, 3),
        (15, 2, 1, 1),
        (15, 2, 2, 3),
        (15, 2, 8, 15),
        (16, 3, 3, 4),
    ],
)
def test_a_batch_that_devices_cannot_share_evenly_is_cut_for_one(
    batch_size: int, devices: int, at_least: int, parts: int
) -> None:
    assert micro_batches.parts_of(batch_size, devices, at_least) == parts


@pytest.mark.parametrize(
    ("batch_size", "devices", "at_least", "on"),
    [(16, 2, 9, "16 on 2"), (15, 2, 16, "15 on 1"), (2, 3, 3, "2 on 1")],
)
def test_what_cannot_be_cut_is_refused_with_the_devices_that_take_it(
    batch_size: int, devices: int, at_least: int, on: str
) -> None:
    with pytest.raises(
        UserError, match=rf"a batch of {on} device\(s\) cannot be divided into {at_least} equal parts"
    ):
        micro_batches.parts_of(batch_size, devices, at_least)


def test_a_refused_batch_names_the_flag_of_whole_networks_too() -> None:
    with pytest.raises(UserError, match=r"change --batch-size \(i3d_tuned: --tuned-batch-size\)"):
        micro_batches.parts_of(32, 1, 40)
    with pytest.raises(UserError, match=r"change --batch-size \(i3d_tuned: --tuned-batch-size\)"):
        dataclasses.replace(synthetic.TRAIN, batch_size=32, accumulate=40)


def test_a_run_whose_batch_one_device_takes_is_not_refused_before_it() -> None:
    config = dataclasses.replace(synthetic.TRAIN, batch_size=256, accumulate=2)
    trainer.check_batch("gru", config, 15, 2)
