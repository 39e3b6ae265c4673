"""Output formats of verdicts, by name. Each is a module in outputs/ with a function marked `@of_video` or `@of_run`.

The function turns a verdict, or all verdicts and failures of a run, into texts, {ending of the file name: text}, and
knows nothing of files. This module decides on the files and writes them; system/own_files.py knows which files belong
to which video.
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
#: Makes the texts of a run from its verdicts and its failures.
OfRun = Callable[[Sequence[Verdict], Sequence[UnreadableVideo]], Texts]
#: The longest name that a video's files may have, without their endings.
_NAME_BYTES = 150
#: Hexadecimal digits of the mark in a name; the long mark is for videos that would share the short one.
_MARK_DIGITS, LONG_MARK_DIGITS = 8, 16


@dataclass(frozen=True)
class OutputFormat:
    """A format: its name on the command line, and the function that writes one video or a whole run.

    `endings`: for a format of one video, a regular expression for what follows the video's name in the names of its
    files; for a format of a run, the ending of the name of its one file. `is_first_line`: whether a line can be the
    first of a run's file. `numbered`: for a format that may write several files per video, the ending of file 1, 2, ...
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
    """Register a format that writes files for each video; see OutputFormat."""

    def decorate(function: Callable[[Verdict], Texts]) -> Callable[[Verdict], Texts]:
        _formats[name] = OutputFormat(name, endings, of_video=function, numbered=numbered)
        return function

    return decorate


def of_run(name: str, ending: str, is_first_line: Callable[[str], bool]) -> Callable[[OfRun], OfRun]:
    """Register a format that writes one file for all videos of a run; see OutputFormat."""

    def decorate(function: OfRun) -> OfRun:
        _formats[name] = OutputFormat(name, ending, of_run=function, is_first_line=is_first_line)
        return function

    return decorate


def all_formats() -> Mapping[str, OutputFormat]:
    """Return every format by name, sorted. Imports the modules of outputs/, which register their formats."""
    from violence_detection.prediction import outputs

    for module in pkgutil.iter_modules(outputs.__path__):
        importlib.import_module(f"{outputs.__name__}.{module.name}")
    return dict(sorted(_formats.items()))


def chosen(names: Sequence[str]) -> list[OutputFormat]:
    """Return the formats of these names, each once. Raises UserError for an unknown name."""
    known = all_formats()
    for name in names:
        if name not in known:
            raise UserError(f"no format {name!r}. Choose from {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)]


def check_run_file(chosen: OutputFormat, output: Path) -> None:
    """Raise UserError if a format of a run would replace a file beside `output` that is not of that format."""
    if (is_first_line := chosen.is_first_line) is not None:
        own_files.check_file(
            output.with_name(f"{output.stem}{chosen.endings}"),
            f"--format {chosen.name}:",
            "a file of that format",
            lambda path: is_first_line(own_files.first_line(path)),
            "Give another --output, or move that file away",
        )


def differing_files(
    other: OutputFormat,
    output: Path,
    written: WrittenFiles,
    verdicts: Sequence[Verdict],
    failures: Sequence[UnreadableVideo],
) -> list[Path]:
    """Return the files that an earlier run wrote beside `output` in this format and that contradict these verdicts."""
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
            # several endings may match: the name of a video may itself end like one of its files
            texts = [text for ending, text in other.of_video(verdict).items() if path.name.endswith(ending)]
            if not any(_has(path, text) for text in texts):
                found.append(path)
    return found


def _has(path: Path, text: str) -> bool:
    # line ends are compared untranslated: the name of a video may contain one
    with path.open(encoding="utf-8", errors=storage.NAME_ERRORS, newline="") as f:
        return f.read() == text


def names_of(videos: Iterable[str], taken: str = "") -> dict[str, str]:
    """Return the name for each video's files: the video's own without its suffix, marked if others share it.

    `taken`: a name that no video may have. Names that differ only in case count as equal, as they do on some disks.
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
    """Add a mark made of the video's path. With 8 digits, two of some 10,000 videos of one name may share a mark."""
    return f"{name}~{storage.stable_hash(video, digits=digits)}"


def plain_name(video: str) -> str:
    """The video's name without its suffix, as valid UTF-8 and of at most 150 bytes."""
    return storage.shorten_name(storage.utf8_name(Path(video).stem), _NAME_BYTES)


def explanation_name(name: str, what: str) -> str:
    """File name of the picture that explains `what` of a video: `event001` and so on, or `highest`."""
    return f"{name}.{what}.explained.jpg"


def write(folder: Path, name: str, texts: Texts) -> list[Path]:
    """Write the texts that a format made of a run, each file completely or not at all; return the paths."""
    paths = [folder / f"{name}{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        storage.write_text(path, text)
    return paths


def write_of_video(
    chosen: OutputFormat, written: WrittenFiles, folder: Path, name: str, verdict: Verdict
) -> None:
    """Write the files of one video into `folder`. Raises UserError if a file there belongs to something else."""
    assert chosen.of_video
    texts = chosen.of_video(verdict)
    for ending, text in texts.items():
        written.write_text(folder / f"{name}{ending}", verdict.path, text)
    further = len(texts) + 1  # parts that an earlier run wrote because it found more events
    while chosen.numbered and (path := folder / f"{name}{chosen.numbered(further)}").is_file():
        written.remove(path, verdict.path)
        further += 1
