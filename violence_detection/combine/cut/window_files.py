"""One untrimmed video into clip files: its windows placed, decoded in one pass, and encoded.

Both classes go through the same encoder, so that only what is seen tells them apart. This runs in worker processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

from violence_detection.combine.config import CutConfig
from violence_detection.combine.cut import windows
from violence_detection.combine.cut.windows import CutWindow
from violence_detection.datasets.annotations import Segments
from violence_detection.datasets.own_table import Stretch
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.find.inventory import ClipFile
from violence_detection.system import storage
from violence_detection.video import decode

#: MPEG-4 part 2 in MP4, OpenCV's own writer: on real clips as sharp as x264 at quality 18, and no further package.
CODEC, SUFFIX = "mp4v", ".mp4"
#: What it takes on disk, on average over real clips of 224 to 1280 pixels in width; 0.01 to 0.15 for a single one.
BYTES_PER_PIXEL = 0.05

_DECODED_AT_ONCE = 16  # frames held in memory


@dataclass(frozen=True)
class CutJob:
    """One video to be cut into `folder`; `clip` is the video as the inventory knows it.

    It is cut by its annotated `segments`, or into the `stretches` that somebody has labelled, sorted and apart.
    """

    clip: ClipFile
    segments: Segments | None
    folder: Path
    stem: str
    config: CutConfig
    stretches: tuple[Stretch, ...] = ()

    def target(self, window: CutWindow, fps: float) -> Path:
        start, end = (round(frame / fps * 1000) for frame in (window.first, window.end))
        return self.folder / f"{self.stem}__{start}-{end}{SUFFIX}"


@dataclass(frozen=True)
class CutPlan:
    """The windows of a job and the video as its header states it, or the reason why there are none.

    `refused`: stretches that give none, by their position, and why.
    """

    info: decode.VideoInfo | None
    windows: tuple[CutWindow, ...] = ()
    reason: str = ""
    refused: Mapping[int, str] = field(default_factory=dict, hash=False)

    @property
    def size_bytes(self) -> float:
        if self.info is None:
            return 0.0
        frames = sum(w.end - w.first for w in self.windows)
        return frames * self.info.width * self.info.height * BYTES_PER_PIXEL


def plan_job(job: CutJob) -> CutPlan:
    """Look at a video's header and place its windows. Where header and annotation disagree, frames are counted."""
    try:
        info = decode.header(job.clip.path)
        if info.n_frames < decode.MIN_FRAMES:
            info = decode.probe(job.clip.path)
        try:
            plan = _place(job, info)
        except ValueError:
            plan = None
        return plan if plan and not plan.refused else _place(job, decode.probe(job.clip.path))
    except UnreadableVideo as e:
        return CutPlan(None, reason=e.reason)
    except ValueError as e:
        return CutPlan(None, reason=str(e))


def _place(job: CutJob, info: decode.VideoInfo) -> CutPlan:
    """The windows in a video of this length. Raises ValueError where its annotation is of another one."""
    if job.stretches:
        found, refused = windows.inside(info.n_frames, info.fps, job.stretches, job.config)
        return CutPlan(info, found, refused=refused)
    return CutPlan(info, windows.plan(info.n_frames, info.fps, job.clip.label, job.segments, job.config))


def plan_crashed(_: CutJob) -> CutPlan:
    """Of a video that killed the process that planned it."""
    return CutPlan(None, reason="takes the decoder down: the process that read it died")


def cut_job(item: tuple[CutJob, CutPlan]) -> dict[str, Any]:
    """Write a job's windows. Where the video ends before its header says, they are placed anew in what there is.

    Returns {windows: [{name, label, start_s, end_s, size_bytes}], reason, refused: {position of the stretch: reason}}.
    What cannot be read leaves no file. Raises UserError when a clip cannot be written.
    """
    job, plan = item
    if plan.info is None:
        return _without_windows(plan.reason)
    try:
        return _write_all(job, plan)
    except UnreadableVideo as first:
        try:
            info = decode.probe(job.clip.path)
            if info.n_frames >= plan.info.n_frames:
                return _without_windows(first.reason)
            return _write_all(job, _place(job, info))
        except UnreadableVideo as e:
            return _without_windows(e.reason)
        except ValueError as e:
            return _without_windows(str(e))


def cut_crashed(_: tuple[CutJob, CutPlan]) -> dict[str, Any]:
    """Of a video that killed the process that cut it."""
    return _without_windows("takes the decoder down: the process that read it died")


def _without_windows(reason: str) -> dict[str, Any]:
    return {"windows": [], "reason": reason, "refused": {}}


def _write_all(job: CutJob, plan: CutPlan) -> dict[str, Any]:
    assert plan.info is not None
    fps = plan.info.fps
    frames = _frames(job.clip.path, plan.windows)
    written: list[tuple[CutWindow, Path]] = []
    try:
        for window in plan.windows:
            target = job.target(window, fps)
            with storage.atomic_path(target) as temporary:
                write_clip(temporary, fps, itertools.islice(frames, window.end - window.first))
            written.append((window, target))
    except UnreadableVideo:
        for _, target in written:
            target.unlink()
        raise
    except OSError as e:
        raise UserError(_cannot_write(job.folder, str(e.strerror))) from e
    refused = {str(position): reason for position, reason in plan.refused.items()}  # as JSON keeps it
    return {"windows": [_as_record(w, path, fps) for w, path in written], "reason": "", "refused": refused}


def _as_record(window: CutWindow, path: Path, fps: float) -> dict[str, Any]:
    start_s, end_s = (round(frame / fps, 3) for frame in (window.first, window.end))
    return {
        "name": path.name,
        "label": window.label,
        "start_s": start_s,
        "end_s": end_s,
        "size_bytes": path.stat().st_size,
    }


def _frames(path: Path, planned: Sequence[CutWindow]) -> Iterator[decode.Frame]:
    """The frames of the windows one after another, RGB uint8, decoded in one pass."""
    numbers = [i for window in planned for i in range(window.first, window.end)]
    groups = [frozenset(numbers[k : k + _DECODED_AT_ONCE]) for k in range(0, len(numbers), _DECODED_AT_ONCE)]
    shape: tuple[int, ...] = ()
    for decoded in decode.read_groups(path, groups):
        for number in sorted(decoded):
            shape = shape or decoded[number].shape
            if decoded[number].shape != shape:
                raise UnreadableVideo(path, f"frame {number} has another size than those before it")
            yield decoded[number]


def write_clip(path: Path, fps: float, frames: Iterator[decode.Frame]) -> None:
    """Encode RGB uint8 frames of one size. The same frames give the same bytes, however many cores there are.

    Raises UserError when they do not all arrive on the disk; OpenCV's writer itself says nothing when it is full.
    """
    first = next(frames)
    height, width = first.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*CODEC), fps, (width, height))
    count = 0
    try:
        for frame in itertools.chain([first], frames):
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        writer.release()
    try:
        there = decode.header(path).n_frames
    except UnreadableVideo:
        there = 0
    if there != count:
        raise UserError(_cannot_write(path.parent, f"{there} of {count} frames arrived"))


def _cannot_write(folder: Path, reason: str) -> str:
    return (
        f"cannot write clips to {folder}: {reason}. Is the disk full, or the folder not writable? Mend it and run the "
        "same command again"
    )
