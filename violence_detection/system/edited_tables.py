"""Tables that a person may have edited: between cells spreadsheets put commas, semicolons or tabs.

Some leave out what stands behind the last cell of a row that holds anything.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
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


def by_column(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """The cells of a row by column, without spaces around them; those that a short row lacks are empty."""
    return dict.fromkeys(columns, "") | {c: v.strip() for c, v in zip(columns, cells, strict=False)}


def rows(text: str) -> list[dict[str, str]]:
    """All rows, each as `by_column` gives it."""
    columns, reader = opened(text)
    return [by_column(columns, cells) for cells in reader]
