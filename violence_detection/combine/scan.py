"""Look at every clip once: content hash, exact frame count, properties and fingerprint, kept in a journal.

One line a file is appended as soon as it is known, keyed by path, size, modification time and the version of
the code that looked. A killed run or a later data set costs only what is not in the journal yet. What may be otherwise
tomorrow (video/video_files.py) is not written down, and not believed where an earlier version did.
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
#: What a scan finds changes with it: to be given another value whenever decoding or fingerprinting gives other results,
#: so that old lines are not believed. Moving or commenting code changes nothing. (The first value was a hash.)
VERSION = "parts"
#: The value before. A line of it stands where the packets of the file say today what it says.
_VERSION_BEFORE = "a7722212dcfc"
#: Of all its lines, and of some: the first were written when a frame's time was its number by the stated rate.
_FIELDS_BEFORE = frozenset({"sha256", "n_frames", "fps", "width", "height", "codec", "fingerprint", "reason"})
_SOME_BEFORE = frozenset({"stated_frames", "duration_s", "by_time", "shortfall"})


@dataclass(frozen=True)
class Scan:
    """What a full read of a file found. With a `reason` it cannot be read and only `sha256` may be set.

    `n_frames` decode, at `fps` or, where the rate varies, at so many moments a second as its liveliest part has frames.
    `by_time`: the frames are found by their time stamps, for the file is not what its header says. `shortfall` says
    what of it does not decode.
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
    """Hash, decode and fingerprint one file. What cannot be read comes back with its reason, never raised."""
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


_NOT_CONFIRMED = Scan(reason="to be read anew")


def _confirmed(item: tuple[Path, Mapping[str, Any]]) -> Scan:
    """A line of the version before, where today's look at the packets says the same; nothing is decoded for that."""
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
    """Scan files (name below the data root -> path); what the journal knows is not read again.

    Returns name -> Scan for every name, in sorted order.
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
    """What the journal's lines of the version before still say rightly, and now as such of today."""
    before = storage.read_journal(journal_path, _FIELDS_BEFORE, _SOME_BEFORE)
    names = {files[name]: name for name in keys}
    old = {path: before.get(journal_key(name, path, _VERSION_BEFORE)) for path, name in names.items()}
    items = [(path, line) for path, line in old.items() if line and not line["reason"]]
    if not items:
        return {}
    console.log.info("%d files known by an earlier version: held against their packets", len(items))
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
    """What a file's line in the journal is found by; empty where the system says nothing of the file."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return storage.stable_hash([name, stat.st_size, stat.st_mtime_ns, version], digits=32)
