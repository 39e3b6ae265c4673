"""Training: it learns, is reproducible, continues after kill -9 as if undisturbed, and never mixes runs."""

from __future__ import annotations

import csv
import dataclasses
import functools
import gc
import itertools
import logging
import math
import os
import random
import shutil
import signal
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import synthetic
import tensorflow as tf
import warm_start

from violence_detection.constants import __version__
from violence_detection.errors import UserError
from violence_detection.features.cache import FeatureStore
from violence_detection.features.stored_features import StoredFeatures
from violence_detection.models import trained_model
from violence_detection.system import disks, storage
from violence_detection.training import (
    canary,
    checkpoint,
    compiled_model,
    damaged_run,
    heads,
    loss_scale,
    run_folder,
    saved_heads,
    trainer,
    training_board,
    training_log,
    training_pace,
    training_run,
)
from violence_detection.training.config import TrainConfig
from violence_detection.training.training_data import Data


def _process(folder: Path) -> warm_start.Running:
    return warm_start.start(synthetic.train_once, folder, cwd=folder)


def _history(folder: Path) -> list[dict[str, str]]:
    with (folder / run_folder.LOG_NAME).open() as f:
        return list(csv.DictReader(f))


def _weights(folder: Path, name: str) -> list[np.ndarray]:
    return keras.models.load_model(folder / name, compile=False).get_weights()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = _process(folder).wait()
    assert done.returncode == 0, done.stderr
    return folder


def test_head_learns_what_separates_the_classes(undisturbed: Path) -> None:
    result = storage.read_json(undisturbed / run_folder.RESULT_NAME)
    model = keras.models.load_model(undisturbed / run_folder.BEST_NAME, compile=False)
    val = synthetic.data().val
    accuracy = np.mean((heads.predict(model, val.plain()) >= 0.5) == (val.labels == 1))
    assert accuracy >= 0.9
    assert result["epochs_run"] == synthetic.TRAIN.epochs


def test_same_seed_gives_the_same_history_and_weights(undisturbed: Path, tmp_path: Path) -> None:
    assert _process(tmp_path).wait().returncode == 0
    assert _history(tmp_path) == _history(undisturbed)
    for a, b in zip(
        _weights(tmp_path, "final_model.keras"), _weights(undisturbed, "final_model.keras"), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def _wait_for(process: warm_start.Running, happened: Callable[[], bool]) -> bool:
    """Wait until `happened` returns True; return False if the process ends before that."""
    while process.poll() is None:
        if happened():
            return True
        time.sleep(0.01)
    return False


def _grown(count: Callable[[], int], before: int) -> bool:
    return count() > before


@pytest.mark.slow
def test_killed_and_run_again_it_ends_as_if_undisturbed(undisturbed: Path, tmp_path: Path) -> None:
    """VIOLENCE_KILLS sets the number of kills. Above 3, every second one comes soon after the start of the run."""
    wanted, rng = int(os.environ.get("VIOLENCE_KILLS", "3")), random.Random(0)
    state = tmp_path / "checkpoint" / "state.json"

    def events() -> int:
        return len(sorted(tmp_path.glob(f"{run_folder.BOARD_NAME}/events.out.*")))

    def epochs() -> int:
        return storage.read_json(state)["epoch"] if state.is_file() else 0

    for kill in range(wanted):
        count = events if wanted > 3 and kill % 2 else epochs
        before, process = count(), _process(tmp_path)
        assert _wait_for(process, functools.partial(_grown, count, before))
        time.sleep(rng.uniform(0, 0.2))
        assert process.kill() == -signal.SIGKILL
    assert _process(tmp_path).wait().returncode == 0
    assert _history(tmp_path) == _history(undisturbed)
    for name in (run_folder.BEST_NAME, run_folder.FINAL_NAME):
        for a, b in zip(_weights(tmp_path, name), _weights(undisturbed, name), strict=True):
            np.testing.assert_array_equal(a, b)


def _killed_before_the_state_of_epoch_2(
    monkeypatch: pytest.MonkeyPatch, train: Callable[[], object]
) -> checkpoint.TrainingState:
    """Train until the state of epoch 2 is about to be written; return that state, which did not reach the disk."""
    write, lost = checkpoint.write, []

    def killed(folder: Path, state: checkpoint.TrainingState, model: keras.Model) -> None:
        if state.epoch == 2:
            lost.append(state)
            raise KeyboardInterrupt
        write(folder, state, model)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            train()
    return lost[0]


def test_what_is_told_of_the_best_epoch_is_of_the_weights_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before the state of a better epoch is on disk, the run repeats it, with a worse loss, as on GPUs."""
    data, record, strategy = _data(), _record(epochs=3), tf.distribute.get_strategy()
    on_selection = training_log.on_selection
    killed = _killed_before_the_state_of_epoch_2(
        monkeypatch, lambda: trainer.train(record, data, tmp_path, strategy)
    )
    assert killed.best_epoch == 1
    with monkeypatch.context() as patch:
        patch.setattr(
            training_log, "on_selection", lambda y, p: {**on_selection(y, p), "selection_loss": 9.0}
        )
        trained = trainer.train(record, data, tmp_path, strategy)
    assert trained.best_epoch == 1
    model = trained_model.load_model(tmp_path / run_folder.BEST_NAME)
    found = on_selection(data.selection.labels, heads.predict(model, data.selection.plain()))
    assert found["selection_loss"] == pytest.approx(float(_history(tmp_path)[0]["selection_loss"]), rel=1e-4)
    assert found["selection_accuracy"] == trained.selection_accuracy


def test_killed_before_the_best_epoch_had_its_file_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, record, strategy = _data(), _record(epochs=2), tf.distribute.get_strategy()
    save = saved_heads.save

    def killed(model: keras.Model, path: Path) -> None:
        if path.name == run_folder.BEST_NAME:
            raise KeyboardInterrupt
        save(model, path)

    with monkeypatch.context() as patch:
        patch.setattr(saved_heads, "save", killed)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                trainer.train(record, data, tmp_path / "killed", strategy)
    assert damaged_run.fault(tmp_path / "killed") is None
    one = trainer.train(record, data, tmp_path / "killed", strategy)
    other = trainer.train(record, data, tmp_path / "whole", strategy)
    assert one.best_epoch == other.best_epoch
    for a, b in zip(*(_weights(t.folder, run_folder.BEST_NAME) for t in (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_killed_before_its_end_was_noted_it_still_knows_how_fast_it_was(tmp_path: Path) -> None:
    data, record, strategy = _data(), _record(epochs=2), tf.distribute.get_strategy()
    undisturbed = trainer.train(record, data, tmp_path, strategy)
    (tmp_path / run_folder.RESULT_NAME).unlink()
    assert trainer.train(record, data, tmp_path, strategy) == undisturbed


def test_what_killed_runs_left_half_written_goes_when_one_goes_on(tmp_path: Path) -> None:
    nobody, machine = 2**22 + 1, storage.machine()  # larger than any process id: Linux allows 2**22 at most
    left = [
        tmp_path / f".best_model.{machine}.{nobody}-1.tmp.keras",
        tmp_path / "checkpoint" / f".epoch-00003.{machine}.{nobody}-1.tmp.keras",
    ]
    being_written = tmp_path / "checkpoint" / f".epoch-00004.{machine}.{os.getpid()}-1.tmp.keras"
    being_written.parent.mkdir()
    for path in (*left, being_written):
        path.touch()
    run_folder.claim_folder(tmp_path, {"train": {}}, overwrite=False)
    assert [path.exists() for path in (*left, being_written)] == [False, False, True]


def test_event_files_hold_the_four_curves_of_both_parts(undisturbed: Path) -> None:
    history = _history(undisturbed)
    for part, prefix in (("train", ""), ("selection", "selection_")):
        read = _curves(undisturbed, part)
        assert read.keys() >= {"accuracy", "auc", "learning_rate", "loss"}
        for tag in ("loss", "accuracy", "auc"):
            wanted = [(int(r["epoch"]), pytest.approx(float(r[prefix + tag]), rel=1e-5)) for r in history]
            assert read[tag] == wanted


def _curves(folder: Path, part: str) -> dict[str, list[tuple[int, float]]]:
    """Return tag -> (epoch, value) of each point in the event files of a part."""
    read: dict[str, list[tuple[int, float]]] = {}
    for path in sorted((folder / run_folder.BOARD_NAME / part).glob("events.out.*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    point = (event.step, float(tf.make_ndarray(value.tensor)))
                    read.setdefault(value.tag, []).append(point)
    return read


def test_an_epoch_that_was_gone_through_twice_is_one_point_of_each_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, record, strategy = _data(), _record(epochs=2), tf.distribute.get_strategy()
    _killed_before_the_state_of_epoch_2(monkeypatch, lambda: trainer.train(record, data, tmp_path, strategy))
    trainer.train(record, data, tmp_path, strategy)
    for part in ("train", "selection"):
        curves = _curves(tmp_path, part)
        assert {"loss", "accuracy", "auc", "learning_rate"} <= curves.keys()
        for points in curves.values():
            assert [epoch for epoch, _ in points] == [1, 2]


def test_an_epoch_that_was_killed_before_its_points_gets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is already on disk when the run is killed, so the epoch is not repeated."""
    data, record, strategy = _data(), _record(epochs=2), tf.distribute.get_strategy()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run.Board, "scalars", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(record, data, tmp_path, strategy)
    trainer.train(record, data, tmp_path, strategy)
    for part in ("train", "selection"):
        curves = _curves(tmp_path, part)
        assert {"loss", "accuracy", "auc", "learning_rate"} <= curves.keys()
        for tag in ("loss", "accuracy", "auc", "learning_rate"):
            assert [epoch for epoch, _ in curves[tag]] == [1, 2]


def test_learning_rate_rises_then_falls(undisturbed: Path) -> None:
    rates = [float(row["learning_rate"]) for row in _history(undisturbed)]
    assert rates[0] == pytest.approx(synthetic.TRAIN.learning_rate, rel=0.05)  # after one epoch of warm-up
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert rates[-1] == pytest.approx(0.01 * synthetic.TRAIN.learning_rate, rel=0.05)


def _data() -> Data:
    return synthetic.data(["rgb"])


def _record(**changes: object) -> dict[str, object]:
    config = dataclasses.replace(synthetic.TRAIN, **changes)
    return trainer.run_record("average", _data(), synthetic.FEATURES, 2, synthetic.HEAD, config)


@pytest.mark.parametrize(("smoothing", "target"), [(0.0, 1.0), (0.2, 0.9)])
def test_label_smoothing_draws_the_target_towards_a_half(smoothing: float, target: float) -> None:
    model = compiled_model.build(_record(label_smoothing=smoothing), 4)
    loss = float(model.loss(np.array([[1.0]]), np.array([[0.8]])))
    assert loss == pytest.approx(-target * math.log(0.8) - (1 - target) * math.log(0.2), rel=1e-5)


def test_the_help_of_label_smoothing_says_what_the_default_makes_of_a_label() -> None:
    (field,) = (f for f in dataclasses.fields(TrainConfig) if f.name == "label_smoothing")
    default = TrainConfig().label_smoothing
    assert (
        f"a fight counts as {1 - default / 2:g} and a nonfight as {default / 2:g}" in field.metadata["help"]
    )


@pytest.mark.filterwarnings("ignore:Skipping variable loading")  # Keras only warns of it
@pytest.mark.parametrize(
    ("begun", "now"),
    [("mixed_float16", "float32"), ("float32", "mixed_float16"), ("mixed_float16", "mixed_float16")],
)
def test_an_optimiser_of_another_precision_is_not_lost_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: str, now: str
) -> None:
    """A run may begin where TensorFlow sees a GPU and continue where it sees none, or the reverse."""
    record, data, strategy = _record(epochs=3), _data(), tf.distribute.get_strategy()
    before = keras.mixed_precision.dtype_policy()
    try:
        keras.mixed_precision.set_dtype_policy(begun)
        _killed_before_the_state_of_epoch_2(
            monkeypatch, lambda: trainer.train(record, data, tmp_path, strategy)
        )
        keras.mixed_precision.set_dtype_policy(now)
        if begun == now:
            assert trainer.train(record, data, tmp_path, strategy).epochs_run == 3
            return
        with pytest.raises(UserError, match=f"another precision.*or remove {tmp_path}") as told:
            trainer.train(record, data, tmp_path, strategy)
        assert "--overwrite" not in str(told.value), "which clears nothing of the same settings"
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def test_time_left_counts_what_it_takes_to_save_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, epoch, beside_fit_s = checkpoint.write, training_pace.Pace.epoch, []

    def slow(*arguments: Any) -> None:
        time.sleep(0.3)
        write(*arguments)

    def noted(pace: training_pace.Pace, samples: int, fit_s: float, epoch_s: float) -> None:
        beside_fit_s.append(epoch_s - fit_s)
        epoch(pace, samples, fit_s, epoch_s)

    monkeypatch.setattr(checkpoint, "write", slow)
    monkeypatch.setattr(training_pace.Pace, "epoch", noted)
    trainer.train(_record(epochs=3), _data(), tmp_path, tf.distribute.get_strategy())
    assert min(beside_fit_s[1:]) >= 0.3


def test_finished_run_is_kept_and_other_settings_are_refused(undisturbed: Path) -> None:
    data, strategy = synthetic.data(), tf.distribute.get_strategy()
    same = trainer.run_record("gru", data, synthetic.FEATURES, 2, synthetic.HEAD, synthetic.TRAIN)
    before = (undisturbed / run_folder.BEST_NAME).stat().st_mtime_ns
    assert trainer.train(same, data, undisturbed, strategy).epochs_run == synthetic.TRAIN.epochs
    with pytest.raises(UserError, match="--overwrite"):
        trainer.train(_record(), data, undisturbed, strategy)
    assert (undisturbed / run_folder.BEST_NAME).stat().st_mtime_ns == before


def test_what_is_different_is_named_where_other_settings_are_refused(undisturbed: Path) -> None:
    data, strategy = synthetic.data(), tf.distribute.get_strategy()
    longer = dataclasses.replace(synthetic.TRAIN, epochs=synthetic.TRAIN.epochs + 1)
    other = trainer.run_record("gru", data, synthetic.FEATURES, 3, synthetic.HEAD, longer)
    named = rf"Different: augment 2 there, 3 asked for; train\.epochs {longer.epochs - 1} there, {longer.epochs} asked"
    with pytest.raises(UserError, match=named):
        trainer.train(other, data, undisturbed, strategy)


def test_a_model_of_another_version_is_used_if_it_is_finished_and_refused_by_name_if_not(
    undisturbed: Path, tmp_path: Path
) -> None:
    folder, data, strategy = tmp_path / "model", synthetic.data(), tf.distribute.get_strategy()
    shutil.copytree(undisturbed, folder)
    config = folder / run_folder.CONFIG_NAME
    storage.write_json(config, {**storage.read_json(config), "version": "0.0.9"})
    same = trainer.run_record("gru", data, synthetic.FEATURES, 2, synthetic.HEAD, synthetic.TRAIN)
    assert trainer.train(same, data, folder, strategy).epochs_run == synthetic.TRAIN.epochs
    assert storage.read_json(config)["version"] == "0.0.9", "which trained it"
    (folder / run_folder.RESULT_NAME).unlink()
    with pytest.raises(
        UserError, match=rf"version 0\.0\.9 of this package began.* this is version {__version__}\."
    ):
        trainer.train(same, data, folder, strategy)


def test_early_stopping_counts_from_the_best_epoch(tmp_path: Path) -> None:
    record = _record(epochs=40, patience=2, learning_rate=0.05)
    trained = trainer.train(record, _data(), tmp_path, tf.distribute.get_strategy())
    losses = [float(r["selection_loss"]) for r in _history(tmp_path)]
    assert trained.best_epoch == int(np.argmin(losses)) + 1
    assert trained.epochs_run == min(trained.best_epoch + 2, 40)
    assert trained.epochs_run < 40


@pytest.mark.parametrize(
    "changes",
    [{"epochs": 0}, {"batch_size": 0}, {"accumulate": 0}, {"patience": 0}, {"selection_fraction": 0.0},
     {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"batch_size": 4, "accumulate": 5}],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=list(changes)[-1]):
        dataclasses.replace(synthetic.TRAIN, **changes)


def test_a_batch_that_cannot_be_cut_leaves_the_folder_to_other_settings(tmp_path: Path) -> None:
    data = _data()
    record = _record(batch_size=10**6, accumulate=len(data.train) + 1)
    with pytest.raises(UserError, match="--accumulate"):
        trainer.train(record, data, tmp_path / "model", tf.distribute.get_strategy())
    assert not (tmp_path / "model").exists()


def test_keeping_the_last_epoch_ends_with_the_schedule(tmp_path: Path) -> None:
    record = _record(epochs=40, schedule_epochs=3, keep="last")
    assert trainer.train(record, _data(), tmp_path, tf.distribute.get_strategy()).epochs_run == 3


def test_what_was_trained_on_leaves_the_memory(tmp_path: Path) -> None:
    """If the data of a fold stayed in memory, folds that are trained one after another would add up."""
    data = _data()
    held = [weakref.ref(x) for part in (data.train, data.selection) for x in part.inputs.values()]
    trainer.train(_record(epochs=2), data, tmp_path, tf.distribute.get_strategy())
    del data
    gc.collect()
    assert [array() is None for array in held] == [True] * 2


def test_a_killed_overwrite_leaves_no_model_of_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, strategy = _data(), tf.distribute.get_strategy()
    trainer.train(_record(epochs=1), data, tmp_path, strategy)
    trained_model.load(tmp_path)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training_run.TrainingRun, "_epochs", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train(_record(epochs=2), data, tmp_path, strategy, overwrite=True)
    with pytest.raises(UserError, match=r"has not finished training\. Run the same command again"):
        trained_model.load(tmp_path)
    trainer.train(_record(epochs=2), data, tmp_path, strategy)
    (tmp_path / run_folder.RESULT_NAME).unlink()
    with pytest.raises(UserError, match="has not finished training"):
        trained_model.load(tmp_path)
    trained_model.load(tmp_path / run_folder.BEST_NAME)


def test_training_that_changes_no_weight_stops_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    monkeypatch.setattr(loss_scale.MirroredLossScale, "check_finite", lambda *_: tf.constant(False))
    try:
        with pytest.raises(UserError, match=r"every gradient became nan or infinite.*--tuned-learning-rate"):
            trainer.train(_record(), _data(), tmp_path, tf.distribute.get_strategy())
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def test_the_last_epoch_is_kept_where_no_epoch_is_to_be_chosen(tmp_path: Path) -> None:
    record = _record(epochs=8, schedule_epochs=8, patience=2, learning_rate=0.3, keep="last")
    trained = trainer.train(record, _data(), tmp_path, tf.distribute.get_strategy())
    losses = [float(r["selection_loss"]) for r in _history(tmp_path)]
    assert int(np.argmin(losses)) < 7  # another epoch had the lowest loss
    assert trained.best_epoch == trained.epochs_run == 8
    for a, b in zip(
        _weights(tmp_path, run_folder.BEST_NAME), _weights(tmp_path, "final_model.keras"), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def _step_of(clip: int, data: Data) -> int:
    """Return the step of the first epoch, counted from 1, in which a clip is drawn."""
    value = data.train.labels.copy()
    marked = dataclasses.replace(data.train, labels=np.where(np.arange(len(value)) == clip, 7, value))
    drawn = [y for _, y in marked.batches(synthetic.TRAIN.batch_size, synthetic.TRAIN.seed, 0)]
    return next(i for i, y in enumerate(drawn, 1) if (y == 7).any())


def test_loss_that_is_no_number_stops_and_says_where(tmp_path: Path) -> None:
    data = _data()
    data.train.inputs["efficientnet_lite0.rgb"][3, :, :, 0] = np.nan
    where = f"the loss became nan.* in step {_step_of(3, data)} of 5 of epoch 1 .*--learning-rate"
    with pytest.raises(UserError, match=where) as held:
        trainer.train(_record(), data, tmp_path, tf.distribute.get_strategy())
    assert not (tmp_path / run_folder.RESULT_NAME).exists()
    events = list((tmp_path / run_folder.BOARD_NAME).rglob("events.out.*"))
    opened = {Path(os.path.realpath(link)) for link in Path("/proc/self/fd").glob("*")}
    assert events
    assert not opened & {p.resolve() for p in events}, f"TensorBoard's files stay open after {held.value}"


def test_without_a_selection_part_a_model_that_says_no_number_is_not_finished(tmp_path: Path) -> None:
    data = synthetic.data()
    data = dataclasses.replace(data, selection=data.selection.take(np.zeros(0, int)))
    config = dataclasses.replace(
        synthetic.TRAIN, batch_size=70, warmup_epochs=0, learning_rate=100.0, weight_decay=100.0
    )
    record = trainer.run_record("conv_lstm", data, synthetic.FEATURES, 2, synthetic.HEAD, config)
    record["steps"] = {"steps": 3, "horizon": 60, "warmup": 0}  # a fourth step's loss would be nan
    with pytest.raises(UserError, match=r"P\(fight\) of a clip became nan .* in step 1 of 1 of epoch 3 "):
        trainer.train(record, data, tmp_path, tf.distribute.get_strategy())
    found = checkpoint.read(tmp_path)
    assert found
    assert found[0].epoch == 2
    assert not (tmp_path / run_folder.RESULT_NAME).exists()


def test_a_full_disk_below_tensorboard_is_not_taken_for_full_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = tmp_path / run_folder.BOARD_NAME / "train" / "events.out.tfevents.1.v2"

    def full(*_: object) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, f"{events}; No space left on device")

    monkeypatch.setattr(training_board.Board, "scalars", full)
    with pytest.raises(tf.errors.ResourceExhaustedError) as held:
        trainer.train(_record(), _data(), tmp_path, tf.distribute.get_strategy())
    found = checkpoint.read(tmp_path)
    assert found
    assert (found[0].epoch, found[0].parts) == (1, 1)
    assert str(disks.disk_trouble(held.value)).startswith(f"{events.parent}: No space left on device.")


class _FullBeyond(keras.layers.Layer):
    """A layer that runs out of memory with more than `clips` clips at a time, while training or while judging."""

    clips = 8
    while_training = True

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        def check(size: np.ndarray) -> np.ndarray:
            if bool(training) == self.while_training and size > self.clips:
                raise MemoryError("planted")
            return size

        size = tf.numpy_function(check, [tf.shape(x)[0]], tf.int32)
        with tf.control_dependencies([size]):
            return tf.identity(x)


def test_full_device_memory_halves_the_device_batch_and_trains_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data, strategy = _data(), tf.distribute.get_strategy()
    monkeypatch.setattr(
        synthetic, "HEAD", dataclasses.replace(synthetic.HEAD, dropout=0.0, input_dropout=0.0)
    )
    record = _record(epochs=1)
    trainer.train(record, data, tmp_path / "roomy", strategy)
    average = heads.POOLINGS["average"]
    monkeypatch.setitem(heads.POOLINGS, "average", lambda x, c: average(_FullBeyond()(x), c))
    monkeypatch.setattr(logging.getLogger("violence_detection"), "propagate", True)
    trainer.train(record, data, tmp_path / "full", strategy)
    assert "8 clips at a time instead of 16" in caplog.text
    assert storage.read_json(tmp_path / "full" / "checkpoint" / "state.json")["parts"] == 2
    for full, roomy in zip(_history(tmp_path / "full"), _history(tmp_path / "roomy"), strict=True):
        for column, value in roomy.items():
            assert float(full[column]) == pytest.approx(float(value), rel=1e-4), column
    monkeypatch.setattr(_FullBeyond, "clips", 0)
    with pytest.raises(UserError, match=r"full even with 1 clip\(s\) at a time.*--units.*i3d_tuned"):
        trainer.train(_record(epochs=1, accumulate=16), data, tmp_path / "hopeless", strategy)


@pytest.mark.parametrize(("saved", "parts"), [(3, 4), (30, 16)])
def test_parts_that_fitted_another_number_of_devices_are_made_to_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: int, parts: int
) -> None:
    """A device takes 16 clips of a batch, so the stored number of parts must become one that divides 16."""
    data, record, strategy = _data(), _record(epochs=2), tf.distribute.get_strategy()
    _killed_before_the_state_of_epoch_2(monkeypatch, lambda: trainer.train(record, data, tmp_path, strategy))
    state = checkpoint.state_of(tmp_path)
    storage.write_json(state, {**storage.read_json(state), "parts": saved})
    assert trainer.train(record, data, tmp_path, strategy).epochs_run == 2
    assert storage.read_json(state)["parts"] == parts


@pytest.mark.parametrize(("fits", "sizes"), [(2, [8, 4, 2]), (0, [8, 4, 2, 1])])
def test_full_device_memory_while_mirroring_is_checked_takes_fewer_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fits: int, sizes: list[int]
) -> None:
    tried = []

    def sound_strategy(strategy: object, build: object, batches: Callable[[], Any]) -> object:
        tried.append(len(next(batches())[1]))
        if tried[-1] > fits:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return strategy

    monkeypatch.setattr(canary, "sound_strategy", sound_strategy)
    run = functools.partial(trainer.train, _record(epochs=1), _data(), tmp_path, tf.distribute.get_strategy())
    if fits:
        assert run().epochs_run == 1
    else:
        with pytest.raises(UserError, match=r"full even with 1 clip\(s\).*--devices 1.*--units.*i3d_tuned"):
            run()
    assert tried == sizes


def test_full_device_memory_while_judging_halves_that_batch_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data, strategy = _data(), tf.distribute.get_strategy()
    trainer.train(_record(epochs=2), data, tmp_path / "roomy", strategy)
    average = heads.POOLINGS["average"]
    monkeypatch.setitem(heads.POOLINGS, "average", lambda x, c: average(_FullBeyond()(x), c))
    monkeypatch.setattr(_FullBeyond, "while_training", False)
    monkeypatch.setattr(logging.getLogger("violence_detection"), "propagate", True)
    record = _record(epochs=2)
    full = trainer.train(record, data, tmp_path / "full", strategy)
    assert caplog.text.count("OUT OF DEVICE MEMORY") == 5, "256 to 8, once for both epochs"
    assert storage.read_json(tmp_path / "full" / "checkpoint" / "state.json")["parts"] == 1
    for seen, roomy in zip(_history(tmp_path / "full"), _history(tmp_path / "roomy"), strict=True):
        for column, value in roomy.items():
            assert float(seen[column]) == pytest.approx(float(value), rel=1e-4), column

    model = compiled_model.build(record, 1)
    model.load_weights(full.model_path)
    p = heads.predict(model, data.val.plain())
    assert p.shape == (len(data.val),)
    monkeypatch.setattr(_FullBeyond, "clips", 0)
    with pytest.raises(UserError, match=r"full even when judging one clip .*--units.*i3d_tuned"):
        heads.predict(model, data.val.plain())


def test_a_run_goes_on_after_another_engine_joined_its_cache_and_says_so(tmp_path: Path) -> None:
    data, strategy = _data(), tf.distribute.get_strategy()
    record = _record(epochs=1)
    trainer.train(record, data, tmp_path, strategy)
    (tmp_path / run_folder.RESULT_NAME).unlink()  # as if the run had been killed before it wrote its result
    joined = {name: [*engines, "tensorflow-float32"] for name, engines in data.engines.items()}
    trainer.train({**record, "feature_engines": joined}, data, tmp_path, strategy)
    assert storage.read_json(tmp_path / run_folder.CONFIG_NAME)["feature_engines"] == joined
    assert record["feature_engines"] == data.engines


def test_damaged_feature_met_while_training_is_made_anew_and_changes_nothing(tmp_path: Path) -> None:
    made = _data()
    values = made.train.inputs["efficientnet_lite0.rgb"]
    store = FeatureStore(tmp_path / "features")
    for clip_id, variants in zip(made.train.rows.clip_id, values, strict=True):
        store.add(clip_id, {"v0": variants[0], "v1": variants[1]}, "test")
    repaired = []

    def reextract(clip_id: str) -> None:
        repaired.append(clip_id)
        row = made.train.rows.clip_id.tolist().index(clip_id)
        store.add(clip_id, {"v0": values[row, 0], "v1": values[row, 1]}, "test")

    broken = made.train.rows.clip_id[5]
    content = bytearray(store.path(broken).read_bytes())
    content[200:] = bytes(len(content) - 200)
    store.path(broken).write_bytes(content)
    stored = StoredFeatures(
        FeatureStore(store.folder, reextract), list(made.train.rows.clip_id), ("v0", "v1")
    )
    train = dataclasses.replace(made.train, inputs={**made.train.inputs, "efficientnet_lite0.rgb": stored})
    strategy = tf.distribute.get_strategy()
    streamed = dataclasses.replace(made, train=train)
    trainer.train(_record(epochs=1), streamed, tmp_path / "streamed", strategy)
    assert repaired == [broken]
    trainer.train(_record(epochs=1), made, tmp_path / "memory", strategy)
    assert _history(tmp_path / "streamed") == _history(tmp_path / "memory")


def test_every_epoch_draws_every_clip_once_with_fresh_variants() -> None:
    samples = synthetic.samples(32, 5, variants=4)
    name = "efficientnet_lite0.rgb"
    epochs = [np.concatenate([x[name] for x, _ in samples.batches(8, 0, epoch)]) for epoch in (0, 1)]

    def variant_of(clip: int, epoch: np.ndarray) -> int:
        hits = [
            v
            for v in range(4)
            if (epoch == samples.inputs[name][clip, v].astype(np.float32)).all(axis=(1, 2)).any()
        ]
        assert len(hits) == 1
        return hits[0]

    drawn = [[variant_of(clip, epoch) for clip in range(32)] for epoch in epochs]
    assert drawn[0] != drawn[1]
    assert set(drawn[0]) == {0, 1, 2, 3}
