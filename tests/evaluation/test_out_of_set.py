"""The out-of-set figure at the top of the page: the worst one measured on clips that training had no part in."""

from __future__ import annotations

from typing import Any

import pytest

from violence_detection.datasets.generated import marker
from violence_detection.evaluation.report import out_of_set


def row(accuracy: float, **more: Any) -> dict[str, Any]:
    ci95 = [accuracy - 0.1, accuracy + 0.1]
    return {"accuracy": accuracy, "ci95": ci95, "n": 20, "n_groups": 9, "roc_auc": 0.8, **more}


def headline(found: dict[str, Any], touched: int = 0) -> dict[str, Any]:
    return out_of_set.headline({"seen_in_training": {"touched": touched}, "threshold": 0.5, **found})


def test_the_worst_set_from_elsewhere_goes_first_and_one_that_training_had_counts_for_nothing() -> None:
    sets = {
        "good": row(0.9, unseen=True),
        "bad": row(0.6, unseen=None),
        "trained_on": row(0.5, unseen=False),
    }
    found = headline({"elsewhere": sets})
    assert (found["measured_by"], found["accuracy"]) == ("elsewhere", 0.6)
    unchecked = " (whether training had its clips was not fully checked)"
    assert found["what"] == f"bad, the worst of 2 sets from elsewhere{unchecked}"
    assert headline({"elsewhere": {"bad": sets["bad"]}})["what"] == f"bad{unchecked}"
    assert headline({"elsewhere": {"good": sets["good"]}})["what"] == "good"
    met = headline({"elsewhere": {"a": row(0.5, unseen=False)}})
    assert met == {"measured_by": "", "met_in_training": ["a"]}


def test_left_out_data_sets_count_where_their_models_are_like_this_one() -> None:
    left_out = {"belongs": True, "datasets": [row(0.8, dataset="a"), row(0.7, dataset="b")]}
    found = headline({"leave_one_dataset_out": left_out})
    assert (found["measured_by"], found["accuracy"]) == ("leave_one_dataset_out", 0.7)
    for belongs in (False, None):
        other = {**left_out, "belongs": belongs}
        assert headline({"leave_one_dataset_out": other}) == {"measured_by": ""}


@pytest.mark.parametrize("generated", [False, True])
def test_left_out_figures_are_labelled_by_their_own_clips_not_by_those_judged(generated: bool) -> None:
    left_out = {"belongs": True, "datasets": [row(0.7, dataset="a")], "generated_samples": generated}
    found = headline({"leave_one_dataset_out": left_out, "sample_label": marker.SAMPLE_LABEL})
    assert found["sample_label"] == (marker.SAMPLE_LABEL if generated else "")


def test_left_out_figures_of_another_threshold_than_the_clips_say_so() -> None:
    left_out = {"belongs": True, "threshold": 0.5, "datasets": [row(0.7, dataset="a")]}
    found = headline({"leave_one_dataset_out": left_out, "threshold": 0.9})
    assert found["what"].endswith(", at threshold 0.50")
    assert found["other_threshold"]
    same = headline({"leave_one_dataset_out": left_out})
    assert "threshold" not in same["what"]
    assert not same["other_threshold"]


def test_judged_data_sets_that_training_did_not_have_are_out_of_set() -> None:
    out = row(0.7, datasets=["new"])
    both = {"in_set": row(0.9, datasets=["old"]), "out_of_set": out}
    assert headline({"by_training": both})["accuracy"] == 0.7
    assert headline({"by_training": {"out_of_set": out}}) == {"measured_by": "this"}
    assert headline({"by_training": {"out_of_set": out}}, touched=1) == {"measured_by": ""}
    assert headline({"by_training": None}) == {"measured_by": ""}


def test_clips_of_one_class_give_no_accuracy_elsewhere() -> None:
    """Always saying nonfight would be right on all quiet footage, and always saying fight on a set of fights."""
    calm = row(1.0, unseen=True, roc_auc=None)
    assert headline({"elsewhere": {"quiet": calm}}) == {"measured_by": "", "one_class": ["quiet"]}
    both = {"quiet": row(0.0, unseen=True, roc_auc=None), "market": row(0.7, unseen=True)}
    assert headline({"elsewhere": both})["what"] == "market"
    left_out = {"belongs": True, "datasets": [row(0.1, dataset="a", roc_auc=None), row(0.7, dataset="b")]}
    found = headline({"leave_one_dataset_out": left_out})
    assert (found["accuracy"], found["what"]) == (
        0.7, "b, the worst of the data sets left out of training that have both classes",
    )  # fmt: skip
    both["square"] = row(0.8, unseen=True)
    assert (
        headline({"elsewhere": both})["what"]
        == "market, the worst of 2 sets from elsewhere that have both classes"
    )
    parts = {"in_set": row(0.9, datasets=["old"]), "out_of_set": row(1.0, datasets=["new"], roc_auc=None)}
    assert headline({"by_training": parts}) == {"measured_by": ""}
