"""One's own clips as a CSV file lists them: whole files, or stretches of longer videos.

Columns `path` (below the file's folder, or absolute) and `label`; where they are there also `source`, `split` (train or
val), and `start_s` with `end_s`. A row that is wrong is named with its line and takes no other with it.
"""

from __future__ import annotations

import math
import os
import re
import shlex
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from violence_detection.constants import CLASS_NAMES
from violence_detection.datasets import own_labels
from violence_detection.datasets.own_labels import Labels
from violence_detection.errors import UserError
from violence_detection.system import edited_tables, settings, storage

#: 1:05 or 0:01:05.5
_CLOCK = re.compile(r"(\d+:){1,2}\d+(\.\d+)?", re.ASCII)
#: Two columns that may be meant for start_s and end_s; without these a row is the whole file.
_LIKE_TIMES = [
    re.compile(rf"({names})[\W_]*(s|secs?|seconds?|ms|time|frame)?\W*")
    for names in ("start|begin|from", "end|stop|to")
]
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NEEDED, OPTIONAL = ("path", "label"), ("source", "split", "start_s", "end_s")


@dataclass(frozen=True)
class Stretch:
    """A part of a longer video that is a clip, in seconds. `where` names it in messages."""

    start_s: float
    end_s: float
    label: str
    where: str


@dataclass(frozen=True)
class OwnClip:
    """One clip: a file, or a stretch of one.

    `rel`: below the folder of its set. `where` names it in messages: FILE.csv:LINE, or the file. `sources`: it shares
    its source with every clip that has one of these names. `split`: train, val or empty.
    """

    path: Path
    rel: str
    label: str
    where: str
    sources: tuple[str, ...]
    split: str = ""
    stretch: Stretch | None = None

    @property
    def span_s(self) -> tuple[float, float]:
        """The part of the file, in seconds."""
        return (self.stretch.start_s, self.stretch.end_s) if self.stretch else (0.0, math.inf)


@dataclass
class Table:
    """What a CSV file gave. `unknown`: labels that nobody has explained, with their number of rows.

    `files`: all that it names, right or wrong. `failures`: {path, reason}, the path with the number of the line.
    """

    clips: list[OwnClip] = field(default_factory=list)
    without_source: int = 0
    files: list[Path] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    unknown: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_table(path: Path, labels: Labels) -> Table:
    """Read the file. Raises UserError where it is no such table at all."""
    table = Table()
    for line, row, surplus in _rows(path, table.warnings):
        where = f"{path}:{line}"
        file = _file(path, row["path"]) if row["path"] and not _CONTROL.search(row["path"]) else None
        if file:
            table.files.append(file)
        if surplus:
            table.failures.append({"path": where, "reason": surplus})
            continue
        table.names.add(row["label"])
        if row["label"] and labels.of(row["label"]) is None:
            table.unknown[row["label"]] += 1
        try:
            clip = _clip(path, file, row, where, labels)
        except ValueError as e:
            table.failures.append({"path": where, "reason": str(e)})
            continue
        table.clips.append(clip)
        table.without_source += not row["source"]
    return table


def _rows(path: Path, warnings: list[str]) -> Iterator[tuple[int, Mapping[str, str], str]]:
    """(number of its first line, text by column, what it has beyond them) of each row that holds anything.

    Columns that are not there are empty.
    """
    try:
        text = storage.read_text(path)
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    columns, reader = edited_tables.opened(path, text)
    if missing := [name for name in NEEDED if name not in columns]:
        raise UserError(
            f"{path} lacks the column {' and '.join(missing)}. Its first line has to name the columns: "
            f"{', '.join(NEEDED)}, and if you like {', '.join(OPTIONAL)}. Found: {', '.join(columns) or 'nothing'}"
        )
    if doubled := sorted(
        name for name, n in Counter(columns).items() if n > 1 and name in (*NEEDED, *OPTIONAL)
    ):
        raise UserError(f"{path} has the column {', '.join(doubled)} twice. Leave one")
    times = [name for like in _LIKE_TIMES for name in filter(like.fullmatch, columns)]
    if not {"start_s", "end_s"} & set(columns) and all(
        any(map(like.fullmatch, times)) for like in _LIKE_TIMES
    ):
        raise UserError(
            f"{path} has the columns {', '.join(times)}, but neither start_s nor end_s. If they say where in a video a "
            "clip lies, call them start_s and end_s, in seconds; else give them another name"
        )
    if unused := [name for name in columns if name and name not in (*NEEDED, *OPTIONAL)]:
        warnings.append(f"{path}: the column {', '.join(unused)} is not used; used are {', '.join(OPTIONAL)}")
    empty = dict.fromkeys((*NEEDED, *OPTIONAL), "")
    line = reader.line_num + 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            found = edited_tables.by_column(columns, cells)
            yield line, empty | found, edited_tables.surplus(columns, cells)
        line = reader.line_num + 1


def _clip(path: Path, file: Path | None, row: Mapping[str, str], where: str, labels: Labels) -> OwnClip:
    """The row's clip. Raises ValueError with what is wrong and how to mend it."""
    if file is None and row["path"]:
        raise ValueError(
            "the path goes over several lines, or holds control characters. A cell that begins with a quotation mark "
            "ends with one: close it, or take it out"
        )
    if file is None:
        raise ValueError("no path. Name the clip's file")
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as e:
        raise ValueError(f"{file} cannot be read: {e.strerror}. Mend the path, or its rights") from e
    if not stat.S_ISREG(mode):
        raise ValueError(f"no file {file}. Paths count from the folder of the CSV file, or are absolute")
    if not row["label"]:
        raise ValueError("no label. Write fight or nonfight")
    label = labels.of(row["label"])
    if label is None:
        words = [own_labels.as_words({row["label"]: name})[0] for name in reversed(CLASS_NAMES)]
        raise ValueError(
            f"label {row['label']!r} is neither fight nor nonfight. Write one of them, or say which it means: "
            f"--labels {' or '.join(map(shlex.quote, words))}"
        )
    split = row["split"].casefold()
    if split not in ("", "train", "val"):
        raise ValueError(f"split {row['split']!r} is neither train nor val. Write one of them, or nothing")
    inside = file.is_relative_to(path.parent)
    rel = file.relative_to(path.parent).as_posix() if inside else file.absolute().as_posix()
    source = own_labels.one_spelling(row["source"]) or rel
    return OwnClip(file, rel, label, where, (source,), split, _stretch(row, label, where))


def _stretch(row: Mapping[str, str], label: str, where: str) -> Stretch | None:
    if not row["start_s"] and not row["end_s"]:
        return None
    start_s, end_s = (_seconds(name, row[name]) for name in ("start_s", "end_s"))
    if start_s >= end_s:
        raise ValueError(
            f"end_s {end_s:g} is not after start_s {start_s:g}. Both count from the video's beginning"
        )
    return Stretch(start_s, end_s, label, where)


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        meant = 12.5
        if _CLOCK.fullmatch(text):
            meant = sum(float(part) * 60**k for k, part in enumerate(reversed(text.split(":"))))
        raise ValueError(
            f"{name} {text!r} is no number of seconds. Write it as {meant:.10g}; start_s and end_s come together"
        )
    return value


def _file(table: Path, text: str) -> Path:
    """The file that a cell names.

    Where none is called just so, one that only another system writes otherwise: with backslashes between folders, or
    with accents that are stored as signs of their own.
    """
    spelled = (text, text.replace("\\", "/"))
    others = (unicodedata.normalize(form, t) for form in ("NFC", "NFD") for t in spelled)
    files = [table.parent / settings.expanded(t) for t in (*spelled, *others)]
    return next((f for f in files if os.path.exists(f)), files[0])  # noqa: PTH110 - never an error
