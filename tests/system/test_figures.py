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
