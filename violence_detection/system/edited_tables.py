"""Tables that a person may have edited: between cells spreadsheets put commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Protocol

_DELIMITERS = ",;\t"


class Reader(Protocol):
    """The cells of each row; `line_num`: of the line that was read last, from 1."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


def opened(text: str) -> tuple[list[str], Reader]:
    """The names of the columns in the first line, in lower case, and what reads the rows behind it.

    Between cells is what the first line has most of. `text`: as storage.read_text gives it.
    """
    header = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=header.count))
    return [name.strip().casefold() for name in next(reader, [])], reader


def rows(text: str) -> list[dict[str, str]]:
    """The rows by column, without spaces around cells; cells that a short row lacks are not in it."""
    columns, reader = opened(text)
    return [dict(zip(columns, (cell.strip() for cell in cells), strict=False)) for cells in reader]
