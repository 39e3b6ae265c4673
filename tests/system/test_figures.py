"""Figures as people read them."""

from __future__ import annotations

import pytest

from violence_detection.system import figures


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [(0.9998, 3, "0.9998"), (0.9973, 2, "0.997"), (1.0, 3, "1.000"), (0.5, 3, "0.500"), (1.9999, 2, "2.00")],
)
def test_what_is_below_one_is_not_written_as_one(value: float, digits: int, written: str) -> None:
    assert figures.number(value, digits) == written


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.8, "80.0"), (0.9996, "99.96"), (0.99951, "99.95"), (1.0, "100.0")],
)
def test_what_is_not_all_is_not_written_as_a_hundred(share: float, written: str) -> None:
    assert figures.percentage(share) == written
