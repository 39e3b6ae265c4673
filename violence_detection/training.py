"""Train one head on cached features, so that a killed run goes on and ends as if nothing had happened.

Every epoch is a function of (state at its start, seed, epoch): order, variants and dropout are drawn anew from them.
The state at the end of each epoch is on disk: model, optimiser, schedule, early stopping and history.

    <folder>/config.json            settings and preprocessing, written first
    <folder>/trained_on.txt         ids of the clips of train and selection
    <folder>/training_log.csv       a row an epoch
    <folder>/tensorboard_logs/      train/ and selection/
    <folder>/checkpoint/            the state at the end of the last epoch
    <folder>/best_model.keras       the epoch with the lowest selection loss
    <folder>/final_model.keras      the last epoch
    <folder>/result.json            the completion record, written last
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from violence_detection import CLASS_NAMES, __version__, heads, storage
from violence_detection.config import FeatureConfig, HeadConfig, TrainConfig
from violence_detection.errors import UserError
from violence_detection.training_data import Data, Inputs, Samples

log = logging.getLogger(__name__)

BEST_NAME, FINAL_NAME = "best_model.keras", "final_model.keras"
CONFIG_NAME, RESULT_NAME, LOG_NAME = "config.json", "result.json", "training_log.csv"
CLIPS_NAME = "trained_on.txt"
_PREDICT_BATCH = 256
_COLUMNS = (
    "epoch", "loss", "accuracy", "auc", "selection_loss", "selection_accuracy", "selection_auc", "learning_rate",
)  # fmt: skip


@dataclass
class State:
    """What resuming needs beside the model and its optimiser."""

    epoch: int = 0
    best_loss: float = math.inf
    best_epoch: int = -1
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Trained:
    """A finished training run."""

    folder: Path
    selection_accuracy: float
    best_epoch: int
    epochs_run: int
    samples_per_second: float

    @property
    def model_path(self) -> Path:
        return self.folder / BEST_NAME


def run_record(
    architecture: str, data: Data, features: FeatureConfig, augment: int, head: HeadConfig, train: TrainConfig
) -> dict[str, Any]:
    """All that decides the outcome of a run, and all that prediction needs: saved as config.json."""
    how = ("engine", "backbone_weights")  # where features come from, not what they are
    preprocessing = {k: v for k, v in dataclasses.asdict(features).items() if k not in how}
    return {
        "version": __version__,
        "classes": list(CLASS_NAMES),
        "architecture": architecture,
        "features": preprocessing,
        "inputs": {name: list(shape) for name, shape in sorted(data.train.shapes().items())},
        "feature_records": data.records,
        "augment": augment,
        "head": dataclasses.asdict(head),
        "train": dataclasses.asdict(train),
        "manifest_sha256": data.manifest_sha256,
        "clips": {"train": len(data.train), "selection": len(data.selection)},
        "generated_samples": data.generated,
    }


def train(
    record: Mapping[str, Any],
    data: Data,
    folder: Path,
    strategy: Any,
    overwrite: bool = False,
    start: Path | None = None,
) -> Trained:
    """Train the head that `record` describes into `folder`, going on where an earlier run of it was killed.

    `start`: a model of the same architecture whose weights it starts with, instead of random ones.

    Raises UserError if the folder holds a run with other settings (unless `overwrite`), or if the loss is no longer
    a number.
    """
    finished = _claim_folder(folder, record, overwrite)
    if finished:
        log.info("%s: finished earlier, nothing to do", folder)
        return finished
    config = TrainConfig(**record["train"])
    storage.write_text(
        folder / CLIPS_NAME, "".join(f"{c}\n" for p in (data.train, data.selection) for c in p.rows.clip_id)
    )
    run = _Run(record, config, data, folder, strategy, start)
    return run.run()


def trained_clips(folder: Path) -> frozenset[str]:
    """The ids of the clips that the model in `folder` was trained or selected on."""
    return frozenset((folder / CLIPS_NAME).read_text(encoding="utf-8").split())


def predict(model: keras.Model, inputs: Inputs) -> np.ndarray:
    """P(fight) for inputs name -> (N, T, C). Returns (N,) float64 in [0, 1]."""
    return model.predict(inputs, batch_size=_PREDICT_BATCH, verbose=0)[:, 0].astype(np.float64)


def _claim_folder(folder: Path, record: Mapping[str, Any], overwrite: bool) -> Trained | None:
    """Start or continue a run in `folder`; the finished run if it is there already."""
    path = folder / CONFIG_NAME
    if path.is_file() and storage.stable_hash(storage.read_json(path)) != storage.stable_hash(record):
        if not overwrite:
            raise UserError(
                f"{folder} holds a model trained with other settings or data ({path}). "
                "Give another --output, or --overwrite to train anew in its place"
            )
        for stale in (folder / RESULT_NAME, folder / "checkpoint" / "state.json", folder / LOG_NAME):
            stale.unlink(missing_ok=True)
        for events in sorted((folder / "tensorboard_logs").rglob("events.out.*")):
            events.unlink()
    if not path.is_file() or overwrite:
        storage.write_json(path, record)
    result = folder / RESULT_NAME
    if result.is_file():
        return Trained(folder=folder, **storage.read_json(result))
    return None


class _Run:
    """The epochs of one training run."""

    def __init__(
        self,
        record: Mapping[str, Any],
        config: TrainConfig,
        data: Data,
        folder: Path,
        strategy: Any,
        start: Path | None = None,
    ):
        self.start = start
        self.record, self.config, self.data, self.folder, self.strategy = (
            record,
            config,
            data,
            folder,
            strategy,
        )
        self.batch_size = min(config.batch_size, len(data.train))
        self.steps = -(-len(data.train) // self.batch_size)
        self.state = State()
        self.selection_inputs = data.selection.plain()

    def run(self) -> Trained:
        model = self._build()
        self._restore(model)
        dataset = _epoch_dataset(self.data.train, self.batch_size, self.config.seed, self.state)
        seconds = 0.0
        writers = {
            part: tf.summary.create_file_writer(str(self.folder / "tensorboard_logs" / part))
            for part in ("train", "selection")
        }
        first = self.state.epoch
        while self.state.epoch < self.config.epochs and not self._stops():
            started = time.monotonic()
            _reseed(model, self.config.seed, self.state.epoch)
            history = model.fit(
                dataset, steps_per_epoch=self.steps, epochs=1, shuffle=False, verbose=0
            ).history
            epoch_s = time.monotonic() - started
            seconds += epoch_s
            row = self._row(model, {k: float(v[-1]) for k, v in history.items()})
            self._log(row, self.steps * self.batch_size / epoch_s, epoch_s)
            _write_scalars(writers, row)
            self._save(model, row)
        run_here = max(self.state.epoch - first, 1)
        speed = run_here * self.steps * self.batch_size / max(seconds, 1e-9)
        return self._finish(model, speed)

    def _stops(self) -> bool:
        return (
            self.state.best_epoch >= 0
            and self.state.epoch - 1 - self.state.best_epoch >= self.config.patience
        )

    def _build(self) -> keras.Model:
        c = self.config
        shapes = {name: (shape[0], shape[1]) for name, shape in self.record["inputs"].items()}
        with self.strategy.scope():
            keras.utils.set_random_seed(c.seed)
            model = heads.build(self.record["architecture"], shapes, HeadConfig(**self.record["head"]))
            if self.start:
                model.set_weights(keras.models.load_model(self.start, compile=False).get_weights())
            horizon = min(c.epochs, c.schedule_epochs)
            warmup = min(c.warmup_epochs, horizon - 1)
            schedule = keras.optimizers.schedules.CosineDecay(
                0.0 if warmup else c.learning_rate,
                decay_steps=max(1, (horizon - warmup) * self.steps),
                alpha=0.01,
                warmup_target=c.learning_rate if warmup else None,
                warmup_steps=warmup * self.steps,
            )
            optimizer = keras.optimizers.AdamW(schedule, weight_decay=c.weight_decay, global_clipnorm=1.0)
            optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
            model.compile(
                optimizer,
                keras.losses.BinaryCrossentropy(label_smoothing=c.label_smoothing),
                metrics=[keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.AUC(name="auc")],
                jit_compile=False,
            )
        log.info("%s: %s parameters, %d steps an epoch", model.name, f"{model.count_params():,}", self.steps)
        return model

    def _restore(self, model: keras.Model) -> None:
        """Bring a fresh model to the end of the last epoch on disk, its optimiser included."""
        path = self.folder / "checkpoint" / "state.json"
        if not path.is_file():
            return
        saved = storage.read_json(path)
        weights = path.with_name(saved.pop("model"))
        with self.strategy.scope():  # not load_model: what weight decay leaves out is not in the file
            model.optimizer.build(model.trainable_variables)
            model.load_weights(weights)
        self.state = State(**saved)
        log.info("%s: going on after epoch %d", self.folder, self.state.epoch)

    def _row(self, model: keras.Model, logs: Mapping[str, float]) -> dict[str, float]:
        from sklearn.metrics import log_loss, roc_auc_score

        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"the loss became {logs['loss']} in epoch {self.state.epoch + 1} of {self.folder}. Try "
                "--mixed-precision off, a lower --learning-rate, or --devices 1; the epochs before it are kept"
            )
        labels = self.data.selection.labels
        p = predict(model, self.selection_inputs)
        return {
            "epoch": self.state.epoch + 1,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "auc": logs["auc"],
            "selection_loss": float(log_loss(labels, p, labels=[0, 1])),
            "selection_accuracy": float(np.mean((p >= 0.5) == (labels == 1))),
            "selection_auc": float(roc_auc_score(labels, p)),
            "learning_rate": float(model.optimizer.learning_rate),
        }

    def _log(self, row: Mapping[str, float], samples_per_second: float, epoch_s: float) -> None:
        left_s = (self.config.epochs - row["epoch"]) * epoch_s
        log.info(
            "%s epoch %d/%d  loss %.4f  acc %.4f  auc %.4f | selection loss %.4f  acc %.4f  auc %.4f | lr %.2e  "
            "%.0f samples/s  at most %.0f min left",
            self.record["architecture"], row["epoch"], self.config.epochs, row["loss"], row["accuracy"], row["auc"],
            row["selection_loss"], row["selection_accuracy"], row["selection_auc"], row["learning_rate"],
            samples_per_second, left_s / 60,
        )  # fmt: skip

    def _save(self, model: keras.Model, row: dict[str, float]) -> None:
        """Put the epoch on disk; the state file is last, and until it is there the epoch did not happen."""
        state = self.state
        state.history.append(row)
        state.epoch += 1
        if row["selection_loss"] < state.best_loss:
            state.best_loss, state.best_epoch = row["selection_loss"], state.epoch - 1
            _save_model(model, self.folder / BEST_NAME)
        storage.write_csv(self.folder / LOG_NAME, _COLUMNS, state.history)
        name = f"epoch-{state.epoch:05d}.keras"
        checkpoint = self.folder / "checkpoint"
        _save_model(model, checkpoint / name)
        storage.write_json(checkpoint / "state.json", {"model": name, **dataclasses.asdict(state)})
        for old in checkpoint.glob("*.keras"):
            if old.name != name:
                old.unlink()

    def _finish(self, model: keras.Model, samples_per_second: float) -> Trained:
        best = self.state.history[self.state.best_epoch]
        _save_model(model, self.folder / FINAL_NAME)
        trained = Trained(
            folder=self.folder,
            selection_accuracy=best["selection_accuracy"],
            best_epoch=int(best["epoch"]),
            epochs_run=self.state.epoch,
            samples_per_second=round(samples_per_second, 1),
        )
        values = {k: v for k, v in dataclasses.asdict(trained).items() if k != "folder"}
        storage.write_json(self.folder / RESULT_NAME, values)
        log.info("%s: best epoch %d of %d, selection accuracy %.4f", self.folder, best["epoch"], self.state.epoch,
                 best["selection_accuracy"])  # fmt: skip
        return trained


def _epoch_dataset(samples: Samples, batch_size: int, seed: int, state: State) -> tf.data.Dataset:
    """The batches of the epoch that `state` is at; each iteration draws that epoch's order and variants."""

    def batches() -> Iterator[tuple[Inputs, np.ndarray]]:
        return samples.batches(batch_size, seed, state.epoch)

    signature = (
        {name: tf.TensorSpec((batch_size, *shape), tf.float32) for name, shape in samples.shapes().items()},
        tf.TensorSpec((batch_size, 1), tf.float32),
    )
    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(2)


def _reseed(model: keras.Model, seed: int, epoch: int) -> None:
    """Give every dropout layer's generator a state that depends on (seed, epoch, layer) alone."""
    generators = [v for v in model.variables if v.path.endswith("seed_generator_state")]
    for i, variable in enumerate(generators):
        variable.assign(np.array([storage.stable_seed(seed, epoch, i) % 2**31, 0], dtype=variable.dtype))


def _save_model(model: keras.Model, path: Path) -> None:
    with storage.atomic_path(path) as temporary:
        model.save(temporary)


def _write_scalars(writers: Mapping[str, Any], row: Mapping[str, float]) -> None:
    """loss, accuracy, auc and learning_rate of both parts, by epoch."""
    for part, prefix in (("train", ""), ("selection", "selection_")):
        with writers[part].as_default():
            for name in ("loss", "accuracy", "auc"):
                tf.summary.scalar(name, row[prefix + name], step=int(row["epoch"]))
            tf.summary.scalar("learning_rate", row["learning_rate"], step=int(row["epoch"]))
        writers[part].flush()
