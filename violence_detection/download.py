"""Step 1: download the data sets of the catalogue, verify, unpack and record them.

For each data set: fetch the archive to `<root>/downloads/<key>/` (resumable), read it through, unpack it into
`<root>/raw/.<key>.unpacking/`, write the completion record there, and rename that to `<root>/raw/<key>/`.
Whatever was renamed is whole; whatever was not is done again by the next run, at the cost of its last step
only.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from violence_detection import archives, catalogue, cli, completion, fetch, kaggle_source, preflight, storage
from violence_detection.catalogue import Dataset
from violence_detection.cli import log
from violence_detection.config import DownloadConfig
from violence_detection.errors import UserError
from violence_detection.preflight import Candidate, FreeBytes, Layout, Plan


@dataclass
class Outcome:
    """What became of one data set: `status` is downloaded, adopted, skipped, failed, planned, whole or
    damaged."""

    key: str
    status: str
    bytes: int = 0
    files: int = 0
    reason: str = ""
    problems: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        result: dict[str, Any] = {"status": self.status, "files": self.files, "bytes": self.bytes}
        if self.reason:
            result["reason"] = self.reason
        if self.problems:
            result["problems"] = len(self.problems)
        return result


@dataclass(frozen=True)
class Result:
    """All outcomes, in the order asked for."""

    outcomes: tuple[Outcome, ...]
    fetched_bytes: int = 0

    @property
    def failures(self) -> list[dict[str, str]]:
        """Rows of the failures file."""
        rows = [{"path": o.key, "reason": o.reason} for o in self.outcomes if o.reason]
        return rows + [{"path": f"{o.key}/{p}", "reason": r} for o in self.outcomes for p, r in o.problems]

    def summary(self) -> dict[str, Any]:
        """`downloaded` counts data sets published by this run, adopted ones among them; `bytes` is the size
        of what was fetched, parts of an earlier run that were continued among it."""

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
    """The data sets asked for; the roadmap's by default. Raises UserError for an unknown key."""
    known = catalogue.load(config.catalogue or catalogue.CATALOGUE_PATH)
    if unknown := sorted(set(config.datasets) - set(known)):
        raise UserError(f"no data set {', '.join(unknown)} in the catalogue; there are: {', '.join(known)}")
    if config.datasets:
        return [known[key] for key in dict.fromkeys(config.datasets)]
    return [d for d in known.values() if d.roadmap]


def run(
    config: DownloadConfig,
    *,
    free_bytes: FreeBytes = preflight.free_bytes_of,
    policy: fetch.Policy | None = None,
) -> Result:
    """Download what is asked for. A data set that fails does not stop the others.

    Raises UserError when the disk is too small, when another run is at work below the same root, or when none
    of the data sets can be downloaded.
    """
    layout = Layout(config.data_root)
    datasets = choose(config)
    authenticate = _once(kaggle_source.authenticate)
    plans = [_plan(d, layout, authenticate) for d in datasets]
    for p in plans:
        (log.warning if p.action == "blocked" else log.info)("%s", preflight.describe(p))
    size = functools.partial(
        preflight.needed_bytes, workers=config.workers, keep_archives=config.keep_archives
    )
    log.info(
        "disk: %s needed at most, %s free below %s",
        preflight.gigabytes(size(plans)),
        preflight.gigabytes(free_bytes(config.data_root)),
        config.data_root,
    )
    preflight.check_disk(plans, layout, free_bytes, size)
    blocked = [p for p in plans if p.action == "blocked"]
    if config.dry_run:
        return Result(tuple(_without_work(p, "planned") for p in plans))
    with _only_run(layout):
        job = _Job(layout, config, free_bytes, policy or fetch.Policy(), _total_bytes(plans))
        result = Result(tuple(job.run_all(plans)), job.fetched_bytes)
        storage.write_failures(layout.failures, result.failures)
    if blocked and len(blocked) == len(plans):
        raise UserError(
            f"none of the data sets can be downloaded as things are; {layout.failures} names the reasons. "
            f"First: {blocked[0].dataset.key}: {blocked[0].reason}"
        )
    return result


def verify(config: DownloadConfig) -> Result:
    """Check data sets against their completion records, reading every byte. Writes verify_failures.csv.

    Without `datasets`, those that are there are checked. Raises UserError when there is none.
    """
    layout = Layout(config.data_root)
    datasets = choose(config)
    if not config.datasets:
        everything = catalogue.load(config.catalogue or catalogue.CATALOGUE_PATH).values()
        datasets = [d for d in everything if layout.folder(d.key).is_dir()]
    if not datasets:
        raise UserError(
            f"{layout.raw} holds no data set to verify. Download one, or give the right --data-root"
        )
    outcomes = [_verify_one(d.key, layout, config.workers) for d in datasets]
    result = Result(tuple(outcomes))
    storage.write_failures(layout.raw / "verify_failures.csv", result.failures)
    return result


def _verify_one(key: str, layout: Layout, workers: int) -> Outcome:
    folder = layout.folder(key)
    try:
        record = completion.read(folder)
        if record is None:
            return Outcome(key, "failed", reason=f"{folder} has no completion record; download it first")
        with cli.progress(total=record["bytes"], unit="B", unit_scale=True, desc=f"verify {key}") as bar:
            problems = completion.problems(folder, workers=workers, on_bytes=_locked(bar.update))
    except UserError as e:
        return Outcome(key, "failed", reason=str(e))
    for path, reason in problems[:20]:
        log.warning("%s/%s: %s", key, path, reason)
    if problems:
        log.warning("%s", preflight.damaged_message(key, folder, len(problems), problems[0]))
    status = "damaged" if problems else "whole"
    return Outcome(key, status, bytes=record["bytes"], files=record["files"], problems=problems)


def _plan(dataset: Dataset, layout: Layout, authenticate: Callable[[], kaggle_source.Kaggle]) -> Plan:
    try:
        return preflight.plan(dataset, layout, authenticate)
    except UserError as e:
        return Plan(dataset, "blocked", reason=str(e))


def _without_work(p: Plan, status: str) -> Outcome:
    if p.action == "blocked":
        return Outcome(p.dataset.key, "failed", reason=p.reason)
    return Outcome(p.dataset.key, "skipped" if p.action == "skip" else status)


def _total_bytes(plans: Sequence[Plan]) -> int:
    return sum(p.archive_bytes for p in plans if p.action == "fetch" and p.candidates[0].remote)


def _once(call: Callable[[], kaggle_source.Kaggle]) -> Callable[[], kaggle_source.Kaggle]:
    """Authenticate when first needed, and only once, also when it fails."""

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


def _locked(call: Callable[[int], Any]) -> Callable[[int], None]:
    lock = threading.Lock()

    def locked(n: int) -> None:
        with lock:
            call(n)

    return locked


@contextlib.contextmanager
def _only_run(layout: Layout) -> Iterator[None]:
    """Hold the lock of this data root; the system releases it however the process ends."""
    layout.downloads.mkdir(parents=True, exist_ok=True)
    layout.raw.mkdir(parents=True, exist_ok=True)
    with (layout.downloads / ".lock").open("w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise UserError(
                f"another download is at work below {layout.data_root}; wait for it or end it"
            ) from e
        except OSError as e:  # some network volumes have no locks
            log.warning("%s: no lock can be taken (%s); do not start a second run", layout.data_root, e)
        yield


class _Job:
    """The work on all plans, several at a time, with one progress bar over what is fetched."""

    def __init__(
        self,
        layout: Layout,
        config: DownloadConfig,
        free_bytes: FreeBytes,
        policy: fetch.Policy,
        total_bytes: int,
    ):
        self.layout, self.config, self.free_bytes, self.policy = layout, config, free_bytes, policy
        self.total_bytes = total_bytes
        self.stop = threading.Event()
        self.fetched_bytes = 0
        self.on_bytes: Callable[[int], None] = lambda n: None

    def run_all(self, plans: Sequence[Plan]) -> list[Outcome]:
        with (
            cli.progress(total=self.total_bytes, unit="B", unit_scale=True, desc="download") as bar,
            ThreadPoolExecutor(max(1, self.config.workers)) as pool,
        ):

            def count(n: int) -> None:
                self.fetched_bytes += n
                bar.update(n)

            self.on_bytes = _locked(count)
            try:
                return list(pool.map(self._one, plans))
            finally:
                self.stop.set()  # when interrupted, the other transfers end; their parts stay

    def _one(self, p: Plan) -> Outcome:
        key = p.dataset.key
        if p.action in ("skip", "blocked"):
            if p.action == "skip":
                self._drop_what_a_killed_run_left(key)
            return _without_work(p, "skipped")
        try:
            record = self._adopt(p.dataset) if p.action == "adopt" else self._try_sources(p)
        except UserError as e:
            log.error("%s: %s", key, e)
            return Outcome(key, "failed", reason=str(e))
        except OSError as e:
            reason = f"{e}. Mend the disk or its permissions and run the same command again"
            log.error("%s: %s", key, reason)
            return Outcome(key, "failed", reason=reason)
        expected = sum(p.dataset.clips.values())
        log.info("%s: done, %s files, %s (published: %s clips)", key, record["files"],
                 preflight.gigabytes(record["bytes"]), expected)  # fmt: skip
        status = "adopted" if p.action == "adopt" else "downloaded"
        return Outcome(key, status, bytes=record["bytes"], files=record["files"])

    def _adopt(self, dataset: Dataset) -> dict[str, Any]:
        """Record a tree that was put there by hand, as it is."""
        folder = self.layout.folder(dataset.key)
        files = completion.hash_tree(folder, workers=self.config.workers)
        return completion.write(folder, dataset.key, {"kind": "by hand"}, files, {})

    def _try_sources(self, p: Plan) -> dict[str, Any]:
        """The first source that works; all their reasons when none does."""
        reasons = []
        for candidate in p.candidates:
            try:
                return self._download(p.dataset, candidate)
            except fetch.Interrupted:
                raise
            except (fetch.FetchError, archives.ArchiveError) as e:
                reasons.append(str(e))
                if candidate is not p.candidates[-1]:
                    log.warning("%s: %s; trying the next source", p.dataset.key, e)
        raise UserError(" | ".join([*reasons, preflight.by_hand(p.dataset, self.layout)]))

    def _download(self, dataset: Dataset, candidate: Candidate) -> dict[str, Any]:
        archive = candidate.archive
        if candidate.remote is not None:
            log.info("%s: fetching %s", dataset.key, candidate.remote.identity)
            fetch.fetch(candidate.remote, archive, policy=self.policy, on_bytes=self.on_bytes, stop=self.stop)
        log.info("%s: checking and unpacking %s", dataset.key, archive.name)
        try:
            with _bar(f"{dataset.key}: check", archive.stat().st_size) as on_bytes:
                entries = archives.verify(
                    archive, free_bytes=self.free_bytes(self.layout.raw), on_bytes=on_bytes
                )
        except archives.CorruptArchive:
            archive.unlink()
            raise
        with _bar(f"{dataset.key}: unpack", sum(e.size_bytes for e in entries)) as on_bytes:
            record = self._publish(dataset, candidate, on_bytes)
        self._drop_downloads(dataset.key)
        return record

    def _publish(
        self, dataset: Dataset, candidate: Candidate, on_bytes: Callable[[int], None]
    ) -> dict[str, Any]:
        """Unpack beside the target, record, rename."""
        staging, folder = self.layout.staging(dataset.key), self.layout.folder(dataset.key)
        if staging.exists():
            shutil.rmtree(staging)
        try:
            files, renamed = archives.unpack(
                candidate.archive, staging, free_bytes=self.free_bytes(self.layout.raw), on_bytes=on_bytes
            )
            storage.sync_files(staging / f.path for f in files)  # before the record that says they are there
            source = _source_record(candidate, self.config.keep_archives)
            record = completion.write(staging, dataset.key, source, files, renamed)
            staging.replace(folder)
        except (UserError, OSError):
            shutil.rmtree(staging, ignore_errors=True)
            raise
        if renamed:
            log.warning("%s: %d files had to be renamed; %s lists them", dataset.key, len(renamed),
                        folder / completion.NAMES_NAME)  # fmt: skip
        return record

    def _drop_what_a_killed_run_left(self, key: str) -> None:
        """The archive of a run that ended between publishing and tidying up; never one that was to be kept."""
        record = completion.read(self.layout.folder(key)) or {}
        if record.get("source", {}).get("archive_kept") is False:
            self._drop_downloads(key)

    def _drop_downloads(self, key: str) -> None:
        folder = self.layout.downloads / key
        if not self.config.keep_archives and folder.exists():
            shutil.rmtree(folder)


@contextlib.contextmanager
def _bar(what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
    with cli.progress(total=total_bytes, unit="B", unit_scale=True, desc=what, leave=False) as bar:
        yield bar.update


def _source_record(candidate: Candidate, kept: bool) -> dict[str, Any]:
    source, archive = candidate.source, candidate.archive
    record: dict[str, Any] = {
        "kind": source.kind,
        "archive": archive.name,
        "archive_bytes": archive.stat().st_size,
        "archive_sha256": storage.sha256_file(archive),
        "archive_kept": kept,
    }
    record.update({"slug": source.slug} if source.kind == "kaggle" else {"url": fetch.safe_url(source.url)})
    return record
