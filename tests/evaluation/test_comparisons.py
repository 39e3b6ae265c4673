"""Differences between models and from earlier reports: on shared clips, by source, corrected; what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from violence_detection.errors import UserError
from violence_detection.evaluation import comparisons, intervals, metrics


def predictions_frame(n: int = 240, seed: int = 0) -> pd.DataFrame:
    """A good member, a random one, their average, and nearly the same scores for plain clips."""
    rng = np.random.default_rng(seed)
    fight = np.arange(n) % 2 == 0
    good = np.clip(0.5 + 0.3 * (fight - 0.5) * 2 + rng.normal(0, 0.2, n), 0, 1)
    poor = rng.random(n)
    return pd.DataFrame(
        {
            "clip_id": [f"{i:016x}" for i in range(n)],
            "path": [f"{i}.avi" for i in range(n)],
            "dataset": "a",
            "source_group": [f"s{i // 4}" for i in range(n)],
            "label": np.where(fight, "fight", "nonfight"),
            "p_good": good,
            "p_poor": poor,
            "p_violent": (good + poor) / 2,
            "plain_p_good": good,
            "plain_p_poor": poor,
            "plain_p_violent": np.clip((good + poor) / 2 + rng.normal(0, 0.02, n), 0, 1),
        }
    )


def write_report(folder: Path, predictions: pd.DataFrame, threshold: float = 0.5, **more: object) -> Path:
    folder.mkdir(parents=True)
    predictions.to_csv(folder / "predictions.csv", index=False)
    (folder / "metrics.json").write_text(
        json.dumps({"threshold": threshold, "command": "python test_ensemble.py", **more})
    )
    return folder


def test_every_pair_of_members_ensemble_and_plain_ensemble_is_compared_and_corrected() -> None:
    frame = predictions_frame()
    found = comparisons.between_models(frame.sample(frac=1, random_state=0), 0.5)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    names = ["good", "poor", "ensemble", "ensemble, plain clips"]
    assert [(p["first"], p["second"]) for p in found["pairs"]] == [
        (a, b) for i, a in enumerate(names) for b in names[i + 1 :]
    ]
    first = found["pairs"][0]
    is_fight = frame.label == "fight"
    right = {c: ((frame[c] >= 0.5) == is_fight).mean() for c in ("p_good", "p_poor")}
    assert first["accuracy"]["difference"] == pytest.approx(right["p_good"] - right["p_poor"])
    auc = roc_auc_score(is_fight, frame.p_good) - roc_auc_score(is_fight, frame.p_poor)
    assert first["roc_auc"]["difference"] == pytest.approx(auc)
    assert first["accuracy"]["ci95"][0] > 0
    assert (first["n"], first["n_groups"]) == (240, 60)
    for figure in comparisons.COMPARED:
        p = [pair[figure]["p"] for pair in found["pairs"]]
        assert [pair[figure]["p_holm"] for pair in found["pairs"]] == intervals.holm(p)
        assert max(p) > 0.05 > min(p)


def test_members_are_compared_at_their_own_threshold_as_in_their_figures() -> None:
    frame = predictions_frame()
    pairs = {(p["first"], p["second"]): p for p in comparisons.between_models(frame, 0.7, 0.55)["pairs"]}
    figures = metrics.figures(frame, 0.7, 0.55)
    accuracy = {m["name"]: m["accuracy"] for m in figures["members"]} | {
        comparisons.ENSEMBLE: figures["accuracy"],
        comparisons.PLAIN_ENSEMBLE: figures["plain"]["accuracy"],
    }
    assert len(pairs) == 6
    for (first, second), pair in pairs.items():
        assert pair["accuracy"]["difference"] == pytest.approx(accuracy[first] - accuracy[second])


def test_pairs_that_nothing_can_be_told_of_are_not_said_to_be_alike() -> None:
    none: dict[str, Any] = {"reports": []}
    (line,) = comparisons.lines(comparisons.between_models(predictions_frame(), 0.5), none)
    assert line.startswith("of 6 pairs of models 5 differ in accuracy beyond chance (p < 0.05, Holm 1979): ")
    alone = comparisons.between_models(predictions_frame().assign(source_group="one"), 0.5)
    (line,) = comparisons.lines(alone, none)
    assert line == "6 pairs of models cannot be compared: all clips come from one source"
    two = predictions_frame()[["clip_id", "source_group", "label", "p_violent", "plain_p_violent"]]
    (line,) = comparisons.lines(comparisons.between_models(two, 0.5), none)
    assert line.startswith("of 1 pair of models none differ")


def test_a_report_at_another_threshold_is_compared_by_its_name(tmp_path: Path) -> None:
    here = predictions_frame()
    for theirs, said in ((0.5, False), (0.4, True)):
        report = comparisons.read(write_report(tmp_path / str(theirs), here, threshold=theirs))
        (row,) = comparisons.with_earlier(here, 0.5, [report])["reports"]
        (line,) = comparisons.lines({"pairs": []}, {"reports": [row]})
        assert ("at threshold 0.500 here and 0.400 there" in line) == said


def test_one_model_without_views_has_nothing_to_be_compared_with() -> None:
    frame = predictions_frame()[["clip_id", "source_group", "label", "p_good", "p_violent"]]
    assert comparisons.between_models(frame, 0.5)["pairs"] == []


@pytest.mark.parametrize("named", ["", "metrics.json", "predictions.csv"])
def test_an_earlier_report_is_compared_on_the_clips_that_both_have_judged(tmp_path: Path, named: str) -> None:
    here, there = predictions_frame(), predictions_frame(seed=1)
    there = there.iloc[40:].copy()
    there["label"] = there["label"].where(there.index != 50, "nonfight")  # a fight in `here`
    there.loc[60, "p_violent"] = np.nan
    report = comparisons.read(write_report(tmp_path / "earlier", there, threshold=0.4) / named)
    (row,) = comparisons.with_earlier(here, 0.5, [report])["reports"]
    assert (row["shared"], row["other_label"], row["n"]) == (199, 1, 198)
    shared = [i for i in range(40, 240) if i not in (50, 60)]
    is_fight = here.label[shared] == "fight"
    then = ((there.p_violent[shared] >= 0.4) == is_fight).mean()
    now = ((here.p_violent[shared] >= 0.5) == is_fight).mean()
    assert row["there"]["accuracy"] == pytest.approx(then)
    assert row["accuracy"]["difference"] == pytest.approx(now - then)
    low, high = row["accuracy"]["ci95"]
    assert low < now - then < high
    assert row["accuracy"]["p_holm"] == row["accuracy"]["p"], "one comparison needs no correction"
    (line,) = comparisons.lines({"pairs": []}, {"reports": [row]})
    assert "198 shared clips from 50 sources, 1 with another label left out" in line
    assert "accuracy" in line
    (row,) = comparisons.with_earlier(here.iloc[40:41], 0.5, [report])["reports"]
    (line,) = comparisons.lines({"pairs": []}, {"reports": [row]})
    assert "on 1 shared clip from 1 source, at threshold" in line


@pytest.mark.parametrize("name", ["val", "nan", "1"])
def test_rows_of_sets_from_elsewhere_in_an_earlier_report_are_not_compared(tmp_path: Path, name: str) -> None:
    """A clip may be in both sets of the earlier report, or be judged here and be only in its set from elsewhere."""
    here = predictions_frame()
    own = here.iloc[:200].assign(set=name)
    beside = here.iloc[100:].assign(set="market", p_violent=1 - here.p_violent)
    report = comparisons.read(write_report(tmp_path / "r", pd.concat([own, beside]), set=name))
    assert report.predictions.clip_id.tolist() == own.clip_id.tolist()
    (row,) = comparisons.with_earlier(here, 0.5, [report])["reports"]
    assert (row["n"], row["accuracy"]["difference"], row["roc_auc"]["difference"]) == (200, 0, 0)


def test_several_reports_are_corrected_together(tmp_path: Path) -> None:
    here = predictions_frame()
    worse = here.assign(p_violent=here.p_poor)
    reports = [
        comparisons.read(write_report(tmp_path / name, frame))
        for name, frame in (("same", here), ("worse", worse), ("other", predictions_frame(seed=2)))
    ]
    rows = comparisons.with_earlier(here, 0.5, reports)["reports"]
    assert rows[0]["accuracy"]["difference"] == 0
    assert rows[0]["accuracy"]["p"] == 1
    assert rows[1]["accuracy"]["p_holm"] == pytest.approx(3 * rows[1]["accuracy"]["p"])
    assert rows[1]["accuracy"]["p_holm"] < 0.05


def test_a_report_that_is_named_twice_counts_once_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = predictions_frame()
    worse = write_report(tmp_path / "worse", here.assign(p_violent=here.p_poor))
    other = write_report(tmp_path / "other", predictions_frame(seed=2))
    (tmp_path / "link").symlink_to(worse)
    shutil.copytree(worse, tmp_path / "copy")
    again = (worse / "metrics.json", worse / "predictions.csv", tmp_path / "link", tmp_path / "copy")
    reports = comparisons.read_all([worse, other, *again])
    assert [report.path for report in reports] == [worse, other]
    once = comparisons.with_earlier(here, 0.5, [comparisons.read(worse), comparisons.read(other)])
    assert comparisons.with_earlier(here, 0.5, reports) == once
    for path in again:
        assert f"{path} is the same report as {worse} and is compared once" in caplog.text


def test_what_cannot_be_compared_is_said_with_what_to_do(tmp_path: Path) -> None:
    here = predictions_frame()
    strangers = here.assign(clip_id=[f"x{i}" for i in range(len(here))])
    with pytest.raises(UserError, match="share no clip with the same label"):
        comparisons.with_earlier(here, 0.5, [comparisons.read(write_report(tmp_path / "s", strangers))])
    calm = here.assign(label="nonfight")
    for there, said in (
        (strangers, "240 clips there, 240 here"),
        (calm[here.label == "fight"], "120 clips there"),
    ):
        report = comparisons.read(write_report(tmp_path / said[:3], there))
        with pytest.raises(UserError, match=f"share no clip with the same label .{said}"):
            comparisons.require_shared([report], here)
    comparisons.require_shared([comparisons.read(write_report(tmp_path / "c", calm))], here)
    with pytest.raises(UserError, match=r"no metrics\.json in"):
        comparisons.read(tmp_path)
    with pytest.raises(UserError, match=r"index\.html is not a report"):
        comparisons.read(tmp_path / "index.html")
    broken = write_report(tmp_path / "b", here)
    (broken / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match="make it again with test_ensemble"):
        comparisons.read(broken)
    twice = write_report(tmp_path / "t", pd.concat([here, here]).assign(set="val"), set="val")
    with pytest.raises(UserError, match="a clip twice"):
        comparisons.read(twice)
    other = write_report(tmp_path / "o", here.assign(set="market"), set="val")
    with pytest.raises(UserError, match="no clip of the set 'val'"):
        comparisons.read(other)
    nameless = write_report(tmp_path / "l", here.assign(set="val"))
    with pytest.raises(UserError, match=r"no clip of a set that its metrics\.json names"):
        comparisons.read(nameless)
    lacking = write_report(tmp_path / "k", here.drop(columns="label"))
    with pytest.raises(UserError, match="missing column: label"):
        comparisons.read(lacking)
    no_number = write_report(tmp_path / "n", here.assign(p_violent="high"))
    with pytest.raises(UserError, match="make it again with test_ensemble"):
        comparisons.read(no_number)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ({"threshold": float("nan")}, "the threshold is nan, not in"),
        ({"threshold": 50.0}, "the threshold is 50.0, not in"),
        ({"asked": 240, "n": None}, r"metrics\.json cannot be used .n is None, not a number of clips"),
        ({"asked": [240]}, r"metrics\.json cannot be used .asked is \[240\], not a number of clips"),
        ({"set": None}, r"metrics\.json cannot be used .set is None, not a name"),
        ({"asked": 240, "n": 239}, "240 of 240 clips judged, but its metrics.json says 239 of 240"),
        ({"asked": 300, "n": 240}, "240 of 240 clips judged, but its metrics.json says 240 of 300"),
    ],
)
def test_a_report_that_was_cut_off_or_changed_is_not_compared_with(
    tmp_path: Path, written: dict[str, Any], said: str
) -> None:
    report = write_report(tmp_path / "r", predictions_frame(), **written)
    with pytest.raises(UserError, match=f"{said}.*make it again with test_ensemble"):
        comparisons.read(report)
    whole = predictions_frame()
    whole.loc[3, "p_violent"] = np.nan
    assert len(comparisons.read(write_report(tmp_path / "w", whole, asked=240, n=239)).predictions) == 239


@pytest.mark.parametrize("p", [1.5, -0.1, np.inf])
def test_what_is_no_probability_is_not_compared(tmp_path: Path, p: float) -> None:
    frame = predictions_frame()
    frame.loc[7, "p_violent"] = p
    with pytest.raises(UserError, match=r"has a probability outside \[0, 1\]"):
        comparisons.read(write_report(tmp_path / "r", frame))
