"""Figures of left-out data sets over several seeds, compared with sums worked out by hand."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from violence_detection.ensemble import leave_one_out
from violence_detection.evaluation import intervals


def _predictions(seed: int) -> pd.DataFrame:
    """Two data sets of 60 clips: `low` is ranked well but scored below the threshold, `random` is scored at random."""
    rng = np.random.default_rng(seed)
    is_fight = np.tile([True, False], 60)
    dataset = np.repeat(["low", "random"], 60)
    p = np.where(dataset == "low", 0.2 + 0.2 * is_fight + rng.normal(0, 0.03, 120), rng.random(120))
    return pd.DataFrame(
        {
            "clip_id": [f"{i:03}" for i in range(120)],
            "path": [f"{i}.mp4" for i in range(120)],
            "dataset": dataset,
            "source_group": [f"s{i // 4}" for i in range(120)],
            "label": np.where(is_fight, "fight", "nonfight"),
            "p_violent": p.clip(0, 1),
            "p_bilstm": (p + 0.01).clip(0, 1),
        }
    )


def test_figures_are_means_over_seeds_the_worst_first_and_tell_ranking_from_threshold() -> None:
    frames = [_predictions(seed) for seed in range(3)]
    found = leave_one_out.summarised(
        frames, {"low": {"accuracy": 0.9, "ci95": [0.8, 0.95], "roc_auc": 0.97, "n": 60}}
    )
    by_name = {d["dataset"]: d for d in found["datasets"]}
    assert [d["accuracy"] for d in found["datasets"]] == sorted(d["accuracy"] for d in found["datasets"])
    low = by_name["low"]
    assert low["accuracy"] == pytest.approx(0.5, abs=0.01), "no score reaches the threshold"
    assert (low["recall"], low["false_alarms"]) == pytest.approx((0, 0), abs=0.01)
    assert low["roc_auc"] > 0.99
    assert low["accuracy_at_median"] > 0.97
    assert low["in_set"] == {"accuracy": 0.9, "ci95": [0.8, 0.95], "roc_auc": 0.97}
    assert by_name["random"]["in_set"] is None
    for name, d in by_name.items():
        rows = [f[f.dataset == name] for f in frames]
        is_fight = [r.label == "fight" for r in rows]
        accuracies = [float(((r.p_violent >= 0.5) == y).mean()) for r, y in zip(rows, is_fight, strict=True)]
        assert d["accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-4)
        assert d["accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1), abs=1e-4)
        aucs = [metrics.roc_auc_score(y, r.p_bilstm) for r, y in zip(rows, is_fight, strict=True)]
        assert d["members"]["bilstm"]["roc_auc"] == pytest.approx(np.mean(aucs), abs=1e-4)
        assert d["ci95"][0] < d["accuracy"] < d["ci95"][1]
        alone = [
            intervals.accuracy_interval(((r.p_violent >= 0.5) == y).to_numpy(), r.source_group.to_numpy())
            for r, y in zip(rows, is_fight, strict=True)
        ]
        if name == "random":  # seeds share no error, so their mean has a narrower interval
            assert d["ci95"][1] - d["ci95"][0] < min(high - low for low, high in alone)
        assert d["roc_auc_sd"] == pytest.approx(
            np.std(
                [metrics.roc_auc_score(y, r.p_violent) for r, y in zip(rows, is_fight, strict=True)], ddof=1
            ),
            abs=1e-4,
        )
    assert found["mean"]["accuracy"] == pytest.approx(
        np.mean([d["accuracy"] for d in found["datasets"]]), abs=1e-4
    )
    for name, ends in (("accuracy", "ci95"), ("roc_auc", "roc_auc_ci95")):
        values, each = ([d[key] for d in found["datasets"]] for key in (name, ends))
        assert found["mean"][ends] == pytest.approx(intervals.of_mean(values, each), abs=1e-4)


def test_sets_that_share_sources_make_a_mean_that_is_less_sure() -> None:
    frames = [_predictions(seed) for seed in range(2)]
    apart = leave_one_out.summarised(frames)
    assert [d["n_groups_shared"] for d in apart["datasets"]] == [0, 0]
    for frame in frames:
        frame.loc[frame.source_group == "s20", "source_group"] = "s3"  # both sets have this source
    shared = leave_one_out.summarised(frames)
    assert [d["n_groups_shared"] for d in shared["datasets"]] == [1, 1]
    shares = [1 / d["n_groups"] for d in shared["datasets"]]
    for name, ends in (("accuracy", "ci95"), ("roc_auc", "roc_auc_ci95")):
        values, each = ([d[key] for d in shared["datasets"]] for key in (name, ends))
        assert shared["mean"][ends] == pytest.approx(
            intervals.of_mean(values, each, intervals.sharing(shares)), abs=1e-4
        )
        assert shared["mean"][ends][0] < apart["mean"][ends][0]


def test_one_seed_has_no_spread() -> None:
    assert leave_one_out.summarised([_predictions(0)])["datasets"][0]["accuracy_sd"] is None


def test_a_data_set_of_one_class_has_no_accuracy_at_its_median(caplog: pytest.LogCaptureFixture) -> None:
    """Half of its clips are above the median whatever the model says; that figure would distort the mean over sets."""
    frame = _predictions(0)
    frame = frame[(frame.dataset == "low") | (frame.label == "nonfight")]
    found = leave_one_out.summarised([frame])
    by_name = {d["dataset"]: d for d in found["datasets"]}
    assert by_name["random"]["accuracy_at_median"] is None
    assert found["mean"]["accuracy_at_median"] == by_name["low"]["accuracy_at_median"]
    assert found["mean"]["roc_auc_ci95"] == pytest.approx(by_name["low"]["roc_auc_ci95"], abs=1e-4)
    # nor does its accuracy count: a model that calls nothing a fight would be right on all of its clips
    assert by_name["random"]["accuracy"] != by_name["low"]["accuracy"]
    assert found["mean"]["accuracy"] == by_name["low"]["accuracy"]
    assert found["mean"]["ci95"] == pytest.approx(by_name["low"]["ci95"], abs=1e-4)
    assert all(
        member["accuracy"] == by_name["low"]["members"][name]["accuracy"]
        for name, member in found["mean_of_members"].items()
    )
    with caplog.at_level("INFO"):
        leave_one_out._log({**found, "selected_by": "nothing (a kernel head is fitted at once)"})
    assert (
        "models of the others; epoch chosen by nothing (a kernel head is fitted at once), threshold fixed at 0.5"
        in caplog.text
    )
    for name, d in by_name.items():
        assert re.search(rf"(?m)^{name} +{d['n']} +\d", "\n".join(caplog.messages))
    low, high = (f"{100 * x:.1f}" for x in found["mean"]["ci95"])
    assert re.search(rf"^mean .* {low} - +{high} ", caplog.messages[-1])
    assert "random has clips of only one class, and does not count in the mean" in caplog.text
    quiet = leave_one_out.summarised([frame[frame.label == "nonfight"]])
    assert quiet["mean"]["accuracy"] == pytest.approx(
        np.mean([d["accuracy"] for d in quiet["datasets"]]), abs=1e-4
    )
