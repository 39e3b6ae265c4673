"""Clips that a person has looked at and wants left out: `--exclude LIST`.

LIST is a text file with a clip in each line, or a CSV file with a column clip_id, source_path or path, such as
label_suspects.csv. Where it has a column `confirmed`, only the lines that are marked in it count. A line whose column
`label` has another class than the clip by now is refused: its label was mended. A clip is named by its clip_id, its
source_path, or its path in combined_all. A listed clip that is out already as a copy takes out the clip that it is a
copy of. All other clips stay on their side of the split.
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
#: Columns that name a clip, the surest first.
_NAMES = ("clip_id", "source_path", "path")
_CONFIRMED, _LABEL = "confirmed", "label"
_YES, _NO = frozenset({"x", "y", "yes", "1", "true"}), frozenset({"", "n", "no", "0", "false"})
_SHOWN = 5


@dataclass(frozen=True)
class ExclusionList:
    """What a list names: `names`, name of a clip -> number of its line; `labels`, name -> the label that it has there,
    where the list says one.
    """

    path: Path
    names: Mapping[str, int]
    labels: Mapping[str, str]

    def record(self, excluded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """For combine.json: the list, and what it took out."""
        return {
            "list": str(self.path),
            "names": sorted(self.names),
            "clips": [r["clip_id"] for r in excluded],
        }

    def take_out(
        self, rows: Sequence[dict[str, Any]], known: Collection[str], copies: Mapping[str, str] | None = None
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The rows of the manifest that stay, and those that are excluded, with `listed_as`.

        `known`: ids and source paths of all clips, also of those that are out already as copies or unreadable.
        `copies`: id or source path of a copy that is out -> source path of the clip that it is a copy of, which may be
        one itself. Raises UserError naming lines that name no clip at all, and those whose clip has another label.
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
                f"--exclude {self.path}: the column label has another class than the clip has now, as where that was "
                f"mended, in {some_of(mended)}. So that the clip stays, take its mark out, or the line; to leave it "
                "out all the same, write the label of now there, or take the column out"
            )
        unknown = [name for name in self.names if name not in used and name not in known]
        if unknown:
            shown = some_of([f"line {self.names[name]}: {name}" for name in unknown])
            raise UserError(
                f"--exclude {self.path}: no clip has the name in {shown}. Give a clip_id, source_path or path as "
                "manifest.csv has it, or take the line out. Clips of your own are known only where --own names them, "
                "those of other folders where --roots does"
            )
        return stays, excluded

    def require_both_classes(self, stays: Sequence[Mapping[str, Any]]) -> None:
        """Raise UserError where no clip of a class stays."""
        there = {row["label"] for row in stays}
        if missing := [label for label in CLASS_NAMES if label not in there]:
            raise UserError(
                f"--exclude {self.path} leaves no {' and no '.join(missing)} clip: a model learns nothing from one "
                "class. Take lines out of the list, or mark fewer"
            )

    def _listed_copies(self, copies: Mapping[str, str]) -> dict[str, list[str]]:
        """Source path of the last of a chain of copies -> the listed names in it."""
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
    """The first of them, and how many more there are."""
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def read(path: Path) -> ExclusionList:
    """Read a list. Raises UserError where it cannot be read, names nothing, or has a mark that says neither."""
    try:
        text = storage.read_text(path, storage.NAME_ERRORS)
    except OSError as e:
        raise UserError(f"--exclude: cannot read {path}: {e.strerror}") from e
    columns, reader = edited_tables.opened(path, text)
    is_table = any(name in columns for name in _NAMES)
    names, labels = _of_table(path, columns, reader) if is_table else (_of_lines(text), {})
    if not names:
        marked = f"no line of it is marked in the column {_CONFIRMED}. Mark with x what is to go"
        why = marked if is_table and _CONFIRMED in columns else "it names no clip"
        raise UserError(f"--exclude {path}: {why}, or leave --exclude away")
    return ExclusionList(path, names, labels)


def _of_lines(text: str) -> dict[str, int]:
    lines = enumerate((line.strip() for line in text.split("\n")), 1)
    return {line: number for number, line in lines if line and not line.startswith("#")}


def _of_table(path: Path, columns: Sequence[str], reader: Reader) -> tuple[dict[str, int], dict[str, str]]:
    """The number of the line, and the label, of each name."""
    column = next(name for name in _NAMES if name in columns)
    names, labels = {}, {}
    for cells in reader:
        row = edited_tables.by_column(columns, cells)
        if surplus := edited_tables.surplus(columns, cells):
            raise UserError(f"--exclude {path}:{reader.line_num}: {surplus}")
        if not any(row.values()):
            continue
        # Where there is no column for marks, each line counts.
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
            f"--exclude {where}: {_CONFIRMED} is {mark!r}. Mark with x what is to go, leave others empty"
        )
    return mark.casefold() in _YES
