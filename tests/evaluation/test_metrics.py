"""Figures and intervals are right on cases worked by hand, and clips of one source count as related."""

from __future__ import annotations

import json
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest

from violence_detection.errors import UserError
from violence_detection.evaluation import intervals, metrics


def predictions_frame(n: int = 60, seed: int = 0, clips_per_source: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    fight = np.arange(n) % 2 == 0
    p = np.clip(0.5 + (fight - 0.5) * 0.5 + rng.normal(0, 0.2, n), 0, 1)
    return pd.DataFrame(
        {
            "clip_id": [f"{i:016x}" for i in range(n)],
            "path": [f"val/{'fight' if f else 'nonfight'}/{i}.avi" for i, f in enumerate(fight)],
            "dataset": np.where(np.arange(n) < n // 2, "rwf_2000", "hockey_fights"),
            "source_group": [f"s{i // clips_per_source}" for i in range(n)],
            "label": np.where(fight, "fight", "nonfight"),
            "p_gru": np.clip(p + rng.normal(0, 0.1, n), 0, 1),
            "p_attention": p,
            "p_violent": p,
        }
    )


def wilson(correct: int, n: int) -> tuple[float, float]:
    z = NormalDist().inv_cdf(0.975)
    p = correct / n
    centre, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)


def test_with_every_clip_its_own_source_the_interval_is_wilsons() -> None:
    correct = np.arange(200) % 10 != 0
    assert intervals.accuracy_interval(correct, np.arange(200)) == pytest.approx(wilson(180, 200), abs=1e-3)


def test_clips_of_one_source_do_not_count_as_independent() -> None:
    correct = np.repeat(np.arange(20) % 5 != 0, 10)  # each source is all right or all wrong
    clustered = intervals.accuracy_interval(correct, np.repeat(np.arange(20), 10))
    low, high = wilson(16, 20)  # the interval of 20 independent clips
    assert clustered[1] - clustered[0] > 0.85 * (high - low)
    spread = intervals.accuracy_interval(correct, np.arange(200))
    assert clustered[1] - clustered[0] > 2.5 * (spread[1] - spread[0])


def test_all_correct_has_a_width_that_grows_as_sources_get_fewer() -> None:
    widths = []
    for n_groups in (100, 20, 4, 1):
        low, high = intervals.accuracy_interval(np.ones(100, bool), np.arange(100) % n_groups)
        assert high == pytest.approx(1.0)
        widths.append(high - low)
    assert widths[0] > 0.03
    assert widths == sorted(widths)
    assert widths[-1] > 0.2


def test_one_more_error_does_not_narrow_the_interval_abruptly() -> None:
    groups = np.repeat(np.arange(20), 5)
    lows = []
    for errors in range(4):
        correct = np.ones(100, bool)
        correct[np.arange(errors) * 7] = False
        lows.append(intervals.accuracy_interval(correct, groups)[0])
    assert lows[0] > lows[3]
    assert max(np.abs(np.diff(lows))) < 0.04


def test_an_interval_needs_clips() -> None:
    with pytest.raises(ValueError, match="at least one clip"):
        intervals.accuracy_interval(np.zeros(0, bool), np.zeros(0))


def test_figures_of_a_case_worked_by_hand() -> None:
    frame = predictions_frame(10, clips_per_source=1)
    frame["label"] = ["fight"] * 5 + ["nonfight"] * 5
    frame["p_violent"] = [0.9, 0.8, 0.7, 0.2, 0.3, 0.6, 0.1, 0.15, 0.25, 0.05]
    result = metrics.figures(frame, 0.5)
    assert result["accuracy"] == 0.7
    assert result["confusion_matrix"] == [[4, 1], [2, 3]]
    assert result["precision"] == 3 / 4
    assert result["recall"] == 3 / 5
    assert result["f1"] == pytest.approx(2 / 3)
    assert result["roc_auc"] == pytest.approx((5 + 5 + 5 + 3 + 4) / 25)
    wrong_by = [0.1, 0.2, 0.3, 0.8, 0.7, 0.6, 0.1, 0.15, 0.25, 0.05]
    assert result["brier"] == pytest.approx(np.mean(np.square(wrong_by)))
    assert result["n"] == 10
    assert result["n_groups"] == 10
    low, high = result["ci95"]
    assert low < 0.7 < high


def test_a_clip_at_the_threshold_is_called_a_fight() -> None:
    frame = predictions_frame(4)
    frame["p_violent"] = [0.6, 0.59, 0.6, 0.59]
    assert metrics.figures(frame, 0.6)["accuracy"] == 1.0
    assert metrics.figures(frame, 0.6)["threshold"] == 0.6


def test_every_data_set_and_member_has_its_own_figures_and_all_are_json() -> None:
    result = metrics.figures(predictions_frame(), 0.5)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert list(result["by_dataset"]) == ["hockey_fights", "rwf_2000"]
    assert all(d["n"] == 30 and d["coverage"]["fight"]["n"] == 15 for d in result["by_dataset"].values())
    assert [m["name"] for m in result["members"]] == ["attention", "gru"]
    assert result["members"][0]["accuracy"] == result["accuracy"]
    assert all(m["ci95"][0] < m["accuracy"] <= m["ci95"][1] for m in result["members"])


def test_recall_at_few_false_alarms_is_not_measured_on_few_peaceful_clips() -> None:
    result = metrics.figures(predictions_frame(), 0.5)
    assert result["recall_at_1_percent_false_alarms"] is None
    assert (
        "30 peaceful clips are too few to tell 1%"
        in result["not_measured"]["recall_at_1_percent_false_alarms"]
    )
    assert result["recall_at_5_percent_false_alarms"] is not None
    assert "recall_at_5_percent_false_alarms" not in result["not_measured"]


def test_plain_clips_have_the_same_figures_from_columns_of_their_own() -> None:
    frame = predictions_frame()
    plain = frame.assign(p_violent=1 - frame.p_violent)
    both = frame.assign(**{f"plain_{c}": plain[c] for c in ("p_gru", "p_attention", "p_violent")})
    result = metrics.figures(both, 0.5)
    assert {k: v for k, v in result.items() if k != "plain"} == metrics.figures(frame, 0.5)
    assert result["plain"] == metrics.figures(plain, 0.5)
    assert metrics.member_names(both) == ["attention", "gru"]


def test_the_result_does_not_depend_on_row_order() -> None:
    frame = predictions_frame()
    shuffled = frame.sample(frac=1, random_state=3)
    assert metrics.figures(frame, 0.5) == metrics.figures(shuffled, 0.5)


def test_a_clip_without_a_prediction_lowers_coverage_and_is_never_guessed() -> None:
    frame = predictions_frame()
    before = metrics.figures(frame.iloc[1:], 0.5)
    frame.loc[0, ["p_violent", "p_gru", "p_attention"]] = np.nan
    after = metrics.figures(frame, 0.5)
    assert after["accuracy"] == before["accuracy"]
    assert after["n"] == 59
    assert after["coverage"]["fight"] == {"n": 30, "predicted": 29, "share": 29 / 30}
    assert after["coverage"]["nonfight"]["share"] == 1.0


def test_a_data_set_without_a_prediction_has_the_same_figures_and_none_is_defined() -> None:
    frame = predictions_frame()
    frame.loc[frame["dataset"] == "rwf_2000", ["p_violent", "p_gru", "p_attention"]] = np.nan
    figures = metrics.figures(frame, 0.5)
    lost, judged = (figures["by_dataset"][name] for name in ("rwf_2000", "hockey_fights"))
    assert lost.keys() == judged.keys()
    assert (lost["asked"], lost["n"], lost["n_groups"]) == (30, 0, 0)
    assert all(lost[name] is lost["intervals"][name] is None for name in metrics.FIGURES)
    assert lost["intervals"].keys() == judged["intervals"].keys()
    assert lost["not_measured"].keys() == set(metrics.FALSE_ALARMS)
    assert np.sum(lost["confusion_matrix"]) == 0
    json.dumps(figures, allow_nan=False)


def test_a_data_set_of_one_class_has_an_accuracy_but_no_auc() -> None:
    frame = predictions_frame()
    frame = frame[(frame["dataset"] == "rwf_2000") | (frame["label"] == "fight")]
    figures = metrics.figures(frame, 0.5)["by_dataset"]["hockey_fights"]
    assert figures["roc_auc"] is None
    assert figures["average_precision"] is None
    assert figures["accuracy"] is not None


def test_precision_of_nothing_called_a_fight_and_recall_of_no_fight_are_not_defined() -> None:
    frame = predictions_frame()
    peaceful = frame[frame["label"] == "nonfight"].assign(p_violent=0.1)
    figures = metrics.figures(peaceful, 0.5)
    assert (figures["precision"], figures["recall"], figures["f1"]) == (None, None, None)
    assert metrics.figures(frame.assign(p_violent=0.1), 0.5)["recall"] == 0.0
    json.dumps(figures, allow_nan=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="source_group"), "source_group"),
        (lambda f: f.assign(label="Violence"), "Violence"),
        (lambda f: f.assign(p_violent=1.5), "outside"),
        (lambda f: f.assign(p_violent=np.nan), "no clip could be predicted"),
    ],
)
def test_predictions_that_cannot_be_judged_are_refused(change, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message):
        metrics.figures(change(predictions_frame()), 0.5)


def test_worst_mistakes_are_wrong_and_most_confident_first() -> None:
    frame = predictions_frame()
    frame.loc[3, "p_violent"] = 0.999
    frame.loc[10, "p_violent"] = 0.01
    worst = metrics.worst_mistakes(frame, 0.5, count=5)
    assert list(worst["path"][:2]) == ["val/nonfight/3.avi", "val/fight/10.avi"]
    assert ((worst["p_violent"] >= 0.5) != (worst["label"] == "fight")).all()


def manifest_frame(leak: bool) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    fight = np.arange(400) % 2 == 0
    width = np.where(fight, 640, 320) if leak else rng.choice([320, 640], 400)
    return pd.DataFrame(
        {
            "clip_id": [f"{i:016x}" for i in range(400)],
            "dataset": "real_life_violence",
            "source_group": [f"s{i // 4}" for i in range(400)],
            "label": np.where(fight, "fight", "nonfight"),
            "split": np.where(np.arange(400) < 300, "train", "val"),
            "width": width,
            "height": 240,
            "fps": rng.choice([25.0, 30.0], 400),
            "duration_s": rng.uniform(2, 8, 400),
        }
    )


def test_the_metadata_baseline_shows_a_leaking_format_and_clears_an_innocent_one() -> None:
    leaking = metrics.trivial_baselines(manifest_frame(leak=True))["metadata_only"]
    innocent = metrics.trivial_baselines(manifest_frame(leak=False))["metadata_only"]
    assert leaking["accuracy"] == 1.0
    assert leaking["roc_auc"] == 1.0
    assert abs(innocent["roc_auc"] - 0.5) < 0.15
    assert leaking["by_dataset"]["real_life_violence"]["n"] == leaking["n"] == 100


def test_the_majority_class_is_trains_not_vals() -> None:
    manifest = manifest_frame(leak=False)
    manifest.loc[:9, "label"] = "fight"
    manifest.loc[manifest["split"] == "val", "label"] = ["nonfight"] * 70 + ["fight"] * 30
    majority = metrics.trivial_baselines(manifest)["majority_class"]
    assert majority["label"] == "fight"
    assert majority["accuracy"] == 0.3


def test_baselines_without_a_val_part_are_refused() -> None:
    with pytest.raises(UserError, match="train and in val"):
        metrics.trivial_baselines(manifest_frame(leak=False).assign(split="train"))
