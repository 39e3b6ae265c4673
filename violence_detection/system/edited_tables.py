"""Tables that a person may have edited in a spreadsheet, which may separate cells by commas, semicolons or tabs.

Some spreadsheets also omit the empty cells at the end of a row.
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
#: A first line that names the delimiter, such as `sep=;`.
_NAMED_DELIMITER = re.compile(r'"?sep=(?P<delimiter>[^"\w\s]|\t)"?', re.IGNORECASE)


class Reader(Protocol):
    """Iterates over the rows, each a list of cells. `line_num`: the number of the line read last, from 1."""

    @property
    def line_num(self) -> int: ...

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


class _Rows:
    """The rows of a text. Raises DamagedFile, naming the file and the line, for a row that cannot be parsed."""

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
                f"{self._path}:{first} cannot be read ({e}). A cell that begins with a quotation mark must end with "
                "one: add or remove a quotation mark"
            ) from e


def opened(path: Path, text: str) -> tuple[list[str], Reader]:
    """Return the column names from the header, stripped and in lower case, and a reader for the rows below it.

    The delimiter is the comma, semicolon or tab that is most frequent in the header, unless a line `sep=;` before it,
    as spreadsheets write it, names another. `text`: the content of the file `path`, from storage.read_text. Raises
    DamagedFile, as the reader does too, for a row that cannot be parsed.
    """
    first, _, rest = text.partition("\n")
    if named := _NAMED_DELIMITER.fullmatch(first):
        reader = _Rows(path, rest, named["delimiter"], 1)
    else:
        reader = _Rows(path, text, max(_DELIMITERS, key=first.count))
    return [name.strip().casefold() for name in next(reader, [])], reader


def by_column(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """The cells of a row by column, stripped; columns missing from a short row are empty, surplus cells are dropped."""
    return dict.fromkeys(columns, "") | {c: v.strip() for c, v in zip(columns, cells, strict=False)}


def surplus(columns: Sequence[str], cells: Sequence[str]) -> str:
    """An error message if a row has more cells than columns, so that values may be in wrong columns; else "".

    This happens in a table with commas if a number has a decimal comma, or a name contains one. Empty surplus cells do
    not count.
    """
    if not any(cell.strip() for cell in cells[len(columns) :]):
        return ""
    return (
        f"{len(cells)} cells for {len(columns)} columns. Write numbers with a decimal point, such as 12.5, and "
        "put a cell that contains a comma or a semicolon in quotation marks"
    )


def rows(path: Path, text: str) -> list[dict[str, str]]:
    """All rows of `text`, the content of `path`, each as a dictionary from `by_column`.

    Raises DamagedFile as `opened` does, and for a row that has more cells than columns.
    """
    columns, reader = opened(path, text)
    found = []
    for cells in reader:
        if too_many := surplus(columns, cells):
            raise storage.DamagedFile(f"{path}:{reader.line_num}: {too_many}")
        found.append(by_column(columns, cells))
    return found
