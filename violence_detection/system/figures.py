"""Figures as people read them, on pages, in tables, in pictures and in the log."""

from __future__ import annotations

from typing import Any, TypeGuard

#: What stands in place of a figure that is not defined, such as the AUC of one class.
UNDEFINED = "not defined"
#: No figure has more decimals, however near 1 it is.
MOST_DIGITS = 6
#: A p-value below it is written as that.
LEAST_P = 0.001


def number(value: float | None, digits: int = 3) -> str:
    """With so many decimals, and more where what is below 1 would be written as 1."""
    if value is None:
        return UNDEFINED
    while value < 1 == float(f"{value:.{digits}f}") and digits < MOST_DIGITS:
        digits += 1
    return f"{value:.{digits}f}"


def p_value(p: float) -> str:
    """p 0.031, or p < 0.001: chance alone is never impossible."""
    return f"p {p:.3f}" if p >= LEAST_P else f"p < {LEAST_P}"


def percentage(share: float) -> str:
    """0.8 as 80.0: with one decimal, and more where what is below 1 would be written as 100."""
    digits = 1
    while share < 1 and float(f"{100 * share:.{digits}f}") == 100 and digits < MOST_DIGITS:
        digits += 1
    return f"{100 * share:.{digits}f}"


def plural(count: int, what: str) -> str:
    """1 source, 2 sources."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def is_share(value: Any) -> TypeGuard[float]:
    """Whether a figure in somebody's record is one between 0 and 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
