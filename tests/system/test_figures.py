"""Numbers as they are written for people."""

from __future__ import annotations

import pytest

from violence_detection.system import figures


@pytest.mark.parametrize(
    ("value", "digits", "written"),
    [(0.9998, 3, "0.9998"), (0.9973, 2, "0.997"), (1.0, 3, "1.000"), (0.5, 3, "0.500"), (1.9999, 2, "2.00")],
)
def test_what_is_below_one_is_not_written_as_one(value: float, digits: int, written: str) -> None:
    assert figures.number(value, digits) == written


@pytest.mark.parametrize(("p", "written"), [(0.03149, "p 0.031"), (0.0009, "p < 0.001"), (0.0, "p < 0.001")])
def test_no_odds_are_written_as_nought(p: float, written: str) -> None:
    assert figures.p_value(p) == written


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.8, "80.0"), (0.9996, "99.96"), (0.99951, "99.95"), (1.0, "100.0")],
)
def test_what_is_not_all_is_not_written_as_a_hundred(share: float, written: str) -> None:
    assert figures.percentage(share) == written


def test_one_is_one_source_and_not_one_sources() -> None:
    assert [figures.plural(n, "source") for n in (0, 1, 2)] == ["0 sources", "1 source", "2 sources"]


def test_a_share_is_a_number_between_0_and_1() -> None:
    assert all(map(figures.is_share, (0, 0.5, 1, 1.0)))
    assert not any(map(figures.is_share, (True, "0.5", None, [0.5], float("nan"), -0.1, 50)))
