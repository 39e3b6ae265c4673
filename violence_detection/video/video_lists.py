"""Expand the arguments of a command into videos and streams: paths, patterns such as `night*.mp4`, lists of either."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from violence_detection.errors import DamagedFile, UserError
from violence_detection.system import folders, redaction, settings, storage
from violence_detection.video import sources
from violence_detection.video.sources import GROWING

#: Files with these suffixes are lists; other files are named as lists by `@FILE`.
LIST_SUFFIXES = (".txt", ".m3u")
#: No path contains this byte, so a file with it is not a list.
_NO_PATHS = b"\0"


def expanded(given: Sequence[str]) -> list[str]:
    """Each path and stream that the arguments mean, once, in their order; what a pattern finds is sorted.

    Folders are returned as they are. A text that is both a pattern and the name of a file means that file. Raises one
    UserError that names everything wrong: patterns that match nothing, lists and paths that do not exist, also those in
    lists, and addresses that cannot be parsed.
    """
    found: dict[str, None] = {}
    wrong: list[UserError] = []
    for item in given:
        try:
            found |= dict.fromkeys(_expand(item))
        except UserError as e:
            wrong.append(e)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        raise UserError("; ".join(map(str, wrong)))
    return list(found)


def is_list(text: str) -> bool:
    """Whether an argument is a list of videos or streams: `@FILE`, or an existing .txt or .m3u file.

    If a file's own name begins with @, its name means that file.
    """
    path = Path(text)
    return (text.startswith("@") and not is_there(path)) or (
        path.suffix.lower() in LIST_SUFFIXES and is_there(path) and path.is_file()
    )


def is_there(path: Path) -> bool:
    """Whether there is such a file or folder. Never raises, unlike Path.exists for an address that is too long."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _expand(text: str) -> Iterator[str]:
    path = Path(text)
    if is_there(path):
        yield from _listed(path) if path.is_file() and path.suffix.lower() in LIST_SUFFIXES else [text]
    elif sources.is_stream(sources.named(text)[1]):
        yield text
    elif text.startswith("@"):
        yield from _listed(Path(text[1:]))
    elif glob.has_magic(text):
        found = _glob(text)
        if not found:
            raise UserError(f"no file or folder matches {redaction.mistyped(text)}")
        yield from found
    else:
        raise UserError(f"no file or folder at {redaction.mistyped(text)}")


def _listed(file: Path) -> Iterator[str]:
    """Yield what a list names: on each line a path, relative to the list's folder, a pattern or a stream.

    Lines that begin with # are comments. A stream keeps its name, if it has one (`front=rtsp://...`).
    """
    if not file.is_file():
        raise UserError(f"no list of videos at {file}")
    data = file.read_bytes()
    if _NO_PATHS in data:
        raise DamagedFile(f"{file} is not a list of videos: it is not a text file")
    text = data.decode("utf-8-sig", errors="surrogateescape")
    entries = [(n, line.strip()) for n, line in enumerate(storage.lines(text), 1)]
    entries = [(n, entry) for n, entry in entries if entry and not entry.startswith("#")]
    if not entries:
        raise UserError(
            f"{file} names no video and no camera. Write a path, a pattern or an address on each line"
        )
    for number, entry in entries:
        try:
            name, meant = sources.named(entry)
            means_stream = sources.is_stream(meant)
        except UserError as e:
            raise UserError(f"{file}, line {number}: {e}") from None
        if means_stream and re.search(r"://.*\s#", meant):
            raise UserError(
                f"{file}, line {number}: a comment must be on a line of its own, not behind an address"
            )
        path = file.parent / settings.expanded(Path(entry))
        if means_stream and not is_there(path):
            yield f"{name}={_relative_to_list(file, meant)}" if name else _relative_to_list(file, meant)
        elif is_there(path):
            yield str(path)
        elif glob.has_magic(entry) and (found := _glob(entry, file.parent)):
            yield from found
        else:
            # show the entry and not the path, in which `://` has become `:/`, so that a login would not be recognised
            raise UserError(
                f"{file}, line {number}: nothing at {redaction.mistyped(entry)} (paths are relative to the list's "
                "folder)"
            )


def _relative_to_list(file: Path, stream: str) -> str:
    """A stream of a list; the path of a growing file is taken as relative to the list's folder."""
    behind = stream.removeprefix(GROWING)
    return stream if behind == stream else f"{GROWING}{file.parent / settings.expanded(Path(behind))}"


def _glob(pattern: str, folder: Path = Path()) -> list[str]:
    """What a pattern matches below a folder, sorted; `**` is any number of folders, each real one entered once."""
    return sorted({str(path) for path in _matches(Path(pattern), folder)})


def _matches(pattern: Path, folder: Path) -> Iterator[Path]:
    if "**" not in pattern.parts:
        found = glob.glob(str(pattern), root_dir=folder)  # noqa: PTH207 - patterns may be absolute
        yield from (folder / name for name in found)
        return
    at = pattern.parts.index("**")
    for top in _matches(Path(*pattern.parts[:at]), folder) if at else [folder]:
        for below, subfolders, names in folders.walk(top):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            if behind := pattern.parts[at + 1 :]:
                yield from _matches(Path(*behind), below)
            else:
                yield from (below, *(below / name for name in names if not name.startswith(".")))
