"""Tables that a person saved in a spreadsheet are read by column, whatever the delimiter and however short a row is."""

from __future__ import annotations

from pathlib import Path

import pytest

from violence_detection.system import edited_tables, storage


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_cells_that_a_row_lacks_are_empty_and_those_beyond_the_header_are_refused_by_line(
    delimiter: str,
) -> None:
    lines = ["Clip_ID |path| Confirmed ", 'a|"b, c;"|x', "d", "", "e| f ||"]
    rows = edited_tables.rows(Path("t.csv"), "\n".join(lines).replace("|", delimiter) + "\n")
    assert rows == [
        {"clip_id": "a", "path": "b, c;", "confirmed": "x"},
        {"clip_id": "d", "path": "", "confirmed": ""},
        {"clip_id": "", "path": "", "confirmed": ""},
        {"clip_id": "e", "path": "f", "confirmed": ""},
    ]
    lines.append("f|g|x|more")
    with pytest.raises(storage.DamagedFile, match=r"t\.csv:6: 4 cells for 3 columns"):
        edited_tables.rows(Path("t.csv"), "\n".join(lines).replace("|", delimiter) + "\n")


@pytest.mark.parametrize("line", ["sep={}", '"SEP={}"'])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_spreadsheets_line_that_names_what_stands_between_cells_is_obeyed(
    line: str, delimiter: str
) -> None:
    lines = [line.format(delimiter), "path;a,b;label".replace(";", delimiter), f'"x,y;z"{delimiter}1']
    columns, reader = edited_tables.opened(Path("t.csv"), "\n".join(lines) + "\n")
    if delimiter == ",":
        assert columns == ["path", "a", "b", "label"]
    else:
        assert columns == ["path", "a,b", "label"]
    assert list(reader) == [["x,y;z", "1"]]
    assert reader.line_num == 3
