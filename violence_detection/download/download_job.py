"""The work of step 1 on several data sets at once: fetch, check, unpack, record, publish.

For each data set: fetch the archive to `<root>/downloads/<key>/` (resumable), read and check all of it, unpack it into
`<root>/raw/.<key>.unpacking/`, write the completion record there, and rename that folder to `<root>/raw/<key>/`. A
folder with that final name is therefore complete. After an interruption, the next run repeats only the unfinished step.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from violence_detection.datasets.catalogue import Dataset
from violence_detection.download import archives, completion, plan, transfer
from violence_detection.download.config import DownloadConfig
from violence_detection.download.plan import DownloadFolders, DownloadPlan, FreeBytes, UsableSource
from violence_detection.errors import UserError
from violence_detection.system import console, disks, storage
from violence_detection.system.redaction import safe_url

log = logging.getLogger(__name__)


@dataclass
class DownloadOutcome:
    """The outcome of one data set.

    `status`: downloaded, adopted (found without a record, recorded as it is), skipped, failed, planned, whole or
    damaged. `problems`: (path, reason) of files that fail verification. `disk_trouble`: the cause was a full or
    read-only disk, or a missing permission.
    """

    key: str
    status: str
    bytes: int = 0
    files: int = 0
    reason: str = ""
    problems: list[tuple[str, str]] = field(default_factory=list)
    disk_trouble: bool = False

    def summary(self) -> dict[str, Any]:
        result: dict[str, Any] = {"status": self.status, "files": self.files, "bytes": self.bytes}
        if self.reason:
            result["reason"] = self.reason
        if self.problems:
            result["problems"] = len(self.problems)
        return result


def without_work(p: DownloadPlan, layout: DownloadFolders) -> DownloadOutcome:
    """The outcome of a data set on which no work is done: failed, skipped or planned."""
    if p.action == "blocked":
        return DownloadOutcome(p.dataset.key, "failed", reason=p.reason)
    if p.action == "skip":
        folder = layout.folder(p.dataset.key)
        record, reason = completion.read(folder) or {}, _without_video(p.dataset.key, folder)
        return DownloadOutcome(p.dataset.key, "skipped", record["bytes"], record["files"], reason)
    return DownloadOutcome(p.dataset.key, "planned")


def _without_video(key: str, folder: Path) -> str:
    if reason := plan.without_video(folder):
        log.warning("%s: %s", key, reason)
    return reason


def locked(call: Callable[[int], Any]) -> Callable[[int], None]:
    lock = threading.Lock()

    def locked(n: int) -> None:
        with lock:
            call(n)

    return locked


class DownloadJob:
    """Carries out all plans, several at a time, with one progress bar for all bytes that are fetched."""

    def __init__(
        self,
        layout: DownloadFolders,
        config: DownloadConfig,
        free_bytes: FreeBytes,
        policy: transfer.Policy,
        total_bytes: int,
    ):
        self.layout, self.config, self.free_bytes, self.policy = layout, config, free_bytes, policy
        self.total_bytes = total_bytes
        self.stop = threading.Event()
        self.fetched_bytes = 0
        self.on_bytes: Callable[[int], None] = lambda n: None

    def run_all(self, plans: Sequence[DownloadPlan]) -> list[DownloadOutcome]:
        with (
            console.progress(
                total=self.total_bytes,
                unit="B",
                unit_scale=True,
                desc="download",
                disable=not self.total_bytes,
            ) as bar,
            ThreadPoolExecutor(max(1, self.config.workers)) as pool,
        ):

            def count(n: int) -> None:
                self.fetched_bytes += n
                bar.update(n)

            self.on_bytes = locked(count)
            try:
                return list(pool.map(self._one, plans))
            finally:
                self.stop.set()  # after an interruption, ends the other transfers; their parts stay

    def _one(self, p: DownloadPlan) -> DownloadOutcome:
        key = p.dataset.key
        if p.action in ("skip", "blocked"):
            if p.action == "skip":
                self._drop_what_a_killed_run_left(key)
            return without_work(p, self.layout)
        try:
            record = self._adopt(p.dataset) if p.action == "adopt" else self._try_sources(p)
        except UserError as e:
            log.error("%s: %s", key, e)
            return DownloadOutcome(key, "failed", reason=str(e), disk_trouble=isinstance(e, archives.NoSpace))
        except OSError as e:
            trouble = disks.disk_trouble(e)
            reason = trouble or f"{e}. Solve this problem with the disk and run the same command again"
            log.error("%s: %s", key, reason)
            return DownloadOutcome(key, "failed", reason=reason, disk_trouble=trouble is not None)
        expected = sum(p.dataset.clips.values())
        log.info("%s: done, %s files, %s (published: %s clips)", key, record["files"],
                 disks.gigabytes(record["bytes"]), expected)  # fmt: skip
        status = "adopted" if p.action == "adopt" else "downloaded"
        reason = _without_video(key, self.layout.folder(key))
        return DownloadOutcome(key, status, record["bytes"], record["files"], reason)

    def _adopt(self, dataset: Dataset) -> dict[str, Any]:
        """Record the files that were put there by hand as they are, and remove an archive that was fetched before."""
        folder = self.layout.folder(dataset.key)
        total_bytes = sum((folder / path).stat().st_size for path in completion.tree_paths(folder))
        with self._bar(dataset.key, "hash", total_bytes) as on_bytes:
            files = completion.hash_tree(folder, workers=max(1, self.config.workers), on_bytes=on_bytes)
        record = completion.write(folder, dataset.key, {"kind": "by hand"}, files, {})
        self._drop_downloads(dataset.key)
        return record

    def _try_sources(self, p: DownloadPlan) -> dict[str, Any]:
        """Download from the first source that works. Raises UserError with every source's reason when none does."""
        reasons = []
        for candidate in p.candidates:
            try:
                return self._download(p.dataset, candidate)
            except (transfer.Interrupted, archives.NoSpace):
                raise
            except (transfer.FetchError, archives.ArchiveError) as e:
                reasons.append(str(e))
                if candidate is not p.candidates[-1]:
                    log.warning("%s: %s; trying the next source", p.dataset.key, e)
        raise UserError(" | ".join([*reasons, plan.by_hand(p.dataset, self.layout)]))

    def _download(self, dataset: Dataset, candidate: UsableSource) -> dict[str, Any]:
        archive = candidate.archive
        if candidate.remote is not None:
            log.info("%s: fetching %s", dataset.key, candidate.remote.identity)
            mark = functools.partial(
                storage.write_json, _fetched(archive), {"from": candidate.remote.identity}
            )
            transfer.fetch(
                candidate.remote,
                archive,
                policy=self.policy,
                on_bytes=self.on_bytes,
                stop=self.stop,
                before_named=mark,  # before the archive gets its name, so that it never looks as if put there by hand
            )
        log.info("%s: checking and unpacking %s", dataset.key, archive.name)
        try:
            with self._bar(dataset.key, "check", archive.stat().st_size) as on_bytes:
                entries = archives.verify(
                    archive, free_bytes=self.free_bytes(self.layout.raw), on_bytes=on_bytes
                )
        except archives.CorruptArchive as e:
            if not _fetched(archive).exists():
                raise archives.CorruptArchive(
                    f"{e}. It was put there by hand and is not deleted: replace it, or remove it to have it fetched"
                ) from e
            for path in (archive, _fetched(archive)):
                path.unlink()
            raise
        with self._bar(dataset.key, "unpack", sum(e.size_bytes for e in entries)) as on_bytes:
            record = self._publish(dataset, candidate, on_bytes)
        self._drop_downloads(dataset.key)
        return record

    def _publish(
        self, dataset: Dataset, candidate: UsableSource, on_bytes: Callable[[int], None]
    ) -> dict[str, Any]:
        """Unpack into the staging folder, write the record there, and rename the folder."""
        staging, folder = self.layout.staging(dataset.key), self.layout.folder(dataset.key)
        try:
            files, renamed = archives.unpack(
                candidate.archive, staging, free_bytes=self.free_bytes(self.layout.raw), on_bytes=on_bytes
            )
            # before the record, which says that the files are complete
            storage.sync_files(staging / f.path for f in files)
            kept = self.config.keep_archives or not _fetched(candidate.archive).exists()
            source = _source_record(candidate, kept)
            record = completion.write(staging, dataset.key, source, files, renamed)
            staging.replace(folder)
        except (UserError, OSError):
            shutil.rmtree(staging, ignore_errors=True)
            raise
        if renamed:
            log.warning("%s: %d files were renamed; %s lists them", dataset.key, len(renamed),
                        folder / completion.NAMES_NAME)  # fmt: skip
        return record

    @contextlib.contextmanager
    def _bar(self, key: str, step: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        """A progress bar for a long step. Its counter raises Interrupted once the job has been stopped."""
        what = f"{key}: {step}"
        with console.progress(
            total=total_bytes, unit="B", unit_scale=True, desc=what, leave=False, delay=3.0
        ) as bar:

            def count(n: int) -> None:
                if self.stop.is_set():
                    raise transfer.Interrupted(f"{what}: interrupted; run the same command again to continue")
                bar.update(n)

            yield locked(count)

    def _drop_what_a_killed_run_left(self, key: str) -> None:
        """Remove the archive of a run that was killed between publishing and tidying up, unless it was to be kept."""
        record = completion.read(self.layout.folder(key)) or {}
        if record.get("source", {}).get("archive_kept") is False:
            self._drop_downloads(key)

    def _drop_downloads(self, key: str) -> None:
        """Remove the archives that were fetched and their parts. What was put there by hand stays."""
        folder = self.layout.downloads / key
        if self.config.keep_archives or not folder.is_dir():
            return
        marks = sorted(folder.glob(f"*{_FETCHED}"))
        fetched = [mark.with_name(mark.name.removesuffix(_FETCHED)) for mark in marks]
        parts = [*folder.glob("*.part"), *folder.glob("*.part.json")]
        for path in (*fetched, *marks, *parts):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else is still in it
            folder.rmdir()


#: Suffix of the file beside an archive that marks it as fetched, not put there by hand.
_FETCHED = ".fetched.json"


def _fetched(archive: Path) -> Path:
    return archive.with_name(archive.name + _FETCHED)


def _source_record(candidate: UsableSource, kept: bool) -> dict[str, Any]:
    source, archive = candidate.source, candidate.archive
    record: dict[str, Any] = {
        "kind": source.kind,
        "archive": archive.name,
        "archive_bytes": archive.stat().st_size,
        "archive_sha256": storage.sha256_file(archive),
        "archive_kept": kept,
    }
    record.update({"slug": source.slug} if source.kind == "kaggle" else {"url": safe_url(source.url)})
    return record
