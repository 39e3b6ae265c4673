"""Members come out the same wherever they are trained: in this process, in others, on a cluster, killed or not."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import synthetic
import tensorflow as tf
import warm_start

from violence_detection.ensemble import folds, member_jobs, member_processes
from violence_detection.errors import UserError
from violence_detection.features.cache import FeatureStore
from violence_detection.features.stored_features import StoredFeatures
from violence_detection.system import locks
from violence_detection.training import run_folder, trained_clips


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


@pytest.fixture(scope="module")
def in_sequence(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in_sequence")
    done = warm_start.run(synthetic.train_jobs, features, folder, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def _assert_same(a: Path, b: Path) -> None:
    for name in ("conv_lstm", "average"):
        assert (a / name / run_folder.LOG_NAME).read_bytes() == (b / name / run_folder.LOG_NAME).read_bytes()
        for file in (run_folder.BEST_NAME, run_folder.FINAL_NAME):
            models = [keras.models.load_model(f / name / file, compile=False).get_weights() for f in (a, b)]
            for x, y in zip(*models, strict=True):
                np.testing.assert_array_equal(x, y)


def test_jobs_on_the_same_clips_get_the_features_of_their_own_pool(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job, other) = synthetic.jobs(features, tmp_path)
    rgb = {name: store for name, store in job.pool.stores.items() if name.endswith("rgb")}
    narrow = dataclasses.replace(job, pool=dataclasses.replace(job.pool, stores=rgb, variants=("v0",)))
    seen = []
    monkeypatch.setattr(member_jobs, "train", lambda job, data, _: seen.append((job, data.train.shapes())))
    member_jobs._in_this_process([narrow, job, other], None)
    assert [job for job, _ in seen] == [narrow, job, other]
    assert [len(shapes) for _, shapes in seen] == [1, 2, 2]


def test_processes_share_the_memory_that_features_may_take(features: Path, tmp_path: Path) -> None:
    (job, _) = synthetic.jobs(features, tmp_path)
    loaded = job.pool.data(job.fold)
    needed = sum(
        x.nbytes for part in (loaded.train, loaded.selection, loaded.val) for x in part.inputs.values()
    )
    pool = dataclasses.replace(job.pool, memory_gb=2.5 * needed / 1e9)
    kept, read = (pool.shared_by(processes).data(job.fold).train.inputs for processes in (2, 3))
    assert all(isinstance(values, np.ndarray) for values in kept.values())
    assert not any(isinstance(values, np.ndarray) for values in read.values())


def test_views_beyond_the_memory_are_read_as_they_are_needed(features: Path, tmp_path: Path) -> None:
    (job, _) = synthetic.jobs(features, tmp_path)
    ids = job.pool.frame.clip_id[:5].tolist()
    kept = job.pool.views(ids, 2).inputs
    read = dataclasses.replace(job.pool, memory_gb=1e-9).views(ids, 2).inputs
    for name, values in kept.items():
        stored = read[name]
        assert isinstance(values, np.ndarray)
        assert isinstance(stored, StoredFeatures)
        for view in range(2):
            np.testing.assert_array_equal(stored.gather(np.arange(5), np.full(5, view)), values[:, view])


def test_the_copy_of_clips_that_are_drawn_more_often_takes_memory_too(features: Path, tmp_path: Path) -> None:
    (job, _) = synthetic.jobs(features, tmp_path)
    loaded = job.pool.data(job.fold)
    parts = (loaded.train, loaded.selection, loaded.val)
    needed = sum(x.nbytes for part in parts for x in part.inputs.values())
    hard = folds.with_repeats(job.fold, np.arange(len(job.fold.train)) % 2 == 0, 0.6)
    pool = dataclasses.replace(job.pool, memory_gb=1.2 * needed / 1e9)
    assert all(isinstance(x, np.ndarray) for x in pool.data(job.fold).train.inputs.values())
    assert all(isinstance(x, StoredFeatures) for x in pool.data(hard).train.inputs.values())


def _fail_at_length(job: member_jobs.TrainingJob) -> None:
    raise UserError("x" * 200_000 + "the end")


def test_an_error_longer_than_a_pipe_reaches_the_one_who_waits(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job, _) = synthetic.jobs(features, tmp_path)
    hears, says = multiprocessing.get_context("spawn").Pipe(duplex=False)
    monkeypatch.setattr(member_jobs, "train_alone", _fail_at_length)
    monkeypatch.setattr(member_processes, "follow_parent", lambda: None)
    with pytest.raises(SystemExit):
        member_processes._work(job, says, (), logging.INFO)  # would block for ever if it waited for a reader
    assert hears.poll()
    for_user, message = hears.recv()
    assert for_user
    assert message.endswith("the end")


def test_a_disk_that_fills_up_in_a_process_is_the_users_to_mend(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job, _) = synthetic.jobs(features, tmp_path)
    hears, says = multiprocessing.get_context("spawn").Pipe(duplex=False)
    monkeypatch.setattr(member_jobs, "train_alone", lambda _: Path("/dev/full").write_text("x"))
    monkeypatch.setattr(member_processes, "follow_parent", lambda: None)
    with pytest.raises(SystemExit):
        member_processes._work(job, says, (), logging.INFO)
    for_user, message = hears.recv()
    assert for_user
    assert "No space left on device. Free some space" in message


def test_a_process_meets_no_ctrl_c_while_it_begins(features: Path, tmp_path: Path) -> None:
    (job, _) = synthetic.jobs(features, tmp_path)
    worker = member_processes._start(job, "")
    try:
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
    finally:
        worker.process.kill()
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk:"))
    assert int(blocked.split()[1], 16) >> (signal.SIGINT - 1) & 1


@pytest.mark.slow
def test_two_processes_one_of_them_killed_give_the_models_of_one_after_another(
    features: Path, in_sequence: Path, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_once() -> None:
        while not (tmp_path / "conv_lstm" / "checkpoint" / "state.json").is_file():
            time.sleep(0.01)
        worker = next(p for p in multiprocessing.active_children() if p.name == "conv_lstm")
        assert worker.pid
        os.kill(worker.pid, signal.SIGKILL)
        killed.append(worker.pid)

    killer = threading.Thread(target=kill_once, daemon=True)
    killer.start()
    with locks.only_one(tmp_path, "the script"):  # the members' locks do not conflict with the script's
        member_jobs.run(synthetic.jobs(features, tmp_path), at_once=2)
    assert killed
    _assert_same(in_sequence, tmp_path)


@pytest.mark.slow
def test_a_ray_cluster_gives_the_models_of_one_after_another(
    features: Path, in_sequence: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    pytest.importorskip("violence_detection.system.ray_cluster")
    member_jobs.run(synthetic.jobs(features, tmp_path), ray="local")
    _assert_same(in_sequence, tmp_path)


def test_a_link_to_the_volume_stays_one_for_other_machines(features: Path, tmp_path: Path) -> None:
    """/workspace may be a link on this machine and a mounted volume on another, so links in paths are not resolved."""
    (tmp_path / "volume").symlink_to(features, target_is_directory=True)
    (job, _) = synthetic.jobs(tmp_path / "volume", tmp_path / "volume" / "models")
    job = dataclasses.replace(job, start=job.folder / run_folder.BEST_NAME).with_absolute_paths()
    paths = [job.folder, job.start, *(store.folder for store in job.pool.stores.values())]
    assert all(path and path.is_relative_to(tmp_path / "volume") for path in paths)


@pytest.mark.parametrize("unseen", ["output", "features"])
def test_a_machine_that_does_not_see_the_folders_refuses_before_it_trains(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unseen: str
) -> None:
    ray_cluster = pytest.importorskip("violence_detection.system.ray_cluster")
    (job, _) = synthetic.jobs(features, tmp_path / "models")
    trained: list[Path] = []
    monkeypatch.setattr(member_jobs, "train_alone", lambda job: trained.append(job.folder))

    @contextlib.contextmanager
    def connected(_: str) -> Iterator[dict[str, float]]:
        yield {"CPU": 2.0}

    def on_another_machine(_: str, function: Any, items: Any, **how: Any) -> Iterator[tuple[int, Any]]:
        if unseen == "output":
            (mark,) = (tmp_path / "models").iterdir()
            mark.rename(tmp_path / "elsewhere")
        for index, item in enumerate(items):
            if unseen == "features":
                gone = FeatureStore(tmp_path / "gone")
                item = dataclasses.replace(item, pool=dataclasses.replace(item.pool, stores={"a": gone}))
            yield index, function(item)

    monkeypatch.setattr(ray_cluster, "connected", connected)
    monkeypatch.setattr(ray_cluster, "machines", lambda: [{"CPU": 2.0}])
    monkeypatch.setattr(ray_cluster, "map_unordered", on_another_machine)
    named = "models: --ray needs --output" if unseen == "output" else "gone: --ray needs the data root"
    with pytest.raises(UserError, match=f"does not see .*{named} on"):
        member_jobs.run([job], ray="auto")
    assert not trained


def test_devices_of_a_model_are_refused_where_a_cluster_gives_each_one_gpu(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray_cluster = pytest.importorskip("violence_detection.system.ray_cluster")
    (job, _) = synthetic.jobs(features, tmp_path)
    mirrored = dataclasses.replace(job.settings, train=dataclasses.replace(job.settings.train, devices=2))
    monkeypatch.setattr(ray_cluster, "connected", lambda _: contextlib.nullcontext({"CPU": 2.0, "GPU": 2.0}))
    monkeypatch.setattr(ray_cluster, "machines", lambda: [{"CPU": 2.0, "GPU": 2.0}])
    monkeypatch.setattr(ray_cluster, "map_unordered", lambda *_, **__: pytest.fail("it began"))
    with pytest.raises(UserError, match="one GPU of its own; leave out --devices or --ray"):
        member_jobs.run([dataclasses.replace(job, settings=mirrored)], ray="auto")


def test_finished_jobs_are_kept_and_other_settings_are_not_taken_for_them(
    features: Path, in_sequence: Path
) -> None:
    jobs = synthetic.jobs(features, in_sequence)
    before = [(job.folder / run_folder.FINAL_NAME).stat().st_mtime_ns for job in jobs]
    assert [t.epochs_run for t in member_jobs.run(jobs)] == [4, 4]
    assert [(job.folder / run_folder.FINAL_NAME).stat().st_mtime_ns for job in jobs] == before
    other = dataclasses.replace(jobs[0], settings=synthetic.settings())
    assert member_jobs.finished(other) is None
    fewer = dataclasses.replace(jobs[0].fold, train=jobs[0].fold.train[1:])
    assert member_jobs.finished(dataclasses.replace(jobs[0], fold=fewer)) is None


def test_a_begun_job_goes_on_where_other_rows_of_the_manifest_have_changed(
    features: Path, in_sequence: Path, tmp_path: Path
) -> None:
    """A begun job continues, as finished ones are kept, while its own clips and their labels are unchanged."""
    output = Path(shutil.copytree(in_sequence, tmp_path / "models"))
    job = synthetic.jobs(features, output)[1]
    (job.folder / run_folder.RESULT_NAME).unlink()
    frame = job.pool.frame
    others = ~frame.clip_id.isin([*job.fold.train, *job.fold.selection])
    assert others.any()
    swapped = frame.label.map({"fight": "nonfight", "nonfight": "fight"})
    for mended, sha256, goes_on in ((others, "0" * 64, True), (~others, "1" * 64, False)):
        pool = dataclasses.replace(
            job.pool, frame=frame.assign(label=frame.label.mask(mended, swapped)), manifest_sha256=sha256
        )
        now = dataclasses.replace(job, pool=pool)
        if goes_on:
            (trained,) = member_jobs.run([now], strategy=tf.distribute.get_strategy())
            assert trained.epochs_run == 4
            (job.folder / run_folder.RESULT_NAME).unlink()
        else:
            with pytest.raises(UserError, match="trained with other settings or data"):
                member_jobs.run([now])


def test_a_kernel_head_of_clips_that_counted_for_other_data_sets_is_another(
    features: Path, tmp_path: Path
) -> None:
    """A kernel head gives each pair of data set and class the same weight. Earlier versions hashed only the labels."""
    job = dataclasses.replace(synthetic.jobs(features, tmp_path)[0], architecture="kernel")
    moved = dataclasses.replace(job.pool, frame=job.pool.frame.assign(dataset="c"))
    other = dataclasses.replace(job, pool=moved)
    made = {run_folder.LABELS_KEY: job.labels_sha256}
    assert (job.is_of_labels(made), other.is_of_labels(made)) == (True, False)
    made[run_folder.LABELS_KEY] = job.pool.labels_sha256([*job.fold.train, *job.fold.selection])
    assert (job.is_of_labels(made), other.is_of_labels(made)) == (False, False), "nothing tells its data sets"
    rows = {
        role: job.pool.rows(ids)
        for role, ids in (("train", job.fold.train), ("selection", job.fold.selection))
    }
    trained_clips.write(job.folder, rows)
    assert (job.is_of_labels(made), other.is_of_labels(made)) == (True, False)


@pytest.mark.slow
def test_what_a_process_raises_for_the_user_is_raised_here(
    features: Path, in_sequence: Path, tmp_path: Path
) -> None:
    job = synthetic.jobs(features, tmp_path)[0]
    gone = next(iter(job.pool.stores.values())).path(job.fold.train[0])
    content = gone.read_bytes()
    gone.unlink()
    try:
        with pytest.raises(UserError, match=gone.name):
            member_jobs.run([job], at_once=2)
    finally:
        gone.write_bytes(content)
