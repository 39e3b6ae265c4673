"""What is known of a share whose clips come from sources, when nobody knows how alike clips of one source are.

The share right of each source is taken to be drawn from a beta distribution, so that counts are beta-binomial (Skellam
1948, J. R. Stat. Soc. B 10; Williams 1975, Biometrics 31), and the posterior is summed over a grid of intraclass
correlations. The prior of the mean is Jeffreys', by which intervals of a binomial share cover best on average (Brown,
Cai & DasGupta 2001, "Interval estimation for a binomial proportion", Stat. Sci. 16).
"""

from __future__ import annotations

import numpy as np

#: Prior of the intraclass correlation: none at all with `_NONE`, else from a beta distribution (mean 0.4).
_NONE = 0.2
_PRIOR = (0.8, 1.2)
#: Correlations that stand for all of them, apart from 0: evenly spaced on the scale of logits.
_LOWEST, _HIGHEST, _CORRELATIONS = 0.004, 0.97, 22
#: Step between shares, on a scale that is fine near the observed share and coarse far from it.
_STEP = 0.15


def posterior(right: np.ndarray, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares (m,), rising, within (0, 1), and the posterior probability (m,) that the true share is below each.

    `right` (sources,) of `clips` (sources,), whole numbers. Neither all nor no clips may be right: how alike clips are
    is then told by the prior alone.
    """
    right, clips = np.asarray(right, float), np.asarray(clips, float)
    total = clips.sum()
    # Shares are squared sines: on angles, Jeffreys' prior is even. Angles: centre + scale * sinh(steps).
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
    """The grid of intraclass correlations, 0 first, and the prior probability of each."""
    from scipy.special import betainc, expit, logit

    above = expit(np.linspace(logit(_LOWEST), logit(_HIGHEST), _CORRELATIONS))
    ends = np.concatenate([[0.0], (above[1:] + above[:-1]) / 2, [1.0]])
    prior = (1 - _NONE) * np.diff(betainc(*_PRIOR, ends))
    return np.concatenate([[0.0], above]), np.concatenate([[_NONE], prior])


def _log_likelihood(
    right: np.ndarray, clips: np.ndarray, shares: np.ndarray, correlations: np.ndarray
) -> np.ndarray:
    """Of each share (m,) and correlation (r,), the first of which is 0: (m, r), but for a constant."""
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
