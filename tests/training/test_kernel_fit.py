"""The kernel head: solved as by scikit-learn, stored and loaded like other heads, refused where it cannot be right."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import synthetic
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.svm import SVC

from violence_detection.errors import UserError
from violence_detection.models import light_heads, trained_model
from violence_detection.training import (
    devices,
    heads,
    kernel_fit,
    run_folder,
    saved_heads,
    trainer,
    whole_numbers,
)
from violence_detection.training.config import KERNEL, HeadConfig
from violence_detection.training.likeness import likeness, unit
from violence_detection.training.training_data import Data, Samples

HEAD = HeadConfig(landmarks=80)
#: An input whose backbone's features say by their length how much they tell.
POSES = "movenet_poses.rgb"


def _fit(folder: Path, head: HeadConfig = HEAD, data: Data | None = None) -> run_folder.Trained:
    strategy = devices.set_up(synthetic.TRAIN)
    made = data or _plain_data()
    record = trainer.run_record(KERNEL, made, synthetic.FEATURES, 2, head, synthetic.TRAIN)
    return trainer.train(record, made, folder, strategy)


def _plain_data() -> Data:
    """Return data whose train clips have only the plain variant."""
    made = synthetic.data()
    inputs = {name: values[:, :1] for name, values in made.train.inputs.items()}
    return dataclasses.replace(made, train=dataclasses.replace(made.train, inputs=inputs))


def _unit(values: np.ndarray) -> np.ndarray:
    mean = values.astype(np.float64).mean(axis=1)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)


def test_landmarks_that_are_all_but_the_same_have_a_root() -> None:
    rng = np.random.default_rng(1)
    points = np.abs(rng.normal(size=1280)) + 0.3 * rng.normal(size=(300, 1280))
    points[:60] = points[0] * (1 + 1e-4 * rng.normal(size=(60, 1280)))
    units = unit(points).astype(np.float16).astype(np.float32)
    vectors = whole_numbers.rounded(units)
    among = likeness(vectors, vectors, kernel_fit.sharpness(units, 1.0))
    assert np.linalg.eigvalsh((among + among.T).astype(np.float64) / 2)[0] < -1e-6, (
        "else nothing is tried here"
    )
    root = kernel_fit.root_of(among)
    np.testing.assert_allclose(root @ root.T, among, atol=1e-3)


def test_it_is_a_support_vector_machine(tmp_path: Path) -> None:
    """The reference is scikit-learn's SVC on the whole kernel matrix, with clips weighted by data set and class."""
    data = synthetic.data()
    _fit(tmp_path)
    among, with_new = [], []
    for name, values in data.train.inputs.items():
        train = _unit(values[:, 0])
        gamma = 1 / train.var(axis=0).sum()
        among.append(rbf_kernel(train, train, gamma))
        with_new.append(rbf_kernel(_unit(data.val.inputs[name][:, 0]), train, gamma))
    by_hand = SVC(C=0.5, kernel="precomputed")
    by_hand.fit(np.mean(among, axis=0), data.train.labels, sample_weight=kernel_fit.clip_weights(data.train))
    margins = by_hand.decision_function(np.mean(with_new, axis=0))
    p = heads.predict(saved_heads.load(tmp_path / run_folder.BEST_NAME), data.val.plain())
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-kernel_fit.LOGIT_SCALE * margins)), atol=5e-3)
    assert roc_auc_score(data.val.labels, p) > 0.9


def test_an_input_whose_length_counts_counts_as_much_as_both_clips_tell(tmp_path: Path) -> None:
    """The reference is scikit-learn's SVC. In this input, a clip whose features are 0 is similar to no clip."""
    data = synthetic.data()
    rng = np.random.default_rng(5)

    def with_lengths(samples: Samples) -> Samples:
        first, *_ = samples.inputs.values()
        poses = _unit(first[:, 0])[:, None, None] * rng.choice([0, 0.3, 1], (len(first), 1, 1, 1))
        inputs = {**{n: v[:, :1] for n, v in samples.inputs.items()}, POSES: poses.astype(np.float16)}
        return dataclasses.replace(samples, inputs=inputs)

    parts = {name: with_lengths(getattr(data, name)) for name in ("train", "selection", "val")}
    data = dataclasses.replace(data, **parts)
    _fit(tmp_path, data=data)
    among: list[np.ndarray] = []
    with_new: list[np.ndarray] = []
    for name, values in data.train.inputs.items():
        known, new = (
            values[:, 0].astype(float).mean(axis=1),
            data.val.inputs[name][:, 0].astype(float).mean(axis=1),
        )
        counts = [np.linalg.norm(v, axis=1) if name == POSES else np.ones(len(v)) for v in (known, new)]
        known, new = (v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-3) for v in (known, new))
        gamma = 1 / known.var(axis=0).sum()
        among.append(rbf_kernel(known, known, gamma) * np.outer(counts[0], counts[0]))
        with_new.append(rbf_kernel(new, known, gamma) * np.outer(counts[1], counts[0]))
    by_hand = SVC(C=0.5, kernel="precomputed")
    by_hand.fit(np.mean(among, axis=0), data.train.labels, sample_weight=kernel_fit.clip_weights(data.train))
    margins = by_hand.decision_function(np.mean(with_new, axis=0))
    head = saved_heads.load(tmp_path / run_folder.BEST_NAME)
    p = heads.predict(head, data.val.plain())
    np.testing.assert_allclose(p, 1 / (1 + np.exp(-kernel_fit.LOGIT_SCALE * margins)), atol=5e-3)
    light = light_heads.kernel_head(
        run_folder.weights_of(tmp_path / run_folder.BEST_NAME),
        run_folder.read_object(tmp_path / run_folder.CONFIG_NAME),
    )
    assert light is not None
    np.testing.assert_allclose(light.predict(data.val.plain()), p, atol=1e-5)


def test_clips_that_are_nearly_the_same_are_no_obstacle_where_length_counts() -> None:
    """Rounding makes some landmarks longer than 1, but similarities must not exceed 1, as in every kernel."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(150, 40))
    points = np.concatenate([base, base + rng.normal(0, 0.02, base.shape)])
    landmarks = whole_numbers.rounded(
        (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    )
    assert np.linalg.norm(landmarks, axis=1).max() > 1
    alike = likeness(landmarks, landmarks, kernel_fit.sharpness(landmarks, 1.0, True), True)
    assert alike.max() <= 1 + 1e-5
    assert np.linalg.eigvalsh(np.tril(alike) + np.tril(alike, -1).T).min() > -1e-5, "as only a kernel is"


def test_variants_count_together_as_much_as_their_clip(tmp_path: Path) -> None:
    """Fitting to two equal variants of each clip gives the same machine as fitting to the clips alone."""
    data = synthetic.data()
    twice = {name: np.repeat(values[:, :1], 2, axis=1) for name, values in data.train.inputs.items()}
    once = {name: values[:, :1] for name, values in data.train.inputs.items()}
    found = []
    for name, inputs in (("once", once), ("twice", twice)):
        train = dataclasses.replace(data.train, inputs=inputs)
        _fit(tmp_path / name, data=dataclasses.replace(data, train=train))
        found.append(
            heads.predict(saved_heads.load(tmp_path / name / run_folder.BEST_NAME), data.val.plain())
        )
    np.testing.assert_allclose(found[0], found[1], atol=5e-3)


def test_more_points_than_are_compared_with_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = synthetic.data()
    found = []
    for name in ("exact", "linear"):
        _fit(tmp_path / name, data=data)
        found.append(
            heads.predict(saved_heads.load(tmp_path / name / run_folder.BEST_NAME), data.val.plain())
        )
        monkeypatch.setattr(kernel_fit, "_MOST_POINTS", 50)
    assert np.corrcoef(found[0], found[1])[0, 1] > 0.98
    assert roc_auc_score(data.val.labels, found[1]) > 0.9


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
    _fit(tmp_path, dataclasses.replace(HEAD, units=99))  # a setting of other heads only


def test_features_that_are_no_numbers_are_refused_by_name(tmp_path: Path) -> None:
    data = synthetic.data()
    data.train.inputs["efficientnet_lite0.motion"][3, 1, 2, 0] = np.nan
    with pytest.raises(UserError, match=r"efficientnet_lite0.motion of train/x/3.avi are nan or infinite"):
        _fit(tmp_path, data=data)


def test_without_a_selection_part_it_is_the_same_and_says_nothing_of_one(tmp_path: Path) -> None:
    data = _plain_data()
    nothing = dataclasses.replace(data, selection=data.selection.take(np.empty(0, int)))
    _fit(tmp_path / "with", data=data)
    trained = _fit(tmp_path / "without", data=nothing)
    assert trained.selection_accuracy is None
    both = [run_folder.weights_of(tmp_path / name / run_folder.BEST_NAME) for name in ("with", "without")]
    assert both[0].read_bytes() == both[1].read_bytes()
