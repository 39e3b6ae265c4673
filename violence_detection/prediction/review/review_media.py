"""What the review page shows of a video: the file itself or a copy that browsers play, and pictures of its events."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from violence_detection.prediction.events import Event, Verdict
from violence_detection.prediction.file_names import MEDIA_FOLDER
from violence_detection.prediction.formats import explanation_name
from violence_detection.system import own_files, storage
from violence_detection.system.own_files import WrittenFiles
from violence_detection.video import browser_video, decode, sampling, shown, writer

_PICTURE_HEIGHT = 180
#: Written last: without it, what is there is made again.
_RECORD_ENDING = ".made.json"
#: To be given another value whenever copies look different, so that old ones are made anew.
_COPY_VERSION = 1
_LOOKED_AT_BYTES = 1 << 16


@dataclass(frozen=True)
class ReviewMedia:
    """Addresses relative to the page. `picture`: of the most violent moment; `events`: of each event's; `why`: of the
    picture that explains each event, empty where there is none.

    `missing`: why there is nothing to be seen; empty where there is. `is_copy`: what is played is a copy without sound.
    """

    video: str = ""
    is_copy: bool = False
    picture: str = ""
    events: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    missing: str = ""


def write(
    verdict: Verdict, page_folder: Path, name: str, made_of: str, written: WrittenFiles | None = None
) -> list[Path]:
    """Write pictures, and a copy of a video that browsers do not play; returns what was written.

    Nothing is written where what is there is `made_of` the same, and no copy where that is there of the video as it is
    now: it shows nothing of the verdict. `written`: what is known of the folder of all that, else its record is read.
    Raises UnreadableVideo, or UserError where something cannot be written or a file is not this video's.
    """
    folder = page_folder / MEDIA_FOLDER
    record = folder / f"{name}{_RECORD_ENDING}"
    video, copy = Path(verdict.path), folder / f"{name}.mp4"
    pictures = [folder / ending for ending in _picture_names(verdict, name)]
    made = own_files.json_object(record)
    expected = [*pictures, copy] if made.get("is_copy") else pictures
    if made.get("made_of") == made_of and all(path.is_file() for path in expected):
        return []
    written = written or WrittenFiles(folder)
    written.remove(record, video)
    _write_pictures(video, _moments(verdict), pictures, written)
    wrote = [*pictures]
    is_copy = not browser_video.plays(video)
    if is_copy:
        copy_of = _copy_of(video)
        if writer.comment_of(copy) != copy_of:
            with written.replacing(copy, video) as temporary:
                browser_video.write_copy(video, temporary, copy_of)
            wrote.append(copy)
    else:
        written.remove(copy, video)
    written.write_json(record, video, {"made_of": made_of, "is_copy": is_copy})
    return wrote


def read(
    verdict: Verdict, page_folder: Path, name: str, explained: Path | None = None, explained_name: str = ""
) -> ReviewMedia:
    """What `write` made, as the page names it. `explained`: the folder of --explain, with the video's name there."""
    record = own_files.json_object(page_folder / MEDIA_FOLDER / f"{name}{_RECORD_ENDING}")
    if not record:
        return ReviewMedia(missing="its pictures could not be made; the failures say why")
    picture, *events = (_address(f"{MEDIA_FOLDER}/{n}") for n in _picture_names(verdict, name))
    is_copy = bool(record.get("is_copy"))
    video = _address(f"{MEDIA_FOLDER}/{name}.mp4") if is_copy else _beside(Path(verdict.path), page_folder)
    why = [
        _why(event, n, page_folder, explained_name or name, explained)
        for n, event in enumerate(verdict.events, 1)
    ]
    return ReviewMedia(video, is_copy, picture, tuple(events), tuple(why))


def content_of(video: Path) -> str:
    """A hash of a file's size, beginning, middle and end, which tells it from others of its name; empty: none there."""
    try:
        size = video.stat().st_size
        found = hashlib.sha256(str(size).encode())
        with video.open("rb") as file:
            for start in (0, size // 2, max(size - _LOOKED_AT_BYTES, 0)):
                file.seek(start)
                found.update(file.read(_LOOKED_AT_BYTES))
    except OSError:
        return ""
    return found.hexdigest()[:16]


def _copy_of(video: Path) -> str:
    """What a copy carries as its comment, by which it is known as one of the video as it is now."""
    stat = video.stat()
    return storage.stable_hash([_COPY_VERSION, stat.st_size, stat.st_mtime_ns], digits=32)


def _why(event: Event, number: int, page_folder: Path, name: str, explained: Path | None) -> str:
    """The address of the picture that explains an event; empty where there is none of this one."""
    if explained is None:
        return ""
    picture = explained / explanation_name(name, f"event{number:03d}")
    record = own_files.json_object(picture.with_suffix(".json"))
    start_s, end_s = record.get("start_s"), record.get("end_s")
    if not isinstance(start_s, float) or not isinstance(end_s, float) or not start_s <= event.peak_s <= end_s:
        return ""
    return _beside(picture, page_folder)


def _picture_names(verdict: Verdict, name: str) -> list[str]:
    """That of the whole video, and that of each event."""
    return [f"{name}.jpg", *(f"{name}.event{n:03d}.jpg" for n in range(1, len(verdict.events) + 1))]


def _moments(verdict: Verdict) -> list[float]:
    """When they are taken, in seconds: the middle of the most violent window."""
    most = max(verdict.windows, key=lambda window: window.p_violent)
    return [most.middle_s, *(event.peak_s for event in verdict.events)]


def _write_pictures(
    video: Path, moments_s: Sequence[float], paths: Sequence[Path], written: WrittenFiles
) -> None:
    def numbers(info: decode.VideoInfo) -> list[int]:
        return [sampling.moment_at(info, time_s) for time_s in moments_s]

    info, frames = decode.read(video, numbers, lambda frame: shown.fitted(frame, _PICTURE_HEIGHT))
    for path, number in zip(paths, numbers(info), strict=True):
        with written.replacing(path, video) as temporary:
            writer.picture(temporary, shown.square(frames[number], info.pixel_shape))


def _beside(video: Path, page_folder: Path) -> str:
    """The video's address as the page has it: relative, but on another drive."""
    whole = os.path.abspath(video)  # noqa: PTH100 - as it is named, not where links lead
    try:
        return _address(os.path.relpath(whole, os.path.abspath(page_folder)))  # noqa: PTH100
    except ValueError:
        return Path(whole).as_uri()


def _address(relative: str) -> str:
    """A relative path as an address; "./" so that no name is taken for a protocol."""
    return "./" + quote(os.fsencode(relative.replace(os.sep, "/")))
