"""Read a TOML table field by field and report everything that is wrong with it, not only the first fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
_SHOWN_CHARACTERS = 60


class TableFields:
    """One table of a TOML file, called `where` in messages.

    The methods read one field each, and every fault adds a line to `problems`. `finish` makes an object of the values.
    """

    def __init__(self, where: str, table: Any, problems: list[str]):
        self.where, self.problems = where, problems
        self._known: list[str] = []
        self._values: dict[str, Any] = {}
        self._before = len(problems)
        self._is_table = isinstance(table, dict)
        self._table: Mapping[str, Any] = table if self._is_table else {}
        if not self._is_table:
            problems.append(f"{where}: found {_shown(table)}; needed: a table of fields")

    def has(self, field: str) -> bool:
        """Whether the table has the field, valid or not."""
        return field in self._table

    def take(self, field: str, accept: Callable[[Any], Any], needed: str, *, optional: bool = False) -> Any:
        """The field as `accept` returns it; None if it is missing, or refused with ValueError or TypeError.

        `needed` says what the field has to be, for messages.
        """
        self._known.append(field)
        if field not in self._table:
            if not optional and self._is_table:
                self._problem(field, "nothing", needed)
            return None
        try:
            self._values[field] = accept(self._table[field])
        except (ValueError, TypeError) as e:
            self._problem(field, f"{_shown(self._table[field])}{f' ({e})' if str(e) else ''}", needed)
            return None
        return self._values[field]

    def text(self, *fields: str, optional: bool = False) -> None:
        """Read these fields, each of them text."""
        for field in fields:
            self.take(field, text, "text", optional=optional)

    def many(
        self,
        field: str,
        read: Callable[[TableFields], T | None],
        needed: str,
        *,
        optional: bool = False,
    ) -> None:
        """Read a field that is a list of tables. Its value is the tuple of what `read` makes of each."""
        found = self.take(field, _list, needed, optional=optional)
        if found is None:
            return
        if not found and not optional:
            self._problem(field, "an empty list", needed)
        made = [
            read(TableFields(f"{self.where} {field}[{i}]", item, self.problems))
            for i, item in enumerate(found)
        ]
        self._values[field] = tuple(made)

    def one(self, field: str, read: Callable[[TableFields], T | None]) -> None:
        """Read a field that is a table itself, if it is there. Its value is what `read` makes of it."""
        self._known.append(field)
        if field in self._table:
            self._values[field] = read(
                TableFields(f"{self.where} {field}", self._table[field], self.problems)
            )

    def refuse(self, found: str, needed: str) -> None:
        """Report a fault that lies in several fields together."""
        self.problems.append(f"{self.where}: found {found}; needed: {needed}")

    def finish(self, make: Callable[..., T], **more: Any) -> T | None:
        """Call `make` with the values and `more`; return None instead if anything in the table is wrong.

        Fields that were not read are reported as unknown.
        """
        for field in self._table:
            if field not in self._known:
                known = ", ".join(self._known)
                self.problems.append(f"{self.where} {field}: unknown field; known fields: {known}")
        return make(**self._values, **more) if len(self.problems) == self._before else None

    def _problem(self, field: str, found: str, needed: str) -> None:
        self.problems.append(f"{self.where} {field}: found {found}; needed: {needed}")


def text(value: Any) -> str:
    """The value if it is text; otherwise raises TypeError."""
    if not isinstance(value, str):
        raise TypeError
    return value


def flag(value: Any) -> bool:
    """The value if it is true or false; otherwise raises TypeError."""
    if not isinstance(value, bool):
        raise TypeError
    return value


def count(value: Any) -> int:
    """The value if it is a whole number of at least 0; otherwise raises TypeError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError
    return value


def one_of(*allowed: str) -> Callable[[Any], str]:
    """A check that accepts only these words."""

    def check(value: Any) -> str:
        if value not in allowed:
            raise ValueError
        return str(value)

    return check


def list_of(item: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """A check that accepts a list of values that `item` accepts, and returns a tuple."""
    return lambda value: tuple(item(v) for v in _list(value))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[:_SHOWN_CHARACTERS] + " ..."
