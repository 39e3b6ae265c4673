"""Cached features that nothing uses any more: folders of other settings, entries of clips that left the manifest.

Only folders with a cache's record are looked at, and nothing is deleted that was written to a moment ago.
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
#: A folder or an entry written so recently may have a writer.
_AT_REST_S = 600.0
#: What stands in a cache's folder beside the record; other files there are somebody's own.
_OWN_FILES = ("*.npz", cache.VERIFIED_NAME, cache.LOCK_NAME, "engine-*.json", "rates.json", ".*.tmp.*")


@dataclass(frozen=True)
class Unused:
    """Entries of a folder that are not used; all of it if `entries` is None."""

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
    """What the settings and the manifest's clips do not use, below `<root>/features`.

    Raises UserError if a backbone's weights cannot be had: they are part of a folder's key.
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
            log.warning("%s is no record of cached features, so %s stays", record, folder)
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
    """What the cache has written into its folder, the record last."""
    ours = [
        p
        for p in sorted(folder.iterdir())
        if any(fnmatch(p.name, own) for own in _OWN_FILES) and not p.is_dir()
    ]
    return [*ours, folder / cache.RECORD_NAME]


def _entries(folder: Path) -> list[Path]:
    """The finished entries; what is being written has a name that begins with a dot."""
    return sorted(p for p in folder.glob("*.npz") if not p.name.startswith(".") and not p.is_dir())


def _statuses(paths: Iterable[Path]) -> dict[Path, os.stat_result]:
    """Size and time of those that are still there: a run that writes there renames its files meanwhile."""
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
    """Log a line for each."""
    for part in unused:
        note = f" (written to {part.idle_s:.0f} s ago: kept)" if part.in_use else ""
        log.info("%9s  %s: %s%s", gigabytes(part.size_bytes), part.folder, part.what, note)


def delete(unused: Sequence[Unused]) -> int:
    """Delete what has no writer; returns the bytes that are free now."""
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
    """Delete a cache, record last; a killed run's next one goes on. The folder stays if it holds anything else."""
    for path in _files(folder):
        path.unlink(missing_ok=True)
    try:
        folder.rmdir()
    except OSError:
        log.warning("%s holds files that are none of the cache's, and stays", folder)
