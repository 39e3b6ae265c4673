"""How the page formats figures, names and drawings."""

from __future__ import annotations

import re

import pytest

from violence_detection.evaluation.report import page_filters
from violence_detection.system import figures


def bars(drawing: str) -> list[tuple[float, float, float]]:
    """(x, width, height) of each bar in an attention drawing."""
    found = re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)" height="([\d.]+)"', drawing)
    return [(float(x), float(w), float(h)) for x, w, h in found]


def test_each_frame_has_the_bars_of_its_own_steps() -> None:
    shares = [0.1, 0.2, 0.3, 0.4]
    first, second = (bars(page_filters.attention_part(shares, i, 2)) for i in range(2))
    assert [h for _, _, h in first + second] == pytest.approx([2, 4, 6, 8])
    assert [x for x, _, _ in first] == [x for x, _, _ in second]


def test_a_step_that_two_frames_share_is_drawn_in_both() -> None:
    first, second = (bars(page_filters.attention_part([0.2, 0.6, 0.2], i, 2)) for i in range(2))
    assert [round(h, 1) for _, _, h in first] == [3.0, 9.0]
    assert [round(h, 1) for _, _, h in second] == [9.0, 3.0]


def test_attention_that_is_even_stands_at_half_the_height_on_the_dashed_line() -> None:
    drawing = page_filters.attention_part([0.25] * 4, 0, 1)
    assert {h for _, _, h in bars(drawing)} == {5.0}
    assert 'y1="5.000"' in drawing


def test_bars_of_accuracy_and_score_end_where_the_figure_is() -> None:
    bar = page_filters.interval_bar({"accuracy": 0.8, "ci95": [0.5, 0.9]})
    assert 'class="span" x="50.00" y="3" width="40.00"' in bar
    assert page_filters.interval_bar({"accuracy": None, "ci95": None}) == ""
    assert 'class="fight" x="0" y="2" width="70.00"' in page_filters.score_bar(0.7, 0.5)
    assert 'class="nonfight" x="0" y="2" width="70.00"' in page_filters.score_bar(0.7, 0.75)


def test_figures_are_written_in_full_and_undefined_ones_in_words() -> None:
    assert page_filters.percent(0.12345) == "12.3\u00a0%"
    assert page_filters.percent(None) == figures.number(None) == "not defined"
    assert page_filters.interval([0.5, 1.0]) == "50.0–100.0\u00a0%"
    assert page_filters.moment("2026-01-02T03:04:05+0000") == "2026-01-02 03:04:05 +0000"
    assert page_filters.breakable("a_<b>") == "a_<wbr>&lt;b&gt;"


@pytest.mark.parametrize(
    ("cosine", "written"),
    [(0.5, "0.50"), (0.914, "0.91"), (0.9989, "0.9989"), (0.999, "0.9990"), (0.99996, "0.999960"), (1.0, "1.00"),
     (1.0000001, "1.00"), (-0.3, "-0.30"), (None, figures.UNDEFINED)],
)  # fmt: skip
def test_similarities_near_one_are_told_apart(cosine: float | None, written: str) -> None:
    assert page_filters.similarity(cosine) == written


@pytest.mark.parametrize(
    ("share", "written"), [(0.9996, "99.96"), (0.99999, "99.999"), (0.9994, "99.9"), (1.0, "100.0")]
)
def test_what_is_not_all_is_not_written_as_a_hundred_percent(share: float, written: str) -> None:
    assert page_filters.percent(share) == f"{written}\u00a0%"
    assert page_filters.interval([0.5, share]) == f"50.0–{written}\u00a0%"
