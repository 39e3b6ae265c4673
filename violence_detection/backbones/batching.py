"""Runs jobs on what computes a backbone: one at a time on a CPU, several clips' in one batch on GPUs.

A job is the T images of one clip, variant and stream. A batch is always of one size, the last filled up with black
images, and holds several jobs only where `batch_invariant`: so not a bit of a clip's features depends on what else is
being extracted, and prediction gets those of training.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

#: (N, C) float32; where several backbones run together a list of them, one each.
Features: TypeAlias = Any
#: Images (N, S, S, 3) uint8 to features. One that is busy is not called a second time.
Runner = Callable[[np.ndarray], Features]
#: How long a batch waits for one more job. When the engine is what holds things up, jobs stand in line already.
_LINGER_S = 0.02


@dataclass(frozen=True)
class _EngineJob:
    images: np.ndarray
    result: Future[Features]


class Engine:
    """Runs batches of `jobs_a_batch` jobs, one on each of its runners at once. Safe to use from several threads.

    A job's images must all have the same shape where a batch holds several. A runner may give any number of rows, so
    long as it is the same for each job of a batch.
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

    def submit(self, images: np.ndarray) -> Future[Features]:
        """Features (T, C) float32 to come, for images (T, S, S, 3) uint8.

        Waits while all runners have what they can take, so that images do not pile up. An error comes with the
        future's result.
        """
        job = _EngineJob(images, Future())
        self._room.acquire()
        self._jobs.put(job)
        self._pool.submit(
            self._batch
        )  # one call a job: those whose job went with an earlier batch find nothing
        return job.result

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
        """Up to a batch of jobs: those that stand in line, and those that come within `_LINGER_S` of each other."""
        jobs: list[_EngineJob] = []
        try:
            while len(jobs) < self.jobs_a_batch:
                jobs.append(self._jobs.get(timeout=_LINGER_S) if jobs else self._jobs.get_nowait())
        except queue.Empty:
            pass
        return jobs

    def _run(self, runner: Runner, images: list[np.ndarray]) -> Sequence[Features]:
        """The features of each job of a batch."""
        if self.jobs_a_batch == 1:
            return [runner(images[0])]
        filling = [np.zeros_like(images[0])] * (self.jobs_a_batch - len(images))
        return np.split(runner(np.concatenate(images + filling)), self.jobs_a_batch)


def batch_invariant(runner: Runner, job_shape: tuple[int, ...], jobs_a_batch: int) -> bool:
    """Whether a job's features are the same bits at every place in a batch, alone and among others; by trying.

    Not so for TensorFlow on CPUs, which splits a batch among threads without regard to where an image ends.
    """
    rng = np.random.default_rng(0)
    coarse = (
        job_shape[0],
        -(-job_shape[1] // 16),
        -(-job_shape[2] // 16),
        3,
    )  # noise with edges and flat parts
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
