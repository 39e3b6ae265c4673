"""Estimate the share of wrong labels from out-of-fold probabilities: the errors that no calibration explains.

A model that is sometimes confidently wrong must not be mistaken for labels that were exchanged. A clip is taken to be
labelled fight with probability eta + (1 - 2 eta) q. Here q is the predicted probability after the best calibration (a
slope and a shift of the logit), and eta is the share of exchanged labels (Copas, "Binary Regression Models for
Contaminated Data", J. R. Statist. Soc. B 50, 1988). All three are fitted together, by maximum likelihood on a grid. A
poor or overconfident model changes the slope; exchanged labels leave a floor that no slope explains. The interval is a
bootstrap over whole sources, so that a single source that the model misjudges is not evidence of wrong labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Estimated share of wrong labels from which there is an alarm, provided that the interval excludes 0.
WORTH_AN_ALARM = 0.01
#: Confidence level of the interval.
LEVEL = 0.95
#: Without an alarm, an interval that reaches this share tells nothing: too few clips, or predictions too poor.
TELLS_NOTHING = 0.1
#: Bootstrap samples.
DRAWS = 500
#: The grid of slopes and shifts of the logit, and of shares of exchanged labels.
_SLOPES = np.geomspace(0.2, 4.0, 16)
_SHIFTS = np.linspace(-2.0, 2.0, 9)
_SHARES = np.array(
    [0, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2]
)
#: Probabilities are clipped to [_LOWEST, 1 - _LOWEST].
_LOWEST = 1e-4
#: Clips whose likelihoods are computed at once.
_CHUNK = 1_000


@dataclass(frozen=True)
class NoiseEstimate:
    """The estimated share of wrong labels, in [0, 1], with its confidence interval at LEVEL."""

    share: float
    low: float
    high: float

    @property
    def alarm(self) -> bool:
        """Whether the interval excludes 0 and the share is at least WORTH_AN_ALARM."""
        return self.low > 0 and self.share >= WORTH_AN_ALARM

    @property
    def told(self) -> bool:
        """Whether the clips tell how many labels are wrong: an alarm, or an interval that ends below TELLS_NOTHING."""
        return self.alarm or self.high < TELLS_NOTHING


def estimate(p_fight: np.ndarray, is_fight: np.ndarray, groups: np.ndarray, seed: int = 0) -> NoiseEstimate:
    """Estimate the share of wrong labels.

    `p_fight`: out-of-fold P(fight), (n,) in [0, 1]. `is_fight`: labels, (n,) bool. `groups`: source groups, (n,).
    """
    by_source = _log_likelihoods(np.asarray(p_fight, float), np.asarray(is_fight, bool), np.asarray(groups))
    found = _best_share(by_source.sum(axis=0, keepdims=True))[0]
    n = len(by_source)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), DRAWS).astype(np.float32)
    drawn = _best_share(draws @ by_source.astype(np.float32))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="nearest")
    return NoiseEstimate(float(found), float(low), float(high))


def _log_likelihoods(p_fight: np.ndarray, is_fight: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The log-likelihood of each source's labels at each point of the grid, (sources, slopes x shifts x shares)."""
    p = np.clip(p_fight, _LOWEST, 1 - _LOWEST)
    logits = np.log(p) - np.log1p(-p)
    _, source = np.unique(groups, return_inverse=True)
    size = len(_SLOPES) * len(_SHIFTS) * len(_SHARES)
    total = np.zeros((int(np.max(source)) + 1, size))
    for start in range(0, len(p), _CHUNK):
        some = slice(start, start + _CHUNK)
        z = logits[some, None, None] * _SLOPES[:, None] + _SHIFTS  # (chunk, slopes, shifts)
        # the calibrated probability of the given label
        q = 1 / (1 + np.exp(-np.clip(np.where(is_fight[some, None, None], z, -z), -30, 30)))
        likely = np.maximum(_SHARES + (1 - 2 * _SHARES) * q[..., None], 1e-12)
        np.add.at(total, source[some], np.log(likely).reshape(len(q), size))
    return total


def _best_share(log_likelihoods: np.ndarray) -> np.ndarray:
    """The share at the maximum of each draw's log-likelihoods: (draws, grid) to (draws,)."""
    return _SHARES[log_likelihoods.argmax(axis=1) % len(_SHARES)]
