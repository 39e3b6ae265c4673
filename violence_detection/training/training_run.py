"""The epochs of one training run, from the state on disk to the finished model."""

from __future__ import annotations

import dataclasses
import functools
import gc
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from violence_detection.backbones import keras_archive
from violence_detection.errors import UserError
from violence_detection.system import storage, tensorflow_start
from violence_detection.training import (
    canary,
    checkpoint,
    compiled_model,
    fine_tuning,
    heads,
    micro_batches,
    run_folder,
    saved_heads,
    step_plan,
    training_faults,
    training_log,
)
from violence_detection.training.checkpoint import TrainingState
from violence_detection.training.config import HeadConfig, TrainConfig
from violence_detection.training.feed import Feed
from violence_detection.training.run_folder import Trained
from violence_detection.training.training_board import Board
from violence_detection.training.training_data import Data
from violence_detection.training.training_pace import Pace

log = logging.getLogger(__name__)
#: Train clips that are judged where there is no selection part.
_JUDGED = 8
#: More than any layer draws in an epoch.
_DRAWS = 2**24


class TrainingRun:
    """The epochs of one training run."""

    def __init__(
        self,
        record: Mapping[str, Any],
        data: Data,
        folder: Path,
        strategy: Any,
        start: Path | None,
        usd_per_hour: float,
        published: Path | None,
    ):
        """`published`: weights that the network of a fine-tuned head starts from; None for other heads."""
        self.published = published
        self.record, self.data, self.folder = record, data, folder
        self.start = start
        self.config = TrainConfig(**record["train"])
        self.batch_size = min(self.config.batch_size, len(data.train))
        self.strategy = _sharing_evenly(strategy, self.batch_size)
        self.steps = step_plan.steps_an_epoch(self.config, len(data.train))
        self.plan = step_plan.given(record)
        assert self.plan or len(data.selection), "nothing would end training"
        self.state = TrainingState(parts=self._parts(self.config.accumulate))
        self.predict_batch = heads.predict_batch(data.train.shapes())
        # without a selection part some clips all the same: what has become nan in the last step shows in them alone
        self.judged = (
            data.selection if len(data.selection) else data.train.take(np.arange(len(data.train))[:_JUDGED])
        )
        self.judged_batches: dict[int, tf.data.Dataset] = {}  # by batch size
        self.train_feed, self.judged_feed = Feed(data.train), Feed(self.judged)
        self.pace = Pace(usd_per_hour)
        self.save_s = 0.0  # that it took to put the last epoch on disk

    def run(self) -> Trained:
        self.strategy = self._sound_strategy()
        try:
            with Board(self.folder / run_folder.BOARD_NAME, self.record) as board:
                return self._to_the_end(board)
        finally:
            self.train_feed.release()
            self.judged_feed.release()

    def _sound_strategy(self) -> Any:
        """The strategy, or one device alone where mirrored training is not sound.

        Fewer clips tell it too where the memory of a device is full. Raises UserError if one for each does not fit.
        """
        no_warmup = {**self.record, "train": {**self.record["train"], "warmup_epochs": 0}}
        if self.plan:
            no_warmup[step_plan.RECORD_KEY] = {**dataclasses.asdict(self.plan), "warmup": 0}
        devices = self.strategy.num_replicas_in_sync
        few = min(self.batch_size, 8 * devices)
        while True:
            batches = functools.partial(self.data.train.batches, few, self.config.seed, 0, self.balanced)
            try:
                return canary.sound_strategy(self.strategy, lambda: self._build(no_warmup), batches)
            except tf.errors.OpError as e:
                if not tensorflow_start.memory_is_full(e):
                    raise
                if few == devices:
                    raise UserError(
                        f"the device's memory is full with {few} clip(s) while mirrored training is checked "
                        f"({str(e).splitlines()[0][:200]}). Try --devices 1, or {training_faults.SMALLER_HEAD}"
                    ) from e
            few = max(devices, few // 2 // devices * devices)
            log.warning("OUT OF DEVICE MEMORY: mirrored training is checked with batches of %d clips", few)
            gc.collect()

    def _to_the_end(self, board: Board) -> Trained:
        """All epochs, with less on a device at a time whenever its memory is full."""
        while True:
            try:
                with self.train_feed.errors(), self.judged_feed.errors():
                    return self._finish(self._epochs(board), board)
            except tf.errors.OpError as e:
                if not tensorflow_start.memory_is_full(e):
                    raise
                self._halve_device_batch(e)
            gc.collect()

    def _epochs(self, board: Board) -> keras.Model:
        """The epochs that are left, from the state on disk."""
        with self.strategy.scope():
            model = self._build(self.record)
        self._restore(model)
        board.make_whole(self.state.history)
        if self.state.parts > 1:
            micro_batches.accumulate(model, self.state.parts)
        log.info("%s: %s parameters, %d steps an epoch", model.name, f"{model.count_params():,}", self.steps)
        if self.published:
            fine_tuning.mix_clips(model)
        batches = self.train_feed.training(
            self.batch_size, self.config.seed, lambda: self.state.epoch, self.balanced
        )
        while self.state.epoch < self.last_epoch and not self._stops():
            started, steps_before = time.monotonic(), _steps_made(model)
            _reseed(self.strategy, model, self.config.seed, self.state.epoch)
            steps = self._steps_of_epoch()
            stop = training_faults.StopAtNan(self.folder, self.state.epoch + 1, steps)
            history = model.fit(
                batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=[stop]
            ).history
            if _steps_made(model) == steps_before:  # loss scaling skips steps that overflow
                raise self._not_a_number("every gradient")
            fit_s = time.monotonic() - started
            p = self._predict_judged(model)
            row = self._row(model, {k: float(v[-1]) for k, v in history.items()}, p)
            self.pace.epoch(steps * self.batch_size, fit_s, time.monotonic() - started + self.save_s)
            log.info(
                "%s %s",
                training_log.line(self.record["architecture"], row, self.last_epoch),
                self.pace.line(self.last_epoch - int(row["epoch"])),
            )
            saving = time.monotonic()
            if self._save(model, row, board):
                board.pictures(self.data.selection.labels, p, int(row["epoch"]))
            self.save_s = time.monotonic() - saving
        return model

    def _steps_of_epoch(self) -> int:
        """Steps of the epoch that comes next: the last one is cut short where the plan ends in it."""
        return min(self.steps, self.plan.steps - self.state.epoch * self.steps) if self.plan else self.steps

    def _predict_judged(self, model: keras.Model) -> np.ndarray:
        """P(fight) of the judged clips: (N,) float64. Raises UserError where one is not finite."""

        devices = self.strategy.num_replicas_in_sync

        def judge(batch_size: int) -> np.ndarray:
            batch_size = max(devices, batch_size - batch_size % devices)  # so that only the last is filled up
            if batch_size not in self.judged_batches:
                self.judged_batches[batch_size] = self.judged_feed.plain(batch_size, devices)
            steps = -(-len(self.judged) // batch_size)  # without it Keras warns of the end
            return model.predict(self.judged_batches[batch_size], steps=steps, verbose=0)[: len(self.judged)]

        p, self.predict_batch = training_faults.in_batches_that_fit(judge, self.predict_batch)
        if not np.isfinite(p).all():
            raise self._not_a_number("P(fight) of a clip")
        return p[:, 0].astype(np.float64)

    def _not_a_number(self, what: str) -> UserError:
        return training_faults.not_a_number(what, self.folder, self.state.epoch + 1, self.steps)

    def _parts(self, at_least: int) -> int:
        """In how many equal parts a device takes its share of a batch."""
        return micro_batches.parts_of(self.batch_size, self.strategy.num_replicas_in_sync, at_least)

    def _halve_device_batch(self, error: Exception) -> None:
        """Have the device take half as many clips at a time; the batch, and so the training, stay as they are."""
        share = self.batch_size // self.strategy.num_replicas_in_sync
        before = self.state.parts
        try:
            self.state.parts = self._parts(2 * before)
        except UserError:
            raise UserError(
                f"the device's memory is full with {share // before} clip(s) at a time "
                f"({str(error).splitlines()[0][:200]}). Try {training_faults.SMALLER_HEAD}"
            ) from error
        log.warning(
            "OUT OF DEVICE MEMORY in epoch %d: from here on a device takes %d clips at a time instead of %d and "
            "updates the weights after %d of them as before; the epoch begins again. To begin so: --accumulate %d",
            self.state.epoch + 1, share // self.state.parts, share // before, share, self.state.parts,
        )  # fmt: skip

    @property
    def last_epoch(self) -> int:
        """The epoch that ends training; what is kept has the learning rate at its floor, unless a plan ends it."""
        c = self.config
        if self.plan:
            return -(-self.plan.steps // self.steps)
        return min(c.epochs, c.schedule_epochs) if c.keep == "last" else c.epochs

    @property
    def balanced(self) -> bool:
        """Whether clips are drawn evenly from data sets and classes."""
        return self.published is not None

    @property
    def keeps_last(self) -> bool:
        """Whether no epoch is chosen."""
        return self.plan is not None or self.config.keep == "last"

    def _stops(self) -> bool:
        return (
            not self.keeps_last
            and self.state.best_epoch >= 0
            and self.state.epoch - 1 - self.state.best_epoch >= self.config.patience
        )

    def _build(self, record: Mapping[str, Any]) -> keras.Model:
        model = compiled_model.build(record, self.steps)
        if self.start:
            model.set_weights(saved_heads.load(run_folder.stored(self.start)).get_weights())
        elif self.published:
            fine_tuning.start(model, self.published)
        return model

    def _restore(self, model: keras.Model) -> None:
        """Bring a fresh model to the end of the last epoch on disk, its optimiser included."""
        found = checkpoint.read(self.folder)
        if found is None:
            return
        saved, weights = found
        # there may have been more or fewer devices then
        share = self.batch_size // self.strategy.num_replicas_in_sync
        parts = self._parts(max(self.state.parts, min(saved.parts, share)))
        self.state = dataclasses.replace(saved, parts=parts)
        self.pace.go_on(saved.samples, saved.fit_s)
        keras_archive.check_weights(weights)
        with self.strategy.scope():  # not load_model: what weight decay leaves out is not in the file
            model.load_weights(weights)
        # Keras leaves out, without an error, what does not fit
        if saved.updates not in (-1, _steps_made(model)):
            raise UserError(
                f"{weights} was written in another precision, and its optimiser cannot go on in "
                f"{keras.mixed_precision.dtype_policy().name}. Train where TensorFlow sees GPUs, or none, as it did "
                "then (--check tells; CUDA_VISIBLE_DEVICES=-1 hides them). To train anew give another --output, or "
                f"remove {self.folder}"
            )
        if self.state.best_epoch == self.state.epoch - 1:  # it may not have come to its file
            saved_heads.save(model, self.folder / run_folder.BEST_NAME)
        log.info("%s: going on after epoch %d", self.folder, self.state.epoch)

    def _row(self, model: keras.Model, logs: Mapping[str, float], p: np.ndarray) -> dict[str, float]:
        """The epoch's row of the log; `p` (N,) is P(fight) of the selection clips, if there are any."""
        return {
            "epoch": self.state.epoch + 1,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "auc": logs["auc"],
            **training_log.on_selection(self.data.selection.labels, p),
            "learning_rate": float(model.optimizer.learning_rate),
        }

    def _save(self, model: keras.Model, row: dict[str, float], board: Board) -> bool:
        """Put the epoch on disk. Returns whether it is the best one so far.

        The state comes before the file of the best epoch and the points of TensorBoard's curves: gone through again, an
        epoch may be another one on GPUs, and nothing may stay of one that does not count.
        """
        state = self.state
        state.history.append(row)
        state.epoch += 1
        state.samples, state.fit_s = self.pace.samples, self.pace.fit_s
        state.updates = _steps_made(model)
        loss = row.get("selection_loss", row["loss"])
        is_best = self.keeps_last or loss < state.best_loss
        if is_best:
            state.best_loss, state.best_epoch = loss, state.epoch - 1
        storage.write_csv(self.folder / run_folder.LOG_NAME, training_log.COLUMNS, state.history)
        checkpoint.write(self.folder, state, model)
        board.scalars(row, self.pace.scalars())
        if is_best:
            saved_heads.save(model, self.folder / run_folder.BEST_NAME)
        return is_best

    def _finish(self, model: keras.Model, board: Board) -> Trained:
        best = self.state.history[self.state.best_epoch]
        saved_heads.save(model, self.folder / run_folder.FINAL_NAME)
        best_model = self.folder / run_folder.BEST_NAME
        if self.published:
            fine_tuning.finish(model, HeadConfig(**self.record["head"]), self.published)
            saved_heads.save(model, best_model)
        else:
            keras_archive.check_weights(best_model)
            model.load_weights(best_model)
            # again, where an earlier version or a killed run has left but one of the two files
            saved_heads.save_weights(model, run_folder.weights_of(best_model))
        p = self._predict_judged(model)
        if self.published:
            # other weights than those of the log
            best = {**best, **training_log.on_selection(self.data.selection.labels, p)}
        board.pictures(self.data.selection.labels, p, int(best["epoch"]), last=True)
        board.best(best.get("selection_accuracy"), best.get("selection_loss"), int(best["epoch"]))
        trained = Trained(
            folder=self.folder,
            selection_accuracy=best.get("selection_accuracy"),
            best_epoch=int(best["epoch"]),
            epochs_run=self.state.epoch,
            samples_per_second=round(self.pace.samples_per_second, 1),
        )
        trained.write()
        said = (
            "no selection part"
            if trained.selection_accuracy is None
            else f"selection accuracy {trained.selection_accuracy:.4f}"
        )
        kept = "last" if self.keeps_last else "best"
        log.info("%s: %s epoch %d of %d, %s", self.folder, kept, best["epoch"], self.state.epoch, said)
        return trained


def _sharing_evenly(strategy: Any, batch_size: int) -> Any:
    """The strategy if its devices can take equal shares of a batch, else one device alone: Keras takes no others."""
    devices = strategy.num_replicas_in_sync
    if batch_size % devices == 0:
        return strategy
    log.warning(
        "a batch of %d clips cannot be shared evenly by %d devices: GOING ON WITH ONE DEVICE. A --batch-size (of a "
        "whole network --tuned-batch-size) that is a multiple of %d, and at most as large as the train part, takes all",
        batch_size, devices, devices,
    )  # fmt: skip
    return tf.distribute.get_strategy()


def _reseed(strategy: Any, model: keras.Model, seed: int, epoch: int) -> None:
    """Give every dropout layer's generator a state that depends on (seed, epoch, layer, device) alone.

    That of the first device is the one of a single device. With one state for all, each would drop the same of its
    clips.
    """
    generators = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    for i, variable in enumerate(generators):
        first = storage.stable_seed(seed, epoch, i) % 2**31
        for device, own in enumerate(strategy.experimental_local_results(variable.value)):
            # the second one counts the draws
            own.assign(np.array([first, device * _DRAWS], dtype=variable.dtype))


def _steps_made(model: keras.Model) -> int:
    """Updates of the weights so far."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))
