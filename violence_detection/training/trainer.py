"""Train one head on cached features, so that a killed run goes on and ends as if nothing had happened.

Every epoch is a function of (state at its start, seed, epoch): order, variants and dropout are drawn anew from them.
The state at the end of each epoch is on disk: model, optimiser, schedule, early stopping and history. If the
device's memory is full, the epoch begins again from that state with less on the device at a time.

Without a selection part the record has the number of steps (step_plan.py): the last epoch ends with the last of them,
and it is kept.

run_folder.py says what stands where.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from violence_detection.backbones import keras_archive
from violence_detection.constants import CLASS_NAMES, __version__
from violence_detection.errors import UserError
from violence_detection.features import key
from violence_detection.features.config import FeatureConfig
from violence_detection.system import storage
from violence_detection.training import (
    activation_ranges,
    canary,
    fine_tuning,
    given_weights,
    heads,
    kernel_fit,
    micro_batches,
    run_folder,
    saved_heads,
    step_plan,
    trained_clips,
    training_faults,
)
from violence_detection.training.config import KERNEL, PICTURES_OF, HeadConfig, TrainConfig
from violence_detection.training.feed import Feed
from violence_detection.training.loss_scale import MirroredLossScale
from violence_detection.training.run_folder import Trained
from violence_detection.training.training_board import Board
from violence_detection.training.training_data import Data
from violence_detection.training.training_pace import Pace

log = logging.getLogger(__name__)

_COLUMNS = (
    "epoch", "loss", "accuracy", "auc", "selection_loss", "selection_accuracy", "selection_auc", "learning_rate",
)  # fmt: skip


@dataclass
class TrainingState:
    """What resuming needs beside the model and its optimiser."""

    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = -1
    parts: int = 1  # that a device takes its batch in
    history: list[dict[str, float]] = field(default_factory=list)


def run_record(
    architecture: str, data: Data, features: FeatureConfig, augment: int, head: HeadConfig, train: TrainConfig
) -> dict[str, Any]:
    """All that decides the outcome of a run, and all that prediction needs: saved as config.json."""
    tuned: dict[str, Any] = {}
    if architecture in PICTURES_OF:
        train = fine_tuning.train_config(head, train)
        tuned = {step_plan.RECORD_KEY: dataclasses.asdict(fine_tuning.plan(head))}
    return {
        "version": __version__,
        "classes": list(CLASS_NAMES),
        "architecture": architecture,
        "features": key.as_recorded(features),
        "inputs": {name: list(shape) for name, shape in sorted(data.train.shapes().items())},
        "feature_records": data.records,
        "feature_engines": data.engines,
        "augment": augment,
        "head": head.recorded(architecture),
        "train": dataclasses.asdict(train),
        "manifest_sha256": data.manifest_sha256,
        "clips": {"train": len(data.train), "selection": len(data.selection)},
        "generated_samples": data.generated,
        **tuned,
    }


def log_settings(record: Mapping[str, Any]) -> None:
    """Log what decides the outcome of a run, as config.json will hold it."""
    log.info("settings: preset %s, %s", record.get("preset", "none"), record["architecture"])
    for group in ("features", "head", "train"):
        log.info("  %s: %s", group, json.dumps(record[group], sort_keys=True))
    log.info("  augment: %s", record["augment"])


def train(
    record: Mapping[str, Any],
    data: Data,
    folder: Path,
    strategy: Any,
    overwrite: bool = False,
    start: Path | None = None,
    usd_per_hour: float = 0.0,
    backbone_weights: Path | None = None,
) -> Trained:
    """Train the head that `record` describes into `folder`, going on where an earlier run of it was killed.

    `start`: a model of the same architecture whose weights it starts with, instead of random ones.
    `usd_per_hour`: price of the machine, for what the log says is left to pay. `backbone_weights`: the file that a head
    with a whole network starts from, by default the published one.

    Data without a selection part need a record with a step plan.

    Raises UserError if the folder holds a run with other settings (unless `overwrite`), if the loss is no longer a
    number, or if a single clip at a time does not fit the device's memory.
    """
    trained = _trained(record, data, folder, strategy, overwrite, start, usd_per_hour, backbone_weights)
    if record["architecture"] in PICTURES_OF:
        activation_ranges.ensure(folder, data.train)  # also of one that an earlier version finished
    return trained


def _trained(
    record: Mapping[str, Any],
    data: Data,
    folder: Path,
    strategy: Any,
    overwrite: bool,
    start: Path | None,
    usd_per_hour: float,
    backbone_weights: Path | None,
) -> Trained:
    finished = run_folder.claim_folder(folder, record, overwrite)
    if not finished or not trained_clips.has_table(folder):  # also of one that an earlier version finished
        by_role = {trained_clips.TRAIN: data.train.rows, trained_clips.SELECTION: data.selection.rows}
        trained_clips.write(folder, by_role, [start.parent] if start else [])
    if finished:
        log.info("%s: finished earlier, nothing to do", folder)
        return finished
    if record["architecture"] == KERNEL:
        return kernel_fit.fit(record, data, folder)
    if run_folder.GIVEN_KEY in record:
        return given_weights.take(record, data, folder)
    if not fine_tuning.is_tuned(record):
        return _TrainingRun(record, data, folder, strategy, start, usd_per_hour, None).run()
    weights = fine_tuning.published_weights(record, backbone_weights)
    with fine_tuning.precision(TrainConfig(**record["train"])):
        return _TrainingRun(record, data, folder, strategy, start, usd_per_hour, weights).run()


def check(config: TrainConfig) -> None:
    """Raise UserError for settings that cannot work, before any work starts."""
    for name in ("epochs", "batch_size", "accumulate", "schedule_epochs", "patience"):
        if (value := getattr(config, name)) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1. Received: {value}")
    if not 0 < config.selection_fraction < 1:
        raise UserError(
            f"--selection-fraction must be between 0 and 1: a part of train chooses the epoch. Received: "
            f"{config.selection_fraction}"
        )
    if config.learning_rate <= 0:
        raise UserError(f"--learning-rate must be above 0. Received: {config.learning_rate}")


def build(record: Mapping[str, Any], steps: int) -> keras.Model:
    """The compiled model of a record with its first weights, which the seed decides. `steps`: of an epoch."""
    c = TrainConfig(**record["train"])
    shapes = {name: (shape[0], shape[1]) for name, shape in record["inputs"].items()}
    keras.utils.set_random_seed(c.seed)
    model = heads.build(record["architecture"], shapes, HeadConfig(**record["head"]))
    plan = step_plan.given(record) or step_plan.of_epochs(c, steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if plan.warmup else c.learning_rate,
        decay_steps=max(1, plan.horizon - plan.warmup),
        alpha=0.01,
        warmup_target=c.learning_rate if plan.warmup else None,
        warmup_steps=plan.warmup,
    )
    if fine_tuning.is_tuned(record):
        optimizer = fine_tuning.optimizer(model, schedule, c.weight_decay)
    else:
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=c.weight_decay, global_clipnorm=1.0)
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    is_float16 = keras.mixed_precision.dtype_policy().compute_dtype == "float16"
    model.compile(
        MirroredLossScale(optimizer) if is_float16 else optimizer,
        keras.losses.BinaryCrossentropy(label_smoothing=c.label_smoothing),
        metrics=[keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.AUC(name="auc")],
        jit_compile=False,
    )
    # now: TensorFlow traces a step twice that makes its optimiser's variables
    model.optimizer.build(model.trainable_variables)
    return model


class _TrainingRun:
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
        self.record, self.data, self.folder, self.strategy = record, data, folder, strategy
        self.start = start
        self.config = TrainConfig(**record["train"])
        self.batch_size = min(self.config.batch_size, len(data.train))
        self.steps = step_plan.steps_an_epoch(self.config, len(data.train))
        self.plan = step_plan.given(record)
        assert self.plan or len(data.selection), "nothing would end training"
        self.state = TrainingState(parts=self._parts(self.config.accumulate))
        self.predict_batch = heads.predict_batch(data.train.shapes())
        self.selection: dict[int, tf.data.Dataset] = {}  # by batch size
        self.train_feed, self.selection_feed = Feed(data.train), Feed(data.selection)
        self.pace = Pace(usd_per_hour)

    def run(self) -> Trained:
        few = min(self.batch_size, 8 * self.strategy.num_replicas_in_sync)
        no_warmup = {**self.record, "train": {**self.record["train"], "warmup_epochs": 0}}
        if self.plan:
            no_warmup[step_plan.RECORD_KEY] = {**dataclasses.asdict(self.plan), "warmup": 0}
        self.strategy = canary.sound_strategy(
            self.strategy,
            lambda: self._build(no_warmup),
            lambda: self.data.train.batches(few, self.config.seed, 0, self.balanced),
        )
        board = Board(self.folder / run_folder.BOARD_NAME, self.record)
        while True:
            try:
                with self.train_feed.errors(), self.selection_feed.errors():
                    return self._finish(self._epochs(board), board)
            except tf.errors.OpError as e:
                if not training_faults.memory_is_full(e):
                    raise
                self._halve_device_batch(e)
            gc.collect()

    def _epochs(self, board: Board) -> keras.Model:
        """The epochs that are left, from the state on disk."""
        with self.strategy.scope():
            model = self._build(self.record)
        self._restore(model)
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
            _reseed(model, self.config.seed, self.state.epoch)
            steps = self._steps_of_epoch()
            stop = training_faults.StopAtNan(self.folder, self.state.epoch + 1, steps)
            history = model.fit(
                batches, steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0, callbacks=[stop]
            ).history
            if _steps_made(model) == steps_before:  # loss scaling skips steps that overflow
                raise self._not_a_number("every gradient")
            fit_s = time.monotonic() - started
            p = self._predict_selection(model)
            row = self._row(model, {k: float(v[-1]) for k, v in history.items()}, p)
            self.pace.epoch(steps * self.batch_size, fit_s, time.monotonic() - started)
            log.info("%s %s", self._line(row), self.pace.line(self.last_epoch - int(row["epoch"])))
            board.scalars(row, self.pace.scalars())
            if self._save(model, row):
                board.pictures(self.data.selection.labels, p, int(row["epoch"]))
        return model

    def _steps_of_epoch(self) -> int:
        """Steps of the epoch that comes next: the last one is cut short where the plan ends in it."""
        return min(self.steps, self.plan.steps - self.state.epoch * self.steps) if self.plan else self.steps

    def _predict_selection(self, model: keras.Model) -> np.ndarray:
        """P(fight) of the selection clips: (N,) float64."""
        if not len(self.data.selection):
            return np.empty(0)

        def judge(batch_size: int) -> np.ndarray:
            if batch_size not in self.selection:
                self.selection[batch_size] = self.selection_feed.plain(batch_size)
            steps = -(-len(self.data.selection) // batch_size)  # without it Keras warns of the end
            return model.predict(self.selection[batch_size], steps=steps, verbose=0)

        p, self.predict_batch = training_faults.in_batches_that_fit(judge, self.predict_batch)
        return p[:, 0].astype(np.float64)

    def _not_a_number(self, what: str) -> UserError:
        return training_faults.not_a_number(what, self.folder, self.state.epoch + 1, self.steps)

    def _parts(self, at_least: int) -> int:
        """In how many equal parts a device takes its share of a batch."""
        share = self.batch_size // self.strategy.num_replicas_in_sync
        if self.batch_size % self.strategy.num_replicas_in_sync:
            share = 1  # shares differ in size: they are not cut
        if at_least > 1 and at_least > share:
            raise UserError(
                f"a batch of {self.batch_size} on {self.strategy.num_replicas_in_sync} device(s) cannot be taken in "
                f"{at_least} equal parts. Lower --accumulate or change --batch-size"
            )
        return micro_batches.parts_of(share, at_least)

    def _halve_device_batch(self, error: Exception) -> None:
        """Have the device take half as many clips at a time; the batch, and so the training, stay as they are."""
        share = self.batch_size // self.strategy.num_replicas_in_sync
        before = self.state.parts
        try:
            self.state.parts = self._parts(2 * before)
        except UserError:
            raise UserError(
                f"the device's memory is full with {share // before} clip(s) at a time "
                f"({str(error).splitlines()[0][:200]}). Try a smaller head: --units 32 --projection 64"
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
        model = build(record, self.steps)
        if self.start:
            model.set_weights(saved_heads.load(run_folder.stored(self.start)).get_weights())
        elif self.published:
            fine_tuning.start(model, self.published)
        return model

    def _restore(self, model: keras.Model) -> None:
        """Bring a fresh model to the end of the last epoch on disk, its optimiser included."""
        path = self.folder / "checkpoint" / "state.json"
        if not path.is_file():
            return
        saved = run_folder.read_object(path)
        try:
            weights = path.with_name(saved.pop("model"))
            self.state = TrainingState(**{**saved, "parts": max(self.state.parts, saved["parts"])})
        except (KeyError, TypeError, ValueError) as e:
            raise UserError(f"{path} cannot be used ({e!r}). Give --overwrite to train from the start") from e
        keras_archive.check_weights(weights)
        with self.strategy.scope():  # not load_model: what weight decay leaves out is not in the file
            model.load_weights(weights)
        log.info("%s: going on after epoch %d", self.folder, self.state.epoch)

    def _row(self, model: keras.Model, logs: Mapping[str, float], p: np.ndarray) -> dict[str, float]:
        """The epoch's row of the log; `p` (N,) is P(fight) of the selection clips, if there are any."""
        if not np.isfinite(p).all():
            raise self._not_a_number("P(fight) of a selection clip")
        return {
            "epoch": self.state.epoch + 1,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "auc": logs["auc"],
            **self._on_selection(p),
            "learning_rate": float(model.optimizer.learning_rate),
        }

    def _on_selection(self, p: np.ndarray) -> dict[str, float]:
        from sklearn.metrics import log_loss, roc_auc_score

        labels = self.data.selection.labels
        if not len(labels):
            return {}
        return {
            "selection_loss": float(log_loss(labels, p, labels=[0, 1])),
            "selection_accuracy": float(np.mean((p >= 0.5) == (labels == 1))),
            "selection_auc": float(roc_auc_score(labels, p)),
        }

    def _line(self, row: Mapping[str, float]) -> str:
        selection = (
            f"selection loss {row['selection_loss']:.4f}  acc {row['selection_accuracy']:.4f}  "
            f"auc {row['selection_auc']:.4f} | "
            if "selection_loss" in row
            else ""
        )
        return (
            f"{self.record['architecture']} epoch {row['epoch']}/{self.last_epoch}  loss {row['loss']:.4f}  "
            f"acc {row['accuracy']:.4f}  auc {row['auc']:.4f} | {selection}lr {row['learning_rate']:.2e}"
        )

    def _save(self, model: keras.Model, row: dict[str, float]) -> bool:
        """Put the epoch on disk; the state file is last, and until it is there the epoch did not happen.

        Returns whether it is the best epoch so far.
        """
        state = self.state
        state.history.append(row)
        state.epoch += 1
        loss = row.get("selection_loss", row["loss"])
        if self.keeps_last or loss < state.best_loss:
            state.best_loss, state.best_epoch = loss, state.epoch - 1
            saved_heads.save(model, self.folder / run_folder.BEST_NAME)
        storage.write_csv(self.folder / run_folder.LOG_NAME, _COLUMNS, state.history)
        name = f"epoch-{state.epoch:05d}.keras"
        checkpoint = self.folder / "checkpoint"
        _save_model(model, checkpoint / name)
        storage.write_json(checkpoint / "state.json", {"model": name, **dataclasses.asdict(state)})
        for old in checkpoint.glob("epoch-*.keras"):
            if old.name != name:
                old.unlink()
        return state.best_epoch == state.epoch - 1

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
        p = self._predict_selection(model)
        if self.published:
            best = {**best, **self._on_selection(p)}  # other weights than those of the log
        board.pictures(self.data.selection.labels, p, int(best["epoch"]), last=True)
        board.close(best.get("selection_accuracy"), best.get("selection_loss"), int(best["epoch"]))
        trained = Trained(
            folder=self.folder,
            selection_accuracy=best.get("selection_accuracy"),
            best_epoch=int(best["epoch"]),
            epochs_run=self.state.epoch,
            samples_per_second=round(self.pace.samples_per_second, 1),
        )
        values = {k: v for k, v in dataclasses.asdict(trained).items() if k != "folder"}
        storage.write_json(self.folder / run_folder.RESULT_NAME, values)
        said = (
            "no selection part"
            if trained.selection_accuracy is None
            else f"selection accuracy {trained.selection_accuracy:.4f}"
        )
        kept = "last" if self.keeps_last else "best"
        log.info("%s: %s epoch %d of %d, %s", self.folder, kept, best["epoch"], self.state.epoch, said)
        return trained


def _reseed(model: keras.Model, seed: int, epoch: int) -> None:
    """Give every dropout layer's generator a state that depends on (seed, epoch, layer) alone."""
    generators = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    for i, variable in enumerate(generators):
        variable.assign(np.array([storage.stable_seed(seed, epoch, i) % 2**31, 0], dtype=variable.dtype))


def _steps_made(model: keras.Model) -> int:
    """Updates of the weights so far."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def _save_model(model: keras.Model, path: Path) -> None:
    with storage.atomic_path(path) as temporary:
        model.save(temporary)
