"""How large a share of labels is wrong, judged by out-of-fold probabilities: what no calibration explains.

A model that is sure and wrong now and then is one thing, labels that were exchanged are another. Here a clip is
labelled fight with probability eta + (1 - 2 eta) q, where q is the predicted probability after the best calibration
(slope and shift on the scale of the logit) and eta the share of labels that were exchanged (Copas, "Binary Regression
Models for Contaminated Data", J. R. Statist. Soc. B 50, 1988). A poor or too confident model has another slope;
exchanged labels leave a floor that no slope explains. The interval draws whole sources (bootstrap), so that one source
that the model misreads is no evidence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: An alarm is due where so large a share is wrong, and the interval of LEVEL leaves out that none is.
WORTH_AN_ALARM, LEVEL = 0.01, 0.95
#: Without an alarm, an interval that reaches so far tells nothing: too few clips, or predictions too poor.
TELLS_NOTHING = 0.1
DRAWS = 500
_SLOPES = np.geomspace(0.2, 4.0, 16)
_SHIFTS = np.linspace(-2.0, 2.0, 9)
_SHARES = np.array(
    [0, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2]
)
_LOWEST = 1e-4  # probabilities beyond are as sure as can be
_CHUNK = 1_000


@dataclass(frozen=True)
class NoiseEstimate:
    """Share of wrong labels, with its LEVEL interval."""

    share: float
    low: float
    high: float

    @property
    def alarm(self) -> bool:
        """Whether labels are wrong beyond doubt, and enough of them to matter."""
        return self.low > 0 and self.share >= WORTH_AN_ALARM

    @property
    def told(self) -> bool:
        """Whether the clips say anything of how many labels are wrong."""
        return self.alarm or self.high < TELLS_NOTHING


def estimate(p_fight: np.ndarray, is_fight: np.ndarray, groups: np.ndarray, seed: int = 0) -> NoiseEstimate:
    """From probabilities (n,) in [0, 1], labels (n,) bool and source groups (n,)."""
    by_source = _log_likelihoods(np.asarray(p_fight, float), np.asarray(is_fight, bool), np.asarray(groups))
    found = _best_share(by_source.sum(axis=0, keepdims=True))[0]
    n = len(by_source)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), DRAWS).astype(np.float32)
    drawn = _best_share(draws @ by_source.astype(np.float32))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return NoiseEstimate(float(found), float(low), float(high))


def _log_likelihoods(p_fight: np.ndarray, is_fight: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """(sources, slopes x shifts x shares): the log-likelihood of the labels of each source."""
    p = np.clip(p_fight, _LOWEST, 1 - _LOWEST)
    logits = np.log(p) - np.log1p(-p)
    _, source = np.unique(groups, return_inverse=True)
    size = len(_SLOPES) * len(_SHIFTS) * len(_SHARES)
    total = np.zeros((int(np.max(source)) + 1, size))
    for start in range(0, len(p), _CHUNK):
        some = slice(start, start + _CHUNK)
        z = logits[some, None, None] * _SLOPES[:, None] + _SHIFTS  # (chunk, slopes, shifts)
        # of the given label
        q = 1 / (1 + np.exp(-np.clip(np.where(is_fight[some, None, None], z, -z), -30, 30)))
        likely = np.maximum(_SHARES + (1 - 2 * _SHARES) * q[..., None], 1e-12)
        np.add.at(total, source[some], np.log(likely).reshape(len(q), size))
    return total


def _best_share(log_likelihoods: np.ndarray) -> np.ndarray:
    """(draws, grid) to the share that is most likely in each, (draws,)."""
    return _SHARES[log_likelihoods.argmax(axis=1) % len(_SHARES)]
