"""The ensemble's script from end to end on made-up features: folds, out-of-fold predictions, hard clips."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
import tensorflow as tf

from violence_detection.ensemble import cross_validation, ensemble_run, hard
from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.ensemble.pool import Pool
from violence_detection.errors import UserError
from violence_detection.evaluation import scoring
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.models import trained_model
from violence_detection.system import storage
from violence_detection.training import run_folder, trainer
from violence_detection.training.config import HeadConfig, TrainConfig

CONFIG = EnsembleConfig(
    members=("conv_lstm",), cross_validate=2, tta=2, fine_tune_hard=True, hard_below=0.9, hard_epochs=2
)
SETTINGS = synthetic.settings(dataclasses.replace(synthetic.TRAIN, epochs=3))


def _run(config: EnsembleConfig, pool: Pool, output: Path) -> ensemble_run.EnsembleRun:
    where = ExtractConfig(data_root=output)
    target = frozenset(pool.frame.dataset)
    return ensemble_run.EnsembleRun(
        config, where, SETTINGS, output, False, pool, target, tf.distribute.get_strategy()
    )


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return synthetic.pool(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="module")
def done(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    output = tmp_path_factory.mktemp("models_ensemble")
    return output, _run(CONFIG, pool, output).run()


@pytest.mark.slow
def test_each_train_clip_is_judged_once_by_the_fold_that_held_it_out(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    output, said = done
    oof = pd.read_csv(output / "oof_predictions.csv", dtype={"clip_id": str})
    assert sorted(oof.clip_id) == sorted(pool.frame.clip_id[pool.frame.split == "train"])
    for i, fold in enumerate(said["folds"]):
        model = trained_model.load(Path(fold["model"]))
        rows = oof[oof.fold == i]
        views = pool.views(rows.clip_id.tolist(), 2).inputs
        plain, other = (
            model.average(model.predict({n: v[:, i].astype(np.float32) for n, v in views.items()}))
            for i in range(2)
        )
        np.testing.assert_allclose(rows.p_violent, (plain + other) / 2, atol=1e-6)
        assert np.abs(plain - other).max() > 1e-3
        seen = pool.rows(sorted(run_folder.trained_clips(model.folder)))
        assert not set(seen.source_group) & set(rows.source_group)
    right = (oof.p_violent >= 0.5) == (oof.label == "fight")
    assert said["cv_accuracy"] == pytest.approx(right.mean(), abs=1e-4)
    assert said["cv_accuracy_ci95"][0] < said["cv_accuracy"] <= said["cv_accuracy_ci95"][1]
    assert said["cv_n"] == sum(r["n"] for r in said["cv_by_dataset"].values()) == len(oof)


@pytest.mark.slow
def test_the_fold_models_together_are_an_ensemble_that_knows_what_it_was_trained_on(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    folds = trained_model.load(done[0] / "folds")
    assert [m.name for m in folds.members] == ["fold_0.conv_lstm", "fold_1.conv_lstm"]
    train = pool.frame.clip_id[pool.frame.split == "train"].tolist()
    assert scoring.trained_on(folds, pool.frame.clip_id.tolist()) == len(train)
    assert scoring.trained_on(trained_model.load(done[0] / "fold_0"), train) < len(train)


@pytest.mark.slow
def test_tuned_members_start_from_the_trained_ones_and_stand_beside_them(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    output, said = done
    tuned = said["fine_tuned"]
    record = storage.read_json(output / "hard" / "conv_lstm" / "config.json")
    assert record["train"]["learning_rate"] == CONFIG.hard_learning_rate
    weights = [
        np.concatenate([w.ravel() for w in trained_model.load_model(f).get_weights()])
        for f in (output / "conv_lstm/best_model.keras", output / "hard/conv_lstm/final_model.keras")
    ]
    moved = np.abs(weights[1] - weights[0]).max()
    assert 0 < moved < 0.01  # fresh weights would be far away
    (member,) = tuned["members"]
    assert member["kept"] == (member["selection_after"]["loss"] < member["selection_before"]["loss"])
    (listed,) = storage.read_json(output / "hard" / "ensemble.json")["members"]
    assert listed["model"].startswith("../") != member["kept"]
    assert tuned["val"]["before"] == said["ensemble_val_accuracy"]
    assert tuned["val"]["gain"] == pytest.approx(tuned["val"]["after"] - tuned["val"]["before"], abs=2e-4)


@pytest.mark.slow
def test_repeated_it_says_the_same_and_trains_nothing(
    done: tuple[Path, dict[str, Any]], pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, said = done
    monkeypatch.setattr(trainer, "train", lambda *_, **__: pytest.fail("trained again"))
    assert _run(CONFIG, pool, output).run() == said


@pytest.mark.slow
def test_predictions_of_other_clips_or_settings_mine_nothing(
    done: tuple[Path, dict[str, Any]], pool: Pool
) -> None:
    same, other = (_run(CONFIG, p, done[0]) for p in (pool, dataclasses.replace(pool, records={"x": {}})))
    assert cross_validation.earlier(done[0], same.plan) is not None
    assert cross_validation.earlier(done[0], other.plan) is None


def test_hard_clips_are_those_that_get_too_little_for_their_class() -> None:
    oof = pd.DataFrame({"clip_id": list("abcd"), "label": ["fight", "fight", "nonfight", "nonfight"],
                        "p_violent": [0.59, 0.61, 0.39, 0.41]})  # fmt: skip
    assert hard.mine(oof, ["d", "a", "b", "c", "added"], 0.6).tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (EnsembleConfig(members=("gru", "grU")), "grU"),
        (EnsembleConfig(members=("gru", "gru")), "once"),
        (EnsembleConfig(cross_validate=1), "at least 2"),
        (EnsembleConfig(all_clips=True), "--cross-validate"),
        (EnsembleConfig(tta=4), "--cross-validate"),
        (EnsembleConfig(cross_validate=3, tta=0), "at least 1"),
        (EnsembleConfig(all_clips=True, cross_validate=3, fine_tune_hard=True), "--all-clips"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_starts(
    config: EnsembleConfig, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        ensemble_run.check(config)


@pytest.mark.parametrize("config", [EnsembleConfig(), EnsembleConfig(all_clips=True, cross_validate=2)])
def test_a_part_without_a_class_is_said_before_anything_is_extracted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: EnsembleConfig
) -> None:
    rows = pd.DataFrame(
        {"clip_id": [f"c{i}" for i in range(20)], "source_group": [f"s{i}" for i in range(20)]}
    )
    rows = rows.assign(label="nonfight", dataset="d", split=["train"] * 15 + ["val"] * 5)
    if not config.all_clips:
        rows.loc[:9, "label"] = "fight"  # val alone lacks them
    monkeypatch.setattr(ensemble_run.manifest, "read", lambda _: rows)
    monkeypatch.setattr(ensemble_run.training_data, "check", lambda *_: None)
    monkeypatch.setattr(ensemble_run.devices, "set_up", lambda _: pytest.fail("starts work first"))
    features = FeatureConfig(backbone=("efficientnet_lite0",))
    with pytest.raises(UserError, match=r"class only|no fight clip"):
        ensemble_run.prepare(
            config, ExtractConfig(data_root=tmp_path), features, HeadConfig(), TrainConfig(), tmp_path, False
        )
