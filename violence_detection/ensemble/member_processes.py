"""Train heads in several processes of this machine at once, each with one GPU if there are any.

If a process is killed, its job is started again and goes on from the checkpoint of its last epoch.
"""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from violence_detection.ensemble import member_jobs
from violence_detection.ensemble.member_jobs import TrainingJob
from violence_detection.errors import UserError
from violence_detection.system import console, disks, processes, tensorflow_start
from violence_detection.system.processes import follow_parent, worker_count
from violence_detection.training.config import TrainConfig

log = logging.getLogger(__name__)

#: How often a job is started, at most. If its process is killed each time, the run ends with an error.
_ATTEMPTS = 3
#: Most characters of an error that a worker sends: with up to 4 bytes each they fit into the 64 KiB that a pipe takes
#: before anybody reads it, so the worker need not wait for that.
_MOST_ERROR_CHARACTERS = 15_000


@dataclass
class _Worker:
    """A process that does a job. `device`: its GPU, empty if none; `says`: receives the error that it failed with."""

    job: TrainingJob
    device: str
    process: BaseProcess
    says: Connection


def visible_gpus() -> list[str]:
    """The ids of the GPUs that TensorFlow sees, as CUDA_VISIBLE_DEVICES names them."""
    count = len(tensorflow_start.gpus())
    named = [n for n in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if n.strip()]
    return (named or [str(i) for i in range(count)])[:count]


def check(train: TrainConfig) -> None:
    """Raise UserError if models are to be mirrored on several GPUs: each process has only one."""
    if train.devices > 1 and visible_gpus():
        raise UserError("--parallel gives every model one GPU of its own; leave out --devices or --parallel")


def number_at_once(asked: int) -> int:
    """The number of processes: `asked`; if that is 0, one per GPU, or without GPUs one per two cores, at least two."""
    return asked or len(visible_gpus()) or max(2, worker_count(0) // member_jobs.THREADS)


def run(jobs: Sequence[TrainingJob], at_once: int, before: Callable[[], None]) -> None:
    """Do the jobs, `at_once` processes at a time (0: see `number_at_once`).

    `before` is called after the checks that may refuse the jobs, and before any job starts. Raises UserError if a job
    raises one or its process was killed three times, RuntimeError if it failed otherwise; the others are then ended.
    """
    if jobs:
        check(jobs[0].settings.train)
    before()
    gpus, at_once = visible_gpus(), number_at_once(at_once)
    jobs = [
        dataclasses.replace(job, pool=job.pool.shared_by(max(1, min(at_once, len(jobs))))) for job in jobs
    ]
    # with more processes than GPUs, several share one
    free = [(gpus or [""])[i % max(len(gpus), 1)] for i in range(at_once)]
    waiting, attempts = list(jobs), dict.fromkeys((job.folder for job in jobs), 0)
    running: list[_Worker] = []
    try:
        while waiting or running:
            while waiting and free:
                job = waiting.pop(0)
                attempts[job.folder] += 1
                running.append(_start(job, free.pop(0)))
            wait([w.process.sentinel for w in running])
            for worker in [w for w in running if not w.process.is_alive()]:
                running.remove(worker)
                free.append(worker.device)
                if _succeeded(worker):
                    continue
                if attempts[worker.job.folder] == _ATTEMPTS:
                    raise UserError(
                        f"{worker.job.folder}: its process was killed {_ATTEMPTS} times, most likely because memory "
                        "ran out. Use a smaller --parallel; what has been trained is kept"
                    )
                log.warning("%s: its process was killed; going on from its checkpoint", worker.job.folder)
                waiting.insert(0, worker.job)
    finally:
        for worker in running:
            worker.process.kill()
            worker.process.join()


def _start(job: TrainingJob, gpu: str) -> _Worker:
    context = multiprocessing.get_context("spawn")
    hears, says = context.Pipe(duplex=False)
    visible = {"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}
    with processes.environment(visible), processes.kept_from_ctrl_c():
        arguments = (job, says, console.log_files(), console.log.level)
        process = context.Process(target=_work, name=job.folder.name, args=arguments, daemon=True)
        process.start()
    # now only the worker has this end, so the pipe ends with the worker
    says.close()
    return _Worker(job, gpu, process, hears)


def _work(job: TrainingJob, says: Connection, log_files: Sequence[str], level: int) -> None:
    """What a worker process runs: do the job, and send an error to the process that started this one."""
    follow_parent()
    console.log_to(log_files, level)
    try:
        member_jobs.train_alone(job)
    except UserError as e:
        says.send((True, str(e)[-_MOST_ERROR_CHARACTERS:]))
        sys.exit(1)
    except Exception as e:  # noqa: BLE001 - sent to the process that started this one, which raises it
        trouble = disks.disk_trouble(e)
        says.send((trouble is not None, (trouble or traceback.format_exc())[-_MOST_ERROR_CHARACTERS:]))
        sys.exit(1)


def _succeeded(worker: _Worker) -> bool:
    """Whether the job of an ended worker is done; False if its process was killed.

    Raises UserError or RuntimeError with the message that the worker sent.
    """
    worker.process.join()
    if worker.process.exitcode == 0:
        return True
    try:
        for_user, message = worker.says.recv()
    except EOFError:
        return False
    finally:
        worker.says.close()
    if for_user:
        raise UserError(message)
    raise RuntimeError(f"{worker.job.folder} failed:\n{message}")
