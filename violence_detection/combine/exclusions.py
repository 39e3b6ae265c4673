"""Leave out clips that a person has looked at and rejected: `--exclude LIST`.

LIST is a text file with one clip per line, or a CSV file with a column clip_id, source_path or path, such as
label_suspects.csv. A clip is named by its clip_id, its source_path, or its path in combined_all. If the CSV file has a
column `confirmed`, only the lines marked in it count. A line whose column `label` differs from the clip's present label
is refused, because the label may have been corrected since the list was made. If a listed clip was dropped as a copy,
the clip kept instead is left out. All other clips stay on their side of the split.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.constants import CLASS_NAMES
from violence_detection.errors import UserError
from violence_detection.system import edited_tables, storage
from violence_detection.system.edited_tables import Reader

FILE_NAME = "excluded.csv"
COLUMNS = ("clip_id", "source_path", "label", "split", "listed_as")
#: Columns that name a clip, the most reliable first.
_NAMES = ("clip_id", "source_path", "path")
_CONFIRMED, _LABEL = "confirmed", "label"
_YES, _NO = frozenset({"x", "y", "yes", "1", "true"}), frozenset({"", "n", "no", "0", "false"})
#: Number of names that a message lists.
_SHOWN = 5


@dataclass(frozen=True)
class ExclusionList:
    """The contents of a list.

    `names`: name of a clip -> number of its line. `labels`: name of a clip -> its label, where the list has one.
    """

    path: Path
    names: Mapping[str, int]
    labels: Mapping[str, str]

    def record(self, excluded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the entry of combine.json: the list's path, its names, and the ids of the clips left out."""
        return {
            "list": str(self.path),
            "names": sorted(self.names),
            "clips": [r["clip_id"] for r in excluded],
        }

    def take_out(
        self, rows: Sequence[dict[str, Any]], known: Collection[str], copies: Mapping[str, str] | None = None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Divide the manifest's rows into those that stay and those left out; the latter get a field `listed_as`.

        `known`: ids and source paths of all labelled clips, including dropped copies and unreadable ones. `copies`: id
        or source path of a dropped copy -> source path of the clip kept instead, which may itself be a dropped copy.
        Raises UserError for lines that name no clip at all, and for lines whose label differs from the clip's.
        """
        stays, excluded, used = [], [], set()
        mended: list[str] = []
        known = {storage.with_line_ends(name) for name in known}
        listed_copies = self._listed_copies(copies or {})
        for row in rows:
            found = [n for column in _NAMES if (n := storage.with_line_ends(row[column])) in self.names]
            found += listed_copies.get(row["source_path"], [])
            if found:
                used.update(found)
                mended += [
                    f"line {self.names[name]}: {name} ({said}, now {row['label']})"
                    for name in found
                    if (said := self.labels.get(name)) and said != row["label"]
                ]
                excluded.append({**row, "listed_as": found[0]})
            else:
                stays.append(row)
        if mended:
            raise UserError(
                f"--exclude {self.path}: the column label differs from the clip's present label, which may have been "
                f"corrected since, in {some_of(mended)}. To keep the clip, remove its mark or its line; to leave it "
                "out all the same, write its present label there, or remove the column"
            )
        unknown = [name for name in self.names if name not in used and name not in known]
        if unknown:
            shown = some_of([f"line {self.names[name]}: {name}" for name in unknown])
            raise UserError(
                f"--exclude {self.path}: no clip has the name in {shown}. Use a clip_id, source_path or path from "
                "manifest.csv, or remove the line. Your own clips are known only if --own names them, and clips in "
                "other folders only if --roots does"
            )
        return stays, excluded

    def require_both_classes(self, stays: Sequence[Mapping[str, Any]]) -> None:
        """Raise UserError if the remaining rows have no clip of one of the classes."""
        there = {row["label"] for row in stays}
        if missing := [label for label in CLASS_NAMES if label not in there]:
            raise UserError(
                f"--exclude {self.path} leaves no {' and no '.join(missing)} clip: a model cannot learn from one class "
                "alone. Remove lines from the list, or mark fewer"
            )

    def _listed_copies(self, copies: Mapping[str, str]) -> dict[str, list[str]]:
        """Map the source path at the end of each chain of copies to the listed names that lead to it."""
        found: dict[str, list[str]] = {}
        as_read = {storage.with_line_ends(name): name for name in copies}
        for name in self.names:
            last, seen = as_read.get(name, name), set()
            while last in copies and last not in seen:
                seen.add(last)
                last = copies[last]
            if seen:
                found.setdefault(last, []).append(name)
        return found


def some_of(names: Sequence[str]) -> str:
    """Join the first names for a message, and say how many more there are."""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def read(path: Path) -> ExclusionList:
    """Read a list.

    Raises UserError if it cannot be read, names no clip, or has a line without a name, with more cells than columns, or
    with an unknown mark.
    """
    try:
        text = storage.read_text(path, storage.NAME_ERRORS)
    except OSError as e:
        raise UserError(f"--exclude: cannot read {path}: {e.strerror}") from e
    columns, reader = edited_tables.opened(path, text)
    is_table = any(name in columns for name in _NAMES)
    names, labels = _of_table(path, columns, reader) if is_table else (_of_lines(text), {})
    if not names:
        marked = f"no line is marked in the column {_CONFIRMED}. Mark with x the clips to leave out"
        why = marked if is_table and _CONFIRMED in columns else "it names no clip. Add clips to it"
        raise UserError(f"--exclude {path}: {why}, or omit --exclude")
    return ExclusionList(path, names, labels)


def _of_lines(text: str) -> dict[str, int]:
    lines = enumerate((line.strip() for line in text.split("\n")), 1)
    return {line: number for number, line in lines if line and not line.startswith("#")}


def _of_table(path: Path, columns: Sequence[str], reader: Reader) -> tuple[dict[str, int], dict[str, str]]:
    """Return the line number of each name, and the label of those that have one."""
    column = next(name for name in _NAMES if name in columns)
    names, labels = {}, {}
    for cells in reader:
        row = edited_tables.by_column(columns, cells)
        if surplus := edited_tables.surplus(columns, cells):
            raise UserError(f"--exclude {path}:{reader.line_num}: {surplus}")
        if not any(row.values()):
            continue
        # without this column, every line counts
        if _CONFIRMED in columns and not _is_marked(row[_CONFIRMED], f"{path}:{reader.line_num}"):
            continue
        if not row[column]:
            raise UserError(f"--exclude {path}:{reader.line_num}: the column {column} is empty")
        names[row[column]] = reader.line_num
        if (label := row.get(_LABEL)) in CLASS_NAMES:
            labels[row[column]] = label
    return names, labels


def _is_marked(mark: str, where: str) -> bool:
    if mark.casefold() not in _YES | _NO:
        raise UserError(
            f"--exclude {where}: {_CONFIRMED} is {mark!r}. Mark with x the clips to leave out; leave the others empty"
        )
    return mark.casefold() in _YES
