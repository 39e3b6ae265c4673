"""The kernel head: solved as scikit-learn solves it, kept and loaded as any head, refused where it cannot be right."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import synthetic
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import rbf_kernel

from violence_detection.errors import UserError
from violence_detection.models import trained_model
from violence_detection.training import devices, heads, kernel_fit, run_folder, saved_heads, trainer
from violence_detection.training.config import HeadConfig
from violence_detection.training.training_data import Data

HEAD = HeadConfig(landmarks=80)


def _fit(folder: Path, head: HeadConfig = HEAD, data: Data | None = None) -> run_folder.Trained:
    strategy = devices.set_up(synthetic.TRAIN)
    made = data or synthetic.data()
    record = trainer.run_record(heads.KERNEL, made, synthetic.FEATURES, 2, head, synthetic.TRAIN)
    return trainer.train(record, made, folder, strategy)


def _unit(values: np.ndarray) -> np.ndarray:
    mean = values.astype(np.float64).mean(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def test_it_is_kernel_logistic_regression(tmp_path: Path) -> None:
    """Against scikit-learn on the whole kernel matrix, each clip counting by its data set and class."""
    _fit(tmp_path)
    data = synthetic.data()
    among, with_new = [], []
    for values in data.train.inputs.values():
        train = np.concatenate([_unit(values[:, v]) for v in range(values.shape[1])])
        gamma = 1 / _unit(values[:, 0]).var(axis=0).sum() / 2
        among.append(rbf_kernel(train, _unit(values[:, 0]), gamma))
    for name, values in data.val.inputs.items():
        landmarks = _unit(data.train.inputs[name][:, 0])
        with_new.append(rbf_kernel(_unit(values[:, 0]), landmarks, 1 / landmarks.var(axis=0).sum() / 2))
    root = np.linalg.cholesky(np.mean(among, axis=0)[:70] + 1e-6 * np.eye(70))
    weights = np.tile(kernel_fit.clip_weights(data.train) / 2, 2)
    by_hand = LogisticRegression(C=3.0, max_iter=2000, tol=1e-6)
    mapped = np.linalg.solve(root, np.mean(among, axis=0).T).T
    by_hand.fit(mapped, np.tile(data.train.labels, 2), sample_weight=weights)
    expected = by_hand.predict_proba(np.linalg.solve(root, np.mean(with_new, axis=0).T).T)[:, 1]
    model = saved_heads.load(run_folder.stored(tmp_path / run_folder.BEST_NAME))
    p = heads.predict(model, data.val.plain())
    np.testing.assert_allclose(p, expected, atol=2e-3)
    assert roc_auc_score(data.val.labels, p) > 0.9


def test_every_pair_of_data_set_and_class_weighs_the_same() -> None:
    samples = synthetic.data().train
    weights = kernel_fit.clip_weights(samples)
    sums = {
        key: weights[rows.index].sum() for key, rows in samples.rows.groupby(["dataset", "label"], sort=False)
    }
    np.testing.assert_allclose(list(sums.values()), len(samples) / 4)


def test_both_files_give_the_same_and_it_is_loaded_as_any_model(tmp_path: Path) -> None:
    trained = _fit(tmp_path)
    inputs = synthetic.data().val.plain()
    archive = saved_heads.load(tmp_path / run_folder.BEST_NAME)
    weights = saved_heads.load(run_folder.weights_of(tmp_path / run_folder.BEST_NAME))
    np.testing.assert_array_equal(heads.predict(archive, inputs), heads.predict(weights, inputs))
    assert list(trained_model.load(tmp_path).predict(inputs)) == [tmp_path.name]
    assert heads.attention(archive, inputs) == []
    assert trained.epochs_run == 1
    before = (tmp_path / run_folder.BEST_NAME).stat().st_mtime_ns
    assert _fit(tmp_path) == trained
    assert (tmp_path / run_folder.BEST_NAME).stat().st_mtime_ns == before, "finished: nothing was done"


def test_two_fits_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    weights = []
    for name in ("a", "b"):
        _fit(tmp_path / name, HeadConfig(landmarks=20))
        weights.append(run_folder.weights_of(tmp_path / name / run_folder.BEST_NAME).read_bytes())
    assert weights[0] == weights[1]


def test_with_fewer_landmarks_it_is_nearly_as_good(tmp_path: Path) -> None:
    data = synthetic.data()
    _fit(tmp_path, HeadConfig(landmarks=20))
    model = saved_heads.load(tmp_path / run_folder.BEST_NAME)
    assert roc_auc_score(data.val.labels, heads.predict(model, data.val.plain())) > 0.9


def test_other_settings_of_the_kernel_are_another_run(tmp_path: Path) -> None:
    _fit(tmp_path)
    with pytest.raises(UserError, match="trained with other settings"):
        _fit(tmp_path, dataclasses.replace(HEAD, kernel_c=1.0))
    _fit(tmp_path, dataclasses.replace(HEAD, units=99))  # of other heads


def test_features_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    data = synthetic.data()
    data.train.inputs["efficientnet_lite0.motion"][3, 1, 2, 0] = np.nan
    with pytest.raises(UserError, match=r"efficientnet_lite0.motion of train/x/3.avi are not numbers"):
        _fit(tmp_path, data=data)
