"""What a calibration rests on is said, and too few sources calibrate nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
import tensorflow as tf

from violence_detection.errors import UserError
from violence_detection.evaluation import calibrate, temperature
from violence_detection.features.config import FeatureConfig
from violence_detection.models import calibration, model_files, trained_model
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
    selection = calibrate.fit(calibrate.on_selection(rows, p, "the epoch"), 0)
    assert selection.described().endswith("60 sources: the selection part, which also chose the epoch")


def test_what_a_member_gave_alone_has_no_part_in_the_temperature_and_keeps_its_probability() -> None:
    rows, p = _rows(60)
    alone = np.arange(len(p)) % 3 == 0
    is_fight = (rows.label == "fight").to_numpy()
    predictions = rows.assign(p_first=np.where(alone, np.where(is_fight, 0.995, 0.005), 0.5), p_other=p)
    how = Averaging(early_exit=EarlyExit("first", 0.01))
    p_violent = np.where(alone, predictions.p_first, (predictions.p_first + predictions.p_other) / 2)
    basis = calibrate.out_of_fold(predictions.assign(p_violent=p_violent), 5, 1, averaged=how)
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


def test_too_few_sources_calibrate_nothing() -> None:
    found = calibrate.fit(calibrate.on_selection(*_rows(9), "the epoch"), 0)
    assert found.temperature is None
    assert found.described().startswith("not calibrated: 9 sources in the selection part")
    assert "(10 are needed" in found.described()
    with pytest.raises(UserError, match="no threshold for the operating point high-recall: 9 sources"):
        found.threshold("high-recall")
    assert found.threshold("balanced") == 0.5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A single model, calibrated on a selection part of 15 sources."""
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
    # as it was, on the same clips
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
    with pytest.raises(UserError, match=r"config\.json: calibration holds no temperature"):
        calibration.read(tmp_path)
