"""Which videos and streams are meant by what somebody gave: paths, patterns such as `night*.mp4`, lists of either."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from violence_detection.errors import DamagedFile, UserError
from violence_detection.system import folders, redaction
from violence_detection.video.sources import GROWING, is_stream

#: Lists by their names; others are given as `@FILE`.
LIST_SUFFIXES = (".txt", ".m3u")
_NO_PATHS = b"\0"


def expanded(given: Sequence[str]) -> list[str]:
    """Each path and stream that is meant, once, in order; what a pattern finds is sorted. Folders stay folders.

    A file that goes by a pattern's name is that file. Raises UserError for a pattern that finds nothing, a list that is
    not there, or one that names what is not there, and for an address that cannot be read.
    """
    return list(dict.fromkeys(text for item in given for text in _meant(item)))


def is_list(text: str) -> bool:
    """Whether it is a list of videos or streams."""
    path = Path(text)
    return (text.startswith("@") and not path.exists()) or (
        path.suffix.lower() in LIST_SUFFIXES and path.is_file()
    )


def _meant(text: str) -> Iterator[str]:
    path = Path(text)
    if path.exists():
        yield from _listed(path) if path.is_file() and path.suffix.lower() in LIST_SUFFIXES else [text]
    elif is_stream(text):
        yield text
    elif text.startswith("@"):
        yield from _listed(Path(text[1:]))
    elif glob.has_magic(text):
        found = _like(text)
        if not found:
            raise UserError(f"nothing is called like {redaction.without_secrets(text)}")
        yield from found
    else:
        raise UserError(f"no file or folder at {redaction.without_secrets(text)}")


def _listed(file: Path) -> Iterator[str]:
    """What a list names: a path (from its own folder on), pattern or stream a line; lines with # are comments."""
    if not file.is_file():
        raise UserError(f"no list of videos at {file}")
    data = file.read_bytes()
    if _NO_PATHS in data:
        raise DamagedFile(f"{file} is no list of videos: it is no text")
    text = data.decode("utf-8-sig", errors="surrogateescape")
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        try:
            means_stream = is_stream(entry)
        except UserError as e:
            raise UserError(f"{file}, line {number}: {e}") from None
        if means_stream:
            behind = entry.removeprefix(GROWING)
            yield entry if behind == entry else f"{GROWING}{file.parent / behind}"
            continue
        path = file.parent / Path(entry).expanduser()
        if path.exists():
            yield str(path)
        elif glob.has_magic(entry) and (found := _like(entry, file.parent)):
            yield from found
        else:
            raise UserError(f"{file}, line {number}: nothing at {redaction.without_secrets(str(path))}")


def _like(pattern: str, folder: Path = Path()) -> list[str]:
    """What the pattern finds from the folder on, sorted; `**` is any number of folders, each real one entered once."""
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
