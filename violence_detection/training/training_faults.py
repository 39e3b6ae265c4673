"""What can go wrong in a training step: a loss that is no number, and a device whose memory is full."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from violence_detection.errors import UserError
from violence_detection.system import tensorflow_start

log = logging.getLogger(__name__)

#: Remedies, with the flags of each kind of head.
LOWER_RATE = "a lower --learning-rate (of i3d_tuned --tuned-learning-rate, in hard/ --hard-learning-rate)"
SMALLER_HEAD = "a smaller head: --units 32 --projection 64 (i3d_tuned has one size: another device)"


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
        f"{what} became nan or infinite in {where} of {folder}. Try --mixed-precision off, {LOWER_RATE}, or "
        "--devices 1; the epochs before it are kept, and the same command would go on from there"
    )


def in_batches_that_fit(judge: Callable[[int], np.ndarray], size: int) -> tuple[np.ndarray, int]:
    """What `judge` gives with batches of `size`, or of half as many while the device's memory is full; and that size.

    Raises UserError if a single clip does not fit.
    """
    while True:
        try:
            return judge(size), size
        except tf.errors.OpError as e:
            if not tensorflow_start.memory_is_full(e):
                raise
            if size == 1:
                raise UserError(
                    f"the device's memory is full with one clip to judge ({str(e).splitlines()[0][:200]}). Free it of "
                    f"other programs, or train {SMALLER_HEAD}"
                ) from e
        size //= 2
        log.warning("OUT OF DEVICE MEMORY while judging clips: from here on %d at a time", size)
