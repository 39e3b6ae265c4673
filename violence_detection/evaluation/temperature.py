"""Temperature scaling of a model's probabilities, by scikit-learn.

Guo, Pleiss, Sun & Weinberger 2017, "On Calibration of Modern Neural Networks", ICML. Only one number is fitted, so few
clips suffice; the order of the probabilities and the decision at 0.5 do not change.
"""

from __future__ import annotations

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator

from violence_detection.constants import DEFAULT_THRESHOLD
from violence_detection.models.calibration import MOST_TEMPERATURE


class _AsPredicted(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose input, (n, 1), is already P(fight) and is passed through."""

    classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, p_fight: np.ndarray, is_fight: np.ndarray) -> _AsPredicted:
        return self

    def predict(self, p_fight: np.ndarray) -> np.ndarray:
        return (p_fight[:, 0] >= DEFAULT_THRESHOLD).astype(int)

    def predict_proba(self, p_fight: np.ndarray) -> np.ndarray:
        return np.column_stack([1 - p_fight[:, 0], p_fight[:, 0]])


def fit(is_fight: np.ndarray, p_fight: np.ndarray) -> tuple[float | None, str]:
    """Return the temperature that minimises the log loss and "", or None and the reason why there is none.

    `is_fight` (n,) bool, `p_fight` (n,) in [0, 1]: the members' averages. scikit-learn takes log-probabilities as
    logits, so that a temperature T maps p to sigmoid(logit(p) / T). It fits 1 / T.
    """
    p_fight, is_fight = np.asarray(p_fight, np.float64), np.asarray(is_fight, bool)
    if is_fight.all() or not is_fight.any():
        return None, "there are clips of one class only"
    telling = p_fight != DEFAULT_THRESHOLD
    if not telling.any():
        return (
            None,
            f"all {len(p_fight)} clips have a probability of {DEFAULT_THRESHOLD}, which no temperature changes",
        )
    if ((p_fight > DEFAULT_THRESHOLD) == is_fight)[telling].all():
        which = "" if telling.all() else f" that are not at {DEFAULT_THRESHOLD}"
        return (
            None,
            f"all {telling.sum()} clips{which} are right, so they do not show how often a probability below 1 is right",
        )
    every = np.arange(len(p_fight))
    # The frozen classifier learns nothing, so all clips can calibrate; folds would each need clips of both classes.
    model = CalibratedClassifierCV(FrozenEstimator(_AsPredicted()), method="temperature", cv=[(every, every)])
    model.fit(p_fight[:, None], is_fight.astype(int))
    (fitted,) = model.calibrated_classifiers_
    temperature = 1 / float(fitted.calibrators[0].beta_)
    if temperature > MOST_TEMPERATURE * 0.99:
        return None, f"on these {len(p_fight)} clips the probabilities are no better than chance"
    return temperature, ""
