"""Errors in a training step: a loss that is nan or infinite, and a device whose memory is full."""

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

#: Remedies for the messages, with the flags of each kind of head.
LOWER_RATE = "a lower --learning-rate (i3d_tuned: --tuned-learning-rate; in hard/: --hard-learning-rate)"
SMALLER_HEAD = "a smaller head: --units 32 --projection 64 (i3d_tuned has only one size: use another device)"


class StopAtNan(keras.callbacks.Callback):
    """Raises UserError in the step that makes the epoch's mean loss nan or infinite, not at the end of the epoch."""

    def __init__(self, folder: Path, epoch: int, steps: int):
        super().__init__()
        self.folder, self.epoch, self.steps = folder, epoch, steps

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        loss = float((logs or {})["loss"])  # the mean over the epoch so far
        if not math.isfinite(loss):
            raise not_a_number("the loss", self.folder, self.epoch, self.steps, batch + 1)


def not_a_number(what: str, folder: Path, epoch: int, steps: int, step: int | None = None) -> UserError:
    """The error for a value that became nan or infinite in a step of training, with remedies.

    `what`: the value's name. `epoch`, `step`: counted from 1; `step` is by default the last of the epoch's `steps`.
    """
    where = f"step {step or steps} of {steps} of epoch {epoch}"
    return UserError(
        f"{what} became nan or infinite in {where} of {folder}. Try --mixed-precision off, {LOWER_RATE}, or "
        "--devices 1. The epochs before it are kept: the same command continues after them"
    )


def in_batches_that_fit(judge: Callable[[int], np.ndarray], size: int) -> tuple[np.ndarray, int]:
    """Call `judge` with a batch size, which is halved as long as the device's memory is full.

    `size`: the first batch size. Returns what `judge` returned, and the batch size with which it did. Raises UserError
    if a single clip does not fit.
    """
    while True:
        try:
            return judge(size), size
        except tf.errors.OpError as e:
            if not tensorflow_start.memory_is_full(e):
                raise
            if size == 1:
                raise UserError(
                    f"the device's memory is full even when judging one clip ({str(e).splitlines()[0][:200]}). End "
                    f"other programs that use it, or train {SMALLER_HEAD}"
                ) from e
        size //= 2
        log.warning("OUT OF DEVICE MEMORY while judging clips: from here on, %d clips at a time", size)
