"""Posterior of a share (such as an accuracy) whose clips cluster in sources, with unknown intraclass correlation.

Each source has its own share of right clips, drawn from a beta distribution, so that the counts are beta-binomial
(Skellam 1948, J. R. Stat. Soc. B 10; Williams 1975, Biometrics 31). The posterior of the mean of that distribution is
marginalised over a grid of intraclass correlations. The mean has Jeffreys' prior, with which intervals for a binomial
share have the best coverage on average (Brown, Cai & DasGupta 2001, "Interval estimation for a binomial proportion",
Stat. Sci. 16).
"""

from __future__ import annotations

import numpy as np

#: Prior probability that the intraclass correlation is exactly 0.
_PRIOR_OF_ZERO = 0.2
#: Parameters of the beta distribution that is the correlation's prior otherwise; its mean is 0.4.
_PRIOR_ABOVE_ZERO = (0.8, 1.2)
#: Grid of the correlations above 0: the lowest, the highest and the number of them, evenly spaced in logit.
_LOWEST = 0.004
_HIGHEST = 0.97
_CORRELATIONS = 22
#: Step of the grid of shares, on a scale that is fine near the observed share and coarse far from it.
_STEP = 0.15


def posterior(right: np.ndarray, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ascending shares (m,) in (0, 1), and the posterior probability (m,) that the true share is below each.

    `clips` (sources,): how many clips each source has; `right` (sources,): how many of them are right. At least one
    clip must be right and one wrong: otherwise the data say nothing about the intraclass correlation.
    """
    right, clips = np.asarray(right, float), np.asarray(clips, float)
    total = clips.sum()
    # share = sin(angle)^2, because Jeffreys' prior is uniform on the angle; angle = centre + scale * sinh(grid)
    centre = np.arcsin(np.sqrt((right.sum() + 0.25) / (total + 0.5)))
    scale = 0.5 / np.sqrt(total)
    first, last = np.arcsinh(-centre / scale), np.arcsinh((np.pi / 2 - centre) / scale)
    edges = np.linspace(first, last, int(np.ceil((last - first) / _STEP)) + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    shares = np.sin(centre + scale * np.sinh(middles)) ** 2
    correlations, prior = _correlations()
    log_likelihood = _log_likelihood(right, clips, shares, correlations)
    density = np.exp(log_likelihood - log_likelihood.max()) @ prior * np.cosh(middles)
    below = np.cumsum(density)
    return np.sin(centre + scale * np.sinh(edges[1:-1])) ** 2, below[:-1] / below[-1]


def _correlations() -> tuple[np.ndarray, np.ndarray]:
    """Return the grid of intraclass correlations, 0 first, and the prior probability of each."""
    from scipy.special import betainc, expit, logit

    above = expit(np.linspace(logit(_LOWEST), logit(_HIGHEST), _CORRELATIONS))
    ends = np.concatenate([[0.0], (above[1:] + above[:-1]) / 2, [1.0]])
    prior = (1 - _PRIOR_OF_ZERO) * np.diff(betainc(*_PRIOR_ABOVE_ZERO, ends))
    return np.concatenate([[0.0], above]), np.concatenate([[_PRIOR_OF_ZERO], prior])


def _log_likelihood(
    right: np.ndarray, clips: np.ndarray, shares: np.ndarray, correlations: np.ndarray
) -> np.ndarray:
    """Log-likelihood (m, r), up to a constant, for shares (m,) and correlations (r,), the first of which is 0."""
    from scipy.special import gammaln

    wrong = clips - right
    alone = right.sum() * np.log(shares) + wrong.sum() * np.log1p(-shares)
    strength = (1 - correlations[1:]) / correlations[1:]
    counted = ((right, shares[:, None] * strength), (wrong, (1 - shares[:, None]) * strength))
    together = np.zeros((len(shares), len(strength)))
    for counts, parameter in counted:
        values, times = np.unique(counts[counts > 0], return_counts=True)
        for value, often in zip(values, times, strict=True):
            together += often * gammaln(value + parameter)
        together -= times.sum() * gammaln(parameter)
    values, times = np.unique(clips, return_counts=True)
    together -= times @ gammaln(values[:, None] + strength) - times.sum() * gammaln(strength)
    return np.column_stack([alone, together])
