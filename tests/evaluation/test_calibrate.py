"""A calibration says what it rests on, and too few sources calibrate nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
import tensorflow as tf

from violence_detection.errors import UserError
from violence_detection.evaluation import calibrate, operating_points, temperature
from violence_detection.evaluation import calibration as reliability
from violence_detection.features.config import FeatureConfig
from violence_detection.models import averaging, calibration, model_files, trained_model
from violence_detection.models.averaging import Averaging, EarlyExit
from violence_detection.system import storage
from violence_detection.training import trainer


def _rows(n_sources: int, a_source: int = 3, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_sources), a_source)
    is_fight = rng.random(len(groups)) < 0.5
    p = 1 / (1 + np.exp(-np.where(is_fight, 2, -2) - rng.normal(0, 2, len(groups))))
    rows = pd.DataFrame(
        {
            "clip_id": [f"{i:04x}" for i in range(len(groups))],
            "source_group": [f"g{g}" for g in groups],
            "label": np.where(is_fight, "fight", "nonfight"),
        }
    )
    return rows, p


def test_what_it_rests_on_is_said_and_the_order_of_clips_changes_nothing() -> None:
    rows, p = _rows(60)
    found = calibrate.fit(calibrate.out_of_fold(rows.assign(p_violent=p), 5, 2), 0)
    assert found.temperature is not None
    rests_on = {k: v for k, v in found.rests_on.items() if k != "assumes"}
    assert rests_on == {"what": "out-of-fold predictions of 5 folds", "n": 180, "n_groups": 60, "views": 2}
    mixed = rows.assign(p_violent=p).sample(frac=1, random_state=3)
    assert calibrate.fit(calibrate.out_of_fold(mixed, 5, 2), 0).operating_points == found.operating_points
    selection = calibrate.fit(calibrate.on_selection(rows, p, ["the epoch", "more"]), 0)
    assert selection.described().endswith(
        "60 sources: the selection part, which also chose the epoch and more"
    )


def test_that_means_of_views_were_calibrated_is_said_and_that_others_are_judged_too() -> None:
    rows, p = _rows(60)
    of_four = calibrate.fit(calibrate.out_of_fold(rows.assign(p_violent=p), 5, 4), 0)
    assert of_four.described().endswith("predictions of 5 folds, means of 4 views")
    assert of_four.rests_on["assumes"].endswith("; what is judged is the mean of 4 views, as by --tta 4")
    assert of_four.other_views(4) == ""
    assert of_four.other_views(1).startswith(
        "calibrated on means of 4 views, and single views are judged here"
    )
    assert "may raise more false alarms, and miss more fights, than they promise" in of_four.other_views(1)
    single = calibrate.fit(calibrate.out_of_fold(rows.assign(p_violent=p), 5, 1), 0)
    assert ("views" in single.described(), "views" in single.rests_on["assumes"]) == (False, False)
    assert "fewer reach a high threshold, fights too" in single.other_views(4)
    unnoted = replace(single, rests_on={k: v for k, v in single.rests_on.items() if k != "views"})
    assert unnoted.other_views(4) == ""
    member = trained_model.Member("gru", None, 1.0)
    model = trained_model.TrainedModel(Path(), (), (member,), FeatureConfig(), {}, calibration=of_four)
    is_fight, groups = (rows.label == "fight").to_numpy(), rows.source_group.to_numpy()
    said = [reliability.section(model, is_fight, {"gru": p}, p, p, groups, n)["said"] for n in (1, 4)]
    assert said == [f"{of_four.described()}; {of_four.other_views(1)}", of_four.described()]


@pytest.mark.parametrize(
    ("architecture", "keep", "chosen"),
    [
        ("gru", "best", ["the epoch"]),
        ("gru", "last", []),
        ("kernel", "best", []),
    ],
)
def test_an_epoch_that_the_selection_part_did_not_choose_is_not_said_to_be_its_choice(
    tmp_path: Path, architecture: str, keep: str, chosen: list[str]
) -> None:
    storage.write_json(tmp_path / "config.json", {"architecture": architecture, "train": {"keep": keep}})
    assert calibrate.epoch_chosen([tmp_path / "best_model.keras"]) == chosen
    rows, p = _rows(60)
    basis = calibrate.on_selection(rows, p, chosen)
    assert ("chose" in basis.what, "chosen" in basis.assumes) == (bool(chosen), bool(chosen))


def test_what_a_member_gave_alone_has_no_part_in_the_temperature_and_keeps_its_probability() -> None:
    rows, p = _rows(60)
    is_fight = (rows.label == "fight").to_numpy()
    alone = (np.arange(len(p)) % 3 == 0) & ~is_fight
    predictions = rows.assign(p_first=np.where(alone, 0.005, 0.5), p_other=p)
    how = Averaging(early_exit=EarlyExit("first", 0.01))
    p_violent = np.where(alone, predictions.p_first, (predictions.p_first + predictions.p_other) / 2)
    by_all = ((predictions.p_first + predictions.p_other) / 2).to_numpy()
    predictions = predictions.assign(p_violent=p_violent)
    basis = calibrate.out_of_fold(predictions, 5, 1, averaged=how, p_by_all=by_all)
    found = calibrate.fit(basis, 0)
    assert found.temperature == temperature.fit(is_fight[~alone], p_violent[~alone])[0]
    member = {name: trained_model.Member(name, None, 0.5) for name in ("first", "other")}
    model = trained_model.TrainedModel(
        Path(), (), tuple(member.values()), FeatureConfig(), {}, calibration=found, early_exit=how.early_exit
    )
    judged = model.average({name: predictions[f"p_{name}"].to_numpy() for name in member})
    np.testing.assert_array_equal(judged, np.where(alone, predictions.p_first, found.apply(p_violent)))
    point = found.operating_points["high_recall"]
    assert point["recall"] == pytest.approx((judged >= point["threshold"])[is_fight].mean())
    assert not any("early_exit" in point for point in found.operating_points.values())


def _with_an_exit(n_sources: int = 60) -> tuple[pd.DataFrame, trained_model.TrainedModel]:
    """Predictions and a model with an early exit; where the first member exits, its score says nothing of the class."""
    rows, other = _rows(n_sources)
    rng = np.random.default_rng(1)
    first = np.where(rng.random(len(rows)) < 0.6, rng.uniform(0, 0.2, len(rows)), other)
    how = Averaging(early_exit=EarlyExit("first", 0.2))
    by_member = {"first": first, "other": other}
    by_all = averaging.together(by_member, [1, 1], how.without_exit())
    predictions = rows.assign(
        p_first=first, p_other=other, p_violent=averaging.together(by_member, [1, 1], how)
    )
    found = calibrate.fit(calibrate.out_of_fold(predictions, 5, 1, averaged=how, p_by_all=by_all), 0)
    members = tuple(trained_model.Member(name, None, 0.5) for name in by_member)
    model = trained_model.TrainedModel(
        Path(), (), members, FeatureConfig(), {}, calibration=found, early_exit=how.early_exit
    )
    return predictions, model


def test_a_temperature_counts_the_clips_that_the_early_exit_leaves() -> None:
    """The temperature is fitted only to clips that the exit leaves, perhaps few: it must not claim to rest on all."""
    rows, model = _with_an_exit()
    left = rows[rows.p_first >= 0.2]
    found = model.calibration
    assert found is not None
    assert found.without_exit is not None
    assert (found.rests_on["n"], found.rests_on["n_groups"]) == (180, 60), "of its thresholds"
    n_left, n_sources = len(left), left.source_group.nunique()
    assert found.rests_on["temperature_from"] == {"n": n_left, "n_groups": n_sources}
    assert (
        f"from {n_left} clips of {n_sources} sources, those that the early exit leaves: out"
        in found.described()
    )
    assert "from 180 clips of 60 sources: out" in found.without_exit.described()

    few = rows.source_group.isin(sorted(set(rows.source_group))[:9])
    first = np.where(few, 0.5, 0.1)
    by_member = {"first": first, "other": rows.p_other.to_numpy()}
    how = Averaging(early_exit=EarlyExit("first", 0.2))
    settled_all_but_few = rows.assign(p_first=first, p_violent=averaging.together(by_member, [1, 1], how))
    by_all = averaging.together(by_member, [1, 1], how.without_exit())
    few_left = calibrate.fit(
        calibrate.out_of_fold(settled_all_but_few, 5, 1, averaged=how, p_by_all=by_all), 0
    )
    assert few_left.temperature is None
    assert "the early exit leaves clips of 9 sources, too few (10 are needed)" in few_left.described()
    assert few_left.without_exit
    assert few_left.without_exit.temperature is not None
    assert few_left.operating_points.keys() == found.operating_points.keys()


def test_a_point_where_the_exit_would_decide_is_chosen_and_judged_without_it() -> None:
    rows, model = _with_an_exit()
    assert model.calibration is not None
    assert model.calibration.without_exit is not None
    is_fight, groups = (rows.label == "fight").to_numpy(), rows.source_group.to_numpy()
    by_member = {name: rows[f"p_{name}"].to_numpy() for name in ("first", "other")}
    high = model.calibration.operating_points["high_recall"]
    mean = (by_member["first"] + by_member["other"]) / 2
    assert model.calibration.without_exit.temperature == temperature.fit(is_fight, mean)[0]
    assert high["early_exit"] is False
    at = model.at("high-recall")
    assert (at.exits, at.first) == (None, ())
    judged = at.average(by_member)
    np.testing.assert_array_equal(judged, model.calibration.without_exit.apply(mean))
    assert high["recall"] == (judged >= high["threshold"])[is_fight].mean() >= 0.95
    assert high["false_alarm_rate"] == (judged >= high["threshold"])[~is_fight].mean()
    with_exit = operating_points.choose(is_fight, model.average(by_member), groups, np.asarray, 0)
    assert high["false_alarm_rate"] < with_exit["high_recall"]["false_alarm_rate"] - 0.05
    # points above the exit are unchanged
    assert "early_exit" not in model.calibration.operating_points["balanced"]
    assert model.calibration.operating_points["balanced"] == with_exit["balanced"]
    np.testing.assert_array_equal(at.at("balanced").average(by_member), model.average(by_member))
    # the report states the temperature that was applied
    section = reliability.section(at, is_fight, by_member, judged, mean, groups)
    assert section["temperature"] == model.calibration.without_exit.temperature
    assert f"temperature {section['temperature']:.2f}" in section["said"]
    assert section["temperature"] != model.calibration.temperature


def test_a_threshold_where_the_exit_would_decide_is_judged_without_it_too() -> None:
    _, model = _with_an_exit()
    taken = {t: model.at("balanced", t).exits is not None for t in (0.05, 0.19, 0.2, 0.5, 0.95)}
    assert taken == {0.05: False, 0.19: False, 0.2: True, 0.5: True, 0.95: True}
    assert model.calibration is not None
    before = replace(model, calibration=replace(model.calibration, without_exit=None))
    assert before.at("balanced", 0.05).exits, "as before, of what was calibrated before"
    assert before.at("high-recall").exits


def test_what_is_stored_of_it_is_read_again_whole_or_refused(trained: Path, tmp_path: Path) -> None:
    _, model = _with_an_exit()
    assert model.calibration is not None
    for name in ("best_model.keras", "config.json", "result.json"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    record = storage.read_json(tmp_path / "config.json")

    def stored(calibration_: dict[str, Any]) -> Path:
        storage.write_json(tmp_path / "config.json", {**record, "calibration": calibration_})
        return tmp_path

    made = model.calibration.record()
    assert calibration.read(stored(made)) == model.calibration
    few = calibrate.fit(calibrate.on_selection(*_rows(9), []), 0)
    assert "without_exit" not in few.record()
    for broken in (
        {**made, "without_exit": {"temperature": -1}},
        {**made, "rests_on": {**made["rests_on"], "temperature_from": {"n": 3}}},
        {k: v for k, v in made.items() if k != "without_exit"},  # high_recall needs it
    ):
        with pytest.raises(UserError, match="calibration has no valid temperature"):
            calibration.read(stored(broken))


def test_the_table_of_operating_points_judges_each_as_prediction_does() -> None:
    rows, model = _with_an_exit()
    is_fight, groups = (rows.label == "fight").to_numpy(), rows.source_group.to_numpy()
    by_member = {name: rows[f"p_{name}"].to_numpy() for name in ("first", "other")}
    assert model.calibration is not None
    for at in (model, model.at("high-recall")):
        p = at.average(by_member)
        found = reliability.section(at, is_fight, by_member, p, at.uncalibrated(by_member), groups)
        for name, point in found["operating_points"].items():
            stored = model.calibration.operating_points[name]
            assert point["here"]["false_alarm_rate"] == stored["false_alarm_rate"], name
            assert point["here"]["recall"] == stored["recall"], name
        assert found["said"] == (at.applied or model.calibration).described()


def test_too_few_sources_calibrate_nothing() -> None:
    found = calibrate.fit(calibrate.on_selection(*_rows(9), []), 0)
    assert found.temperature is None
    assert found.described().startswith("not calibrated: 9 sources in the selection part")
    assert "(10 are needed" in found.described()
    with pytest.raises(UserError, match="no threshold for the operating point high-recall: 9 sources"):
        found.threshold("high-recall")
    assert found.threshold("balanced") == 0.5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a single model, as training leaves it: not calibrated."""
    folder = tmp_path_factory.mktemp("model")
    data = synthetic.data()
    record = trainer.run_record("average", data, synthetic.FEATURES, 2, synthetic.HEAD, synthetic.TRAIN)
    trainer.train(record, data, folder, tf.distribute.get_strategy())
    return folder


def test_a_single_model_keeps_its_calibration_and_trains_nothing_again(trained: Path) -> None:
    val, selection = synthetic.samples(60, 3), synthetic.samples(60, 5)
    before = trained_model.load(trained)
    assert before.calibration is not None
    assert before.calibration.described().startswith("not calibrated: it was made before")
    identity = model_files.identity(trained)
    raw = before.average(before.predict(val.plain()))
    made = calibrate.calibrate_model(trained, selection, 0)
    assert made.temperature is not None
    after = trained_model.load(trained)
    by_member = after.predict(val.plain())
    np.testing.assert_array_equal(by_member["average" if "average" in by_member else trained.name], raw)
    np.testing.assert_allclose(after.average(by_member), made.apply(raw))
    np.testing.assert_array_equal(after.uncalibrated(by_member), raw)
    assert model_files.identity(trained) != identity, "verdicts of before are not taken for its own"
    assert calibration.read(trained) == made
    # calibrated again on the same clips, it stays the same
    assert calibrate.calibrate_model(trained, selection, 0) == made
    data, times = synthetic.data(), (trained / "best_model.keras").stat().st_mtime_ns
    record = trainer.run_record("average", data, synthetic.FEATURES, 2, synthetic.HEAD, synthetic.TRAIN)
    trainer.train(record, data, trained, tf.distribute.get_strategy())
    assert (trained / "best_model.keras").stat().st_mtime_ns == times
    assert calibration.read(trained) == made


def test_the_last_epoch_is_not_calibrated_by_the_best_ones_clips(trained: Path) -> None:
    calibrate.calibrate_model(trained, synthetic.samples(60, 5), 0)
    assert calibration.read(trained / "best_model.keras").temperature is not None
    assert "only best_model.keras is" in calibration.read(trained / "final_model.keras").described()


def test_operating_points_of_a_model_decide_and_members_thresholds_follow(trained: Path) -> None:
    made = calibrate.calibrate_model(trained, synthetic.samples(60, 5), 0)
    model = trained_model.load(trained).at("low-false-alarm")
    assert model.threshold == made.operating_points["low_false_alarm"]["threshold"]
    assert model.at("balanced", 0.7).threshold == 0.7
    by_member = model.predict(synthetic.samples(60, 8).plain())
    (p,) = by_member.values()
    np.testing.assert_array_equal(p >= model.member_threshold, model.average(by_member) >= model.threshold)


@pytest.mark.parametrize(
    "stored",
    [
        [1],
        {"temperature": 1.0},
        {"temperature": -1.0, "rests_on": {"what": "", "n": 1, "n_groups": 1}, "operating_points": {}},
        {"temperature": True, "rests_on": {"what": "", "n": 1, "n_groups": 1}, "operating_points": {}},
        {"temperature": 1.0, "rests_on": {}, "operating_points": {}},
        {"temperature": None, "rests_on": {}, "operating_points": {"high_recall": {"threshold": 2}}},
    ],
)
def test_a_strangers_record_that_is_no_calibration_is_refused(
    trained: Path, tmp_path: Path, stored: object
) -> None:
    for name in ("best_model.keras", "config.json", "result.json"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    record = storage.read_json(tmp_path / "config.json")
    storage.write_json(tmp_path / "config.json", {**record, "calibration": stored})
    with pytest.raises(
        UserError, match=r"config\.json cannot be used .its calibration has no valid temperature"
    ):
        calibration.read(tmp_path)


def test_a_threshold_just_below_one_is_not_written_as_one(caplog: pytest.LogCaptureFixture) -> None:
    point = {"threshold": 0.99997, "guarantee": {"text": "none"}}
    found = calibration.Calibration(None, why_not="few", operating_points={"low_false_alarms": point})
    with caplog.at_level("INFO", logger="violence_detection"):
        calibrate.say(Path("model"), found)
    assert "threshold 0.99997: none" in caplog.text
