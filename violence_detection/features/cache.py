"""The feature cache: one file per clip and stream, in it one member per variant, each with a checksum.

    <root>/features/<backbone>-<confighash>/record.json       everything that changes the values
    <root>/features/<backbone>-<confighash>/<clip_id>.npz     members v0, v1, ..., w1, ...: (T, C) float16
    <root>/features/<backbone>-<confighash>/engine-<name>.json   an engine that may write here
    <root>/features/<backbone>-<confighash>/verified.json     entries whose checksums have been compared
Each stream has a folder of its own, because its record differs. Each member of the zip has a CRC-32, which every read
compares. So a damaged entry is noticed at the latest when it is read; it is then named in the log and extracted again.

Several processes, on several machines that share the volume, may write at the same time. An entry appears whole, by a
rename. To add variants to an entry, a process reads, merges and writes it under the folder's lock.

An entry counts as verified while its size and modification time are those in verified.json, so that a run need not read
the whole cache when it starts. That file only saves time: without it, the next run reads the whole cache once. Damage
that changes neither size nor time is found when the entry is read.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.errors import UserError
from violence_detection.features import key
from violence_detection.system import locks, storage

log = logging.getLogger(__name__)
RECORD_NAME = "record.json"
VERIFIED_NAME = "verified.json"
LOCK_NAME = "write.lock"
#: Number of new notes at which verified.json is written without being asked to (`VerifiedIndex.save`).
_SAVE_AFTER = 500
#: In a large cache it takes more: one for this many notes in the file, since each writing reads and rewrites them all.
_SAVE_PART = 10

#: Held while NumPy reads the header of an array. NumPy compiles the header, which in Python 3.11 can fail if several
#: threads do it at once ("AST constructor recursion depth mismatch").
READING_HEADERS = threading.Lock()
#: Shared by all indexes, because an index with a lock of its own could not be pickled.
_mutex = threading.RLock()

Stamp = tuple[int, int]
Note = tuple[Stamp, frozenset[str]]
_ENGINE_PREFIX = "engine-"
#: Marks an entry whose frames were found by their time stamps: a member of the zip, and a name among the variants.
BY_TIME = "_by_time"
_MADE_BY = "_made_by"  # a member that is not a variant: JSON as bytes, variant -> engine and precision
_DAMAGE = (zipfile.BadZipFile, zlib.error, ValueError, OSError, EOFError, KeyError, RuntimeError)


@dataclass(frozen=True)
class FeatureStore:
    """The cached features of one backbone and stream.

    `reextract`: extracts a clip's features again, given its id. Called when a clip's entry is missing or damaged.
    """

    folder: Path
    reextract: Callable[[str], None] | None = field(default=None, compare=False, repr=False)
    index: VerifiedIndex = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", VerifiedIndex(self.folder))

    @classmethod
    def open(
        cls, root: Path, record: Mapping[str, Any], reextract: Callable[[str], None] | None = None
    ) -> FeatureStore:
        """The store for a record, in its folder below `<root>/features`, which is made if need be.

        Raises UserError if there is a folder where record.json belongs.
        """
        folder = key.folder_of(root, record)
        if not _is_recorded(folder / RECORD_NAME, record):
            _write_note(folder / RECORD_NAME, record)
        return cls(folder, reextract)

    def path(self, clip_id: str) -> Path:
        return self.folder / f"{clip_id}.npz"

    def engines(self) -> dict[str, dict[str, Any]]:
        """The engines that may write here, each with what was measured when it was compared with others' features.

        See engine_check.
        """
        files = sorted(self.folder.glob(f"{_ENGINE_PREFIX}*.json"))
        return {path.stem.removeprefix(_ENGINE_PREFIX): _measured(path) for path in files}

    def is_empty(self) -> bool:
        """Whether the store has no entries."""
        return not any(self.folder.glob("[!.]*.npz"))

    def note_engine(self, name: str, **measured: Any) -> None:
        """Record that an engine may write here. `measured`: its relative_error to others' features, on which clips.

        Raises UserError if there is a folder where engine-<name>.json belongs.
        """
        _write_note(self.folder / f"{_ENGINE_PREFIX}{name}.json", {"relative_error": None, **measured})

    def variants(self, clip_id: str, *, verify: bool = True) -> frozenset[str] | None:
        """The variants in a clip's entry, all undamaged: empty if there is no entry, None if the entry is damaged.

        Among them is BY_TIME if the frames were found by their time stamps. `verify`: compare the checksums even if the
        entry has not changed since they were last compared. Raises UserError if there is a folder where the entry
        belongs.
        """
        path = self.path(clip_id)
        now = stamp(path)
        if now is None:
            return frozenset()
        if not verify and (noted := self.index.variants(clip_id, now)) is not None:
            return noted
        try:
            with _opened(path) as archive:
                whole = archive.testzip() is None
                names = _variants(n.removesuffix(".npy") for n in archive.namelist())
        except _DAMAGE:
            whole = False
        if not whole:
            self.index.forget(clip_id)
            return None
        self.index.note(clip_id, now, names)
        return names

    def add(
        self, clip_id: str, values: Mapping[str, np.ndarray], engine: str, *, by_time: bool = False
    ) -> None:
        """Write variants, keeping those that the entry already has. `values`: name -> (T, C).

        `by_time`: the frames were found by their time stamps; variants in the entry whose frames were not are dropped.
        Raises ValueError if a value is not finite in float16.
        """
        new = {name: v.astype(np.float16) for name, v in values.items()}
        for name, value in new.items():
            if not np.isfinite(value).all():
                raise ValueError(f"{clip_id} {name}: some values are not finite in float16")
        path = self.path(clip_id)
        with locks.locked(self.folder / LOCK_NAME):
            before = self._whole_members(clip_id)
            merged = (before if BY_TIME in before or not by_time else {}) | new
            if by_time:
                merged[BY_TIME] = np.array(True)
            made_by = _made_by(merged) | dict.fromkeys(new, engine)
            merged[_MADE_BY] = np.frombuffer(json.dumps(made_by, sort_keys=True).encode(), np.uint8)
            with storage.atomic_path(path) as temporary, temporary.open("wb") as f:
                np.savez(f, **merged)  # type: ignore[arg-type]  # numpy < 2.1 has no allow_pickle to tell apart
            now = stamp(path)
        if now is not None:
            self.index.note(clip_id, now, _variants(merged))

    def read(self, clip_id: str, variants: Sequence[str]) -> np.ndarray:
        """Variants of a clip as (V, T, C) float16. An entry that is missing or damaged is extracted again.

        Raises UserError, naming the entry, if that fails.
        """
        try:
            return self._stacked(clip_id, variants)
        except _DAMAGE as e:
            self.restore(clip_id, e)
        try:
            return self._stacked(clip_id, variants)
        except _DAMAGE as e:
            raise UserError(
                f"{self.path(clip_id)} was extracted again and is damaged again ({e}). Check the disk"
            ) from e

    def restore(self, clip_id: str, reason: object) -> None:
        """Extract again an entry that was found missing or damaged, and log that.

        Raises UserError, naming the entry, if this store cannot extract; then the next extraction makes the entry.
        """
        self.index.forget(clip_id)
        self.index.save()
        found = f"the cached feature {self.path(clip_id)} is missing or damaged ({reason})"
        if self.reextract is None:
            raise UserError(f"{found}. Run the same command again, which extracts it again")
        log.warning("%s: extracting it again", found)
        self.reextract(clip_id)

    def _stacked(self, clip_id: str, variants: Sequence[str]) -> np.ndarray:
        members = self._members(clip_id, variants)
        return np.stack([members[v] for v in variants])

    def _whole_members(self, clip_id: str) -> dict[str, np.ndarray]:
        """All members of an entry; none if there is no entry or it is damaged."""
        try:
            return self._members(clip_id)
        except _DAMAGE:
            return {}

    def engines_of(self, clip_id: str) -> dict[str, str]:
        """Variant -> the name of the engine, which includes its precision, that made this variant of a clip."""
        return _made_by(self._members(clip_id, [_MADE_BY]))

    def _members(self, clip_id: str, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Members by name, all by default. The checksum of each is compared before its bytes are interpreted."""
        with _opened(self.path(clip_id)) as archive:
            if names is None:
                names = [n.removesuffix(".npy") for n in archive.namelist()]
            members = {n: io.BytesIO(archive.read(f"{n}.npy")) for n in names}
        with READING_HEADERS:
            return {n: np.load(member, allow_pickle=False) for n, member in members.items()}


def _opened(path: Path) -> zipfile.ZipFile:
    """Open an entry's file. Raises UserError if there is a folder of that name, which is not the cache's to remove."""
    try:
        return zipfile.ZipFile(path)
    except IsADirectoryError as e:
        raise _in_the_way(path, "a cached feature") from e


def _in_the_way(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} is a folder, but {what} belongs there. Move the folder away and run the same command again"
    )


def _write_note(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as storage.write_json does. Raises UserError if there is a folder of that name."""
    if path.is_dir():
        raise _in_the_way(path, "a file of the feature cache")
    storage.write_json(path, value)


def _is_recorded(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether the file contains the record; in a folder that was copied only in part it may not."""
    try:
        return storage.as_json(storage.read_json(path), sort_keys=True) == storage.as_json(
            record, sort_keys=True
        )
    except (OSError, UserError):
        return False


def _measured(path: Path) -> dict[str, Any]:
    """What was measured of an engine; nothing if the file is damaged, so that the engine is measured again."""
    nothing = {"relative_error": None}
    try:
        found = storage.read_json(path)
    except (OSError, UserError):
        return nothing
    return nothing | found if isinstance(found, dict) else nothing


def outdated(variants: frozenset[str], by_time: bool) -> bool:
    """Whether an entry has variants whose frames were found by number although they must be found by time stamp.

    `variants`: of the entry, as FeatureStore.variants returns them. `by_time`: the clip needs time stamps.
    """
    return by_time and bool(variants) and BY_TIME not in variants


def _variants(members: Iterable[str]) -> frozenset[str]:
    return frozenset(name for name in members if name == BY_TIME or not name.startswith("_"))


def engines_by_input(stores: Mapping[str, FeatureStore]) -> dict[str, list[str]]:
    """Model input -> the engines that may have made features in its store."""
    return {name: sorted(store.engines()) for name, store in stores.items()}


def _made_by(members: Mapping[str, np.ndarray]) -> dict[str, str]:
    return json.loads(members[_MADE_BY].tobytes()) if _MADE_BY in members else {}


def stamp(path: Path) -> Stamp | None:
    """(size in bytes, modification time in ns) of a file; None if it does not exist."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_size, status.st_mtime_ns


class VerifiedIndex:
    """The notes in one folder's verified.json, to which several processes may add. Safe to use from several threads."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._known: dict[str, Note] = {}
        self._changed: dict[str, Note | None] = {}
        self.reload()
        self._save_after = self._together()

    def reload(self) -> None:
        """Read what other processes have noted since."""
        with _mutex:
            self._known = _read(self.folder / VERIFIED_NAME)
            for clip_id, note in self._changed.items():
                if note:
                    self._known[clip_id] = note
                else:
                    self._known.pop(clip_id, None)

    def variants(self, clip_id: str, now: Stamp) -> frozenset[str] | None:
        """The variants of an entry that was verified and has not changed since; otherwise None. `now`: its stamp."""
        noted = self._known.get(clip_id)
        return noted[1] if noted and noted[0] == now else None

    def note(self, clip_id: str, now: Stamp, variants: Iterable[str]) -> None:
        """Note that an entry with stamp `now` is whole: it was read without damage, or has just been written."""
        with _mutex:
            self._known[clip_id] = self._changed[clip_id] = (now, frozenset(variants))
            if len(self._changed) >= self._save_after:
                self.save()

    def forget(self, clip_id: str) -> None:
        """Drop the note on an entry that is damaged or gone, even if its size and time are those noted."""
        with _mutex:
            self._known.pop(clip_id, None)
            self._changed[clip_id] = None

    def save(self) -> None:
        """Add new notes to the file, keeping those that other processes have added. Logs a warning if that fails."""
        with _mutex:
            if not self._changed:
                return
            try:
                self._write()
            except OSError as e:
                self._save_after = len(self._changed) + self._together()
                _warn_not_noted(self.folder, e.strerror or str(e))
            else:
                self._changed, self._save_after = {}, self._together()

    def _together(self) -> int:
        return max(_SAVE_AFTER, len(self._known) // _SAVE_PART)

    def _write(self) -> None:
        with locks.locked(self.folder / LOCK_NAME):
            self.reload()
            notes = {
                clip: [*at, " ".join(sorted(names))] for clip, (at, names) in sorted(self._known.items())
            }
            storage.write_text(self.folder / VERIFIED_NAME, json.dumps(notes) + "\n")


@functools.cache
def _warn_not_noted(folder: Path, why: str) -> None:
    log.warning(
        "cannot write %s (%s): it does not record which entries were verified, and the next run verifies them again",
        folder / VERIFIED_NAME, why,
    )  # fmt: skip


def _read(path: Path) -> dict[str, Note]:
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        return {clip: ((size, time), frozenset(names.split())) for clip, (size, time, names) in noted.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # absent or damaged: nothing is noted
        return {}
