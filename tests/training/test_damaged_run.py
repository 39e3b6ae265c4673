"""Damaged or missing files of a run are reported, --overwrite then trains again; an intact run is continued or used."""

from __future__ import annotations

import dataclasses
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic
import tensorflow as tf

from violence_detection.ensemble import member_jobs
from violence_detection.ensemble.member_jobs import TrainingJob
from violence_detection.errors import UserError
from violence_detection.models import trained_model
from violence_detection.system import storage
from violence_detection.training import (
    checkpoint,
    damaged_run,
    given_weights,
    run_folder,
    saved_heads,
    trainer,
)
from violence_detection.training.run_folder import Trained

EPOCHS = 2


def _train(folder: Path, overwrite: bool = False) -> Trained:
    config, data = dataclasses.replace(synthetic.TRAIN, epochs=EPOCHS), synthetic.data(["rgb"])
    record: dict[str, Any] = trainer.run_record(
        "average", data, synthetic.FEATURES, 2, synthetic.HEAD, config
    )
    return trainer.train(record, data, folder, tf.distribute.get_strategy(), overwrite)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "model"
    _train(folder)
    return folder


def _epoch_file(folder: Path) -> Path:
    found = checkpoint.read(folder)
    assert found
    return found[1]


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _unfinished(folder: Path) -> None:
    (folder / run_folder.RESULT_NAME).unlink()


def _cut_state(folder: Path) -> None:
    _unfinished(folder)
    _cut(checkpoint.state_of(folder))


def _other_state(folder: Path) -> None:
    _unfinished(folder)
    storage.write_json(checkpoint.state_of(folder), {"model": "epoch-00001.keras"})


def _lose_history(folder: Path) -> None:
    _unfinished(folder)
    state = checkpoint.state_of(folder)
    storage.write_json(state, {**storage.read_json(state), "history": []})


def _other_epoch(folder: Path) -> None:
    _unfinished(folder)
    state = checkpoint.state_of(folder)
    storage.write_json(state, {**storage.read_json(state), "epoch": "2"})


def _cut_epoch(folder: Path) -> None:
    _unfinished(folder)
    _cut(_epoch_file(folder))


def _lose_epoch(folder: Path) -> None:
    _unfinished(folder)
    _epoch_file(folder).unlink()


def _lose_best(folder: Path) -> None:
    _unfinished(folder)
    state = checkpoint.state_of(folder)
    # not the last epoch: the weights of that one are also in the checkpoint
    storage.write_json(state, {**storage.read_json(state), "best_epoch": 0})
    (folder / run_folder.BEST_NAME).unlink()


def _lose_weights(folder: Path) -> None:
    best = folder / run_folder.BEST_NAME
    best.unlink()
    run_folder.weights_of(best).unlink()


def _cut_weights(folder: Path) -> None:
    _cut(run_folder.weights_of(folder / run_folder.BEST_NAME))


def _cut_archive(folder: Path) -> None:
    best = folder / run_folder.BEST_NAME
    run_folder.weights_of(best).unlink()  # as in models of versions that wrote the .keras file only
    _cut(best)


def _cut_result(folder: Path) -> None:
    _cut(folder / run_folder.RESULT_NAME)


def _cut_config(folder: Path) -> None:
    _cut(folder / run_folder.CONFIG_NAME)


def _list_for_architecture(folder: Path) -> None:
    _unfinished(folder)
    config = folder / run_folder.CONFIG_NAME
    storage.write_json(config, {**run_folder.read_object(config), "architecture": ["average"]})


def _lose_config(folder: Path) -> None:
    (folder / run_folder.CONFIG_NAME).unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut_state, r"state\.json is damaged"),
        (_other_state, r"state\.json cannot be used"),
        (_lose_history, r"state\.json cannot be used \(its numbers contradict each other\)"),
        (_other_epoch, r"state\.json cannot be used"),
        (_cut_epoch, r"epoch-00002\.keras is there, but is damaged"),
        (_lose_epoch, r"epoch-00002\.keras, from which training would continue, is gone"),
        (_lose_best, r"best_model\.keras, from which training would continue, is gone"),
        (_lose_weights, r"training has ended, but .*best_model\.keras is gone"),
        (_cut_weights, r"best_model\.safetensors is there, but is damaged"),
        (_cut_archive, r"best_model\.keras is there, but is damaged"),
        (_cut_result, r"result\.json is damaged"),
        (_cut_config, r"config\.json is damaged"),
        (_list_for_architecture, r"config\.json cannot be used \(its architecture is \['average'\]\)"),
        (_lose_config, r"whose settings are not known: .*config\.json is gone"),
    ],
)
def test_what_is_damaged_is_said_and_overwrite_trains_it_anew(
    whole: Path, tmp_path: Path, damage: Any, says: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    damage(folder)
    with pytest.raises(UserError, match=says + ".*--overwrite"):
        _train(folder)
    assert _train(folder, overwrite=True).epochs_run == EPOCHS
    one, other = (trained_model.load_model(f / run_folder.BEST_NAME).get_weights() for f in (folder, whole))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("damage", [_cut, lambda path: path.write_bytes(b"\x00\xff" * 50), Path.unlink])
def test_a_table_of_clips_that_is_not_whole_is_written_anew(whole: Path, tmp_path: Path, damage: Any) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    table = folder / run_folder.CLIPS_NAME
    written, result = table.read_bytes(), (folder / run_folder.RESULT_NAME).stat().st_mtime_ns
    damage(table)
    _train(folder)
    assert table.read_bytes() == written
    assert (folder / run_folder.RESULT_NAME).stat().st_mtime_ns == result, "nothing was trained again"


def test_with_overwrite_a_whole_run_goes_on_and_a_finished_one_stays(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(whole, folder)
    config = folder / run_folder.CONFIG_NAME
    calibrated = {**storage.read_json(config), run_folder.CALIBRATION_KEY: {"temperature": 1.5}}
    storage.write_json(config, calibrated)
    epoch = _epoch_file(folder).stat().st_mtime_ns
    _train(folder, overwrite=True)
    assert storage.read_json(config) == calibrated
    _unfinished(folder)
    _train(folder, overwrite=True)
    assert _epoch_file(folder).stat().st_mtime_ns == epoch, "no epoch was trained again"


@pytest.fixture(scope="module")
def trained_job(tmp_path_factory: pytest.TempPathFactory) -> TrainingJob:
    root = tmp_path_factory.mktemp("member")
    (_, job) = synthetic.jobs(root / "features", root / "models")
    member_jobs.run([job], strategy=tf.distribute.get_strategy())
    return job


@pytest.fixture
def job(trained_job: TrainingJob, tmp_path: Path) -> TrainingJob:
    """Return a trained member in a folder of its own, which the test may damage."""
    folder = shutil.copytree(trained_job.folder, tmp_path / "models" / trained_job.folder.name)
    return dataclasses.replace(trained_job, folder=folder)


def test_a_member_whose_weights_are_gone_is_not_taken_for_trained(job: TrainingJob) -> None:
    strategy = tf.distribute.get_strategy()
    assert member_jobs.finished(job)
    _lose_weights(job.folder)
    with pytest.raises(UserError, match=r"best_model\.keras is gone.*--overwrite"):
        member_jobs.run([job], strategy=strategy)
    (trained,) = member_jobs.run([dataclasses.replace(job, overwrite=True)], strategy=strategy)
    assert run_folder.stored(trained.model_path).is_file()
    _cut_config(job.folder)
    member_jobs.run([dataclasses.replace(job, overwrite=True)], strategy=strategy)
    assert damaged_run.fault(job.folder) is None


def test_a_start_that_came_with_its_weights_alone_is_gone_on_from(job: TrainingJob, tmp_path: Path) -> None:
    strategy = tf.distribute.get_strategy()
    (start,) = member_jobs.run([job], strategy=strategy)
    start.model_path.unlink()
    going_on = dataclasses.replace(job, folder=tmp_path / "further", start=start.model_path)
    (trained,) = member_jobs.run([going_on], strategy=strategy)
    assert member_jobs.finished(going_on) == trained


def test_a_start_that_was_saved_again_with_the_same_weights_is_the_same_start(
    job: TrainingJob, tmp_path: Path
) -> None:
    strategy = tf.distribute.get_strategy()
    (start,) = member_jobs.run([job], strategy=strategy)
    going_on = dataclasses.replace(job, folder=tmp_path / "further", start=start.model_path)
    (trained,) = member_jobs.run([going_on], strategy=strategy)
    later = dataclasses.replace(going_on)
    with zipfile.ZipFile(start.model_path, "a") as archive:
        archive.comment = b"saved at another time"
    assert member_jobs.finished(later) == trained
    record = going_on.folder / run_folder.CONFIG_NAME
    storage.write_json(record, {**storage.read_json(record), run_folder.JOB_KEY: later.key_before})
    assert later.key_before != later.key
    assert member_jobs.finished(later) == trained, "as earlier versions noted it"
    _unfinished(going_on.folder)
    assert member_jobs.run([later], strategy=strategy)[0].folder == trained.folder, (
        "begun by one, and gone on with"
    )
    other = trained_model.load_model(start.model_path)
    other.set_weights([w + 1 for w in other.get_weights()])
    saved_heads.save(other, start.model_path)
    assert member_jobs.finished(dataclasses.replace(going_on)) is None


def test_given_weights_whose_compressed_bytes_are_damaged_are_named(tmp_path: Path) -> None:
    file = tmp_path / given_weights.FILE_NAME
    np.savez_compressed(file, np.random.default_rng(0).integers(0, 9, (100, 50)).astype(np.float32))
    whole = file.read_bytes()
    for at in range(200, 400, 10):
        file.write_bytes(whole[:at] + bytes(8) + whole[at + 8 :])
        with pytest.raises(UserError, match=r"given_weights\.npz cannot be used"):
            given_weights._read(file)
