"""Which files below a folder are videos that somebody brought there, and not what this suite made of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

#: Folders that hold what this suite makes, or what archivers leave behind.
SKIPPED_FOLDERS = frozenset(
    {"combined_all", "features", "models_ultimate", "models_ensemble", "reports", "__MACOSX", "lost+found"}
)
#: Where clips cut from untrimmed videos stand below the data root, and the file that tells it is ours.
WINDOWS_FOLDER, WINDOWS_JOURNAL = "windows", ".cut.jsonl"


def is_video(name: str) -> bool:
    """Whether a file of this name is a video; hidden files are none."""
    from violence_detection.video.decode import VIDEO_SUFFIXES

    return Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")


def is_skipped(folder: Path) -> bool:
    """Hidden folders, and what this suite makes; `windows` is a name that others use as well."""
    if folder.name == WINDOWS_FOLDER:
        return (folder / WINDOWS_JOURNAL).is_file()
    return folder.name.startswith(".") or folder.name in SKIPPED_FOLDERS


def videos_below(root: Path, seen: set[str], unlisted: Callable[[Path, str], None]) -> Iterator[Path]:
    """All video files below `root`, links to folders followed. A link to a file that is gone counts as a file.

    No folder whose real path is in `seen` is looked into; those looked into are added. Folders that the system does not
    list, and all that is in them, are told to `unlisted`, with the reason.
    """

    def failed(e: OSError) -> None:
        unlisted(Path(e.filename), f"this folder cannot be listed, so nothing in it was seen: {e.strerror}")

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=failed):
        real = os.path.realpath(folder)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(s for s in subfolders if not is_skipped(Path(folder, s)))
        yield from (Path(folder, name) for name in sorted(names) if is_video(name))
