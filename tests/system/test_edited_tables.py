"""What a person saved in a spreadsheet is read by column, whatever stands between cells and however short a row is."""

from __future__ import annotations

from pathlib import Path

import pytest

from violence_detection.system import edited_tables


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_cells_that_a_row_lacks_are_empty_and_those_beyond_the_header_are_left_out(delimiter: str) -> None:
    lines = ["Clip_ID |path| Confirmed ", 'a|"b, c;"|x', "d", "", "e| f ||more"]
    rows = edited_tables.rows(Path("t.csv"), "\n".join(lines).replace("|", delimiter) + "\n")
    assert rows == [
        {"clip_id": "a", "path": "b, c;", "confirmed": "x"},
        {"clip_id": "d", "path": "", "confirmed": ""},
        {"clip_id": "", "path": "", "confirmed": ""},
        {"clip_id": "e", "path": "f", "confirmed": ""},
    ]
