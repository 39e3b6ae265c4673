"""The temperature is the one that scikit-learn fits, and so are the calibrated probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from violence_detection.evaluation import calibration, temperature
from violence_detection.models.calibration import Calibration


class _Sigmoid(ClassifierMixin, BaseEstimator):
    """A classifier whose probability is the sigmoid of its input, logits of shape (n, 1)."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> _Sigmoid:
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        p = 1 / (1 + np.exp(-x[:, 0]))
        return np.column_stack([1 - p, p])

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes_[(x[:, 0] >= 0).astype(int)]


def _too_sure(count: int, seed: int = 0, by: float = 3.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, logits and probabilities, where logits are `by` times the calibrated ones."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1.5, count)
    is_fight = rng.random(count) < 1 / (1 + np.exp(-logit))
    return is_fight, by * logit, 1 / (1 + np.exp(-by * logit))


def test_temperature_and_probabilities_are_the_librarys() -> None:
    is_fight, logit, p = _too_sure(500)
    x, y = logit[:, None], is_fight.astype(int)
    library = CalibratedClassifierCV(FrozenEstimator(_Sigmoid().fit(x, y)), method="temperature").fit(x, y)
    found, why_not = temperature.fit(is_fight, p)
    assert not why_not
    (fitted,) = library.calibrated_classifiers_
    assert found == pytest.approx(1 / fitted.calibrators[0].beta_, rel=1e-6)
    fresh = np.linspace(-30, 30, 601)
    ours = Calibration(found).apply(1 / (1 + np.exp(-fresh)))
    np.testing.assert_allclose(ours, library.predict_proba(fresh[:, None])[:, 1], atol=1e-9)


def test_a_known_temperature_is_found_and_the_error_falls_on_other_clips() -> None:
    is_fight, _, p = _too_sure(20_000)
    found, _ = temperature.fit(is_fight, p)
    assert found == pytest.approx(3, rel=0.05)
    others, _, q = _too_sure(20_000, seed=1)
    record = calibration.before_and_after(others, q, Calibration(found).apply(q))
    assert record["ece_before"] > 0.1
    assert record["ece_after"] < 0.01
    assert record["brier_after"] < record["brier_before"]
    for name in ("before", "after"):
        assert sum(b["n"] for b in record[f"bins_{name}"]) == 20_000


@pytest.mark.parametrize("value", [1e-4, 0.3, 1.0, 2.7, 500.0])
def test_the_decision_at_a_half_and_the_order_stay(value: float) -> None:
    rng = np.random.default_rng(3)
    near = 0.5 + np.array([-1e-9, -1e-12, 0, 1e-12, 1e-9])
    p = np.sort(np.concatenate([rng.random(2000), near, [0.0, 1.0, 1e-9, 1 - 1e-9]]))
    calibrated = Calibration(value).apply(p)
    np.testing.assert_array_equal(calibrated >= 0.5, p >= 0.5)
    assert (np.diff(calibrated) >= 0).all()
    assert ((calibrated >= 0) & (calibrated <= 1)).all()


def test_before_is_the_way_back_and_what_is_no_number_stays_so() -> None:
    p = np.linspace(0.01, 0.99, 99)
    made = Calibration(1.7)
    np.testing.assert_allclose(made.before(made.apply(p)), p, atol=1e-9)
    assert np.isnan(made.apply(np.array([np.nan]))).all()
    np.testing.assert_array_equal(Calibration(None).apply(p), p)


def test_clips_that_tell_no_temperature_give_none_and_say_why() -> None:
    is_fight = np.repeat([True, False], 20)
    assert temperature.fit(is_fight, np.where(is_fight, 0.8, 0.1)) == (
        None,
        "all 40 clips are right, so they do not show how often a probability below 1 is right",
    )
    assert temperature.fit(is_fight, np.full(40, 0.5)) == (
        None,
        "all 40 clips have a probability of 0.5, which no temperature changes",
    )
    right = "all 20 clips that are not at 0.5 are right, so they do not show how often a probability below 1 is right"
    assert temperature.fit(is_fight, np.where(is_fight, 0.8, 0.5)) == (None, right)
    assert temperature.fit(is_fight, np.where(is_fight, 0.5, 0.2)) == (None, right)
    found, why_not = temperature.fit(is_fight, np.where(is_fight, 0.2, 0.9))
    assert found is None
    assert "no better than chance" in why_not
    assert temperature.fit(np.ones(9, bool), np.full(9, 0.9))[0] is None


def test_a_few_clips_of_a_class_are_enough() -> None:
    is_fight = np.array([True, False, True, False, False, False])
    found, why_not = temperature.fit(is_fight, np.array([0.9, 0.2, 0.4, 0.1, 0.6, 0.3]))
    assert found is not None
    assert not why_not
