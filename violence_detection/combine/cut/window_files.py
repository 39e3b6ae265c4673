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
from violence_detection.video import decode, video_files, writer

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
    """The windows of a job and the video that they lie in, or the reason why there are none.

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
    """Look when a video's frames come, and place its windows. Nothing is decoded for that."""
    try:
        return _place(job, decode.timing(job.clip.path))
    except UnreadableVideo as e:
        return CutPlan(None, reason=e.reason)
    except ValueError as e:
        return CutPlan(None, reason=str(e))
    except OSError as e:
        return CutPlan(None, reason=video_files.cannot_be_read(job.clip.path, e))


def _place(job: CutJob, info: decode.VideoInfo) -> CutPlan:
    """The windows in a video of this length. Raises ValueError where its annotation is of another one."""
    if job.stretches:
        found, refused = windows.inside(info.n_frames, info.fps, job.stretches, job.config)
        return CutPlan(info, found, refused=refused)
    return CutPlan(info, windows.plan(info.n_frames, info.fps, job.clip.label, job.segments, job.config))


def plan_failed(_: CutJob, reason: str) -> CutPlan:
    """Of a video that killed the process that planned it, or took too long."""
    return CutPlan(None, reason=reason)


def cut_job(item: tuple[CutJob, CutPlan]) -> dict[str, Any]:
    """Write a job's windows. Where not all of the video decodes, they are placed anew in what does.

    Returns {windows: [{name, clip_id, label, start_s, end_s, size_bytes}], reason, by_time}, for labelled stretches
    also refused: {position: reason}. by_time: frames were found by their time stamps. Files that are not named there
    are left over. Raises UserError when a clip cannot be written.
    """
    job, plan = item
    if plan.info is None:
        return _record(job, [], plan)
    try:
        return _write_all(job, plan)
    except UnreadableVideo as first:
        try:
            info = decode.probe(job.clip.path)
            if info.n_decoded >= plan.info.n_decoded:
                return _record(job, [], CutPlan(None, reason=first.reason))
            return _write_all(job, _place(job, info))
        except UnreadableVideo as e:
            return _record(job, [], CutPlan(None, reason=e.reason))
        except ValueError as e:
            return _record(job, [], CutPlan(None, reason=str(e)))
        except OSError as e:
            return _record(job, [], CutPlan(None, reason=video_files.cannot_be_read(job.clip.path, e)))


def cut_failed(item: tuple[CutJob, CutPlan], reason: str) -> dict[str, Any]:
    """Of a video that killed the process that cut it, or took too long."""
    return _record(item[0], [], CutPlan(None, reason=reason))


def _record(job: CutJob, written: list[dict[str, Any]], plan: CutPlan) -> dict[str, Any]:
    """What the journal keeps of a job; of one by annotations nothing is refused, and its lines have no word of it."""
    refused = {str(position): reason for position, reason in plan.refused.items()}  # as JSON keeps it
    by_time = plan.info is not None and not plan.info.as_stated
    record = {"windows": written, "reason": plan.reason, "by_time": by_time}
    return record | ({"refused": refused} if job.stretches else {})


def at_its_rate(job: CutJob) -> bool:
    """Whether the frames of a video come at its stated rate, so that windows placed by frame number are right."""
    try:
        return decode.timing(job.clip.path).as_stated
    except (UnreadableVideo, OSError):
        return False


def _write_all(job: CutJob, plan: CutPlan) -> dict[str, Any]:
    assert plan.info is not None
    fps = plan.info.fps
    frames = _frames(job.clip.path, plan.info, plan.windows)
    written: list[tuple[CutWindow, Path]] = []
    try:
        for window in plan.windows:
            target = job.target(window, fps)
            with storage.atomic_path(target) as temporary:
                some = itertools.islice(frames, window.end - window.first)
                writer.write(temporary, fps, (cv2.cvtColor(f, cv2.COLOR_RGB2BGR) for f in some), CODEC)
            written.append((window, target))
    except OSError as e:
        raise UserError(writer.cannot_write(job.folder, str(e.strerror))) from e
    source = _content_hash(job.clip.path) if written else ""
    by_time = not plan.info.as_stated
    return _record(
        job, [_as_record(w, path, fps, window_id(source, w, by_time)) for w, path in written], plan
    )


def _content_hash(path: Path) -> str:
    try:
        return storage.sha256_file(path)
    except OSError as e:
        raise UnreadableVideo(path, video_files.cannot_be_read(path, e)) from e


def window_id(source_sha256: str, window: CutWindow, by_time: bool = False) -> str:
    """The id of a window's clip, 16 hexadecimal digits: what was cut, and how it is encoded.

    `by_time`: the window's frames are moments, not frames counted, and so other pictures.

    Not the hash of the encoded file, which differs between builds of OpenCV; so the split is the same on all machines.
    """
    found = ["by time"] if by_time else []
    return storage.stable_hash([source_sha256, window.first, window.end, CODEC, SUFFIX, *found], digits=16)


def _as_record(window: CutWindow, path: Path, fps: float, clip_id: str) -> dict[str, Any]:
    start_s, end_s = (round(frame / fps, 3) for frame in (window.first, window.end))
    return {
        "name": path.name,
        "clip_id": clip_id,
        "label": window.label,
        "start_s": start_s,
        "end_s": end_s,
        "size_bytes": path.stat().st_size,
    }


def _frames(path: Path, info: decode.VideoInfo, planned: Sequence[CutWindow]) -> Iterator[decode.Frame]:
    """The frames of the windows one after another, RGB uint8, decoded in one pass."""
    numbers = [i for window in planned for i in range(window.first, window.end)]
    groups = [frozenset(numbers[k : k + _DECODED_AT_ONCE]) for k in range(0, len(numbers), _DECODED_AT_ONCE)]
    shape: tuple[int, ...] = ()
    try:
        for decoded in decode.read_groups(path, info, groups):
            for number in sorted(decoded):
                shape = shape or decoded[number].shape
                if decoded[number].shape != shape:
                    raise UnreadableVideo(path, f"frame {number} has another size than those before it")
                yield decoded[number]
    except OSError as e:
        raise UnreadableVideo(path, video_files.cannot_be_read(path, e)) from e
