"""One's own clips as a CSV file lists them: whole files, or stretches of longer videos.

The columns are `path` (relative to the CSV file's folder, or absolute) and `label`; optional are `source`, `split`
(train or val), and `start_s` with `end_s`. A wrong row is reported with its line; the other rows are still read.
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

#: A time such as 1:05 or 0:01:05.5, for which the message suggests seconds.
_CLOCK = re.compile(r"(\d+:){1,2}\d+(\.\d+)?", re.ASCII)
#: Names of columns that are probably meant as start_s and as end_s. Without those two, each row would be a whole file.
_LIKE_TIMES = [
    re.compile(rf"({names})[\W_]*(s|secs?|seconds?|ms|time|frame)?\W*")
    for names in ("start|begin|from", "end|stop|to")
]
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NEEDED, OPTIONAL = ("path", "label"), ("source", "split", "start_s", "end_s")


@dataclass(frozen=True)
class Stretch:
    """A part of a longer video that is a clip, in seconds. `where`: FILE.csv:LINE, for messages."""

    start_s: float
    end_s: float
    label: str
    where: str


@dataclass(frozen=True)
class OwnClip:
    """One clip: a file, or a stretch of one.

    `rel`: its path below the folder of its set, or an absolute path if it is elsewhere. `where`: FILE.csv:LINE, or the
    file, for messages. `sources`: names of its source; clips that share one of them share their source. `split`: train,
    val or empty.
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
        """Start and end within the file, in seconds: (0, infinity) for a whole file."""
        return (self.stretch.start_s, self.stretch.end_s) if self.stretch else (0.0, math.inf)


@dataclass
class Table:
    """What was read from a CSV file.

    `without_source`: the number of clips whose row names no source. `files`: the files of all rows, usable or not.
    `names`: the labels that occur. `unknown`: labels that mean no class, with their number of rows. `failures`: {path,
    reason}, with FILE.csv:LINE as the path.
    """

    clips: list[OwnClip] = field(default_factory=list)
    without_source: int = 0
    files: list[Path] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    unknown: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_table(path: Path, labels: Labels) -> Table:
    """Read the CSV file. Rows that cannot be used become failures.

    Raises UserError if the file cannot be read, if `path` or `label` is missing, if a column occurs more than once, or
    if columns for times have other names than start_s and end_s.
    """
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
    """(number of its first line, text by column, complaint about surplus cells or "") of each row that is not blank.

    Columns that the file does not have are empty. Warnings about unused columns are added to `warnings`.
    """
    try:
        text = storage.read_text(path)
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    columns, reader = edited_tables.opened(path, text)
    if missing := [name for name in NEEDED if name not in columns]:
        raise UserError(
            f"{path}: missing columns: {' and '.join(missing)}. The first line must name the columns: "
            f"{', '.join(NEEDED)}, and optionally {', '.join(OPTIONAL)}. Found: {', '.join(columns) or 'nothing'}"
        )
    if doubled := sorted(
        name for name, n in Counter(columns).items() if n > 1 and name in (*NEEDED, *OPTIONAL)
    ):
        raise UserError(f"{path} has the column {', '.join(doubled)} more than once. Keep one")
    times = [name for like in _LIKE_TIMES for name in filter(like.fullmatch, columns)]
    if not {"start_s", "end_s"} & set(columns) and all(
        any(map(like.fullmatch, times)) for like in _LIKE_TIMES
    ):
        raise UserError(
            f"{path} has the columns {', '.join(times)}, but neither start_s nor end_s. If they say where in its video "
            "a clip begins and ends, name them start_s and end_s, in seconds; otherwise give them other names"
        )
    if unused := [name for name in columns if name and name not in (*NEEDED, *OPTIONAL)]:
        warnings.append(
            f"{path}: columns that are not used: {', '.join(unused)}. Optional columns are {', '.join(OPTIONAL)}"
        )
    empty = dict.fromkeys((*NEEDED, *OPTIONAL), "")
    line = reader.line_num + 1
    for cells in reader:
        if any(cell.strip() for cell in cells):
            found = edited_tables.by_column(columns, cells)
            yield line, empty | found, edited_tables.surplus(columns, cells)
        line = reader.line_num + 1


def _clip(path: Path, file: Path | None, row: Mapping[str, str], where: str, labels: Labels) -> OwnClip:
    """The row's clip. Raises ValueError that says what is wrong and how to correct it."""
    if file is None and row["path"]:
        raise ValueError(
            "the path goes over several lines, or contains control characters. A cell that begins with a quotation "
            "mark ends with one: close it, or take it out"
        )
    if file is None:
        raise ValueError("no path. Name the clip's file")
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        mode = 0
    except OSError as e:
        raise ValueError(f"{file} cannot be read: {e.strerror}. Correct the path, or its permissions") from e
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
            f"{name} {text!r} is not a number of seconds. Write it as {meant:.10g}; start_s and end_s come together"
        )
    return value


def _file(table: Path, text: str) -> Path:
    """The file that a cell names.

    If there is none of exactly that name, other spellings are tried: with / in place of backslashes, and with accents
    stored as part of their letters (NFC) or as characters of their own (NFD).
    """
    spelled = (text, text.replace("\\", "/"))
    others = (unicodedata.normalize(form, t) for form in ("NFC", "NFD") for t in spelled)
    files = [table.parent / settings.expanded(t) for t in (*spelled, *others)]
    return next((f for f in files if os.path.exists(f)), files[0])  # noqa: PTH110 - raises nothing
