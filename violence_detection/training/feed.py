"""Feed batches from `Samples` to TensorFlow, each prepared while the device works on the one before."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from violence_detection.errors import UserError
from violence_detection.features.key import Inputs
from violence_detection.training.training_data import Samples

_AHEAD = 2  # batches that are prepared in advance
_T = TypeVar("_T")
_OPTIONS = tf.data.Options()
# There is nothing to tune. The autotuner's thread (TensorFlow 2.21) sleeps for 0.01 s, 0.02 s, 0.04 s and so on, and is
# often not woken at the end of an epoch: every second epoch waited for it, for up to as long again as the epoch took.
_OPTIONS.autotune.enabled = False


class Feed:
    """Datasets over one set of samples.

    TensorFlow keeps what a dataset calls alive until the process ends (tensorflow#57690). Datasets therefore reach the
    samples only through a list, which `release()` empties.

    TensorFlow turns an exception from the code that reads samples into an error of its own, which has lost the
    exception's type. Inside `errors()`, the original UserError is raised instead.
    """

    def __init__(self, samples: Samples):
        self.samples = samples
        self._sources: list[Callable[[], Iterator[Any]]] = []  # one for each dataset
        self._errors: list[UserError] = []

    def training(
        self, batch_size: int, seed: int, epoch: Callable[[], int], balanced: bool = False
    ) -> tf.data.Dataset:
        """A dataset of inputs and labels (B, 1). Iterating over it once goes through one epoch.

        `epoch` is called at the start of each iteration and returns the number of the epoch. `balanced`: see
        `Samples.batches`.
        """
        signature = (self._inputs(batch_size), tf.TensorSpec((batch_size, 1), tf.float32))
        return self._dataset(lambda: self.samples.batches(batch_size, seed, epoch(), balanced), signature)

    def plain(self, batch_size: int, devices: int = 1) -> tf.data.Dataset:
        """A dataset of the plain variants in order, inputs alone.

        A batch that `devices` cannot share evenly is filled up with copies of its first clip: cuDNN's recurrent layers
        do not accept a share without a clip.
        """
        return self._dataset(
            lambda: ((_shared_by(x, devices),) for x in self.samples.plain_batches(batch_size)),
            (self._inputs(None),),
        )

    def _inputs(self, batch_size: int | None) -> dict[str, tf.TensorSpec]:
        shapes = self.samples.shapes()
        return {name: tf.TensorSpec((batch_size, *shape), tf.float16) for name, shape in shapes.items()}

    def _dataset(self, batches: Callable[[], Iterator[Any]], signature: Any) -> tf.data.Dataset:
        sources, errors, number = self._sources, self._errors, len(self._sources)
        sources.append(batches)

        def guarded() -> Iterator[Any]:
            try:
                yield from _read_ahead(sources[number]())
            except UserError as e:
                errors.append(e)
                raise

        dataset = tf.data.Dataset.from_generator(guarded, output_signature=signature).prefetch(_AHEAD)
        return dataset.with_options(_OPTIONS)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """In this context, raise the UserError that made reading fail in place of TensorFlow's error."""
        try:
            yield
        except tf.errors.OpError as e:
            if not self._errors:
                raise
            raise self._errors.pop() from e

    def release(self) -> None:
        """Let go of the samples. The datasets cannot be iterated over afterwards."""
        self._sources.clear()
        self._errors.clear()


def _shared_by(batch: Inputs, devices: int) -> Inputs:
    missing = -len(next(iter(batch.values()))) % devices
    if not missing:
        return batch
    return {name: np.concatenate([x, x[:1].repeat(missing, axis=0)]) for name, x in batch.items()}


def _read_ahead(batches: Iterator[_T]) -> Iterator[_T]:
    """Yield the items of `batches`, made by a separate thread while earlier items are in use.

    TensorFlow's `prefetch` alone does not achieve this: with deterministic operations, which training on a CPU uses, it
    turns itself off for datasets that call Python.
    """
    with ThreadPoolExecutor(1, "batches") as thread:
        waiting = deque(thread.submit(next, batches, None) for _ in range(_AHEAD))
        while (item := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, batches, None))
            yield item
