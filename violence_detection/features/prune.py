"""Finds and deletes cached features that are no longer used: of other settings, or of clips not in the manifest.

Only folders with a cache's record are considered, and nothing is deleted that was written recently.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from violence_detection.backbones import registry
from violence_detection.features import cache, key
from violence_detection.features.config import FeatureConfig
from violence_detection.system import storage
from violence_detection.system.disks import gigabytes

log = logging.getLogger(__name__)
#: A folder or an entry that was written more recently than this, in seconds, may still be in use by a writer.
_AT_REST_S = 600.0
#: The files that a cache writes to its folder besides the record. Others belong to somebody else and are kept.
_OWN_FILES = ("*.npz", cache.VERIFIED_NAME, cache.LOCK_NAME, "engine-*.json", "rates.json", ".*.tmp.*")


@dataclass(frozen=True)
class Unused:
    """Unused entries of a folder, or if `entries` is None the whole folder.

    `idle_s`: seconds since anything was written to it, if it is a whole folder; otherwise 0.
    """

    folder: Path
    what: str
    size_bytes: int
    entries: tuple[Path, ...] | None
    idle_s: float

    @property
    def in_use(self) -> bool:
        return self.entries is None and self.idle_s < _AT_REST_S


def find(
    data_root: Path, config: FeatureConfig, weights_file: Path | None, clip_ids: Collection[str]
) -> list[Unused]:
    """What the settings and the clips `clip_ids` do not use below `<root>/features`.

    Raises UserError if a backbone's weights cannot be had: their checksum is part of a folder's key.
    """
    weights_file = registry.handed_over(config.backbone, weights_file)
    used = {
        key.folder_of(data_root, key.record(config, name, stream, weights))
        for name in config.backbone
        for weights in [registry.get(name).weights_file(weights_file)]
        for stream in key.for_backbone(config, name).streams
    }
    found = []
    now_s = storage.clock_s(data_root / "features")
    for record in sorted((data_root / "features").glob(f"*/{cache.RECORD_NAME}")):
        folder = record.parent
        if not _is_cache(record):
            log.warning("%s is not a record of cached features, so %s is kept", record, folder)
        elif folder not in used:
            found.append(_whole_folder(folder, now_s))
        else:
            strangers = _statuses(p for p in _entries(folder) if p.stem not in clip_ids)
            stale = {p: s for p, s in strangers.items() if now_s - s.st_mtime > _AT_REST_S}
            size = sum(s.st_size for s in stale.values())
            what = f"{len(stale)} clips that are not in the manifest"
            found += [Unused(folder, what, size, tuple(stale), 0.0)] if stale else []
    return found


def _is_cache(record: Path) -> bool:
    try:
        made = storage.read_json(record)
    except (OSError, ValueError):
        return False
    return isinstance(made, dict) and {"backbone", "stream"} <= set(made)


def _files(folder: Path) -> list[Path]:
    """The files that the cache has written to its folder, the record last."""
    ours = [
        p
        for p in sorted(folder.iterdir())
        if any(fnmatch(p.name, own) for own in _OWN_FILES) and not p.is_dir()
    ]
    return [*ours, folder / cache.RECORD_NAME]


def _entries(folder: Path) -> list[Path]:
    """The finished entries. The name of one that is still being written begins with a dot."""
    return sorted(p for p in folder.glob("*.npz") if not p.name.startswith(".") and not p.is_dir())


def _statuses(paths: Iterable[Path]) -> dict[Path, os.stat_result]:
    """The status of each file that still exists: a run that writes to the folder renames files meanwhile."""
    found = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found[path] = path.stat()
    return found


def _whole_folder(folder: Path, now_s: float) -> Unused:
    made = storage.read_json(folder / cache.RECORD_NAME)
    files = _statuses(_files(folder)).values()
    entries = len(_entries(folder))
    settings = ", ".join(f"{k} {made.get(k)}" for k in ("backbone", "stream", "frames", "window_s"))
    idle_s = now_s - max((s.st_mtime for s in files), default=now_s)
    return Unused(folder, f"{entries} clips; {settings}", sum(s.st_size for s in files), None, idle_s)


def report(unused: Sequence[Unused]) -> None:
    """Log the size, the folder and the content of each."""
    for part in unused:
        note = f" (written to {part.idle_s:.0f} s ago: kept)" if part.in_use else ""
        log.info("%9s  %s: %s%s", gigabytes(part.size_bytes), part.folder, part.what, note)


def delete(unused: Sequence[Unused]) -> int:
    """Delete all but folders that may still be written to (`in_use`); returns the number of bytes freed."""
    freed = 0
    for part in unused:
        if part.in_use:
            continue
        if part.entries is None:
            _delete_folder(part.folder)
        for path in part.entries or ():
            path.unlink(missing_ok=True)
        freed += part.size_bytes
    return freed


def _delete_folder(folder: Path) -> None:
    """Delete a cache's files, and its folder if that is then empty.

    The record goes last, so that after a run that was killed the next one still recognises the folder.
    """
    for path in _files(folder):
        path.unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:
        log.warning("%s contains files that are not the cache's, and is kept", folder)
