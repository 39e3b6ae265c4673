"""Formatting of figures for people: on pages, in tables, in pictures and in the log."""

from __future__ import annotations

from typing import Any, TypeGuard

#: Shown instead of a figure that is not defined, such as the AUC of clips of a single class.
UNDEFINED = "not defined"
#: Most decimals that a figure is given, however close to 1 it is.
MOST_DIGITS = 6
#: A smaller p-value is written as `p < 0.001`.
LEAST_P = 0.001


def number(value: float | None, digits: int = 3) -> str:
    """The value with `digits` decimals, or more if a value below 1 would otherwise round to 1; None is UNDEFINED."""
    if value is None:
        return UNDEFINED
    while value < 1 == float(f"{value:.{digits}f}") and digits < MOST_DIGITS:
        digits += 1
    return f"{value:.{digits}f}"


def p_value(p: float) -> str:
    """`p 0.031`, or `p < 0.001` for any smaller one: it is never written as 0."""
    return f"p {p:.3f}" if p >= LEAST_P else f"p < {LEAST_P}"


def percentage(share: float) -> str:
    """0.8 as `80.0`: one decimal, or more if a share below 1 would otherwise round to 100."""
    digits = 1
    while share < 1 and float(f"{100 * share:.{digits}f}") == 100 and digits < MOST_DIGITS:
        digits += 1
    return f"{100 * share:.{digits}f}"


def plural(count: int, what: str) -> str:
    """`1 source`, `2 sources`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def is_share(value: Any) -> TypeGuard[float]:
    """Whether a value read from a file is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
