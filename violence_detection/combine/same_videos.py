"""Find identical video files among the long videos, so that all clips cut from them get one source group.

dedupe.py finds copies of clips by content. But from two copies of a long video different windows may be cut, which are
copies of nothing and need not look alike.
"""

from __future__ import annotations

import logging
import stat
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from violence_detection.find.inventory import Inventory
from violence_detection.system import storage

log = logging.getLogger(__name__)


def shared_sources(found: Inventory) -> list[tuple[str, str]]:
    """Find the pairs of source groups to join, sorted: both contain the same video, and at least one has it cut.

    Only files that share their size with another are read. A file that cannot be read is logged and joins nothing.
    """
    cut = {clip.path for dataset in found.datasets for clip in dataset.needs_cutting}
    sources: dict[Path, set[str]] = defaultdict(set)
    for dataset in found.datasets:
        for clip in (*dataset.needs_cutting, *dataset.clips):
            sources[clip.path].add(clip.source_group)
    pairs = set()
    for files in _of_one_size(sources):
        if cut.isdisjoint(files):
            continue
        for same in _of_one_content(files):
            if not cut.isdisjoint(same):
                first, *others = sorted({group for path in same for group in sources[path]})
                pairs |= {(first, other) for other in others}
    return sorted(pairs)


def _of_one_size(paths: Iterable[Path]) -> list[list[Path]]:
    """Group the non-empty regular files by size; return the groups of two or more."""
    found: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            status = path.stat()
        except OSError:  # reported when the file is scanned or cut
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size:
            found[status.st_size].append(path)
    return [files for files in found.values() if len(files) > 1]


def _of_one_content(files: Iterable[Path]) -> list[list[Path]]:
    """Group files by content; return the groups of two or more. If all are links to one file, it is not read."""
    by_file: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path in files:
        status = path.stat()
        by_file[status.st_dev, status.st_ino].append(path)
    found: dict[str, list[Path]] = defaultdict(list)
    for k, paths in enumerate(by_file.values()):
        try:
            content = storage.sha256_file(paths[0]) if len(by_file) > 1 else ""
        except OSError as e:
            log.warning("cannot compare %s with the videos of the same size: %s", paths[0], e.strerror or e)
            content = f"unread {k}"
        found[content] += paths
    return [paths for paths in found.values() if len(paths) > 1]
