"""Formats of verdicts by name. Each is a file in outputs/ with a function that carries `@of_video` or `@of_run`.

Such a function turns verdicts into texts, {end of the file's name: text}, and knows nothing of files; one of a run gets
what failed in it, too. Which files they are, and when they are written, is said here once for all; whose they are, by
system/own_files.py.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction.events import Verdict
from violence_detection.system import own_files, storage
from violence_detection.system.own_files import WrittenFiles

Texts = Mapping[str, str]
#: What a format makes of the verdicts of a run, and of what failed in it.
OfRun = Callable[[Sequence[Verdict], Sequence[UnreadableVideo]], Texts]
#: Longest name that a video's files have, without their endings.
_NAME_BYTES = 150
#: Of the mark in a name; the long one where two videos have the same.
_MARK_DIGITS, LONG_MARK_DIGITS = 8, 16


@dataclass(frozen=True)
class OutputFormat:
    """A format: its name on the command line, and what it makes of one video or of all of a run.

    `endings`: what stands behind the video's name in those of its files, a regular expression; of a run, the end of the
    name of its one file. `is_first_line`: whether a file of a run may begin so. `numbered`: the ending of a video's
    first file, second and so on, of a format that may have several.
    """

    name: str
    endings: str
    of_video: Callable[[Verdict], Texts] | None = None
    of_run: OfRun | None = None
    is_first_line: Callable[[str], bool] | None = None
    numbered: Callable[[int], str] | None = None


_formats: dict[str, OutputFormat] = {}


def of_video(
    name: str, endings: str, numbered: Callable[[int], str] | None = None
) -> Callable[[Callable[[Verdict], Texts]], Callable[[Verdict], Texts]]:
    """Register a format that has files of its own for each video; see OutputFormat."""

    def decorate(function: Callable[[Verdict], Texts]) -> Callable[[Verdict], Texts]:
        _formats[name] = OutputFormat(name, endings, of_video=function, numbered=numbered)
        return function

    return decorate


def of_run(name: str, ending: str, is_first_line: Callable[[str], bool]) -> Callable[[OfRun], OfRun]:
    """Register a format that has one file for all videos, with this `ending` and such a first line."""

    def decorate(function: OfRun) -> OfRun:
        _formats[name] = OutputFormat(name, ending, of_run=function, is_first_line=is_first_line)
        return function

    return decorate


def all_formats() -> Mapping[str, OutputFormat]:
    """Every format by name, sorted; the files of outputs/ register theirs when they are first imported."""
    from violence_detection.prediction import outputs

    for module in pkgutil.iter_modules(outputs.__path__):
        importlib.import_module(f"{outputs.__name__}.{module.name}")
    return dict(sorted(_formats.items()))


def chosen(names: Sequence[str]) -> list[OutputFormat]:
    """The formats of these names, each once. Raises UserError for one that there is not."""
    known = all_formats()
    for name in names:
        if name not in known:
            raise UserError(f"no format {name!r}. There are {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


def check_run_file(chosen: OutputFormat, output: Path) -> None:
    """Raise UserError where a format of a run, beside `output`, would replace a file of somebody else's."""
    if (is_first_line := chosen.is_first_line) is not None:
        own_files.check_file(
            output.with_name(f"{output.stem}{chosen.endings}"),
            f"--format {chosen.name}:",
            "one that such a run wrote",
            lambda path: is_first_line(own_files.first_line(path)),
            "Give another --output, or move it away",
        )


def differing_files(
    other: OutputFormat,
    output: Path,
    written: WrittenFiles,
    verdicts: Sequence[Verdict],
    failures: Sequence[UnreadableVideo],
) -> list[Path]:
    """What an earlier run wrote in this format beside `output` that is not what it makes of these verdicts."""
    if other.of_run and other.is_first_line:
        path = output.with_name(f"{output.stem}{other.endings}")
        if not (path.is_file() and other.is_first_line(own_files.first_line(path))):
            return []
        return [] if _has(path, other.of_run(verdicts, failures)[other.endings]) else [path]
    by_source = {os.path.realpath(verdict.path): verdict for verdict in verdicts}
    of_a_video = re.compile(f".*(?:{other.endings})")
    found = []
    for path in sorted(output.parent.iterdir()):
        named = of_a_video.fullmatch(path.name)
        verdict = by_source.get(written.source_of(path) or "") if named else None
        if named and verdict and other.of_video:
            # a video's own name may end as files of other videos do
            texts = [text for ending, text in other.of_video(verdict).items() if path.name.endswith(ending)]
            if not any(_has(path, text) for text in texts):
                found.append(path)
    return found


def _has(path: Path, text: str) -> bool:
    # ends of lines as they are: a name may hold one
    with path.open(encoding="utf-8", errors=storage.NAME_ERRORS, newline="") as f:
        return f.read() == text


def names_of(videos: Iterable[str], taken: str = "") -> dict[str, str]:
    """The name that each video's files have: its own without the suffix; with a mark where others have it, too.

    `taken`: a name that is none of theirs. Names that differ in nothing but capitals are the same on some disks.
    """
    videos = list(dict.fromkeys(videos))
    names = {v: plain_name(v) for v in videos}
    for digits in (_MARK_DIGITS, LONG_MARK_DIGITS):
        count = Counter(name.casefold() for name in names.values()) + Counter([taken.casefold()])
        names = {
            video: name if count[name.casefold()] == 1 else marked(plain_name(video), video, digits)
            for video, name in names.items()
        }
    return names


def marked(name: str, video: str, digits: int = _MARK_DIGITS) -> str:
    """A name that only the video with this path has; of some 10,000 that are called the same, two may share it."""
    return f"{name}~{storage.stable_hash(video, digits=digits)}"


def plain_name(video: str) -> str:
    """The video's own name without the suffix, as files can have it."""
    return storage.shorten_name(storage.utf8_name(Path(video).stem), _NAME_BYTES)


def explanation_name(name: str, what: str) -> str:
    """What the picture is called that explains `event001` and so on, or `highest`, of the video with this name."""
    return f"{name}.{what}.explained.jpg"


def write(folder: Path, name: str, texts: Texts) -> list[Path]:
    """Write what a format made of a run, each file whole or not at all."""
    paths = [folder / f"{name}{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        storage.write_text(path, text)
    return paths


def write_of_video(
    chosen: OutputFormat, written: WrittenFiles, folder: Path, name: str, verdict: Verdict
) -> None:
    """Write what a format makes of a video, into the folder of `written`. Raises UserError where another's file is."""
    assert chosen.of_video
    texts = chosen.of_video(verdict)
    for ending, text in texts.items():
        written.write_text(folder / f"{name}{ending}", verdict.path, text)
    further = len(texts) + 1  # of an earlier run, which found more
    while chosen.numbered and (path := folder / f"{name}{chosen.numbered(further)}").is_file():
        written.remove(path, verdict.path)
        further += 1
