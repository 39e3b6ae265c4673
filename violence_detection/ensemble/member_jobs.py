"""Train many heads: one after another in this process, in several processes at once, or over a Ray cluster.

A job trains one head on one fold of the clips, into a folder of its own. Wherever it runs, it uses the same number of
CPU threads, since that number changes the last digits of sums. So on CPUs the models are the same, bit for bit. On GPUs
they are not: the order of sums varies there, and a job in this process is mirrored on all the GPUs that are used, while
a job elsewhere has one. If a worker is killed, its job goes on from the checkpoint of its last epoch; finished jobs are
kept.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import logging
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from violence_detection.ensemble.folds import Fold
from violence_detection.errors import UserError
from violence_detection.features import key
from violence_detection.features.config import FeatureConfig
from violence_detection.system import storage, tensorflow_start
from violence_detection.training import step_plan
from violence_detection.training.config import KERNEL, PICTURES_OF, HeadConfig, TrainConfig
from violence_detection.training.step_plan import StepPlan

if TYPE_CHECKING:
    from violence_detection.ensemble.pool import Pool
    from violence_detection.training.run_folder import Trained
    from violence_detection.training.training_data import Data

log = logging.getLogger(__name__)

#: CPU threads that TensorFlow uses in a job, on any machine.
THREADS = 2


@dataclass(frozen=True)
class Settings:
    """How the heads of one run are trained."""

    features: FeatureConfig
    augment: int
    head: HeadConfig
    train: TrainConfig


@dataclass(frozen=True)
class TrainingJob:
    """Train `architecture` on `fold` into `folder`.

    `start`: a trained model file to go on from instead of fresh weights. `overwrite`: whether a run with other settings
    or data, or a damaged one, may be replaced. `plan`: the steps to make, if the fold has no selection part to end
    training.
    """

    architecture: str
    folder: Path
    pool: Pool
    fold: Fold
    settings: Settings
    start: Path | None = None
    overwrite: bool = False
    #: Price of the machine, from which the log estimates what is left to pay.
    usd_per_hour: float = 0.0
    plan: StepPlan | None = None

    def with_absolute_paths(self) -> TrainingJob:
        """The same job for a process with another working folder, or on another machine.

        Symbolic links are not resolved: all machines mount a volume at the same path, but links may differ.
        """
        pool, start = self.pool.with_absolute_paths(), self.start and self.start.absolute()
        return dataclasses.replace(self, folder=self.folder.absolute(), pool=pool, start=start)

    @functools.cached_property
    def given(self) -> dict[str, str]:
        """What its record says of given weights in its folder, which need no training; empty if there are none."""
        if self.architecture not in PICTURES_OF:
            return {}
        from violence_detection.training import given_weights

        return given_weights.record_of(self.folder)

    @functools.cached_property
    def key(self) -> str:
        """Hash of all that decides the outcome, except labels; the folder's config.json has it."""
        from violence_detection.training import run_folder

        return self._key_with(self.start and run_folder.stored(self.start))

    @functools.cached_property
    def key_before(self) -> str:
        """`key` as earlier versions computed it: from the `.keras` file to start from, which contains a time stamp."""
        return self._key_with(self.start) if self.start and self.start.is_file() else self.key

    def _key_with(self, start: Path | None) -> str:
        settings = {
            **dataclasses.asdict(self.settings),
            "head": self.settings.head.recorded(self.architecture),
        }
        del settings["features"]
        if self.plan:
            settings[step_plan.RECORD_KEY] = dataclasses.asdict(self.plan)
        settings |= self.given
        return storage.stable_hash(
            {
                "architecture": self.architecture,
                "clips": self.fold.sha256,
                "features": key.as_recorded(self.settings.features),
                "records": self.pool.records,
                "start": storage.sha256_file(start) if start else None,
                **settings,
            },
            64,
        )

    @functools.cached_property
    def labels_sha256(self) -> str:
        """Hash of its clips' labels, for some heads also of their data sets; config.json has it beside the key."""
        # whole networks draw clips evenly from data sets, and the kernel head weighs these evenly
        return self._labels(self.architecture in (*PICTURES_OF, KERNEL))

    def _labels(self, with_dataset: bool) -> str:
        columns = ("dataset", "label") if with_dataset else ("label",)
        return self.pool.labels_sha256([*self.fold.train, *self.fold.selection], columns)

    def is_of_labels(self, config: Mapping[str, Any]) -> bool:
        """Whether the model with this config.json was trained with the labels that the job's clips have now.

        If an earlier version trained it and recorded no hash, the labels count as the same. For the kernel head earlier
        versions hashed the labels without the data sets; these are then compared with the table beside the model.
        """
        from violence_detection.training import run_folder

        found = config.get(run_folder.LABELS_KEY, self.labels_sha256)
        return found == self.labels_sha256 or (
            self.architecture == KERNEL
            and found == self._labels(with_dataset=False)
            and self._is_of_noted_datasets()
        )

    def _is_of_noted_datasets(self) -> bool:
        """Whether its clips are from the data sets that trained_on.csv beside the model names."""
        from violence_detection.training import trained_clips

        try:
            table = trained_clips.read(self.folder)
        except UserError:
            return False
        rows = self.pool.rows(sorted({*self.fold.train, *self.fold.selection}))
        noted = {} if table is None else dict(zip(table.clip_id, table.dataset, strict=True))
        return [noted.get(clip_id) for clip_id in rows.clip_id] == rows.dataset.tolist()


def run(
    jobs: Sequence[TrainingJob],
    *,
    at_once: int = 1,
    ray: str | None = None,
    strategy: Any = None,
    before: Callable[[], None] = lambda: None,
) -> list[Trained]:
    """Train the jobs that are not finished; return the results of all jobs, in their order.

    `at_once`: processes at a time; 1: only this one; 0: one per GPU, or without GPUs one per two cores, at least two.
    `ray`: "local" or the address of a cluster, which is then used instead of processes. `strategy`: the distribution
    strategy for jobs in this process. `before`: called once, after the checks that may refuse the jobs and before any
    job changes its folder, to remove what rests on models that will be replaced.

    Raises UserError if a folder has another model that may not be replaced, if a job raises one, or if the process of a
    job was killed three times; the checkpoints of the other jobs are kept.
    """
    # not at the top, as it imports this module
    from violence_detection.ensemble import member_processes

    todo = [job for job in jobs if finished(job) is None]
    log.info("%d of %d models are trained already", len(jobs) - len(todo), len(jobs))
    is_here = ray is None and at_once == 1
    for job in todo:
        _check(job, strategy.num_replicas_in_sync if is_here and strategy else 1)
    if ray is not None:
        _over_ray(todo, ray, before)
    elif is_here:
        before()
        _in_this_process(todo, strategy)
    else:
        member_processes.run(todo, at_once, before)
    done = [finished(job) for job in jobs]
    if lost := [job.folder for job, trained in zip(jobs, done, strict=True) if trained is None]:
        raise UserError(
            f"there is no trained model in {lost[0]} although its job has ended. With --ray, --output must be a folder "
            "that all nodes share"
        )
    for job in jobs:
        _note_clips(job)
        _note_ranges(job)
    return [trained for trained in done if trained is not None]


def _note_clips(job: TrainingJob) -> None:
    """Write trained_on.csv beside a model of an earlier version, which wrote none."""
    from violence_detection.training import trained_clips

    if not trained_clips.has_table(job.folder):
        fold = job.fold
        parts = {trained_clips.TRAIN: sorted(set(fold.train)), trained_clips.SELECTION: fold.selection}
        by_role = {role: job.pool.rows(ids) for role, ids in parts.items()}
        trained_clips.write(job.folder, by_role, [job.start.parent] if job.start else [])


def _note_ranges(job: TrainingJob) -> None:
    """Write a whole network's activation_ranges.json if the run that trained it was killed before it did so."""
    from violence_detection.training import activation_ranges, run_folder

    if job.architecture in PICTURES_OF and not (job.folder / run_folder.RANGES_NAME).is_file():
        activation_ranges.ensure(job.folder, job.pool.data(job.fold, in_memory=False).train)


def finished(job: TrainingJob) -> Trained | None:
    """The job's result if it is done, with the same settings, clips and labels, and its files are whole; else None."""
    from violence_detection.training import damaged_run, run_folder

    result, config = job.folder / run_folder.RESULT_NAME, job.folder / run_folder.CONFIG_NAME
    if not (result.is_file() and config.is_file()) or damaged_run.fault(job.folder):
        # `_check` reports what is wrong with it
        return None
    found = run_folder.read_object(config)
    if found.get(run_folder.JOB_KEY) not in (job.key, job.key_before) or not job.is_of_labels(found):
        return None
    return run_folder.read_result(result)


def has_other_labels(job: TrainingJob) -> bool:
    """Whether its folder has the job's model, but trained with other labels than its clips have now."""
    from violence_detection.training import run_folder

    try:
        found = run_folder.read_object(job.folder / run_folder.CONFIG_NAME)
    except UserError:
        # there is none, or it is damaged, which `_check` reports
        return False
    return found.get(run_folder.JOB_KEY) in (job.key, job.key_before) and not job.is_of_labels(found)


def _check(job: TrainingJob, replicas: int) -> None:
    """Raise UserError, before anything is changed, if the job's folder or its batches would be refused."""
    from violence_detection.training import damaged_run, fine_tuning, run_folder, trainer

    config, train = job.folder / run_folder.CONFIG_NAME, job.settings.train
    if not job.overwrite and (wrong := damaged_run.fault(job.folder)):
        raise damaged_run.refusal(wrong)
    if not job.overwrite and config.is_file():
        is_other = run_folder.read_object(config).get(run_folder.JOB_KEY) not in (job.key, job.key_before)
        # of runs only begun, the whole record is compared too; it needs the clips, but not their features in memory
        record = _record(job, job.pool.data(job.fold, False))
        if is_other or run_folder.holds_another(job.folder, record):
            raise run_folder.refusal(job.folder, record)
    if job.architecture in PICTURES_OF:
        train = fine_tuning.train_config(job.settings.head, train)
    trainer.check_batch(job.architecture, train, len(job.fold.train), replicas)


def _record(job: TrainingJob, data: Data) -> dict[str, Any]:
    """The content of the job's config.json. `data`: its fold's clips."""
    from violence_detection.training import run_folder, trainer

    s = job.settings
    record = trainer.run_record(job.architecture, data, s.features, s.augment, s.head, s.train)
    if job.plan:
        record[step_plan.RECORD_KEY] = dataclasses.asdict(job.plan)
    return {
        **record,
        **job.given,
        run_folder.JOB_KEY: _key_there(job),
        run_folder.LABELS_KEY: job.labels_sha256,
    }


def _key_there(job: TrainingJob) -> str:
    """The job's key; if an earlier version has begun it, the key that is in its folder, so that the run goes on."""
    from violence_detection.training import run_folder

    config = job.folder / run_folder.CONFIG_NAME
    try:
        there = run_folder.read_object(config).get(run_folder.JOB_KEY) if config.is_file() else None
    except UserError:
        # damaged, and to be overwritten
        there = None
    return job.key_before if there == job.key_before else job.key


def train(job: TrainingJob, data: Data, strategy: Any) -> None:
    """Do a job in this process. `data`: its fold's clips."""
    from violence_detection.training import trainer

    log.info("%s: %s on %d clips", job.folder, job.architecture, len(data.train))
    trainer.train(
        _record(job, data),
        data,
        job.folder,
        strategy,
        job.overwrite,
        job.start,
        job.usd_per_hour,
        job.pool.backbone_weights,
    )


def _in_this_process(jobs: Sequence[TrainingJob], strategy: Any) -> None:
    for _, same_clips in itertools.groupby(jobs, key=lambda job: (id(job.pool), job.fold)):
        data = None
        for job in same_clips:
            data = data or _data(job)
            train(job, data, strategy)


def _data(job: TrainingJob) -> Data:
    """The clips of the job's fold; they are left on disk if given weights spare it the training."""
    return job.pool.data(job.fold, in_memory=False if job.given else None)


def fix_threads() -> None:
    """Make TensorFlow use THREADS threads in this process; to be called before it starts. Does nothing if it sees GPUs.

    Raises RuntimeError if TensorFlow has been started with another number.
    """
    import tensorflow as tf

    if tensorflow_start.gpus():
        return
    # raised if an earlier job has started TensorFlow; with how many threads is checked below
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    if (threads := tf.config.threading.get_intra_op_parallelism_threads()) != THREADS:
        raise RuntimeError(
            f"TensorFlow started with {threads} threads before it could be told to use {THREADS}"
        )


def train_alone(job: TrainingJob) -> None:
    """Do a job in a new process: set up threads and devices, load its clips and train."""
    from violence_detection.training import devices

    fix_threads()
    strategy = devices.set_up(job.settings.train)
    train(job, _data(job), strategy)


# --- a Ray cluster ---


def _over_ray(jobs: Sequence[TrainingJob], address: str, before: Callable[[], None]) -> None:
    if not jobs:
        before()
        return
    from violence_detection.system import ray_cluster

    with ray_cluster.connected(address) as resources:
        gpus_each = 1 if resources.get("GPU") else 0
        if gpus_each and jobs[0].settings.train.devices > 1:
            raise UserError("--ray gives every model one GPU of its own; leave out --devices or --ray")
        machines = ray_cluster.machines()
        most_cpus = max(int(m.get("CPU", 1)) for m in machines)
        cpus_each = 1 if gpus_each else max(1, min(THREADS, most_cpus))
        on_one = max(int(m.get("GPU", 0) if gpus_each else m.get("CPU", 0) // cpus_each) for m in machines)
        sharers = max(1, min(on_one, len(jobs)))
        anywhere = [
            dataclasses.replace(job, pool=job.pool.shared_by(sharers)).with_absolute_paths() for job in jobs
        ]
        before()
        with storage.marked(Path(os.path.commonpath([job.folder.parent for job in anywhere]))) as mark:
            results = ray_cluster.map_unordered(
                address,
                functools.partial(_train_there, mark),
                anywhere,
                cpus_each=cpus_each,
                gpus_each=gpus_each,
                what="model to train",
            )
            for done, (index, _) in enumerate(results, 1):
                log.info("%s is trained (%d of %d)", jobs[index].folder, done, len(jobs))


def _train_there(mark: Path, job: TrainingJob) -> None:
    """Do a job on a machine of a Ray cluster. `mark`: a file that the starting machine has put into the output folder.

    Raises UserError if this machine does not see that file or the feature caches.
    """
    caches = [store.folder for store in job.pool.stores.values()]
    if unseen := [path for path in (mark, *caches) if not path.exists()]:
        flag, folder = ("--output", mark.parent) if unseen[0] == mark else ("the data root", unseen[0])
        raise UserError(
            f"{platform.node()} does not see {folder}: --ray needs {flag} on a volume that every machine of the "
            "cluster mounts at the same path"
        )
    train_alone(job)
