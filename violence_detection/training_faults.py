"""What can go wrong in a training step: a loss that is no number, and a device whose memory is full."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from violence_detection.errors import UserError


class StopAtNan(keras.callbacks.Callback):
    """Ends training in the step whose loss is no number, before the rest of the epoch is wasted."""

    def __init__(self, folder: Path, epoch: int, steps: int):
        super().__init__()
        self.folder, self.epoch, self.steps = folder, epoch, steps

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        loss = float((logs or {})["loss"])  # the mean so far
        if not math.isfinite(loss):
            raise not_a_number("the loss", self.folder, self.epoch, self.steps, batch + 1)


def not_a_number(what: str, folder: Path, epoch: int, steps: int, step: int | None = None) -> UserError:
    """The error for `what` became nan or infinite in that step, by default the epoch's last; it names the remedies."""
    where = f"step {step or steps} of {steps} of epoch {epoch}"
    return UserError(
        f"{what} became nan or infinite in {where} of {folder}. Try --mixed-precision off, a lower --learning-rate, or "
        "--devices 1; the epochs before it are kept, and the same command would go on from there"
    )


def memory_is_full(error: tf.errors.OpError) -> bool:
    """Whether the device ran out of memory; cuDNN says so in words only."""
    return isinstance(error, tf.errors.ResourceExhaustedError) or "out of memory" in str(error).lower()
