"""Write each event of a video as a clip of its own, with a margin before and after it, and a picture of it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from violence_detection.prediction.events import Event, Verdict
from violence_detection.prediction.file_names import CLIP_ENDINGS
from violence_detection.system.own_files import WrittenFiles
from violence_detection.video import decode, sampling, writer
from violence_detection.video.shown import square


@dataclass(frozen=True)
class _Clip:
    """A clip at `path` of the moments (see video/decode.py) from `first` up to, not including, `end`."""

    path: Path
    first: int
    end: int


def paths_of(verdict: Verdict, folder: Path, name: str) -> list[Path]:
    """Return the paths of a verdict's clips, one for each event. A picture is beside each, with the suffix .jpg."""
    return [folder / f"{name}.event{n:03d}.mp4" for n in range(1, len(verdict.events) + 1)]


def write(
    verdict: Verdict,
    folder: Path,
    name: str,
    margin_s: float,
    comment: str = "",
    written: WrittenFiles | None = None,
) -> list[Path]:
    """Write `<name>.event001.jpg`, `<name>.event001.mp4` and so on; return the paths of the clips.

    A picture shows the middle of its event's most violent window; all pictures are written before the first clip. A
    clip begins `margin_s` before the event and ends `margin_s` after it, as far as there is footage. Files of further
    events, which an earlier run wrote for this video, are removed. `comment` is stored in the clips. `written`: the
    record of the folder, if the caller has it already; by default it is read.
    Raises UnreadableVideo, and UserError if a file cannot be written or would replace one that was not written for this
    video.
    """
    video, events, written = Path(verdict.path), verdict.events, written or WrittenFiles(folder)
    paths = paths_of(verdict, folder, name)
    if events:
        info = decode.probe(video)
        # a run that is killed from here on leaves no first clip, and where that is missing the next run makes all again
        written.remove(paths[0], video)
        _write_pictures(video, info, events, paths, written)
        clips = [_clip(info, event, path, margin_s) for event, path in zip(events, paths, strict=True)]
        _write_clips(video, info, clips, comment, written)
    ours, kept = re.compile(re.escape(name) + CLIP_ENDINGS), {p.stem for p in paths}
    for known in sorted(written.names_of(os.path.realpath(video))):
        if ours.fullmatch(known) and Path(known).stem not in kept:
            written.remove(folder / known, video)
    return paths


def _clip(info: decode.VideoInfo, event: Event, path: Path, margin_s: float) -> _Clip:
    end = sampling.moment_at(info, event.end_s + margin_s - 0.5 / info.fps) + 1
    return _Clip(path, sampling.moment_at(info, event.start_s - margin_s), end)


def _write_pictures(
    video: Path, info: decode.VideoInfo, events: Sequence[Event], paths: Sequence[Path], written: WrittenFiles
) -> None:
    at = [sampling.moment_at(info, event.peak_s) for event in events]
    for number, frame in decode.moments(video, info, sorted(set(at))):
        for path in (p for p, moment in zip(paths, at, strict=True) if moment == number):
            picture = path.with_suffix(".jpg")
            with written.replacing(picture, video) as temporary:
                writer.picture(temporary, square(frame, info.pixel_shape))


def _write_clips(
    video: Path, info: decode.VideoInfo, clips: Sequence[_Clip], comment: str, written: WrittenFiles
) -> None:
    """Write all clips in one pass over the video, although they may overlap. `clips` are sorted by `first`."""
    numbers = sorted({n for clip in clips for n in range(clip.first, clip.end)})
    waiting = list(clips)
    with contextlib.ExitStack() as whole:
        begun: list[tuple[_Clip, Callable[[decode.Frame], None], contextlib.ExitStack]] = []
        for number, frame in decode.moments(video, info, numbers):
            while waiting and waiting[0].first <= number:
                clip, files = waiting.pop(0), whole.enter_context(contextlib.ExitStack())
                temporary = files.enter_context(written.replacing(clip.path, video))
                begun.append((clip, files.enter_context(writer.h264(temporary, info.fps, comment)), files))
            picture = square(frame, info.pixel_shape)
            for clip, put, files in begun:
                put(picture)
                if number == clip.end - 1:
                    files.close()
            begun = [b for b in begun if number < b[0].end - 1]
