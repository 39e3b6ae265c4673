"""Feed: batches are prepared while the device trains, and an epoch ends as soon as its last batch has been used."""

from __future__ import annotations

import gc
import statistics
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from violence_detection.errors import UserError
from violence_detection.features.key import Inputs
from violence_detection.training.feed import Feed
from violence_detection.training.training_data import Samples

SHAPE = (4, 3)


class Scripted(Samples):
    """Eight clips, which make four batches of two; `make` is called with the number of each batch as it is made."""

    def __init__(self, make: Callable[[int], None]) -> None:
        inputs = {"x": np.zeros((8, 1, *SHAPE), np.float16)}
        super().__init__(pd.DataFrame({"clip_id": list("abcdefgh")}), inputs, np.zeros(8, np.float32))
        object.__setattr__(self, "make", make)

    def batches(
        self, batch_size: int, seed: int, epoch: int, balanced: bool = False
    ) -> Iterator[tuple[Inputs, np.ndarray]]:
        for number, batch in enumerate(super().batches(batch_size, seed, epoch, balanced)):
            self.make(number)  # type: ignore[attr-defined]
            yield batch


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    tf.config.experimental.enable_op_determinism()  # which training on CPUs also uses


def test_the_next_batch_is_made_while_one_is_used() -> None:
    made = [threading.Event() for _ in range(4)]
    batches = iter(Feed(Scripted(lambda number: made[number].set())).training(2, 0, lambda: 0))
    next(batches)
    assert made[1].wait(10)  # although it was not asked for


def test_an_epoch_gives_every_batch_once() -> None:
    dataset = Feed(Scripted(lambda number: None)).training(2, 0, lambda: 0)
    assert [len(list(dataset)), len(list(dataset))] == [4, 4]


def test_no_device_is_left_without_a_clip() -> None:
    feed = Feed(Scripted(lambda number: None))
    assert [len(x["x"]) for (x,) in feed.plain(6, devices=4)] == [8, 4]
    assert [len(x["x"]) for (x,) in feed.plain(6)] == [6, 2]


def test_an_error_of_reading_comes_out_as_what_it_was() -> None:
    def fail(number: int) -> None:
        if number == 2:
            raise UserError("no such clip")

    feed = Feed(Scripted(fail))
    with pytest.raises(UserError, match="no such clip"), feed.errors():
        list(feed.training(2, 0, lambda: 0))


def test_what_is_released_leaves_the_memory() -> None:
    """TensorFlow keeps what a dataset calls alive until the process ends, and so the samples of every training."""
    samples = Scripted(lambda number: None)
    held = weakref.ref(samples)
    feed = Feed(samples)
    drawn = iter(feed.training(2, 0, samples.__len__))
    next(drawn)  # the other batches are never drawn, as when training ends in an error
    list(feed.plain(6))
    feed.release()
    del samples, feed, drawn
    gc.collect()
    assert held() is None


class _Slow(keras.callbacks.Callback):
    """Make each step last 0.1 s, about as long as on real data; `ended` is the time at which the last step ended."""

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        time.sleep(0.1)
        self.ended = time.monotonic()


@pytest.mark.slow
def test_an_epoch_ends_with_its_last_batch() -> None:
    inputs = {"x": keras.Input(SHAPE, name="x")}
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(inputs["x"])))
    model.compile(loss="mse")
    dataset, slow, waited = Feed(Scripted(lambda number: None)).training(2, 0, lambda: 0), _Slow(), []
    for _ in range(10):
        model.fit(dataset, steps_per_epoch=4, epochs=1, shuffle=False, verbose=0, callbacks=[slow])
        waited.append(time.monotonic() - slow.ended)
    assert statistics.median(waited) < 0.1, waited
