"""Cut untrimmed videos into clips: published ones by their annotations, the user's own by their labelled stretches.

The clips are files `<root>/windows/<dataset>/<video>__<start_ms>-<end_ms>.mp4`, which all later steps treat like any
other clip. Once all windows of a video exist, a line is added to the journal, and the video is not opened again.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from violence_detection.combine.config import CutConfig
from violence_detection.combine.cut import windows
from violence_detection.combine.cut.window_files import (
    SUFFIX,
    CutJob,
    CutPlan,
    as_before,
    cut_failed,
    cut_job,
    plan_failed,
    plan_job,
)
from violence_detection.datasets.annotations import Annotations, read_annotations, video_name
from violence_detection.datasets.own_table import Stretch
from violence_detection.errors import UserError
from violence_detection.find.find import CutForecast
from violence_detection.find.inventory import ClipFile, FoundDataset, Inventory, source_path
from violence_detection.system import console, storage
from violence_detection.system.disks import RESERVE_BYTES, free_bytes_of, gigabytes
from violence_detection.video import video_files
from violence_detection.video.video_files import WINDOWS_FOLDER, WINDOWS_JOURNAL

log = logging.getLogger(__name__)

TABLE_NAME = "windows.csv"
#: Change this whenever decoding gives different results, or windows are placed or encoded differently, so that old
#: lines no longer count. Moving or commenting code needs no change. (The first value was a hash.)
VERSION = "parts"
#: The previous values, the newest first. A line with one of them still counts if the windows would be the same today.
_VERSIONS_BEFORE = ("moments", "2f8e82e9adf0")
#: Columns of TABLE_NAME.
_TABLE = ("path", "video", "dataset", "label", "source_group", "start_s", "end_s")
#: Fields of a journal line: for an annotated video, and for a video with labelled stretches.
_RECORDS = tuple(
    frozenset({"windows", "reason", "by_time", "shortfall", *more}) for more in ((), ("refused",))
)
#: Fields of every line of the previous versions, and fields that only some of them have: the oldest lines date from
#: when frames were found by number alone.
_FIELDS_BEFORE = frozenset({"windows", "reason"})
_SOME_BEFORE = frozenset({"by_time", "shortfall", "refused"})
_WINDOW_FILE = re.compile(r"\.?(?P<stem>.+)__\d+-\d+(\..+\.tmp)?" + re.escape(SUFFIX))
#: Longest duration of a recorded window, relative to the wanted length. Rounding explains at most 8 frames instead of
#: 7.5, a factor of 1.067; earlier versions cut longer windows from videos with few frames per second.
_LONGEST_TO_WANTED = 1.07
#: Number of unused windows that a warning lists.
_SHOWN = 5
#: Most bytes of a stem in the name of a window; with the rest, and with what temporary names add, 255 are not exceeded.
_STEM_BYTES = 120


@dataclass
class CutResult(CutForecast):
    """The outcome of cutting, with the clips.

    `videos`: those that gave clips. `cut_short`: {path, reason} of those that decode only in part. `left_over`: windows
    that other settings or a killed run left behind, to be removed once no link leads to them. `unused`: windows of
    videos that are no longer cut; they are kept, because another list may name their videos again.
    """

    clips: list[ClipFile] = field(default_factory=list)
    videos: set[Path] = field(default_factory=set)
    cut_short: list[dict[str, str]] = field(default_factory=list)
    left_over: list[Path] = field(default_factory=list)
    unused: list[Path] = field(default_factory=list)

    def say_unused(self, data_root: Path) -> None:
        """Warn about unused windows."""
        folder, n = data_root / WINDOWS_FOLDER, len(self.unused)
        if n:
            shown = ", ".join(path.relative_to(folder).as_posix() for path in self.unused[:_SHOWN])
            more = f", and {n - _SHOWN} more" if n > _SHOWN else ""
            log.warning(
                "%d clips in %s were cut from videos that are no longer listed or cut, so they are not used: %s%s. %s "
                "there lists the clips in use; remove the others if you no longer need them", n, folder, shown, more,
                TABLE_NAME,
            )  # fmt: skip


def forecast(found: Inventory, config: CutConfig, data_root: Path, workers: int) -> CutResult:
    """Predict the outcome of `cut` without decoding; nothing is written, and `clips` stays empty."""
    jobs, result = _jobs(found, config, data_root)
    for job, plan in _plans(jobs, workers):
        _note(result, job, plan.reason, [w.label for w in plan.windows], plan.refused, data_root)
    return _sorted(result)


def cut(found: Inventory, config: CutConfig, data_root: Path, workers: int) -> CutResult:
    """Cut every untrimmed video that has not been cut with these settings yet. `workers`: processes; 0: one per core.

    Raises UserError if the settings are invalid, if the disk is too small, if a clip cannot be written, or if the
    folder for windows contains files that this suite did not make.
    """
    jobs, result = _jobs(found, config, data_root)
    folder = data_root / WINDOWS_FOLDER
    if not jobs:
        if (folder / WINDOWS_JOURNAL).is_file():  # of earlier runs
            result.unused = _unused(folder, ())
            storage.write_csv(folder / TABLE_NAME, _TABLE, ())
        return _sorted(result)
    keys = {job: _key(job, data_root) for job in jobs}
    path = folder / WINDOWS_JOURNAL
    records = _read(path, _RECORDS)
    if not path.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise UserError(
            f"{folder} contains files that combine_all_datasets.py did not make (there is no {WINDOWS_JOURNAL}), but "
            "that script needs the folder for clips cut from long videos. Move your files away: "
            + shlex.join(["mv", str(folder), str(folder.absolute().with_name("my_windows"))])
        )
    done = {job: records[key] for job, key in keys.items() if key in records and _is_valid(job, records[key])}
    unknown = {job: key for job, key in keys.items() if key not in records}
    done |= _confirmed(unknown, path, data_root, workers)
    todo = [job for job in jobs if job not in done]
    log.info("%d untrimmed videos: %d known, %d to cut", len(jobs), len(done), len(todo))
    if todo:
        planned = _plan_all(todo, folder, workers)
        with storage.appending_journal(path) as record:
            for job, outcome in _cut_all(planned, workers):
                if keys[job] and not video_files.may_pass(outcome["reason"]):
                    record(keys[job], outcome)
                done[job] = outcome
    if n := sum(video_files.may_pass(outcome["reason"]) for outcome in done.values()):
        log.warning("%d videos could not be cut now; the next run tries them again", n)
    result.left_over = _left_over(done)
    result.unused = _unused(folder, jobs)
    rows = [row for job in jobs for row in _collect(result, job, done[job], data_root)]
    storage.write_csv(folder / TABLE_NAME, _TABLE, rows)
    return _sorted(result)


def _read(path: Path, of: Iterable[frozenset[str]]) -> dict[str, dict[str, Any]]:
    records: dict[str, dict[str, Any]] = {}
    for fields in of:
        records |= storage.read_journal(path, fields)
    return records


def _confirmed(
    keys: Mapping[CutJob, str], path: Path, data_root: Path, workers: int
) -> dict[CutJob, dict[str, Any]]:
    """Return the lines of previous versions that still hold, and record them as lines of the present version.

    A line holds if the video would be cut the same way today. Nothing is decoded.
    """
    before = storage.read_journal(path, _FIELDS_BEFORE, _SOME_BEFORE)
    items = []
    for job in keys:
        old = (_key(job, data_root, version) for version in _VERSIONS_BEFORE)
        line = next((before[key] for key in old if key in before), None)
        if line and _is_valid(job, line):
            items.append((job, line))
    if not items:
        return {}
    log.info("%d videos known from an earlier version: checking them against their packets", len(items))
    found = {}
    with (
        storage.appending_journal(path) as record,
        console.progress(total=len(items), desc="packets", unit="video") as bar,
    ):
        for (job, _), line in video_files.map_files(
            as_before, items, workers, lambda item: item[0].clip.path, _not_sure
        ):
            if line:
                found[job] = line
                record(keys[job], line)
            bar.update()
    return found


def _not_sure(_: tuple[CutJob, Mapping[str, Any]], reason: str) -> dict[str, Any]:
    return {}


def _jobs(found: Inventory, config: CutConfig, data_root: Path) -> tuple[list[CutJob], CutResult]:
    """List the videos that may give windows, in order; also return a result with those that cannot, and why."""
    windows.check(config)
    result = CutResult()
    stems = _Stems()
    jobs: list[CutJob] = []
    for tree in (d for d in found.datasets if d.needs_cutting):
        if tree.own:
            jobs += _own_jobs(tree, config, data_root, stems)
        else:
            jobs += _annotated_jobs(tree, found.roots, config, data_root, stems, result)
    return jobs, result


def _annotated_jobs(
    tree: FoundDataset,
    roots: Sequence[Path],
    config: CutConfig,
    data_root: Path,
    stems: _Stems,
    result: CutResult,
) -> Iterator[CutJob]:
    """Yield the videos of a published data set; add those that its annotations cannot divide to the result."""
    assert tree.entry is not None, tree.root
    read = read_annotations(tree.entry, tree.root, roots)
    failures = [{**f, "path": source_path(Path(f["path"]), data_root)} for f in read.failures]
    # several folders of a data set may share its annotations
    new = [f for f in failures if f not in result.failures]
    result.failures += new
    result.wrong_annotations += len(new)
    file = tree.entry.annotations.file if tree.entry.annotations else ""
    where = source_path(read.path, data_root) if read.path else f"{file}, which was not found"
    for clip in tree.needs_cutting:
        name = video_name(clip.path.name)
        if reason := _unusable(name, clip.label, read, config, where):
            result.left_out.append({"path": source_path(clip.path, data_root), "reason": reason})
            continue
        segments = read.videos.get(name)
        guess = config.cut_unannotated and clip.label == "fight" and segments is None
        # set only where it matters, so that changing the flag does not cut the other videos again
        settings = replace(config, cut_unannotated=guess)
        folder = data_root / WINDOWS_FOLDER / tree.dataset
        yield CutJob(clip, segments, folder, stems.free(folder, name, clip.rel), settings)


def _own_jobs(tree: FoundDataset, config: CutConfig, data_root: Path, stems: _Stems) -> Iterator[CutJob]:
    """Yield the user's own videos with their labelled stretches.

    A video has a job of its own for each official side, and for stretches that overlap those of its other jobs.
    """
    folder = data_root / WINDOWS_FOLDER / tree.dataset
    videos: dict[tuple[Path, str], list[ClipFile]] = {}
    for clip in tree.needs_cutting:
        videos.setdefault((clip.path, clip.official_split), []).append(clip)
    for (path, side), clips in videos.items():
        for turn, stretches in enumerate(_turns(c.stretch for c in clips if c.stretch)):
            stem = stems.free(folder, video_name(path.name), f"{clips[0].rel} {side} {turn}")
            yield CutJob(clips[0], None, folder, stem, config, stretches)


def _turns(stretches: Iterable[Stretch]) -> list[tuple[Stretch, ...]]:
    """Divide stretches into as few parts as possible so that none overlap within a part. Each part is sorted."""
    parts: list[list[Stretch]] = []
    for stretch in sorted(stretches, key=lambda s: (s.start_s, s.end_s)):
        part = next((p for p in parts if p[-1].end_s <= stretch.start_s), None)
        if part is None:
            parts.append(part := [])
        part.append(stretch)
    return [tuple(part) for part in parts]


@dataclass
class _Stems:
    """Makes unique stems for the windows of each video: the video's name, with a hash if the name is already taken."""

    taken: set[tuple[Path, str]] = field(default_factory=set)

    def free(self, folder: Path, name: str, identity: str) -> str:
        stem = plain = storage.shorten_name(storage.utf8_name(name), _STEM_BYTES)
        while (folder, stem.casefold()) in self.taken:
            stem = f"{plain}~{storage.stable_hash(identity, digits=8)}"
            identity += "+"
        self.taken.add((folder, stem.casefold()))
        return stem


def _unusable(name: str, label: str, read: Annotations, config: CutConfig, where: str) -> str:
    """The reason why a video gives no windows, judged by its annotation (in `where`); empty if it may give some."""
    if name in read.broken:
        return f"its annotation in {where} is not understood"
    segments = read.videos.get(name)
    if label != "fight" or (segments and segments.spans) or (segments is None and config.cut_unannotated):
        return ""
    if segments is not None:
        return f"a violent video, but {where} names no violent stretch in it"
    return (
        f"a violent video without temporal annotation (none in {where}), so nobody knows where in it; "
        "--cut-unannotated would call all of it violent"
    )


def _plans(jobs: Sequence[CutJob], workers: int) -> Iterator[tuple[CutJob, CutPlan]]:
    return video_files.map_files(plan_job, jobs, workers, lambda job: job.clip.path, plan_failed)


def _plan_all(todo: Sequence[CutJob], folder: Path, workers: int) -> list[tuple[CutJob, CutPlan]]:
    """Plan all jobs, in order. Raises UserError if the disk has no room for their windows."""
    plans: dict[CutJob, CutPlan] = {}
    with console.progress(total=len(todo), desc="plan", unit="video") as bar:
        for job, plan in _plans(todo, workers):
            plans[job] = plan
            bar.update()
    needed, free = sum(p.size_bytes for p in plans.values()), free_bytes_of(folder)
    count = sum(len(p.windows) for p in plans.values())
    log.info("%d windows to cut, about %s; %s free", count, gigabytes(needed), gigabytes(free))
    if needed and needed + RESERVE_BYTES > free:
        raise UserError(
            f"{folder}: {gigabytes(free)} free, but about {gigabytes(needed + RESERVE_BYTES)} needed for {count} clips "
            "cut from long videos, including a reserve. Free some space, choose a bigger disk with --data-root, or cut "
            "fewer clips with --windows-per-video of combine_all_datasets.py"
        )
    return [(job, plans[job]) for job in todo]


def _cut_all(
    planned: Sequence[tuple[CutJob, CutPlan]], workers: int
) -> Iterator[tuple[CutJob, dict[str, Any]]]:
    """Cut the videos; yield (job, record for the journal) in order of completion."""
    with console.progress(total=len(planned), desc="cut", unit="video") as bar:
        outcomes = video_files.map_files(
            cut_job, planned, workers, lambda item: item[0].clip.path, cut_failed
        )
        for (job, _), outcome in outcomes:
            yield job, outcome
            bar.update()


def _key(job: CutJob, data_root: Path, version: str = VERSION) -> str:
    """The key of a video's line in the journal: a hash of all that its windows depend on.

    It is empty if the file's status cannot be read.
    """
    try:
        stat = job.clip.path.stat()
    except OSError:
        return ""
    identity = [
        source_path(job.clip.path, data_root),
        stat.st_size,
        stat.st_mtime_ns,
        job.clip.label,
        job.stem,
    ]
    segments = asdict(job.segments) if job.segments else None
    stretches = [[(s.start_s, s.end_s, s.label) for s in job.stretches]] if job.stretches else []
    return storage.stable_hash([identity, segments, *stretches, asdict(job.config), version], digits=32)


def _is_valid(job: CutJob, record: Mapping[str, Any]) -> bool:
    """Whether a record still holds.

    It does if all its windows exist as written, none of them is too long, and it has no failure that may not occur
    again.
    """
    if video_files.may_pass(record["reason"]):
        return False
    for window in record["windows"]:
        path = job.folder / window["name"]
        if not path.is_file() or path.stat().st_size != window["size_bytes"]:
            return False
        if window["end_s"] - window["start_s"] > _LONGEST_TO_WANTED * job.config.window_s:
            return False
    return True


def _left_over(done: Mapping[CutJob, Mapping[str, Any]]) -> list[Path]:
    """Find files that are named like windows of the videos in `done`, but that no record lists.

    Videos that could not be read this time are skipped: their windows are unknown.
    """
    done = {job: record for job, record in done.items() if not video_files.may_pass(record["reason"])}
    stems = {(job.folder, job.stem) for job in done}
    named = {job.folder / window["name"] for job, record in done.items() for window in record["windows"]}
    found = []
    for folder in sorted({job.folder for job in done}):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            match = _WINDOW_FILE.fullmatch(path.name)
            if match and (folder, match["stem"]) in stems and path not in named:
                found.append(path)
    return found


def _unused(folder: Path, jobs: Iterable[CutJob]) -> list[Path]:
    """Find files below the folder of windows that are named like windows, but of none of the jobs' videos."""
    stems = {(job.folder, job.stem) for job in jobs}
    found = []
    for path in sorted(folder.glob(f"*/*{SUFFIX}")):
        match = _WINDOW_FILE.fullmatch(path.name)
        if match and (path.parent, match["stem"]) not in stems:
            found.append(path)
    return found


def remove(left_over: Iterable[Path]) -> None:
    """Remove left-over windows. Call this only when the manifest and its links no longer contain them."""
    for path in left_over:
        path.unlink(missing_ok=True)


def _collect(
    result: CutResult, job: CutJob, record: Mapping[str, Any], data_root: Path
) -> Iterator[dict[str, Any]]:
    """Add a cut video's clips to the result; yield their rows of TABLE_NAME."""
    refused = {int(position): reason for position, reason in record.get("refused", {}).items()}
    _note(result, job, record["reason"], [w["label"] for w in record["windows"]], refused, data_root)
    if record["shortfall"]:
        short = {"path": source_path(job.clip.path, data_root), "reason": record["shortfall"]}
        result.cut_short += [short] if short not in result.cut_short else []
    for window in record["windows"]:
        path = job.folder / window["name"]
        rel = f"{job.clip.rel}#{window['start_s']:g}-{window['end_s']:g}"
        # windows cut by versions that recorded no id are identified by the hash of their content
        clip_id = window.get("clip_id", "")
        clip = replace(job.clip, path=path, rel=rel, label=window["label"], clip_id=clip_id, stretch=None)
        result.clips.append(clip)
        result.videos.add(job.clip.path)
        names = {"path": source_path(path, data_root), "video": source_path(job.clip.path, data_root)}
        yield {**window, **names, "dataset": clip.dataset, "source_group": clip.source_group}


def _note(
    result: CutResult,
    job: CutJob,
    reason: str,
    labels: Sequence[str],
    refused: Mapping[int, str],
    data_root: Path,
) -> None:
    name = source_path(job.clip.path, data_root)
    result.failures += [
        {"path": source_path(Path(job.stretches[position].where), data_root), "reason": f"{name}: {why}"}
        for position, why in refused.items()
    ]
    result.refused += len(refused)
    if reason:
        result.failures.append({"path": name, "reason": reason})
        result.wrong_annotations += reason.endswith(windows.OTHER_VERSION)
    elif not labels and not refused:
        why = f"no stretch of {job.config.window_s:g} s that is surely one class"
        result.left_out.append({"path": name, "reason": why})
    for label in labels:
        result.count(job.clip.dataset, label)


def _sorted(result: CutResult) -> CutResult:
    result.failures.sort(key=lambda f: (f["path"], f["reason"]))
    result.left_out.sort(key=lambda f: (f["path"], f["reason"]))
    result.cut_short.sort(key=lambda f: f["path"])
    return result
