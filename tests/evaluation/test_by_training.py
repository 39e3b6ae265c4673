"""Data sets that training had and those it never saw are measured separately."""

from __future__ import annotations

import numpy as np
import pandas as pd

from violence_detection.evaluation import by_training

PREDICTIONS = pd.DataFrame(
    {
        "clip_id": list("abcdef"),
        "path": list("abcdef"),
        "dataset": ["seen", "seen", "seen", "seen", "new", "new"],
        "source_group": list("uvwxyz"),
        "label": ["fight", "nonfight"] * 3,
        "p_violent": [0.9, 0.1, 0.9, 0.1, 0.2, 0.1],
    }
)


def test_each_part_has_its_figures_and_the_names_of_its_data_sets() -> None:
    found = by_training.figures(PREDICTIONS, 0.5, ["seen", "other"])
    assert found is not None
    assert (found["in_set"]["accuracy"], found["in_set"]["n"]) == (1.0, 4)
    assert (found["out_of_set"]["accuracy"], found["out_of_set"]["n"]) == (0.5, 2)
    assert found["out_of_set"]["datasets"] == ["new"]


def test_a_data_set_of_which_no_clip_was_judged_is_not_said_to_be_in_a_figure() -> None:
    rows = PREDICTIONS.assign(p_violent=[0.9, 0.1, np.nan, np.nan, 0.2, 0.1])
    found = by_training.figures(rows.assign(dataset=[*"aabbcc"]), 0.5, ["c"])
    assert found is not None
    assert (found["out_of_set"]["datasets"], found["out_of_set"]["n"]) == (["a"], 2)


def test_a_part_without_judged_clips_is_absent() -> None:
    found = by_training.figures(PREDICTIONS.assign(dataset="new"), 0.5, ["seen"])
    assert found is not None
    assert set(found) == {"out_of_set"}


def test_nothing_is_claimed_where_training_is_not_known() -> None:
    assert by_training.figures(PREDICTIONS, 0.5, None) is None
