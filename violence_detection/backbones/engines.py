"""Engines that run a backbone: TensorFlow (GPUs or CPU) or OpenVINO (CPU, up to twice as fast, same float32 values).

A job is the T images of one clip, variant and stream. On a CPU a batch is one job. On GPUs a batch contains several
jobs, and one that is not full is filled up with black images; each GPU has its own copy of the backbone. Batches
contain several jobs only where `batch_invariant` holds. So no bit of a clip's features depends on what else is being
extracted, and prediction gets the same features as training.

An engine's name states its precision, on which the features depend: float32 on CPUs; float16 on GPUs and bfloat16 on
CPUs that multiply it in hardware, where these keep the features (precision.py); int8 on CPUs that are fast at it, for
networks that judge by themselves and for the features of kernel heads (eight_bits.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from violence_detection.backbones.registry import Backbone
from violence_detection.errors import UserError
from violence_detection.system import tensorflow_start

if TYPE_CHECKING:
    from violence_detection.backbones.precision import Probe

log = logging.getLogger(__name__)

#: One batch is computed while the next is handed over. More would only fill a GPU's memory.
_BATCHES_A_DEVICE = 2
#: Pixels in a GPU's batch: 64 images of 380 x 380, with which EfficientNet-B4's largest layer takes 0.7 GB in float16.
_GPU_BATCH_PIXELS = 64 * 380**2
#: An array (N, C) float32; a list of such arrays, one per backbone, where several backbones run together.
Features: TypeAlias = Any
#: Computes the features of images (N, S, S, 3) uint8. A runner is not called again while it is busy.
Runner = Callable[[np.ndarray], Features]
#: Seconds that a batch waits for one more job. It rarely waits: where the engine is the bottleneck, jobs are queued.
_LINGER_S = 0.02


def create(
    kind: str,
    backbone: Backbone,
    weights: Path,
    frames: int,
    probe: Probe | None = None,
    trained_with: Sequence[str] = (),
    precision: str = "auto",
) -> Engine:
    """Create an engine. `kind` "auto": OpenVINO if it is installed and TensorFlow sees no GPU, else TensorFlow.

    The engine computes in float32, but for two cases in which it uses the reduced precision that the hardware is fast
    at: `trained_with`, the names of the engines whose features a model was trained on, has only the engine of that
    precision; or `probe` shows that it keeps the features. With `precision` "float32" neither applies. Raises UserError
    if `kind` is "openvino" and OpenVINO is not installed.
    """
    kind = _ready(kind)
    reduced = _reduced_precision(kind) if precision != "float32" else None
    if reduced and set(trained_with) == {f"{kind}-{reduced}"}:
        return _engine(kind, backbone, weights, frames, reduced)
    exact = _engine(kind, backbone, weights, frames, "float32")
    if probe is None or reduced is None:
        return exact
    from violence_detection.backbones import precision as reduced_precision

    return reduced_precision.faster_if_equal(
        lambda: _engine(kind, backbone, weights, frames, reduced), exact, probe
    )


def to_judge(
    kind: str,
    backbone: Backbone,
    weights: Path,
    frames: int,
    trained_with: Sequence[str] = (),
    precision: str = "auto",
) -> Engine:
    """Create the engine for judging: the one that `create` makes without a probe, except with OpenVINO.

    With OpenVINO, windows share the results of the frames that they have in common, if the backbone has a part that
    sees each frame by itself. The precision is int8 or bfloat16 if the CPU is fast at it, the backbone may judge in it
    (`ranges`, `bfloat16`), and made-up pictures show that it keeps what the backbone computes on this machine. This is
    measured once per machine, so that the same engine runs every time.
    """
    kind = _ready(kind)
    if kind != "openvino" or not (backbone.bfloat16 or backbone.per_frame or backbone.ranges):
        return create(kind, backbone, weights, frames, trained_with=trained_with, precision=precision)

    def engine(dtype: str) -> Engine:
        return judging_on_cpu(backbone, weights, frames, dtype)

    if precision == "float32":
        return engine("float32")
    from violence_detection.backbones import precision as reduced_precision

    for dtype in _to_be_tried(backbone, precision):
        if reduced_precision.keeps(backbone, weights, frames, engine, dtype):
            return engine(dtype)
    if backbone.bfloat16 and has_fast_bfloat16():
        return engine("float32")
    as_trained = _reduced_precision(kind)
    return engine(as_trained if as_trained and set(trained_with) == {f"{kind}-{as_trained}"} else "float32")


def judging_on_cpu(backbone: Backbone, weights: Path, frames: int, dtype: str) -> Engine:
    """Create the OpenVINO engine for judging, in float32, bfloat16 or int8.

    Raises ValueError where a range for int8 is not known.
    """
    if backbone.per_frame is None:
        return _engine("openvino", backbone, weights, frames, dtype)
    from violence_detection.backbones.shared_frames import FrameSharingEngine

    runners = _openvino(openvino_network(backbone, weights, 1, dtype, True), _shape(backbone, 1), dtype)
    return FrameSharingEngine(f"openvino-{dtype}", runners, backbone.per_frame)


def openvino_network(
    backbone: Backbone, weights: Path, frames: int, dtype: str = "float32", by_frame: bool = False
) -> Any:
    """The backbone as an openvino.Model, read from the cache or converted now.

    `by_frame`: only the part that sees each frame by itself, if the backbone has one.
    Raises ValueError where a range for int8 is not known.
    """
    from violence_detection.backbones import stored_networks  # lazy: it imports what finds weights

    if by_frame and backbone.per_frame:
        backbone = replace(backbone, name=f"{backbone.name} by frame", build=backbone.per_frame.build)
    network = stored_networks.network(
        backbone, weights, frames, lambda: _converted(_build(backbone, weights, "float32"))
    )
    if dtype != "int8":
        return network
    from violence_detection.backbones import eight_bits

    return eight_bits.quantised(network, backbone.ranges)


def _ready(kind: str) -> str:
    """`kind`, with `auto` resolved. Raises UserError if it is OpenVINO and that is not installed."""
    kind = resolved(kind)
    if kind == "openvino" and not _has_openvino():
        raise UserError("engine openvino: the package openvino is not installed. Run: pip install openvino")
    return kind


def resolved(kind: str) -> str:
    """`kind` itself; for `auto` the engine that it means on this machine, tensorflow or openvino."""
    if kind != "auto":
        return kind
    return "tensorflow" if _gpus() or not _has_openvino() else "openvino"


def _reduced_precision(kind: str) -> str | None:
    """The precision below float32 that this machine computes much faster; None if there is none."""
    if kind == "tensorflow":
        return "float16" if _gpus() else None
    return "bfloat16" if has_amx() else None


def has_amx(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (Intel AMX)."""
    return cpuinfo.is_file() and " amx_bf16" in cpuinfo.read_text()


def has_avx512_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies bfloat16 vectors in hardware (AVX-512 BF16), up to twice as fast as float32."""
    return cpuinfo.is_file() and " avx512_bf16" in cpuinfo.read_text()


def has_fast_bfloat16() -> bool:
    """Whether this CPU is faster at bfloat16 than at float32."""
    return has_avx512_bf16() or has_amx()


def _to_be_tried(backbone: Backbone, precision: str) -> list[str]:
    """The reduced precisions that this CPU is fast at and the backbone may judge in, fastest first."""
    tried = ["bfloat16"] if backbone.bfloat16 and has_fast_bfloat16() else []
    if precision != "auto" or not backbone.ranges:
        return tried
    from violence_detection.backbones import eight_bits  # lazy: few networks have ranges

    return ["int8", *tried] if eight_bits.fast_here() else tried


def _engine(kind: str, backbone: Backbone, weights: Path, frames: int, dtype: str) -> Engine:
    """An engine of this kind and precision, named after both.

    `dtype`: float32; also float16 with TensorFlow; also bfloat16 and int8 with OpenVINO.
    Raises ValueError where a convolution's range for int8 is not known.
    """
    if kind == "openvino":
        network = openvino_network(backbone, weights, frames, dtype)
        return Engine(f"openvino-{dtype}", _openvino(network, _shape(backbone, frames), dtype))
    devices = _gpus()
    jobs_a_batch = max(1, _GPU_BATCH_PIXELS // (frames * backbone.input_size**2)) if devices else 1
    if backbone.is_video:  # the batch axis of a video backbone is time
        jobs_a_batch = 1
    if not devices:
        _limit_tensorflow_threads()
        log.info("%s: TensorFlow on %d CPU threads", backbone.name, _tensorflow_threads())
    return tensorflow_engine(backbone, weights, frames, devices or ["CPU:0"], jobs_a_batch, dtype)


def _limit_tensorflow_threads() -> None:
    """Limit TensorFlow to the processors that this process may use; by itself it starts a thread for each that it sees.

    Does nothing if TensorFlow has started already, or if a number of threads has been set.
    """
    import tensorflow as tf

    tensorflow_start.gpus()  # must look at the devices first: asking for the threads looks at them, too
    if (limit := thread_limit()) and not tf.config.threading.get_intra_op_parallelism_threads():
        with contextlib.suppress(RuntimeError):  # TensorFlow has started
            tf.config.threading.set_intra_op_parallelism_threads(limit)


def _tensorflow_threads() -> int:
    import tensorflow as tf

    from violence_detection.system import processes

    return tf.config.threading.get_intra_op_parallelism_threads() or processes.usable_cpus()


def thread_limit() -> int | None:
    """The number of threads to compute with if this process may use fewer processors than the libraries see, else None.

    This is so under a container's quota, or where several workers share a machine.
    """
    from violence_detection.system import processes

    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return usable if (usable := processes.usable_cpus()) < seen else None


def tensorflow_engine(
    backbone: Backbone,
    weights: Path,
    frames: int,
    devices: Sequence[str],
    jobs_a_batch: int,
    dtype: str = "float32",
) -> Engine:
    """An engine with a copy of the backbone on each of the devices ("GPU:0", "GPU:1", ...), which take turns.

    `jobs_a_batch` is reduced to 1 where a clip's features would depend on its place in a batch.
    """
    import tensorflow as tf

    policy = "float32" if dtype == "float32" else f"mixed_{dtype}"
    models = []
    for device in devices:
        with _memory_errors(device), tf.device(device):
            models.append(_build(backbone, weights, policy))

    def runners(jobs: int) -> list[Runner]:
        shape = _shape(backbone, jobs * frames)
        return [_tensorflow(model, shape, device) for device, model in zip(devices, models, strict=True)]

    ready = runners(jobs_a_batch)
    if jobs_a_batch > 1 and not batch_invariant(ready[0], _shape(backbone, frames), jobs_a_batch):
        log.warning(
            "%s: on this machine features depend on the place in a batch, so each clip gets a batch of its own",
            backbone.name,
        )
        ready, jobs_a_batch = runners(1), 1
    return Engine(f"tensorflow-{dtype}", ready * _BATCHES_A_DEVICE, jobs_a_batch)


def _shape(backbone: Backbone, images: int) -> tuple[int, ...]:
    return (images, backbone.input_size, backbone.input_size, 3)


def _build(backbone: Backbone, weights: Path, policy: str) -> Any:
    """Build the model under the dtype policy `policy`.

    Heads may be trained under another one, with which evaluation would see other features.
    """
    tensorflow_start.gpus()  # must look at the devices first, with OpenVINO too: Keras builds the network
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return backbone.build(weights)
    finally:
        keras.config.set_dtype_policy(before)


def _gpus() -> list[str]:
    return tensorflow_start.gpus() if tensorflow_start.may_have_gpus() else []


def _has_openvino() -> bool:
    import importlib.util

    return importlib.util.find_spec("openvino") is not None


def _tensorflow(model: Any, shape: tuple[int, ...], device: str) -> Runner:
    """A runner of the model on `device`, which has its variables. Raises UserError if the device's memory is full."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.uint8)])
    def features(images: Any) -> Any:
        return tf.nest.map_structure(
            lambda values: tf.cast(values, tf.float32), model(tf.cast(images, tf.float32), training=False)
        )

    # Only the traced function is called. `features` must not be called by several threads: after an error in one of
    # them its lock stays taken (TensorFlow 2.21). The traced function has no lock, but does not check the shape either.
    traced = features.get_concrete_function()

    def run(images: np.ndarray) -> Features:
        if images.shape != shape:
            raise ValueError(f"the images have the shape {images.shape}, but the backbone takes {shape}")
        # the traced function does not keep its device: without this it would compute on the first GPU
        with _memory_errors(device), tf.device(device):
            return tf.nest.map_structure(lambda values: values.numpy(), traced(tf.constant(images)))

    return run


@contextlib.contextmanager
def _memory_errors(device: str) -> Iterator[None]:
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as e:
        if not tensorflow_start.memory_is_full(e):
            raise
        raise UserError(
            f"the memory of {device} is full. End other programs that use it (nvidia-smi lists them), or pass --engine "
            "openvino. The same command then continues where it stopped (judging: only with --output)"
        ) from e


def _converted(model: Any) -> Any:
    """The Keras model as an openvino.Model."""
    from violence_detection.backbones import openvino_conversion  # lazy: most runs find the network kept

    return openvino_conversion.converted(model)


def _openvino(converted: Any, shape: tuple[int, ...], dtype: str) -> list[Runner]:
    """The runners of an openvino.Model for images of this shape."""
    import openvino as ov

    # A process's first array initialises OpenVINO's bindings (2026.4). Two threads that do this at once wait for each
    # other for ever, so one thread does it before several hand over pictures.
    ov.Tensor(np.zeros(1, np.uint8))
    converted.reshape(list(shape))
    steps = ov.preprocess.PrePostProcessor(converted)
    steps.input().tensor().set_element_type(ov.Type.u8)
    compiled = ov.Core().compile_model(steps.build(), "CPU", _openvino_settings(dtype))

    def runner() -> Runner:
        request = compiled.create_infer_request()
        return lambda images: _plain_or_list(
            [values.copy() for values in request.infer({0: images}).values()]
        )

    return [runner() for _ in range(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))]


def _openvino_settings(dtype: str) -> dict[str, Any]:
    # for int8 this is the precision of everything that is not quantised
    hint = {"float32": "f32", "bfloat16": "bf16", "int8": "bf16" if has_fast_bfloat16() else "f32"}[dtype]
    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "THROUGHPUT"}
    return settings | ({"INFERENCE_NUM_THREADS": limit} if (limit := thread_limit()) else {})


def _plain_or_list(outputs: list[np.ndarray]) -> Features:
    return outputs if len(outputs) > 1 else outputs[0]


@dataclass(frozen=True)
class _EngineJob:
    images: np.ndarray
    result: Future[Features]


class Engine:
    """Runs batches of `jobs_a_batch` jobs, one batch per runner at a time. Safe to use from several threads.

    Where a batch contains several jobs, their images must have the same shape. A runner may return any number of rows,
    as long as it is the same for each job of a batch. The threads of the engine, and those that its runners use, belong
    to the process that made the engine; a fork of that process has none of them.
    """

    def __init__(self, name: str, runners: Sequence[Runner], jobs_a_batch: int = 1):
        self.name, self.jobs_a_batch, self.n_runners = name, jobs_a_batch, len(runners)
        self.images_done = 0
        self.busy_s = 0.0  # summed over the runners
        self._idle: queue.SimpleQueue[Runner] = queue.SimpleQueue()
        for runner in runners:
            self._idle.put(runner)
        self._jobs: queue.SimpleQueue[_EngineJob] = queue.SimpleQueue()
        self._room = threading.Semaphore(len(runners) * jobs_a_batch)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(len(runners), "engine")
        self._process = os.getpid()

    def submit(self, images: np.ndarray) -> Future[Features]:
        """Queue a job's images (T, S, S, 3) uint8, and return the future of their features (T, C) float32.

        Waits while all runners have as many jobs as they can take, so that images do not pile up. An error is raised by
        the future's `result`. Raises UserError in a fork of the process that made the engine.
        """
        self._check_process()
        job = _EngineJob(images, Future())
        self._room.acquire()
        self._jobs.put(job)
        # one call per job: if an earlier batch has taken the job, the call finds nothing to do
        self._pool.submit(self._batch)
        return job.result

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise UserError(
                "this detector was loaded in another process, and a fork does not have that one's threads. Load it in "
                'each process that judges, or start those processes with multiprocessing.get_context("spawn")'
            )

    def _batch(self) -> None:
        jobs = self._gather()
        if not jobs:
            return
        runner = self._idle.get()
        started = time.monotonic()
        values: Sequence[Features] = ()
        error: BaseException | None = None
        try:
            values = self._run(runner, [job.images for job in jobs])
        except BaseException as e:  # noqa: BLE001 - raised where the result is asked for
            error = e
        with self._lock:
            self.busy_s += time.monotonic() - started
            self.images_done += sum(len(job.images) for job in jobs)
        self._idle.put(runner)
        self._room.release(len(jobs))
        for i, job in enumerate(jobs):
            job.result.set_exception(error) if error else job.result.set_result(values[i])

    def _gather(self) -> list[_EngineJob]:
        """Up to a batch of jobs: those in the queue, and those that arrive within `_LINGER_S` of the one before."""
        jobs: list[_EngineJob] = []
        try:
            while len(jobs) < self.jobs_a_batch:
                jobs.append(self._jobs.get(timeout=_LINGER_S) if jobs else self._jobs.get_nowait())
        except queue.Empty:
            pass
        return jobs

    def _run(self, runner: Runner, images: list[np.ndarray]) -> Sequence[Features]:
        """The features of each job in a batch, which is filled up with black images."""
        if self.jobs_a_batch == 1:
            return [runner(images[0])]
        filling = [np.zeros_like(images[0])] * (self.jobs_a_batch - len(images))
        return np.split(runner(np.concatenate(images + filling)), self.jobs_a_batch)


def batch_invariant(runner: Runner, job_shape: tuple[int, ...], jobs_a_batch: int) -> bool:
    """Try whether a job's features are the same bits at every place in a batch, alone and among others.

    They are not with TensorFlow on CPUs, which splits a batch among threads without regard to where an image ends.
    """
    rng = np.random.default_rng(0)
    # coarse noise, which has edges and flat parts
    coarse = (job_shape[0], -(-job_shape[1] // 16), -(-job_shape[2] // 16), 3)
    pictures = [rng.integers(0, 256, coarse, np.uint8).repeat(16, 1).repeat(16, 2) for _ in range(2)]
    probe, other = (p[:, : job_shape[1], : job_shape[2]] for p in pictures)
    alone = np.split(
        runner(np.concatenate([probe, np.zeros_like(probe).repeat(jobs_a_batch - 1, 0)])), jobs_a_batch
    )
    for place in range(jobs_a_batch):
        batch = [other] * jobs_a_batch
        batch[place] = probe
        if not np.array_equal(np.split(runner(np.concatenate(batch)), jobs_a_batch)[place], alone[0]):
            return False
    return True
