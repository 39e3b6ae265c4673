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
#: Number of train clips that are judged after each epoch if there is no selection part.
_JUDGED = 8
#: Distance between the devices' counters of random draws. No layer draws as often in an epoch.
_DRAWS = 2**24


class TrainingRun:
    """A run of all epochs. `run` continues from the state on disk, if there is one."""

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
        """Prepare a run. Its parameters are those of `trainer.train`, with two differences.

        `strategy` is replaced by one device if its devices cannot share batches evenly. `published` is the file of
        published weights that a fine-tuned network starts from; None for other heads.
        """
        self.published = published
        self.record, self.data, self.folder = record, data, folder
        self.start = start
        self.config = TrainConfig(**record["train"])
        self.batch_size = min(self.config.batch_size, len(data.train))
        self.strategy = _sharing_evenly(strategy, self.batch_size)
        self.steps = step_plan.steps_an_epoch(self.config, len(data.train))
        self.plan = step_plan.of_record(record)
        assert self.plan or len(data.selection), "nothing would end training"
        self.state = TrainingState(parts=self._parts(self.config.accumulate))
        self.predict_batch = heads.predict_batch(data.train.shapes())
        # without a selection part, a few train clips: if weights become nan in the last step of an epoch, this shows
        # only when clips are judged
        self.judged = (
            data.selection if len(data.selection) else data.train.take(np.arange(len(data.train))[:_JUDGED])
        )
        self.judged_batches: dict[int, tf.data.Dataset] = {}  # by batch size
        self.train_feed, self.judged_feed = Feed(data.train), Feed(self.judged)
        self.pace = Pace(usd_per_hour)
        self.save_s = 0.0  # seconds it took to write the previous epoch to disk

    def run(self) -> Trained:
        """Train to the end. Raises UserError as `trainer.train` does."""
        self.strategy = self._sound_strategy()
        try:
            with Board(self.folder / run_folder.BOARD_NAME, self.record) as board:
                return self._to_the_end(board)
        finally:
            self.train_feed.release()
            self.judged_feed.release()

    def _sound_strategy(self) -> Any:
        """Return the strategy, or one device alone if mirrored training is not sound on this machine (canary.py).

        If the memory of a device is full, the check is repeated with fewer clips. Raises UserError if not even one clip
        per device fits.
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
                        f"the device's memory is full even with {few} clip(s) while mirrored training is checked "
                        f"({str(e).splitlines()[0][:200]}). Try --devices 1, or {training_faults.SMALLER_HEAD}"
                    ) from e
            few = max(devices, few // 2 // devices * devices)
            log.warning("OUT OF DEVICE MEMORY: mirrored training is checked with batches of %d clips", few)
            gc.collect()

    def _to_the_end(self, board: Board) -> Trained:
        """Run all epochs. Whenever a device's memory is full, continue with fewer clips on it at a time."""
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
        """Run the epochs that remain, starting from the state on disk. Returns the model after the last one."""
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
            # loss scaling skips steps whose gradients overflow, so here all steps were skipped
            if _steps_made(model) == steps_before:
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
        """The number of steps of the next epoch. The last epoch is cut short if the plan ends within it."""
        return min(self.steps, self.plan.steps - self.state.epoch * self.steps) if self.plan else self.steps

    def _predict_judged(self, model: keras.Model) -> np.ndarray:
        """P(fight) of the judged clips: (N,) float64. Raises UserError if one is not finite."""

        devices = self.strategy.num_replicas_in_sync

        def judge(batch_size: int) -> np.ndarray:
            # a multiple of the number of devices, so that only the last batch has to be filled up
            batch_size = max(devices, batch_size - batch_size % devices)
            if batch_size not in self.judged_batches:
                self.judged_batches[batch_size] = self.judged_feed.plain(batch_size, devices)
            # without the number of steps, Keras warns when the data set ends
            steps = -(-len(self.judged) // batch_size)
            return model.predict(self.judged_batches[batch_size], steps=steps, verbose=0)[: len(self.judged)]

        p, self.predict_batch = training_faults.in_batches_that_fit(judge, self.predict_batch)
        if not np.isfinite(p).all():
            raise self._not_a_number("P(fight) of a clip")
        return p[:, 0].astype(np.float64)

    def _not_a_number(self, what: str) -> UserError:
        return training_faults.not_a_number(what, self.folder, self.state.epoch + 1, self.steps)

    def _parts(self, at_least: int) -> int:
        """The number of equal parts, at least `at_least`, in which a device processes its share of a batch."""
        return micro_batches.parts_of(self.batch_size, self.strategy.num_replicas_in_sync, at_least)

    def _halve_device_batch(self, error: Exception) -> None:
        """Process half as many clips at a time on each device. Batches stay the same, and so does training.

        Raises UserError if a device already processes one clip at a time. `error`: TensorFlow's error.
        """
        share = self.batch_size // self.strategy.num_replicas_in_sync
        before = self.state.parts
        try:
            self.state.parts = self._parts(2 * before)
        except UserError:
            raise UserError(
                f"the device's memory is full even with {share // before} clip(s) at a time "
                f"({str(error).splitlines()[0][:200]}). Try {training_faults.SMALLER_HEAD}"
            ) from error
        log.warning(
            "OUT OF DEVICE MEMORY in epoch %d: from here on, a device processes %d clips at a time instead of %d, and "
            "updates the weights after %d of them as before. The epoch begins again. To start this way, give "
            "--accumulate %d",
            self.state.epoch + 1, share // self.state.parts, share // before, share, self.state.parts,
        )  # fmt: skip

    @property
    def last_epoch(self) -> int:
        """The number of the epoch, from 1, that ends training at the latest.

        With a step plan, it is the epoch of the last step. With `keep` "last", it is the one at whose end the learning
        rate has reached its lowest value.
        """
        c = self.config
        if self.plan:
            return -(-self.plan.steps // self.steps)
        return min(c.epochs, c.schedule_epochs) if c.keep == "last" else c.epochs

    @property
    def balanced(self) -> bool:
        """Whether equally many clips are drawn from each pair of data set and class."""
        return self.published is not None

    @property
    def keeps_last(self) -> bool:
        """Whether the last epoch is kept, rather than the one with the lowest loss."""
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
        """Set a fresh model and its optimiser to the state on disk, that of the end of the last epoch.

        Does nothing if there is no state. Raises UserError if it cannot be used.
        """
        found = checkpoint.read(self.folder)
        if found is None:
            return
        saved, weights = found
        # the number of devices may have changed since
        share = self.batch_size // self.strategy.num_replicas_in_sync
        parts = self._parts(max(self.state.parts, min(saved.parts, share)))
        self.state = dataclasses.replace(saved, parts=parts)
        self.pace.go_on(saved.samples, saved.fit_s)
        keras_archive.check_weights(weights)
        # not load_model: the file does not say which variables are exempt from weight decay
        with self.strategy.scope():
            model.load_weights(weights)
        # Keras skips what does not fit, such as the optimiser's state, without an error
        if saved.updates not in (-1, _steps_made(model)):
            raise UserError(
                f"{weights} was written in another precision, so its optimiser cannot continue in "
                f"{keras.mixed_precision.dtype_policy().name}. Train where TensorFlow sees GPUs, or sees none, as it "
                "did then (--check shows which; CUDA_VISIBLE_DEVICES=-1 hides them). To train again from the "
                f"beginning, give another --output, or remove {self.folder}"
            )
        # the best model is written after the state, so a killed run may not have written it
        if self.state.best_epoch == self.state.epoch - 1:
            saved_heads.save(model, self.folder / run_folder.BEST_NAME)
        log.info("%s: continuing after epoch %d", self.folder, self.state.epoch)

    def _row(self, model: keras.Model, logs: Mapping[str, float], p: np.ndarray) -> dict[str, float]:
        """The epoch's row of training_log.csv. `p`: P(fight) of the selection clips, (N,); unused if there are none."""
        return {
            "epoch": self.state.epoch + 1,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "auc": logs["auc"],
            **training_log.on_selection(self.data.selection.labels, p),
            "learning_rate": float(model.optimizer.learning_rate),
        }

    def _save(self, model: keras.Model, row: dict[str, float], board: Board) -> bool:
        """Write the epoch to disk. Returns whether it is the best one so far.

        The state is written before the best model and the points of TensorBoard's curves. If the run is killed before
        the state is written, the epoch is trained again, on GPUs with a slightly different outcome, and nothing of the
        first attempt may remain.
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
            # written again, since an earlier version or a killed run may have left only the `.keras` file
            saved_heads.save_weights(model, run_folder.weights_of(best_model))
        p = self._predict_judged(model)
        if self.published:
            # the weights are no longer those that the log's figures belong to
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
    """The strategy if its devices can share a batch evenly, which Keras requires; otherwise one device alone."""
    devices = strategy.num_replicas_in_sync
    if batch_size % devices == 0:
        return strategy
    log.warning(
        "a batch of %d clips cannot be shared evenly by %d devices: GOING ON WITH ONE DEVICE. To use all of them, "
        "give a --batch-size (i3d_tuned: --tuned-batch-size) that is a multiple of %d and at most as large as the "
        "train part",
        batch_size, devices, devices,
    )  # fmt: skip
    return tf.distribute.get_strategy()


def _reseed(strategy: Any, model: keras.Model, seed: int, epoch: int) -> None:
    """Set the state of every random generator in the model, so that it depends only on (seed, epoch, layer, device).

    Generators are those of dropout and of augmentation. The first device has the same state as a single device would
    have. If all devices had the same state, each would drop the same units in its share of the clips.
    """
    generators = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    for i, variable in enumerate(generators):
        first = storage.stable_seed(seed, epoch, i) % 2**31
        for device, own in enumerate(strategy.experimental_local_results(variable.value)):
            # a state is (seed, number of draws so far)
            own.assign(np.array([first, device * _DRAWS], dtype=variable.dtype))


def _steps_made(model: keras.Model) -> int:
    """The number of updates of the weights so far."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))
