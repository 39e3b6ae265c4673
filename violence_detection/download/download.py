"""Step 1: choose data sets from the catalogue, find out whether they can be downloaded, download or verify them."""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from violence_detection.datasets import catalogue
from violence_detection.datasets.catalogue import Dataset
from violence_detection.download import completion, kaggle_source, plan, transfer
from violence_detection.download.config import DownloadConfig
from violence_detection.download.download_job import DownloadJob, DownloadOutcome, locked, without_work
from violence_detection.download.plan import DownloadFolders, DownloadPlan, FreeBytes
from violence_detection.errors import UserError
from violence_detection.system import console, disks, locks, storage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DownloadResult:
    """The outcomes of all data sets, in the order in which they were requested."""

    outcomes: tuple[DownloadOutcome, ...]
    fetched_bytes: int = 0

    @property
    def failures(self) -> list[dict[str, str]]:
        """Rows of the failures file: one per data set with a reason, one per file with a problem."""
        rows = [{"path": o.key, "reason": o.reason} for o in self.outcomes if o.reason]
        return rows + [{"path": f"{o.key}/{p}", "reason": r} for o in self.outcomes for p, r in o.problems]

    def summary(self) -> dict[str, Any]:
        """The script's JSON summary.

        `downloaded` counts data sets that this run published, including those it recorded as they were found. `bytes`
        is what was fetched, including the parts that an earlier run had left. `skipped` also counts data sets that are
        planned (--dry-run) or whole (--verify).
        """

        def count(*statuses: str) -> int:
            return sum(o.status in statuses for o in self.outcomes)

        return {
            "downloaded": count("downloaded", "adopted"),
            "skipped": count("skipped", "planned", "whole"),
            "failed": count("failed", "damaged"),
            "bytes": self.fetched_bytes,
            "datasets": {o.key: o.summary() for o in self.outcomes},
        }


def choose(config: DownloadConfig) -> list[Dataset]:
    """The requested data sets, by default those of the roadmap. Raises UserError for an unknown key."""
    known = catalogue.load(config.catalogue)
    if unknown := sorted(set(config.datasets) - set(known)):
        raise UserError(
            f"not in the catalogue: {', '.join(unknown)}. Choose from: {', '.join(known)} (see --list)"
        )
    if config.datasets:
        return [known[key] for key in dict.fromkeys(config.datasets)]
    return [d for d in known.values() if d.roadmap]


def run(
    config: DownloadConfig,
    *,
    free_bytes: FreeBytes = disks.free_bytes_of,
    policy: transfer.Policy | None = None,
) -> DownloadResult:
    """Download the requested data sets. One that fails does not stop the others.

    Raises UserError when the disk is too small or can no longer be written to, when another run is working below the
    same root, or when none of the data sets can be downloaded. Unless it is a dry run, failures are written to
    raw/download_failures.csv.
    """
    layout = DownloadFolders(config.data_root)
    datasets = choose(config)
    authenticate = _once(kaggle_source.authenticate)
    plans = [_plan(d, layout, authenticate) for d in datasets]
    for p in plans:
        (log.warning if p.action == "blocked" else log.info)("%s", plan.describe(p))
    needed = functools.partial(plan.needed_bytes, keep_archives=config.keep_archives)
    size, size_of_one = (functools.partial(needed, workers=n) for n in (config.workers, 1))
    blocked = [p for p in plans if p.action == "blocked"]

    leftovers = layout.leftovers()

    def check_disk(freed_bytes: int = 0) -> None:
        free = free_bytes(config.data_root) + freed_bytes
        texts = disks.gigabytes(size(plans)), disks.gigabytes(free)
        log.info("disk: %s needed at most, %s free below %s", *texts, config.data_root)
        plan.check_disk(plans, layout, lambda _: free, size, size_of_one)

    if config.dry_run or not leftovers:
        check_disk(sum(map(disks.size_bytes, leftovers)))
    if config.dry_run:
        return DownloadResult(tuple(without_work(p, layout) for p in plans))
    with _only_run(layout):
        for folder in leftovers:
            shutil.rmtree(folder, ignore_errors=True)
        if leftovers:
            check_disk()
        job = DownloadJob(layout, config, free_bytes, policy or transfer.Policy(), _total_bytes(plans))
        result = DownloadResult(tuple(job.run_all(plans)), job.fetched_bytes)
        storage.write_failures(layout.failures, result.failures)
    if trouble := [o.reason for o in result.outcomes if o.disk_trouble]:
        raise UserError(trouble[0])
    if blocked and len(blocked) == len(plans):
        raise UserError(
            f"none of the data sets can be downloaded; {layout.failures} gives the reasons. "
            f"First: {blocked[0].dataset.key}: {blocked[0].reason}"
        )
    return result


def verify(config: DownloadConfig) -> DownloadResult:
    """Check data sets against their completion records by reading every file. Writes raw/verify_failures.csv.

    Without `datasets`, all data sets of the catalogue that have a folder are checked. Raises UserError when there is
    none.
    """
    layout = DownloadFolders(config.data_root)
    datasets = choose(config)
    if not config.datasets:
        everything = catalogue.load(config.catalogue).values()
        datasets = [d for d in everything if layout.folder(d.key).is_dir()]
    if not datasets or not layout.raw.is_dir():
        raise UserError(f"{layout.raw} contains no data set to verify. Download one, or correct --data-root")
    outcomes = [_verify_one(d.key, layout, config.workers) for d in datasets]
    result = DownloadResult(tuple(outcomes))
    storage.write_failures(layout.raw / "verify_failures.csv", result.failures)
    return result


def _verify_one(key: str, layout: DownloadFolders, workers: int) -> DownloadOutcome:
    folder = layout.folder(key)
    try:
        record = completion.read(folder)
        if record is None:
            return DownloadOutcome(
                key, "failed", reason=f"{folder} has no completion record; download it first"
            )
        with console.progress(total=record["bytes"], unit="B", unit_scale=True, desc=f"verify {key}") as bar:
            problems = completion.problems(folder, workers=max(1, workers), on_bytes=locked(bar.update))
    except UserError as e:
        return DownloadOutcome(key, "failed", reason=str(e))
    for path, reason in problems[:20]:
        log.warning("%s/%s: %s", key, path, reason)
    if problems:
        log.warning("%s", plan.damaged_message(key, folder, len(problems), problems[0]))
    status = "damaged" if problems else "whole"
    return DownloadOutcome(key, status, bytes=record["bytes"], files=record["files"], problems=problems)


def _plan(
    dataset: Dataset, layout: DownloadFolders, authenticate: Callable[[], kaggle_source.Kaggle]
) -> DownloadPlan:
    try:
        return plan.make_plan(dataset, layout, authenticate)
    except UserError as e:
        return DownloadPlan(dataset, "blocked", reason=str(e))


def _total_bytes(plans: Sequence[DownloadPlan]) -> int:
    return sum(p.archive_bytes for p in plans if p.action == "fetch" and p.candidates[0].remote)


def _once(call: Callable[[], kaggle_source.Kaggle]) -> Callable[[], kaggle_source.Kaggle]:
    """Return a function that authenticates on its first call and repeats the result, or the error, on later calls."""

    @functools.cache
    def attempt() -> kaggle_source.Kaggle | UserError:
        try:
            kaggle = call()
        except UserError as e:
            log.error("%s", e)
            return e
        log.info("Kaggle: using %s", kaggle.how)
        return kaggle

    def get() -> kaggle_source.Kaggle:
        outcome = attempt()
        if isinstance(outcome, UserError):
            raise UserError(str(outcome))
        return outcome

    return get


@contextlib.contextmanager
def _only_run(layout: DownloadFolders) -> Iterator[None]:
    """Hold the lock of this data root. The operating system releases it however the process ends."""
    disks.check_writable(layout.downloads, "--data-root")
    disks.check_writable(layout.raw, "--data-root")
    with locks.only_one(layout.downloads, "download_all_violence_datasets.py"):
        yield
