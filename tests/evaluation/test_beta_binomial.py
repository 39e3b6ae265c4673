"""The beta-binomial posterior equals SciPy's distributions where SciPy can compute the same."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from violence_detection.evaluation import beta_binomial


@pytest.mark.parametrize(("right", "clips"), [(45, 50), (3, 20), (4950, 5000)])
def test_clips_that_are_sources_of_their_own_have_jeffreys_posterior(right: int, clips: int) -> None:
    outcomes = np.arange(clips) < right
    shares, below = beta_binomial.posterior(outcomes, np.ones(clips))
    expected = stats.beta.cdf(shares, right + 0.5, clips - right + 0.5)
    np.testing.assert_allclose(below, expected, atol=2e-3)
    assert (np.diff(shares) > 0).all()


def test_sources_of_several_clips_have_the_posterior_summed_over_a_fine_grid() -> None:
    right, clips = np.array([9, 30, 4, 12]), np.array([10, 40, 11, 12])
    shares, below = beta_binomial.posterior(right, clips)
    edges = np.linspace(0, np.pi / 2, 601)
    mean = np.sin((edges[1:] + edges[:-1]) / 2)[:, None] ** 2
    correlation = (np.arange(400) + 0.5) / 400
    prior = 0.8 * np.diff(stats.beta.cdf(np.arange(401) / 400, 0.8, 1.2))
    strength = (1 - correlation) / correlation
    likelihood = [
        stats.betabinom.pmf(k, n, mean * strength, (1 - mean) * strength)
        for k, n in zip(right, clips, strict=True)
    ]
    alone = np.prod([stats.binom.pmf(k, n, mean[:, 0]) for k, n in zip(right, clips, strict=True)], axis=0)
    expected = np.concatenate([[0], np.cumsum(np.prod(likelihood, axis=0) @ prior + 0.2 * alone)])
    at = np.interp(shares, np.sin(edges) ** 2, expected / expected[-1])
    np.testing.assert_allclose(below, at, atol=0.01)


def test_sources_that_differ_tell_less_of_the_mean() -> None:
    def width(right: list[int]) -> float:
        shares, below = beta_binomial.posterior(np.array(right), np.full(6, 20))
        return float(np.diff(np.interp([0.025, 0.975], below, shares))[0])

    assert width([18] * 6) < 0.14 < 0.25 < width([20, 20, 20, 20, 20, 8])
