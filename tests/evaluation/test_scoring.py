"""Which clips are measured, averages over views, and clips without features or a valid probability."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic
import tensorflow as tf

from violence_detection.ensemble import ensemble
from violence_detection.errors import UserError
from violence_detection.evaluation import calibrate, clip_set, measure, scoring
from violence_detection.evaluation.config import EvaluationConfig
from violence_detection.features.stored_features import StoredFeatures
from violence_detection.models import trained_model
from violence_detection.training import heads, plain_views, trainer, training_data


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> trained_model.TrainedModel:
    folder = tmp_path_factory.mktemp("model")
    data = synthetic.data()
    record = trainer.run_record("average", data, synthetic.FEATURES, 2, synthetic.HEAD, synthetic.TRAIN)
    trainer.train(record, data, folder, tf.distribute.get_strategy())
    return trained_model.load(folder)


def test_score_is_the_share_of_right_clips_with_an_interval_around_it(
    model: trained_model.TrainedModel,
) -> None:
    val = synthetic.data().val
    score = scoring.score_samples(model.folder, val)
    (p,) = model.predict(val.plain()).values()
    assert score.accuracy == pytest.approx(np.mean((p >= 0.5) == (val.labels == 1)), abs=1e-4)
    assert score.ci95[0] < score.accuracy <= score.ci95[1]
    assert list(score.by_member.values()) == [score.accuracy]
    assert score.n == len(val)
    half = np.arange(len(val)) < len(val) // 2
    two = dataclasses.replace(val, rows=val.rows.assign(dataset=np.where(half, "a", "b")))
    by_dataset = scoring.score_samples(model.folder, two).by_dataset
    assert {name: found["n"] for name, found in by_dataset.items()} == {"a": half.sum(), "b": (~half).sum()}
    assert by_dataset["a"] == scoring.score_samples(model.folder, two.take(half)).by_dataset["a"]
    assert by_dataset["a"]["ci95"][0] < by_dataset["a"]["accuracy"] <= by_dataset["a"]["ci95"][1]


def test_views_are_averaged_per_clip(model: trained_model.TrainedModel) -> None:
    inputs = synthetic.samples(6, 9, variants=3).inputs
    (averaged,) = model.average_views(inputs).values()
    per_view = [
        next(iter(model.predict({n: v[:, i].astype(np.float32) for n, v in inputs.items()}).values()))
        for i in range(3)
    ]
    np.testing.assert_allclose(averaged, np.mean(per_view, axis=0))


def test_a_clip_without_features_has_no_probability_and_is_not_guessed(
    model: trained_model.TrainedModel,
) -> None:
    samples = synthetic.samples(6, 9, variants=1)
    missing = samples.rows.iloc[[0]].assign(clip_id="not there", path="val/fight/gone.avi")
    rows = pd.concat([samples.rows, missing], ignore_index=True)
    predictions = scoring.predict_rows(model, rows, samples)
    assert len(predictions) == 7
    assert predictions.p_violent.isna().tolist() == [False] * 6 + [True]


def test_of_several_views_the_plain_one_stands_beside_their_average(
    model: trained_model.TrainedModel,
) -> None:
    samples = synthetic.samples(6, 9, variants=3)
    predictions = scoring.predict_rows(model, samples.rows, samples)
    (averaged,), (plain,) = (
        model.average_views(samples.inputs).values(),
        model.predict(samples.plain()).values(),
    )
    np.testing.assert_allclose(predictions.p_violent, averaged, atol=1e-6)
    np.testing.assert_allclose(predictions.plain_p_violent, plain, atol=1e-6)
    one = scoring.predict_rows(model, samples.rows, synthetic.samples(6, 9, variants=1))
    assert not [c for c in one.columns if c.startswith("plain_")]


def test_features_on_disk_are_judged_as_those_in_memory(
    model: trained_model.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "PREDICT_BATCH", 32)
    pool = synthetic.pool(tmp_path)
    loaded = [training_data.load(pool.stores, pool.frame, ("v0", "w1"), in_memory=m) for m in (True, False)]
    in_memory, on_disk = (scoring.predict_rows(model, pool.frame, samples) for samples in loaded)
    assert len(on_disk) == 96
    pd.testing.assert_frame_equal(in_memory, on_disk)


def test_no_more_clips_are_read_at_once_than_are_judged(
    model: trained_model.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures take 3 MB per clip, twice that as float32: a whole selection part in memory could be too much."""
    pool = synthetic.pool(tmp_path)
    on_disk = training_data.load(pool.stores, pool.frame, ("v0",), in_memory=False)
    expected = model.predict(on_disk.plain())
    at_once = []
    gather = StoredFeatures.gather

    def counted(stored: StoredFeatures, clips: np.ndarray, variants: np.ndarray) -> np.ndarray:
        at_once.append(len(clips))
        return gather(stored, clips, variants)

    monkeypatch.setattr(heads, "PREDICT_BATCH", 32)
    monkeypatch.setattr(StoredFeatures, "gather", counted)
    head = model.members[0].model
    scored = scoring.score_samples(model.folder, on_disk)
    (p,) = expected.values()
    np.testing.assert_allclose(plain_views.predict(head, on_disk), p, atol=1e-6)
    assert scored.accuracy == pytest.approx(np.mean((p >= 0.5) == (on_disk.labels == 1)), abs=1e-4)
    calibrate.calibrate_model(shutil.copytree(model.folder, tmp_path / "own"), on_disk, 0)
    ensemble.write(
        tmp_path / "together", [ensemble.Part("a", model.folder / "best_model.keras", 0.5)], on_disk, 0
    )
    assert len(pool.frame) == 96
    assert set(at_once) == {32}


def test_a_probability_that_is_no_number_is_a_named_failure_and_not_nonfight(
    model: trained_model.TrainedModel,
) -> None:
    samples = synthetic.samples(6, 9, variants=1)
    next(iter(samples.inputs.values()))[2] = np.nan
    predictions = scoring.predict_rows(model, samples.rows, samples)
    assert predictions.p_violent.isna().tolist() == [False, False, True, False, False, False]
    (failure,) = measure._not_finite(predictions, samples)
    assert failure["path"] == samples.rows.path[2]
    assert "not finite" in failure["reason"]
    with pytest.raises(
        UserError, match=rf"1 of 6 clips is not finite .* clip {samples.rows.clip_id[2]}.*--tuned-l"
    ):
        scoring.score_samples(model.folder, samples)


def test_data_names_the_split_below_the_manifest(tmp_path: Path) -> None:
    combined = tmp_path / "combined_all"
    for split in ("train", "val", "other"):
        (combined / split).mkdir(parents=True)
    with pytest.raises(UserError, match=r"no manifest\.csv"):
        clip_set.locate(EvaluationConfig(data=combined / "val"))
    (combined / "manifest.csv").touch()
    assert clip_set.locate(EvaluationConfig(data=combined / "val")) == (combined, "val")
    assert clip_set.locate(EvaluationConfig(data=combined / "train")) == (combined, "train")
    assert clip_set.locate(EvaluationConfig(data=combined)) == (combined, "val")
    assert clip_set.locate(EvaluationConfig(data_root=tmp_path)) == (combined, "val")
    with pytest.raises(UserError, match=r"no manifest\.csv"):
        clip_set.locate(EvaluationConfig(data=combined / "other"))
