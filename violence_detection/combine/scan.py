"""Read every clip once for its content hash, exact frame count, properties and fingerprint; keep these in a journal.

A file's line is appended as soon as the file has been read; its key consists of path, size, modification time and code
version. So after a killed run, or with a further data set, only files without a line are read. Failures that may not
occur again (see video/video_files.py) are not recorded, and ignored where an earlier version recorded them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from violence_detection.combine import fingerprint
from violence_detection.errors import UnreadableVideo
from violence_detection.system import console, storage
from violence_detection.video import decode, video_files

JOURNAL_NAME = ".scan.jsonl"
#: Change this whenever decoding or fingerprinting gives different results, so that old lines no longer count. Moving or
#: commenting code needs no change. (The first value was a hash.)
VERSION = "parts"
#: The previous value. A line with it still counts if the file's packets agree with it today.
_VERSION_BEFORE = "a7722212dcfc"
#: Fields of every line of the previous version, and fields that only some of them have: the oldest lines date from when
#: a frame's time was computed from its number and the stated frame rate.
_FIELDS_BEFORE = frozenset({"sha256", "n_frames", "fps", "width", "height", "codec", "fingerprint", "reason"})
_SOME_BEFORE = frozenset({"stated_frames", "duration_s", "by_time", "shortfall"})


@dataclass(frozen=True)
class Scan:
    """The result of reading a whole file. If `reason` is set, the file cannot be read, and all other fields are empty.

    `n_frames`: number of frames that decode. `fps`: the frame rate or, if it varies, the number of moments per second,
    which is that of frames in the video's liveliest part. `by_time`: frames are found by their time stamps because the
    file differs from its header. `shortfall`: which part does not decode, and why; empty if all does.
    """

    sha256: str = ""
    n_frames: int = 0
    duration_s: float = 0.0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    codec: str = ""
    fingerprint: str = ""
    by_time: bool = False
    shortfall: str = ""
    reason: str = ""


def scan_file(path: Path) -> Scan:
    """Hash, decode and fingerprint one file. For a file that cannot be read, a Scan with the reason is returned."""
    try:
        sha256 = storage.sha256_file(path)
        info, print_ = fingerprint.of_video(path)
    except UnreadableVideo as e:
        return Scan(reason=e.reason)
    except OSError as e:
        return Scan(reason=video_files.cannot_be_read(path, e))
    return Scan(
        sha256=sha256,
        n_frames=info.n_decoded,
        duration_s=round(info.played_s, 3),
        fps=info.fps,
        width=info.width,
        height=info.height,
        codec=info.codec,
        fingerprint=print_,
        by_time=not info.as_stated,
        shortfall=info.shortfall(),
    )


_NOT_CONFIRMED = Scan(reason="to be read again")


def _confirmed(item: tuple[Path, Mapping[str, Any]]) -> Scan:
    """Turn a line of the previous version into a Scan if the file's packets agree with it; nothing is decoded."""
    path, line = item
    try:
        info = decode.timing(path)
    except (UnreadableVideo, OSError):
        return _NOT_CONFIRMED
    told: dict[str, Any] = {
        "n_frames": info.n_decoded,
        "duration_s": round(info.played_s, 3),
        "fps": info.fps,
        "by_time": not info.as_stated,
        "shortfall": info.shortfall(),
    }
    kept = {"by_time": False} | {name: value for name, value in line.items() if name != "stated_frames"}
    if any(kept.get(name, value) != value for name, value in told.items()):
        return _NOT_CONFIRMED
    return Scan(**told | kept)


def _failed(_: Path, reason: str) -> Scan:
    return Scan(reason=reason)


def scan_all(files: Mapping[str, Path], journal_path: Path, workers: int) -> dict[str, Scan]:
    """Scan files (name below the data root -> path) with `workers` processes; 0: one per core.

    Files in the journal are not read again. Returns name -> Scan for every name, in sorted order.
    """
    keys = {name: journal_key(name, path) for name, path in sorted(files.items())}
    known = storage.read_journal(journal_path, frozenset(Scan.__dataclass_fields__))
    found = {
        name: Scan(**known[key])
        for name, key in keys.items()
        if key in known and not video_files.may_pass(known[key]["reason"])
    }
    rest = {name: key for name, key in keys.items() if name not in found}
    found |= _confirm(rest, files, journal_path, workers)
    todo = {files[name]: name for name in keys if name not in found}
    console.log.info("%d files: %d known, %d to read", len(keys), len(found), len(todo))
    with console.progress(total=len(todo), desc="scan", unit="clip", disable=not todo) as bar:
        for name, scan in _scan_and_record(todo, keys, journal_path, workers):
            found[name] = scan
            bar.update()
    if n := sum(video_files.may_pass(scan.reason) for scan in found.values()):
        console.log.warning("%d of them could not be read now; the next run tries them again", n)
    return {name: found[name] for name in keys}


def _confirm(
    keys: Mapping[str, str], files: Mapping[str, Path], journal_path: Path, workers: int
) -> dict[str, Scan]:
    """Return the scans of the previous version that still hold, and record them as lines of the present version."""
    before = storage.read_journal(journal_path, _FIELDS_BEFORE, _SOME_BEFORE)
    names = {files[name]: name for name in keys}
    old = {path: before.get(journal_key(name, path, _VERSION_BEFORE)) for path, name in names.items()}
    items = [(path, line) for path, line in old.items() if line and not line["reason"]]
    if not items:
        return {}
    console.log.info(
        "%d files known from an earlier version: checking them against their packets", len(items)
    )
    found = {}
    with (
        storage.appending_journal(journal_path) as record,
        console.progress(total=len(items), desc="packets", unit="clip") as bar,
    ):
        for (path, _), scan in video_files.map_files(
            _confirmed, items, workers, lambda i: i[0], _not_confirmed
        ):
            if not scan.reason:
                found[names[path]] = scan
                record(keys[names[path]], asdict(scan))
            bar.update()
    return found


def _not_confirmed(_: tuple[Path, Mapping[str, Any]], reason: str) -> Scan:
    return _NOT_CONFIRMED


def _scan_and_record(
    todo: Mapping[Path, str], keys: Mapping[str, str], journal_path: Path, workers: int
) -> Iterator[tuple[str, Scan]]:
    if not todo:
        return
    with storage.appending_journal(journal_path) as record:
        for path, scan in video_files.map_files(scan_file, todo, workers, lambda path: path, _failed):
            if keys[todo[path]] and not video_files.may_pass(scan.reason):
                record(keys[todo[path]], asdict(scan))
            yield todo[path], scan


def journal_key(name: str, path: Path, version: str = VERSION) -> str:
    """Return the key of a file's line in the journal; empty if the file's status cannot be read."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return storage.stable_hash([name, stat.st_size, stat.st_mtime_ns, version], digits=32)
