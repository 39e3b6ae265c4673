"""Formats of verdicts by name. Each is a file in outputs/ with a function that carries `@of_video` or `@of_run`.

Such a function turns verdicts into texts, {end of the file's name: text}, and knows nothing of files; one of a run gets
what failed in it, too. Which files they are, and when they are written, is said here once for all.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction.events import Verdict
from violence_detection.system import storage

Texts = Mapping[str, str]
#: What a format makes of the verdicts of a run, and of what failed in it.
OfRun = Callable[[Sequence[Verdict], Sequence[UnreadableVideo]], Texts]
#: Longest name that a video's files have, without their endings.
_NAME_BYTES = 150


@dataclass(frozen=True)
class OutputFormat:
    """A format: its name on the command line, and what it makes of one video or of all of a run."""

    name: str
    of_video: Callable[[Verdict], Texts] | None = None
    of_run: OfRun | None = None


_formats: dict[str, OutputFormat] = {}


def of_video(name: str) -> Callable[[Callable[[Verdict], Texts]], Callable[[Verdict], Texts]]:
    """Register a format that has files of its own for each video."""

    def decorate(function: Callable[[Verdict], Texts]) -> Callable[[Verdict], Texts]:
        _formats[name] = OutputFormat(name, of_video=function)
        return function

    return decorate


def of_run(name: str) -> Callable[[OfRun], OfRun]:
    """Register a format that has one file, or several, for all videos."""

    def decorate(function: OfRun) -> OfRun:
        _formats[name] = OutputFormat(name, of_run=function)
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


def names_of(videos: Iterable[str], taken: str = "") -> dict[str, str]:
    """The name that each video's files have: its own without the suffix; with a mark where others have it, too.

    `taken`: a name that is none of theirs. Names that differ in nothing but capitals are the same on some disks.
    """
    videos = list(dict.fromkeys(videos))
    plain = {v: storage.shorten_name(storage.utf8_name(Path(v).stem), _NAME_BYTES) for v in videos}
    count = Counter(name.casefold() for name in plain.values()) + Counter([taken.casefold()])
    return {
        video: name if count[name.casefold()] == 1 else f"{name}~{storage.stable_hash(video, digits=8)}"
        for video, name in plain.items()
    }


def explanation_name(name: str, what: str) -> str:
    """What the picture is called that explains `event001` and so on, or `highest`, of the video with this name."""
    return f"{name}.{what}.explained.jpg"


def write(folder: Path, name: str, texts: Texts) -> list[Path]:
    """Write what a format made, each file whole or not at all."""
    paths = [folder / f"{name}{ending}" for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        storage.write_text(path, text)
    return paths
