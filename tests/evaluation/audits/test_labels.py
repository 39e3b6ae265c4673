"""Label errors and weak groups: swapped labels come first, a misjudged group is found, clean sets raise no alarm."""

from __future__ import annotations

import math

import made_up_footage
import numpy as np
import pandas as pd
import pytest

from violence_detection.combine import fingerprint
from violence_detection.evaluation.audits import labels


def out_of_fold(rows: pd.DataFrame, values: np.ndarray) -> pd.DataFrame:
    """The rows with P(fight) from a logistic regression that was fitted without the clip's source."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=200))
    p = cross_val_predict(
        model,
        values,
        rows.label == "fight",
        groups=rows.source_group,
        cv=GroupKFold(5),
        method="predict_proba",
    )
    return rows.assign(p_fight=p[:, 1])


def train_part(seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    rows, values = made_up_footage.world(seed)
    train = (rows.split == "train").to_numpy()
    return rows[train].reset_index(drop=True), values[train]


def flipped(rows: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, set[str]]:
    """The rows with 5 % of their labels swapped, and the ids of those clips."""
    at = np.random.default_rng(seed).choice(len(rows), round(0.05 * len(rows)), replace=False)
    label = rows.label.to_numpy(object, copy=True)
    label[at] = np.where(label[at] == "fight", "nonfight", "fight")
    return rows.assign(label=label), set(rows.clip_id.iloc[at])


@pytest.mark.parametrize("seed", range(10))
def test_half_of_five_percent_exchanged_labels_are_in_the_first_tenth(seed: int) -> None:
    rows, values = train_part(seed)
    rows, wrong = flipped(rows, seed)
    made = labels.audit(out_of_fold(rows, values), values)
    first = made.suspects.head(math.ceil(0.1 * len(rows)))
    assert len(wrong & set(first.clip_id)) >= 0.5 * len(wrong)
    noise = made.record["noise"]
    assert 0.02 <= noise["share"] <= 0.08
    assert noise["low"] <= 0.05 <= noise["high"]
    assert made.record["limit"]["state"] == ("alarm" if noise["low"] > 0 else "fine")
    assert not made.record["weak_groups"]
    assert (first.suggested != first.label).mean() > 0.5


def test_all_that_confident_learning_calls_wrong_is_listed() -> None:
    """Confident learning goes by class: if fights are rare and get less, it does not flag just the lowest scores."""
    rng = np.random.default_rng(0)
    is_fight = rng.random(600) < 0.35
    rows = pd.DataFrame(
        {"clip_id": [f"{i:04}" for i in range(600)], "label": np.where(is_fight, "fight", "nonfight")}
    )
    rows = rows.assign(
        path=rows.clip_id, source_path="", dataset="d", source_group=rows.clip_id, fingerprint=""
    )
    rows["p_fight"] = 1 / (1 + np.exp(-rng.normal(np.where(is_fight, 0.6, -1.2))))
    rows, _ = flipped(rows, 0)
    flagged = labels.doubt(rows.p_fight.to_numpy(), (rows.label == "fight").to_numpy())[1]
    suspects = labels.audit(rows, None).suspects
    assert flagged.sum() > 60
    assert set(rows.clip_id[flagged]) <= set(suspects.clip_id)
    score = np.where(rows.label == "fight", rows.p_fight, 1 - rows.p_fight)
    assert set(rows.clip_id.iloc[np.argsort(score)[:60]]) <= set(suspects.clip_id)
    assert suspects.score.is_monotonic_increasing


@pytest.mark.parametrize("seed", range(10))
def test_a_clean_set_raises_no_alarm(seed: int) -> None:
    rows, values = train_part(seed)
    made = labels.audit(out_of_fold(rows, values), values).record
    assert not made["noise"]["alarm"]
    assert made["weak_groups"] == []
    assert made["copies_of_other_label"] == 0
    assert made["limit"]["state"] == "fine"


def test_predictions_that_tell_nothing_do_not_vouch_for_the_labels() -> None:
    rows, _ = train_part(0)
    rows = rows.groupby("label").head(60).reset_index(drop=True)
    rows["p_fight"] = np.random.default_rng(0).uniform(0.3, 0.7, len(rows))
    made = labels.audit(rows, None).record
    assert (made["noise"]["alarm"], made["noise"]["told"], made["limit"]["state"]) == (
        False,
        False,
        "unknown",
    )
    assert made["noise"]["high"] >= 0.1
    assert (
        "too few or too poor to tell how many labels are wrong (95 % interval 0.0 to" in made["limit"]["text"]
    )


def test_a_group_of_look_alikes_that_is_misread_is_found() -> None:
    rows, values = train_part(0)
    rows = out_of_fold(rows, values)
    rng = np.random.default_rng(0)
    look = rng.normal(0, 3, values.shape[1])
    chosen = rows.source_group.isin(rows.source_group.drop_duplicates()[:25]).to_numpy()
    values = np.where(chosen[:, None], np.maximum(values + look, 0), values)
    rows["p_fight"] = np.where(chosen, rng.random(len(rows)), rows.p_fight)
    made = labels.audit(rows, values).record
    assert made["weak_groups"]
    assert sum(g["n"] for g in made["weak_groups"]) <= 1.1 * chosen.sum()
    worst = made["weak_groups"][0]
    assert worst["accuracy"] < 0.7 < worst["accuracy_of_others"]
    assert set(worst["examples"]) <= set(rows.path[chosen])


@pytest.mark.parametrize("copy", ["equal", "altered", "mirrored"])
def test_copies_under_both_labels_are_suspects_however_well_they_are_believed(copy: str) -> None:
    rows, values = train_part(1)
    rows = out_of_fold(rows, values)
    score = np.where(rows.label == "fight", rows.p_fight, 1 - rows.p_fight)
    sure = rows.assign(score=score).sort_values("score")
    *_, again, a = sure[sure.label == "fight"].index
    b = sure[sure.label == "nonfight"].index[-1]
    spectra = np.random.default_rng(0).normal(0, 20, (8, fingerprint.N_COEFFICIENTS))
    rows.loc[[again, a], "fingerprint"] = fingerprint.encode(spectra)
    copies = {"equal": spectra, "altered": spectra.round(-1), "mirrored": fingerprint.mirrored(spectra)}
    rows.loc[b, "fingerprint"] = fingerprint.encode(copies[copy])
    made = labels.audit(rows, values)
    found = made.suspects.set_index("clip_id").loc[rows.clip_id[[again, a, b]].tolist()]
    assert found.why.str.startswith("a mirrored copy of" if copy == "mirrored" else "a copy of").all()
    assert (found.suggested != found.label).all()
    assert made.record["copies_of_other_label"] == 3
    assert "copies of clips with the other label" in made.record["limit"]["text"]


def test_too_few_clips_of_a_class_are_said_and_without_features_groups_are_not_claimed() -> None:
    rows, values = train_part(0)
    rows = out_of_fold(rows, values)
    made = labels.audit(rows[rows.label == "fight"], None)
    assert (made.record["checked"], made.record["limit"]["state"]) == (False, "unknown")
    assert made.suspects.empty
    record = labels.audit(rows, None, "they are not there").record
    assert record["groups_not_compared"] == "they are not there"
    assert record["groups_compared"] == 0
