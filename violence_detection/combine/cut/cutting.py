"""Cut untrimmed videos into clips of one length, by their published annotations; and one's own into labelled stretches.

The clips are files in `<root>/windows/<dataset>/<video>__<start_ms>-<end_ms>.mp4`, so that everything after this sees
clips like any other. When all windows of a video stand, a line in the journal says so, and it is not opened again.
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
#: To be given another value whenever decoding gives other results, other windows are placed or they are encoded
#: otherwise, so that old lines are not believed. Moving or commenting code changes nothing. (The first was a hash.)
VERSION = "parts"
#: The values before, the newest first. A line of them stands where today's windows are the same.
_VERSIONS_BEFORE = ("moments", "2f8e82e9adf0")
_TABLE = ("path", "video", "dataset", "label", "source_group", "start_s", "end_s")
#: Of a line, also for labelled stretches.
_RECORDS = tuple(
    frozenset({"windows", "reason", "by_time", "shortfall", *more}) for more in ((), ("refused",))
)
#: Of all lines of the versions before, and of some: the first were written when frames were found by number alone.
_FIELDS_BEFORE = frozenset({"windows", "reason"})
_SOME_BEFORE = frozenset({"by_time", "shortfall", "refused"})
_WINDOW_FILE = re.compile(r"\.?(?P<stem>.+)__\d+-\d+(\..+\.tmp)?" + re.escape(SUFFIX))
#: Of a window's length: 8 frames are none of 7.5 or more. Once videos of few frames a second gave longer ones.
_MOST_OF_WINDOW = 1.07
#: Of unused windows, in the log.
_SHOWN = 5
_STEM_BYTES = 120  # the rest of a name, temporary ones with the machine too, fits into 255


@dataclass
class CutResult(CutForecast):
    """What cutting gave, with the clips.

    `videos`: those that gave clips. `cut_short`: {path, reason} of those of which a part does not decode. `left_over`:
    windows that other settings, or a killed run, have left, to be removed when nothing points to them any more.
    `unused`: windows of videos that are no longer cut. They stay, for another list may name their videos again.
    """

    clips: list[ClipFile] = field(default_factory=list)
    videos: set[Path] = field(default_factory=set)
    cut_short: list[dict[str, str]] = field(default_factory=list)
    left_over: list[Path] = field(default_factory=list)
    unused: list[Path] = field(default_factory=list)

    def say_unused(self, data_root: Path) -> None:
        """Warn of unused windows."""
        folder, n = data_root / WINDOWS_FOLDER, len(self.unused)
        if n:
            shown = ", ".join(path.relative_to(folder).as_posix() for path in self.unused[:_SHOWN])
            more = f", and {n - _SHOWN} more" if n > _SHOWN else ""
            log.warning(
                "%d clips in %s are of videos that are no longer listed or cut, and are not used: %s%s. %s there names "
                "those that are used; remove the others if you do not want them again", n, folder, shown, more,
                TABLE_NAME,
            )  # fmt: skip


def forecast(found: Inventory, config: CutConfig, data_root: Path, workers: int) -> CutResult:
    """What `cut` would give, from the headers of the videos; nothing is written, `clips` stays empty."""
    jobs, result = _jobs(found, config, data_root)
    for job, plan in _plans(jobs, workers):
        _note(result, job, plan.reason, [w.label for w in plan.windows], plan.refused, data_root)
    return _sorted(result)


def cut(found: Inventory, config: CutConfig, data_root: Path, workers: int) -> CutResult:
    """Cut every untrimmed video that has not been cut with these settings.

    Raises UserError when it cannot fit, and when the folder of windows is somebody else's.
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
            f"{folder} holds files that combine_all_datasets.py did not make (there is no {WINDOWS_JOURNAL}), but it "
            "puts clips cut from long videos there. Move yours away: "
            + shlex.join(["mv", str(folder), str(folder.absolute().with_name("my_windows"))])
        )
    done = {job: records[key] for job, key in keys.items() if key in records and _stands(job, records[key])}
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
    """What lines of the versions before say of videos that are cut the same today; nothing is decoded for that."""
    before = storage.read_journal(path, _FIELDS_BEFORE, _SOME_BEFORE)
    items = []
    for job in keys:
        old = (_key(job, data_root, version) for version in _VERSIONS_BEFORE)
        line = next((before[key] for key in old if key in before), None)
        if line and _stands(job, line):
            items.append((job, line))
    if not items:
        return {}
    log.info("%d videos known by an earlier version: held against their packets", len(items))
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
    """The videos that may give windows, in order, and those that cannot, with the reason."""
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
    """The videos of a published data set; those that its annotations cannot divide are noted in the result."""
    assert tree.entry is not None, tree.root
    read = read_annotations(tree.entry, tree.root, roots)
    failures = [{**f, "path": source_path(Path(f["path"]), data_root)} for f in read.failures]
    new = [f for f in failures if f not in result.failures]  # folders of a data set share its annotations
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
        settings = replace(config, cut_unannotated=guess)  # no reason to cut the others again
        folder = data_root / WINDOWS_FOLDER / tree.dataset
        yield CutJob(clip, segments, folder, stems.free(folder, name, clip.rel), settings)


def _own_jobs(tree: FoundDataset, config: CutConfig, data_root: Path, stems: _Stems) -> Iterator[CutJob]:
    """The stretches of each of one's own videos; those that overlap are cut in turn, and so is what is train or val."""
    folder = data_root / WINDOWS_FOLDER / tree.dataset
    videos: dict[tuple[Path, str], list[ClipFile]] = {}
    for clip in tree.needs_cutting:
        videos.setdefault((clip.path, clip.official_split), []).append(clip)
    for (path, side), clips in videos.items():
        for turn, stretches in enumerate(_turns(c.stretch for c in clips if c.stretch)):
            stem = stems.free(folder, video_name(path.name), f"{clips[0].rel} {side} {turn}")
            yield CutJob(clips[0], None, folder, stem, config, stretches)


def _turns(stretches: Iterable[Stretch]) -> list[tuple[Stretch, ...]]:
    """The stretches divided so that none overlaps another, each part sorted; as few parts as possible."""
    parts: list[list[Stretch]] = []
    for stretch in sorted(stretches, key=lambda s: (s.start_s, s.end_s)):
        part = next((p for p in parts if p[-1].end_s <= stretch.start_s), None)
        if part is None:
            parts.append(part := [])
        part.append(stretch)
    return [tuple(part) for part in parts]


@dataclass
class _Stems:
    """Names for the windows of each video: the video's own, with a mark where another in the folder has it."""

    taken: set[tuple[Path, str]] = field(default_factory=set)

    def free(self, folder: Path, name: str, identity: str) -> str:
        stem = plain = storage.shorten_name(storage.utf8_name(name), _STEM_BYTES)
        while (folder, stem.casefold()) in self.taken:
            stem = f"{plain}~{storage.stable_hash(identity, digits=8)}"
            identity += "+"
        self.taken.add((folder, stem.casefold()))
        return stem


def _unusable(name: str, label: str, read: Annotations, config: CutConfig, where: str) -> str:
    """Why a video gives no window, as far as its annotation (in `where`) says."""
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
    """Plans of all jobs, in order. Raises UserError when the disk cannot hold their windows."""
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
            f"{folder}: {gigabytes(free)} free, about {gigabytes(needed + RESERVE_BYTES)} needed for {count} clips cut "
            "from long videos and a reserve. Free some space, choose a bigger disk with --data-root, or cut fewer "
            "with --windows-per-video of combine_all_datasets.py"
        )
    return [(job, plans[job]) for job in todo]


def _cut_all(
    planned: Sequence[tuple[CutJob, CutPlan]], workers: int
) -> Iterator[tuple[CutJob, dict[str, Any]]]:
    """(job, record for the journal) in order of completion."""
    with console.progress(total=len(planned), desc="cut", unit="video") as bar:
        outcomes = video_files.map_files(
            cut_job, planned, workers, lambda item: item[0].clip.path, cut_failed
        )
        for (job, _), outcome in outcomes:
            yield job, outcome
            bar.update()


def _key(job: CutJob, data_root: Path, version: str = VERSION) -> str:
    """What a video's line in the journal is found by: all that its windows depend on.

    Empty where the system says nothing of the file.
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


def _stands(job: CutJob, record: Mapping[str, Any]) -> bool:
    """Whether a record is to be believed, and all windows that it names are on the disk as they were written."""
    if video_files.may_pass(record["reason"]):
        return False
    for window in record["windows"]:
        path = job.folder / window["name"]
        if not path.is_file() or path.stat().st_size != window["size_bytes"]:
            return False
        if window["end_s"] - window["start_s"] > _MOST_OF_WINDOW * job.config.window_s:
            return False
    return True


def _left_over(done: Mapping[CutJob, Mapping[str, Any]]) -> list[Path]:
    """Files of the videos in `done` that are called like windows, and that no record names.

    A video that could not be read this time says nothing of its windows.
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
    """Files below the folder of windows that are called like windows, of no video of these jobs."""
    stems = {(job.folder, job.stem) for job in jobs}
    found = []
    for path in sorted(folder.glob(f"*/*{SUFFIX}")):
        match = _WINDOW_FILE.fullmatch(path.name)
        if match and (path.parent, match["stem"]) not in stems:
            found.append(path)
    return found


def remove(left_over: Iterable[Path]) -> None:
    """Remove windows that nothing names any more."""
    for path in left_over:
        path.unlink(missing_ok=True)


def _collect(
    result: CutResult, job: CutJob, record: Mapping[str, Any], data_root: Path
) -> Iterator[dict[str, Any]]:
    """Add a cut video's clips to the result; yields their rows of the table."""
    refused = {int(position): reason for position, reason in record.get("refused", {}).items()}
    _note(result, job, record["reason"], [w["label"] for w in record["windows"]], refused, data_root)
    if record["shortfall"]:
        short = {"path": source_path(job.clip.path, data_root), "reason": record["shortfall"]}
        result.cut_short += [short] if short not in result.cut_short else []
    for window in record["windows"]:
        path = job.folder / window["name"]
        rel = f"{job.clip.rel}#{window['start_s']:g}-{window['end_s']:g}"
        # windows that were cut before ids were recorded keep their content's hash
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
