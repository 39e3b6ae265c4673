"""Plan a download: what will be done for each data set and whether it can be, before the first byte is fetched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from violence_detection.datasets.catalogue import Dataset, DataSource
from violence_detection.download import archives, completion, transfer
from violence_detection.download.kaggle_source import Kaggle
from violence_detection.download.kaggle_source import page as kaggle_page
from violence_detection.errors import UserError
from violence_detection.system.disks import RESERVE_BYTES, gigabytes
from violence_detection.system.redaction import without_secrets
from violence_detection.video.video_files import VideoSearch

log = logging.getLogger(__name__)

FreeBytes = Callable[[Path], int]
_ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z")


@dataclass(frozen=True)
class DownloadFolders:
    """The folders and files of step 1 below the data root."""

    data_root: Path

    @property
    def raw(self) -> Path:
        return self.data_root / "raw"

    @property
    def downloads(self) -> Path:
        return self.data_root / "downloads"

    @property
    def failures(self) -> Path:
        return self.raw / "download_failures.csv"

    def folder(self, key: str) -> Path:
        """The final folder of a data set."""
        return self.raw / key

    def staging(self, key: str) -> Path:
        """The folder to unpack into. It is beside the final folder, so that a rename publishes it."""
        return self.raw / f".{key}.unpacking"

    def leftovers(self) -> list[Path]:
        """Staging folders that killed runs have left, of any data set. They are never continued."""
        return sorted(self.raw.glob(".*.unpacking"))

    def archive(self, key: str, source: DataSource) -> Path:
        """Where an archive is fetched to. One that was put there by hand is used instead of being fetched."""
        return self.downloads / key / (source.file or f"{key}.zip")


@dataclass(frozen=True)
class UsableSource:
    """A source that can be used. `remote` is what to fetch, None if the archive is already on the disk."""

    source: DataSource
    archive: Path
    remote: transfer.Remote | None
    archive_bytes: int


@dataclass(frozen=True)
class DownloadPlan:
    """The plan for one data set.

    `action`: skip (complete already), adopt (record the files that are there), fetch, or blocked, with the `reason`.
    """

    dataset: Dataset
    action: str
    candidates: tuple[UsableSource, ...] = ()
    reason: str = ""

    @property
    def archive_bytes(self) -> int:
        """The size of the archive from the source that is tried first."""
        return self.candidates[0].archive_bytes if self.candidates else 0

    @property
    def extracted_bytes(self) -> int:
        """The expected unpacked size, at least that of the archive, which is known more exactly. 0 without a fetch."""
        return max(self.dataset.extracted_bytes, self.archive_bytes) if self.action == "fetch" else 0


def make_plan(dataset: Dataset, layout: DownloadFolders, authenticate: Callable[[], Kaggle]) -> DownloadPlan:
    """Find out what has to be done for one data set. Asks Kaggle for the archive's size, but fetches nothing.

    Raises UserError when the completion record is damaged.
    """
    folder = layout.folder(dataset.key)
    if completion.read(folder) is not None:
        if bad := completion.quick_problems(folder):
            return DownloadPlan(
                dataset, "blocked", reason=damaged_message(dataset.key, folder, len(bad), bad[0])
            )
        return DownloadPlan(dataset, "skip")
    if folder.is_dir() and any(folder.iterdir()):
        if next(VideoSearch(everywhere=True).below(folder), None) is not None:
            return DownloadPlan(dataset, "adopt")
        return DownloadPlan(dataset, "blocked", reason=_no_video(dataset, layout))
    candidates, refusals = [], []
    for source in dataset.sources:
        try:
            if candidate := _candidate(dataset, source, layout, authenticate):
                candidates.append(candidate)
        except UserError as e:
            refusals.append(str(e))
    if candidates:
        for refusal in refusals:
            log.warning("%s: %s", dataset.key, refusal)
        candidates.sort(key=lambda c: c.remote is not None)  # archives on the disk first
        return DownloadPlan(dataset, "fetch", tuple(candidates))
    return DownloadPlan(
        dataset, "blocked", reason=" | ".join([*dict.fromkeys(refusals), by_hand(dataset, layout)])
    )


def _no_video(dataset: Dataset, layout: DownloadFolders) -> str:
    """A message for a data set's folder that is not empty but contains no video: what is in it and what to do."""
    folder = layout.folder(dataset.key)
    present = completion.tree_paths(folder)
    if not present:
        return f"{folder} contains only empty folders. Remove it and run the same command again"
    if any(path.lower().endswith(_ARCHIVE_SUFFIXES) for path in present):
        archive = layout.archive(dataset.key, dataset.sources[0])
        return f"{folder} contains archives but no video; move the published one to {archive}"
    return (
        f"{folder} contains no video, only {present[0]}{' and more' if len(present) > 1 else ''}. Unpack the data set "
        "there, or remove the folder to have it fetched, and run the same command again"
    )


def without_video(folder: Path) -> str:
    """A message for a recorded data set without any video that says what to do; empty if it contains a video."""
    if next(VideoSearch(everywhere=True).below(folder), None) is not None:
        return ""
    present = completion.tree_paths(folder)
    if packed := [path for path in present if path.lower().endswith(_ARCHIVE_SUFFIXES)]:
        return (
            f"{folder} contains no video, but archives ({packed[0]}{' and more' if len(packed) > 1 else ''}). Unpack "
            f"them there, remove them and {folder / completion.RECORD_NAME}, and run the same command again, which "
            "records the unpacked files"
        )
    others = f"{present[0]}{' and more' if len(present) > 1 else ''}" if present else "nothing"
    return (
        f"{folder} contains no video, only {others}: what the source delivers is not this data set. Remove the folder, "
        "and get the data set from another source"
    )


def damaged_message(key: str, folder: Path, count: int, first: tuple[str, str]) -> str:
    return (
        f"{count} files no longer match the record (first: {first[0]}: {first[1]}). List them all with "
        f"--verify --datasets {key}; remove {folder} to download the data set again"
    )


def by_hand(dataset: Dataset, layout: DownloadFolders) -> str:
    """Instructions for getting the data set by hand."""
    manual = [s for s in dataset.sources if s.kind == "manual"]
    steps = [
        f"{s.instructions} 'Here' means {layout.folder(dataset.key)}; the page is {without_secrets(s.url)}"
        for s in manual
    ]
    steps.append(f"put the archive, as published, at {layout.archive(dataset.key, dataset.sources[0])}")
    return f"By hand: {'; or '.join(steps)}; then run the same command again"


def _candidate(
    dataset: Dataset, source: DataSource, layout: DownloadFolders, authenticate: Callable[[], Kaggle]
) -> UsableSource | None:
    """The source if it can be used, None if it must be fetched by hand. Raises UserError if access is refused."""
    archive = layout.archive(dataset.key, source)
    if archive.exists():
        return UsableSource(source, archive, None, archive.stat().st_size)
    if (volume := archive.with_name(f"{archive.name}.001")).exists():
        archives.check_volume(volume)
    if source.kind == "manual":
        return None
    if source.kind == "url":
        return UsableSource(source, archive, transfer.plain(source.url), dataset.archive_bytes)
    try:
        kaggle = authenticate()
    except UserError as e:
        raise UserError(f"{e}. The data set's page: {kaggle_page(source.slug)}") from e
    try:
        location = kaggle.locate(source.slug)
    except transfer.TryAgain as e:  # temporary: the fetch itself waits and retries
        log.warning("%s: %s", dataset.key, e)
        return UsableSource(source, archive, kaggle.remote(source.slug), dataset.archive_bytes)
    return UsableSource(
        source, archive, kaggle.remote(source.slug), location.size_bytes or dataset.archive_bytes
    )


def needed_bytes(plans: Sequence[DownloadPlan], *, workers: int, keep_archives: bool) -> int:
    """The most disk space that the plans still need at any moment, in bytes.

    That is all unpacked files, and as many of the largest archives as are on the disk at once: `workers` of them, or
    all with `keep_archives`. Bytes that are already fetched do not count.
    """
    fetches = [p for p in plans if p.action == "fetch"]
    archives = sorted((_missing_archive_bytes(p) for p in fetches), reverse=True)
    return sum(p.extracted_bytes for p in fetches) + sum(archives if keep_archives else archives[:workers])


def _missing_archive_bytes(p: DownloadPlan) -> int:
    first = p.candidates[0]
    if first.remote is None:
        return 0
    part = transfer.part_path(first.archive)
    return max(0, first.archive_bytes - (part.stat().st_size if part.exists() else 0))


def check_disk(
    plans: Sequence[DownloadPlan],
    layout: DownloadFolders,
    free_bytes: FreeBytes,
    size: Callable[[Sequence[DownloadPlan]], int],
    size_of_one: Callable[[Sequence[DownloadPlan]], int],
) -> None:
    """Raise UserError when the disk has no room for the plans. The message names those that would fit.

    `size` computes the bytes that plans need; `size_of_one` computes them for downloading one data set at a time, in
    which case all may fit.
    """
    needed, free = size(plans), free_bytes(layout.data_root)
    if not needed or needed + RESERVE_BYTES <= free:
        return
    each = ", ".join(f"{p.dataset.key} {gigabytes(size([p]))}" for p in plans if p.action == "fetch")
    fitting: list[DownloadPlan] = []
    for p in sorted((p for p in plans if p.action == "fetch"), key=lambda p: size([p])):
        if size([*fitting, p]) + RESERVE_BYTES <= free:
            fitting.append(p)
    fits = ",".join(p.dataset.key for p in fitting)
    remedy = f"download only what fits: --datasets {fits}" if fits else "free some space; none of them fits"
    if size_of_one(plans) + RESERVE_BYTES <= free:
        remedy = "download one at a time: --workers 1, with which all of them fit"
    raise UserError(
        f"{layout.data_root}: {gigabytes(free)} free, but {gigabytes(needed + RESERVE_BYTES)} needed for "
        f"archives, unpacked files and a reserve ({each}). Choose a bigger disk with --data-root, or {remedy}"
    )


def describe(p: DownloadPlan) -> str:
    """Describe the plan in one line for the log."""
    if p.action == "skip":
        return f"{p.dataset.key}: complete, nothing to do"
    if p.action == "adopt":
        return f"{p.dataset.key}: has files but no completion record; they will be hashed and recorded as they are"
    if p.action == "blocked":
        return f"{p.dataset.key}: cannot be downloaded: {p.reason.split('. ')[0]}"
    first = p.candidates[0]
    where = "archive already on the disk" if first.remote is None else f"from {first.remote.identity}"
    return (
        f"{p.dataset.key}: {where}, {gigabytes(first.archive_bytes)}, unpacked about "
        f"{gigabytes(p.extracted_bytes)}; licence: {p.dataset.licence}; terms: {p.dataset.terms}"
    )
