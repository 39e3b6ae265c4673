"""benchmarks/learning_curve.py: which clips each point of a curve is fitted to, and how its figures are averaged."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import learning_curve


@pytest.fixture
def curves() -> learning_curve.Curves:
    """Curves over two data sets of 8 and 16 sources with 3 clips each; the clips of every other source are fights."""
    sources = np.repeat(np.arange(24), 3)
    probe: Any = SimpleNamespace(
        groups=np.array([f"{source:02d}" for source in sources]),
        datasets=np.where(sources < 8, "a", "b"),
        labels=sources % 2,
        points={"x": None},
        margins=lambda _, parts: (
            np.where(sources % 2, 1.0, -1.0) * np.where(sources == parts[0][1][0] // 3, -1, 1)
        ),
    )
    return learning_curve.Curves(probe)


def test_smaller_shares_lie_in_larger_ones_and_have_both_classes_of_every_data_set(curves: object) -> None:
    everyone = np.arange(72)
    probe = curves.probe  # type: ignore[attr-defined]
    found = {s: curves._some_sources(everyone, s, seed=1) for s in (0.125, 0.25, 0.5, 1.0)}  # type: ignore[attr-defined]
    assert [len(set(probe.groups[found[s]])) for s in (0.25, 0.5, 1.0)] == [2 + 4, 4 + 8, 24]
    for smaller, larger in ((0.125, 0.25), (0.25, 0.5), (0.5, 1.0)):
        assert set(found[smaller]) <= set(found[larger])
    for clips in found.values():
        assert {*zip(probe.datasets[clips], probe.labels[clips], strict=True)} == {
            ("a", 0), ("a", 1), ("b", 0), ("b", 1)
        }  # fmt: skip
        whole = np.isin(probe.groups, probe.groups[clips])
        assert whole.sum() == len(clips), "a source is taken whole"


def test_figures_are_means_of_parts_and_then_of_draws(curves: object) -> None:
    left_out = [(np.arange(24, 72), np.arange(24)), (np.arange(24), np.arange(24, 72))]
    rows = curves.over_datasets()  # type: ignore[attr-defined]
    assert len(rows) == 1
    # the first source of each part is misjudged: 3 of 24 clips, and 3 of 48
    assert rows[0]["accuracy"] == pytest.approx((21 / 24 + 45 / 48) / 2, abs=1e-4)
    assert rows[0]["accuracy_sd"] is None
    twice = curves._figures([left_out, left_out[:1]])  # type: ignore[attr-defined]
    assert twice["accuracy"] == pytest.approx(((21 / 24 + 45 / 48) / 2 + 21 / 24) / 2, abs=1e-4)
