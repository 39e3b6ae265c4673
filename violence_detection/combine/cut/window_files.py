"""Cut one untrimmed video into clip files: place its windows, decode them in one pass, and encode them.

Both classes go through the same encoder, so that only the content distinguishes them. This runs in worker processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from violence_detection.video.decode import Span

#: MPEG-4 part 2 in MP4, by OpenCV's own writer: on real clips as sharp as x264 at quality 18, without another package.
CODEC, SUFFIX = "mp4v", ".mp4"
#: Size on disk per pixel of a frame, averaged over real clips 224 to 1280 pixels wide; single clips take 0.01 to 0.15.
BYTES_PER_PIXEL = 0.05

#: Number of frames kept in memory at a time.
_DECODED_AT_ONCE = 16


@dataclass(frozen=True)
class CutJob:
    """One video to be cut into files in `folder` whose names begin with `stem`; `clip`: the video in the inventory.

    It is cut by its annotated `segments`, or into the `stretches` that the user has labelled, which are sorted and do
    not overlap.
    """

    clip: ClipFile
    segments: Segments | None
    folder: Path
    stem: str
    config: CutConfig
    stretches: tuple[Stretch, ...] = ()

    def target(self, window: CutWindow, info: decode.VideoInfo) -> Path:
        start, end = (round(time_s * 1000) for time_s in _span_s(window, info))
        return self.folder / f"{self.stem}__{start}-{end}{SUFFIX}"


@dataclass(frozen=True)
class CutPlan:
    """The windows of a job and the properties of its video, or the reason why there are none.

    `refused`: position -> reason, of the stretches that give no window. `packets`: the packets' timing, if the windows
    were placed by it, so that decoding can be checked against it.
    """

    info: decode.VideoInfo | None
    windows: tuple[CutWindow, ...] = ()
    reason: str = ""
    refused: Mapping[int, str] = field(default_factory=dict, hash=False)
    packets: decode.PacketTiming | None = field(default=None, compare=False)

    @property
    def size_bytes(self) -> float:
        if self.info is None:
            return 0.0
        frames = sum(w.end - w.first for w in self.windows)
        return frames * self.info.width * self.info.height * BYTES_PER_PIXEL


def plan_job(job: CutJob) -> CutPlan:
    """Read the timing of a video's frames from its packets, and place its windows. Nothing is decoded."""
    try:
        packets = decode.packet_timing(job.clip.path)
        plan = _place(job, packets.info)
        return replace(plan, packets=packets) if plan.windows else plan
    except UnreadableVideo as e:
        return CutPlan(None, reason=e.reason)
    except ValueError as e:
        return CutPlan(None, reason=str(e))
    except OSError as e:
        return CutPlan(None, reason=video_files.cannot_be_read(job.clip.path, e))


def _place(job: CutJob, info: decode.VideoInfo) -> CutPlan:
    """Place the windows in a video. Raises ValueError as `windows.plan` does."""
    if job.stretches:
        found, refused = windows.inside(info, job.stretches, job.config)
        return CutPlan(info, found, refused=refused)
    return CutPlan(info, windows.plan(info, job.clip.label, job.segments, job.config))


def plan_failed(_: CutJob, reason: str) -> CutPlan:
    """The plan of a video that killed the process that planned it, or took too long."""
    return CutPlan(None, reason=reason)


def cut_job(item: tuple[CutJob, CutPlan]) -> dict[str, Any]:
    """Write a job's windows. If the video does not decode as its packets say, place them again in what does decode.

    Returns {windows: [{name, clip_id, label, start_s, end_s, size_bytes}], reason, by_time, shortfall}; for labelled
    stretches also refused: {position: reason}. reason: why there are no windows, or empty. by_time: whether frames were
    found by their time stamps. shortfall: which part of the video does not decode. Files of the video that are not
    listed there are left over. Raises UserError if a clip cannot be written.
    """
    job, plan = item
    if plan.info is None:
        return _record(job, [], plan)
    try:
        try:
            return _write_all(job, plan)
        except decode.DecodesOtherwise:  # the video has damage that its packets do not show
            return _write_all(job, _place(job, decode.probe(job.clip.path)))
    except UnreadableVideo as e:
        return _record(job, [], CutPlan(None, reason=e.reason))
    except ValueError as e:
        return _record(job, [], CutPlan(None, reason=str(e)))
    except OSError as e:
        return _record(job, [], CutPlan(None, reason=video_files.cannot_be_read(job.clip.path, e)))


def cut_failed(item: tuple[CutJob, CutPlan], reason: str) -> dict[str, Any]:
    """The record of a video that killed the process that cut it, or took too long."""
    return _record(item[0], [], CutPlan(None, reason=reason))


def _record(job: CutJob, written: list[dict[str, Any]], plan: CutPlan) -> dict[str, Any]:
    """Make a job's record for the journal. It has a field `refused` only if the job has labelled stretches."""
    # keys of JSON objects are text
    refused = {str(position): reason for position, reason in plan.refused.items()}
    by_time = plan.info is not None and not plan.info.as_stated
    shortfall = plan.info.shortfall() if plan.info else ""
    record = {"windows": written, "reason": plan.reason, "by_time": by_time, "shortfall": shortfall}
    return record | ({"refused": refused} if job.stretches else {})


def as_before(item: tuple[CutJob, Mapping[str, Any]]) -> dict[str, Any]:
    """Convert an earlier version's line about a video to a present one; empty if it may be cut differently today.

    The line holds if frames come at the rate that the header states, the windows and refused stretches are the same,
    and the same part of the video decodes.
    """
    job, line = item
    plan = plan_job(job)
    if plan.info is None or plan.reason or not plan.info.as_stated or line["reason"] or line.get("by_time"):
        return {}
    shortfall = plan.info.shortfall()
    if line.get("shortfall", shortfall) != shortfall:
        return {}
    placed = [(job.target(window, plan.info).name, window.label) for window in plan.windows]
    now = _record(job, list(line["windows"]), plan)
    same = placed == [(window["name"], window["label"]) for window in line["windows"]]
    return now if same and now.get("refused", {}).keys() == line.get("refused", {}).keys() else {}


def _write_all(job: CutJob, plan: CutPlan) -> dict[str, Any]:
    """Write the planned windows and return the record.

    Raises DecodesOtherwise if the plan was based on packets and the video does not decode as they say.
    """
    assert plan.info is not None
    if not plan.windows:
        return _record(job, [], plan)
    frames = _frames(job.clip.path, plan.packets or plan.info, plan.windows)
    written: list[tuple[CutWindow, Path]] = []
    try:
        for window in plan.windows:
            target = job.target(window, plan.info)
            with storage.atomic_path(target) as temporary:
                some = itertools.islice(frames, window.end - window.first)
                writer.write(
                    temporary, plan.info.fps, (cv2.cvtColor(f, cv2.COLOR_RGB2BGR) for f in some), CODEC
                )
            written.append((window, target))
    except OSError as e:
        raise UserError(writer.cannot_write(job.folder, str(e.strerror))) from e
    for _ in frames:  # there are none left, but this checks the rest of the video against its packets
        pass
    source, marks = _content_hash(job.clip.path), _marks(plan.info)
    return _record(job, [_as_record(w, p, plan.info, window_id(source, w, marks)) for w, p in written], plan)


def _content_hash(path: Path) -> str:
    try:
        return storage.sha256_file(path)
    except OSError as e:
        raise UnreadableVideo(path, video_files.cannot_be_read(path, e)) from e


def window_id(source_sha256: str, window: CutWindow, marks: Sequence[str] = ()) -> str:
    """Return the id of a window's clip, 16 hexadecimal digits, from the video's hash, the window and the encoding.

    The hash of the encoded file would not do: it differs between builds of OpenCV, and the split has to be the same on
    all machines. `marks`: how moments are found, in videos where the moment of a number may show another picture than
    the frame counted by that number.
    """
    return storage.stable_hash([source_sha256, window.first, window.end, CODEC, SUFFIX, *marks], digits=16)


def _marks(info: decode.VideoInfo) -> list[str]:
    """The marks for `window_id`: each names a property because of which earlier versions found other pictures."""
    if info.as_stated:
        return []
    pauses = len(windows.moving_stretches(info)) > 1
    return ["by time", *(["pauses"] if pauses else []), *(["damaged"] if info.damaged else [])]


def _span_s(window: CutWindow, info: decode.VideoInfo) -> Span:
    return info.start_s + window.first / info.fps, info.start_s + window.end / info.fps


def _as_record(window: CutWindow, path: Path, info: decode.VideoInfo, clip_id: str) -> dict[str, Any]:
    start_s, end_s = (round(time_s, 3) for time_s in _span_s(window, info))
    return {
        "name": path.name,
        "clip_id": clip_id,
        "label": window.label,
        "start_s": start_s,
        "end_s": end_s,
        "size_bytes": path.stat().st_size,
    }


def _frames(
    path: Path, info: decode.VideoInfo | decode.PacketTiming, planned: Sequence[CutWindow]
) -> Iterator[decode.Frame]:
    """Yield the frames of the windows one after another, RGB uint8, decoded in one pass.

    Raises UnreadableVideo if reading fails or the size of frames changes, and DecodesOtherwise as `decode.read_groups`.
    """
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
