"""The media of the review page: each video or a copy of it that browsers can play, and pictures of its events."""

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
#: Ending of the record, which is written last: media without a record are made again.
_RECORD_ENDING = ".made.json"
#: Increase it whenever copies come to look different, so that old copies are made again.
_COPY_VERSION = 1
#: Size of each of the three parts of a file that content_of hashes.
_LOOKED_AT_BYTES = 1 << 16


@dataclass(frozen=True)
class ReviewMedia:
    """The addresses of a video's media, relative to the page.

    `video`: what is played. `is_copy`: whether that is a copy without sound. `picture`: a picture of the most violent
    moment. `events`: a picture of each event's most violent moment. `why`: the picture that explains each event; empty
    if there is none. `missing`: why there are no media; empty if there are.
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
    """Write the pictures, and a copy if browsers cannot play the video; return what was written.

    `name`: the beginning of the files' names. `made_of`: a hash of what the media depend on; nothing is written if all
    media with the same one are there. An existing copy of the video as it is now is kept even if the verdict changed,
    as it shows nothing of the verdict. `written`: the record of the media folder, which is otherwise read. Raises
    UnreadableVideo, or UserError if a file cannot be written or one of that name belongs to something else.
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
    """The media that `write` made. `explained`: the folder of --explain; `explained_name`: the video's name there."""
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
    """A hash of a file's size, beginning, middle and end, to tell it from others of its name; empty if unreadable."""
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
    """The comment in a copy's metadata, by which it is recognised as made of the video as it is now."""
    stat = video.stat()
    return storage.stable_hash([_COPY_VERSION, stat.st_size, stat.st_mtime_ns], digits=32)


def _why(event: Event, number: int, page_folder: Path, name: str, explained: Path | None) -> str:
    """The address of the picture that explains an event; empty if there is none, or it explains another event."""
    if explained is None:
        return ""
    picture = explained / explanation_name(name, f"event{number:03d}")
    record = own_files.json_object(picture.with_suffix(".json"))
    start_s, end_s = record.get("start_s"), record.get("end_s")
    if not isinstance(start_s, float) or not isinstance(end_s, float) or not start_s <= event.peak_s <= end_s:
        return ""
    return _beside(picture, page_folder)


def _picture_names(verdict: Verdict, name: str) -> list[str]:
    """The picture of the whole video, then that of each event."""
    return [f"{name}.jpg", *(f"{name}.event{n:03d}.jpg" for n in range(1, len(verdict.events) + 1))]


def _moments(verdict: Verdict) -> list[float]:
    """The times of the pictures in seconds: the middle of the video's, then of each event's most violent window."""
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
    """A file's address on the page: relative, or absolute if it is on another drive."""
    whole = os.path.abspath(video)  # noqa: PTH100 - the path as given, without resolving links
    try:
        return _address(os.path.relpath(whole, os.path.abspath(page_folder)))  # noqa: PTH100
    except ValueError:
        return Path(whole).as_uri()


def _address(relative: str) -> str:
    """A relative path as an address. "./" keeps the browser from taking a name with a colon for a protocol."""
    return "./" + quote(os.fsencode(relative.replace(os.sep, "/")))
