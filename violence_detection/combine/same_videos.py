"""Videos that are one file under several names, of which clips are cut: those clips are of one source.

Copies of a clip are found by content (dedupe.py). Of two copies of a long video other windows may be cut, which are
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
    """Pairs of source groups to join, sorted: each has a video that the other has too, cut in at least one of them.

    Only files of one size are read for it. What cannot be read is named in the log and joins nothing.
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
    """Files, two or more, that are equally long."""
    found: dict[int, list[Path]] = defaultdict(list)
    for path in paths:
        try:
            status = path.stat()
        except OSError:  # whoever reads it names it
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size:
            found[status.st_size].append(path)
    return [files for files in found.values() if len(files) > 1]


def _of_one_content(files: Iterable[Path]) -> list[list[Path]]:
    """Files, two or more, with the same content; links to one file are not read."""
    by_file: dict[tuple[int, int], list[Path]] = defaultdict(list)
    for path in files:
        status = path.stat()
        by_file[status.st_dev, status.st_ino].append(path)
    found: dict[str, list[Path]] = defaultdict(list)
    for k, paths in enumerate(by_file.values()):
        try:
            content = storage.sha256_file(paths[0]) if len(by_file) > 1 else ""
        except OSError as e:
            log.warning("%s cannot be compared with videos of its size: %s", paths[0], e.strerror or e)
            content = f"unread {k}"
        found[content] += paths
    return [paths for paths in found.values() if len(paths) > 1]
