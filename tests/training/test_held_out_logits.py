"""benchmarks/held_out.py: averaging a network's held-out logits, read from a file, with the margins of machines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from benchmarks import held_out
from violence_detection.errors import UserError
from violence_detection.evaluation import temperature

REPOSITORY = Path(__file__).resolve().parents[2]


def test_logits_come_in_the_order_of_the_clips_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "logits.csv"
    file.write_bytes(
        b"clip_id,source,elsewhere_a,in_set_a,elsewhere_b\nx,caf\xe9,1.5,-2,0.25\ny,,-1,3,0.5\nz,,9,9,9\n"
    )
    found = held_out.HeldOut(file, ["y", "x"])
    np.testing.assert_array_equal(found.elsewhere, [[-1, 1.5], [0.5, 0.25]])
    np.testing.assert_array_equal(found.in_set, [[3, -2]])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "does not exist"),
        ("id,elsewhere_a,in_set_a\nx,1,1\n", "not a CSV file with a column clip_id"),
        ("clip_id,elsewhere_a,in_set_a\nw,1,1\n", "has no row for 1 of 1 clips, such as x"),
        ("clip_id,elsewhere_a\nx,1\n", "needs at least one column in_set_"),
        (
            "clip_id,elsewhere_a,in_set_a\nx,,1\n",
            "needs at least one column elsewhere_<name>, with a number in each row",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_named_with_the_reason(
    tmp_path: Path, text: str | None, why: str
) -> None:
    file = tmp_path / "logits.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=why) as e:
        held_out.HeldOut(file, ["x"])
    assert str(file) in str(e.value)


def test_both_are_scaled_by_what_the_other_parts_say_of_them_and_count_alike() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    margins, logits = ((2 * labels - 1) * s + rng.normal(0, 2 * s, 300) for s in (0.3, 4.0))
    parts = [(np.arange(100, 300), np.arange(100)), (np.arange(100), np.arange(100, 300))]
    (found,) = held_out.averaged(margins, [logits], parts, labels)
    for _, judged in parts:
        others = np.setdiff1d(np.arange(300), judged)
        expected = np.zeros(len(judged))
        for given in (margins, logits):
            t, _ = temperature.fit(labels[others] == 1, expit(given[others]))
            assert t is not None
            expected = expected + given[judged] / t / 2
        np.testing.assert_allclose(found[judged], expected)


def test_the_file_that_stands_beside_it_has_every_clip_of_the_models_that_ship() -> None:
    listed = pd.read_csv(REPOSITORY / "violence_detection/models/shipped_models/accurate/trained_on.csv")
    found = held_out.HeldOut(REPOSITORY / "benchmarks/i3d_tuned_held_out.csv", list(listed.clip_id))
    assert (len(found.elsewhere), len(found.in_set)) == (5, 1)
