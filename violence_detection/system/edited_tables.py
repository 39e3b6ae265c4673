"""Tables that a person may have edited: between cells spreadsheets put commas, semicolons or tabs.

Some leave out what stands behind the last cell of a row that holds anything.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from violence_detection.system import storage

_DELIMITERS = ",;\t"
_NAMED_DELIMITER = re.compile(r'"?sep=(?P<delimiter>[^"\w\s]|\t)"?', re.IGNORECASE)


class Reader(Protocol):
    """The cells of each row; `line_num`: of the line that was read last, from 1."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


class _Rows:
    """The rows of a text. Raises DamagedFile, naming the file and the line, where a row cannot be told from others."""

    def __init__(self, path: Path, text: str, delimiter: str, lines_before: int = 0):
        self._path, self._before = path, lines_before
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)

    @property
    def line_num(self) -> int:
        return self._before + self._reader.line_num

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        first = self.line_num + 1
        try:
            return next(self._reader)
        except csv.Error as e:
            raise storage.DamagedFile(
                f"{self._path}:{first} cannot be read ({e}). A cell that begins with a quotation mark ends with one: "
                "close it, or take it out"
            ) from e


def opened(path: Path, text: str) -> tuple[list[str], Reader]:
    """The names of the columns in the first line, in lower case, and what reads the rows behind it.

    Between cells is what the first line has most of, or what a line before it says, as spreadsheets write `sep=;`.
    `text`: of the file `path`, as storage.read_text gives it. Raises DamagedFile, from the reader too, where a row
    cannot be read.
    """
    first, _, rest = text.partition("\n")
    if named := _NAMED_DELIMITER.fullmatch(first):
        reader = _Rows(path, rest, named["delimiter"], 1)
    else:
        reader = _Rows(path, text, max(_DELIMITERS, key=first.count))
    return [name.strip().casefold() for name in next(reader, [])], reader


def by_column(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """The cells of a row by column, without spaces around them; those that a short row lacks are empty."""
    return dict.fromkeys(columns, "") | {c: v.strip() for c, v in zip(columns, cells, strict=False)}


def surplus(columns: Sequence[str], cells: Sequence[str]) -> str:
    """What is wrong with a row that holds more than its columns, whose cells may then be those of others; or empty.

    So it comes where a number has a decimal comma, or a name has one, between commas.
    """
    if not any(cell.strip() for cell in cells[len(columns) :]):
        return ""
    return (
        f"{len(cells)} cells for {len(columns)} columns. Write numbers with a point, as 12.5, and put a cell that "
        "holds a comma or a semicolon in quotation marks"
    )


def rows(path: Path, text: str) -> list[dict[str, str]]:
    """All rows of the text of `path`, each as `by_column` gives it.

    Raises DamagedFile as `opened`, and where a row holds more than its columns.
    """
    columns, reader = opened(path, text)
    found = []
    for cells in reader:
        if too_many := surplus(columns, cells):
            raise storage.DamagedFile(f"{path}:{reader.line_num}: {too_many}")
        found.append(by_column(columns, cells))
    return found
