"""Train many heads: one after another here, several processes at once (one a GPU), or over a Ray cluster.

A job is one head on one fold of the clips in a folder of its own. Wherever it runs, it uses the same number of CPU
threads, since their number changes the last digits of a sum: so on CPUs the models are the same, bit for bit. On GPUs
they are not: sums are not ordered there, and a job in this process is mirrored on all of them, another has one. A
worker that is killed has its job done again, from the checkpoint of its last epoch; finished jobs are kept.
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

#: CPU threads of a job, on any machine.
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
    """Train `architecture` on `fold` into `folder`. `start`: a trained model to go on from instead of fresh weights.

    `plan`: its steps, where the fold has no selection part to end training.
    """

    architecture: str
    folder: Path
    pool: Pool
    fold: Fold
    settings: Settings
    start: Path | None = None
    overwrite: bool = False
    usd_per_hour: float = 0.0  # of the machine, for what the log says is left to pay
    plan: StepPlan | None = None

    def with_absolute_paths(self) -> TrainingJob:
        """The same job for a process with another working folder, or on another machine.

        Links stay: what a volume is mounted as is the same everywhere, where a link leads is not.
        """
        pool, start = self.pool.with_absolute_paths(), self.start and self.start.absolute()
        return dataclasses.replace(self, folder=self.folder.absolute(), pool=pool, start=start)

    @functools.cached_property
    def given(self) -> dict[str, str]:
        """What its record says of weights that lie in its folder and need no training; empty where there are none."""
        if self.architecture not in PICTURES_OF:
            return {}
        from violence_detection.training import given_weights

        return given_weights.record_of(self.folder)

    @functools.cached_property
    def key(self) -> str:
        """Hash of all that decides the outcome; the folder's config.json carries it."""
        from violence_detection.training import run_folder

        return self._key_with(self.start and run_folder.stored(self.start))

    @functools.cached_property
    def key_before(self) -> str:
        """The same as earlier versions made it: of the `.keras` file to start from, which has its time in it."""
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
        """Hash of what its clips are taken for; config.json carries it beside the key."""
        # whole networks draw clips evenly from data sets, and the kernel head weighs them so
        return self._labels(self.architecture in (*PICTURES_OF, KERNEL))

    def _labels(self, with_dataset: bool) -> str:
        columns = ("dataset", "label") if with_dataset else ("label",)
        return self.pool.labels_sha256([*self.fold.train, *self.fold.selection], columns)

    def is_of_labels(self, config: Mapping[str, Any]) -> bool:
        """Whether a config.json is of clips that were taken for the same.

        What an earlier version trained has no hash of the labels; they are then taken to be the same. That of a kernel
        head had no data sets in it; the table of its clips has them.
        """
        from violence_detection.training import run_folder

        found = config.get(run_folder.LABELS_KEY, self.labels_sha256)
        return found == self.labels_sha256 or (
            self.architecture == KERNEL
            and found == self._labels(with_dataset=False)
            and self._is_of_noted_datasets()
        )

    def _is_of_noted_datasets(self) -> bool:
        """Whether its clips are of the data sets that the table beside its model says."""
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
    """Train what is not finished; the results in the order of the jobs.

    `before`: called once, when nothing is left that could refuse the jobs, and before any of them changes its folder:
    what rests on models that are now replaced is removed there.

    `at_once`: processes at a time, 1 for none but this one, 0 for one a GPU, or without
    GPUs one for every two cores, at least two. `ray`: local or an
    address, instead of processes. `strategy`: what models are mirrored on in this process. Raises UserError where a
    folder holds another model that is not to be replaced, where a job does, or if it was killed three times; the other
    jobs' checkpoints are kept.
    """
    from violence_detection.ensemble import member_processes  # which starts jobs of this module

    todo = [job for job in jobs if finished(job) is None]
    log.info("%d of %d models are trained already", len(jobs) - len(todo), len(jobs))
    is_here = ray is None and at_once == 1
    for job in todo:
        _check(job, strategy.num_replicas_in_sync if is_here and strategy else 1)
    if ray is not None:
        _over_ray(todo, ray, before)
    elif is_here:
        before()
        _here(todo, strategy)
    else:
        member_processes.run(todo, at_once, before)
    done = [finished(job) for job in jobs]
    if lost := [job.folder for job, trained in zip(jobs, done, strict=True) if trained is None]:
        raise UserError(
            f"no trained model in {lost[0]}, though its job ended. Over Ray, --output must be a folder that all nodes "
            "share"
        )
    for job in jobs:
        _note_clips(job)
        _note_ranges(job)
    return [trained for trained in done if trained is not None]


def _note_clips(job: TrainingJob) -> None:
    """Write the table of its clips beside a model that was trained before there was one."""
    from violence_detection.training import trained_clips

    if not trained_clips.has_table(job.folder):
        fold = job.fold
        parts = {trained_clips.TRAIN: sorted(set(fold.train)), trained_clips.SELECTION: fold.selection}
        by_role = {role: job.pool.rows(ids) for role, ids in parts.items()}
        trained_clips.write(job.folder, by_role, [job.start.parent] if job.start else [])


def _note_ranges(job: TrainingJob) -> None:
    """Measure what judging in 8 bits needs of a whole network that was trained by a run that was killed before it."""
    from violence_detection.training import activation_ranges, run_folder

    if job.architecture in PICTURES_OF and not (job.folder / run_folder.RANGES_NAME).is_file():
        activation_ranges.ensure(job.folder, job.pool.data(job.fold, in_memory=False).train)


def finished(job: TrainingJob) -> Trained | None:
    """The result of a job that was done before, by the same settings, clips and labels, its files there and whole."""
    from violence_detection.training import damaged_run, run_folder

    result, config = job.folder / run_folder.RESULT_NAME, job.folder / run_folder.CONFIG_NAME
    if not (result.is_file() and config.is_file()) or damaged_run.fault(job.folder):
        return None  # what is wrong with it, `_check` says
    found = run_folder.read_object(config)
    if found.get(run_folder.JOB_KEY) not in (job.key, job.key_before) or not job.is_of_labels(found):
        return None
    return run_folder.read_result(result)


def has_other_labels(job: TrainingJob) -> bool:
    """Whether its folder holds its model, made of clips that were taken for something else."""
    from violence_detection.training import run_folder

    try:
        found = run_folder.read_object(job.folder / run_folder.CONFIG_NAME)
    except UserError:  # none is there, or it is damaged, which `_check` says
        return False
    return found.get(run_folder.JOB_KEY) in (job.key, job.key_before) and not job.is_of_labels(found)


def _check(job: TrainingJob, replicas: int) -> None:
    """Raise UserError, with nothing changed, where the job's folder or its batches will be refused."""
    from violence_detection.training import damaged_run, fine_tuning, run_folder, trainer

    config, train = job.folder / run_folder.CONFIG_NAME, job.settings.train
    if not job.overwrite and (wrong := damaged_run.fault(job.folder)):
        raise damaged_run.refusal(wrong)
    if not job.overwrite and config.is_file():
        is_other = run_folder.read_object(config).get(run_folder.JOB_KEY) not in (job.key, job.key_before)
        # one that was begun: whether all the rest is the same too, which needs its clips, but not their features
        record = _record(job, job.pool.data(job.fold, False))
        if is_other or run_folder.holds_another(job.folder, record):
            raise run_folder.refusal(job.folder, record)
    if job.architecture in PICTURES_OF:
        train = fine_tuning.train_config(job.settings.head, train)
    trainer.check_batch(job.architecture, train, len(job.fold.train), replicas)


def _record(job: TrainingJob, data: Data) -> dict[str, Any]:
    """The config.json of the job on its fold's data."""
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
    """Its key; where an earlier version has begun it, the one that it has there, so that it goes on."""
    from violence_detection.training import run_folder

    config = job.folder / run_folder.CONFIG_NAME
    try:
        there = run_folder.read_object(config).get(run_folder.JOB_KEY) if config.is_file() else None
    except UserError:  # it is damaged, and trained anew
        there = None
    return job.key_before if there == job.key_before else job.key


def train(job: TrainingJob, data: Data, strategy: Any) -> None:
    """Do a job in this process, on its fold's data."""
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


def _here(jobs: Sequence[TrainingJob], strategy: Any) -> None:
    for _, same_clips in itertools.groupby(jobs, key=lambda job: (id(job.pool), job.fold)):
        data = None
        for job in same_clips:
            data = data or _data(job)
            train(job, data, strategy)


def _data(job: TrainingJob) -> Data:
    """The clips of its fold; those that nobody trains on are left on disk."""
    return job.pool.data(job.fold, in_memory=False if job.given else None)


def fix_threads() -> None:
    """Have TensorFlow compute with THREADS threads in this process; called before it starts. GPUs need no such care."""
    import tensorflow as tf

    if tensorflow_start.gpus():
        return
    with contextlib.suppress(RuntimeError):  # started already, with this number, by an earlier job
        tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    if (threads := tf.config.threading.get_intra_op_parallelism_threads()) != THREADS:
        raise RuntimeError(
            f"TensorFlow started with {threads} threads before it could be told to use {THREADS}"
        )


def train_alone(job: TrainingJob) -> None:
    """Do a job in a process that has nothing set up."""
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
    """Do a job on a machine that sees what the one that gave it sees. `mark`: a file in the folder of the output."""
    caches = [store.folder for store in job.pool.stores.values()]
    if unseen := [path for path in (mark, *caches) if not path.exists()]:
        flag, folder = ("--output", mark.parent) if unseen[0] == mark else ("the data root", unseen[0])
        raise UserError(
            f"{platform.node()} does not see {folder}: --ray needs {flag} on a volume that every machine of the "
            "cluster mounts at the same path"
        )
    train_alone(job)
