"""The interval of a share by source: its likelihood, its limits, and what few errors must not do to it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from violence_detection.evaluation import intervals
from violence_detection.evaluation.share_interval import _prior, _Test


def _accuracy(errors: list[int], clips: list[int]) -> tuple[float, float]:
    """The interval where sources of so many `clips` have so many `errors`."""
    correct = np.concatenate([np.arange(n) >= k for k, n in zip(errors, clips, strict=True)])
    return intervals.accuracy_interval(correct, np.repeat(np.arange(len(clips)), clips))


def test_the_likelihood_of_the_correlation_is_the_beta_binomials() -> None:
    wrong, clips, accuracy = np.array([0, 2, 2, 5]), np.array([4, 9, 12, 5]), 0.8
    correlation, prior = _prior()
    assert prior.sum() == pytest.approx(1)
    strength = (1 - correlation[1:]) / correlation[1:]
    of_some = [
        stats.betabinom.pmf(k, n, (1 - accuracy) * strength, accuracy * strength)
        for k, n in zip(wrong, clips, strict=True)
    ]
    of_none = stats.binom.pmf(wrong, clips, 1 - accuracy).prod()
    expected = prior * np.concatenate([[of_none], np.prod(of_some, axis=0)])
    weights = _Test(wrong, clips, 0.1, 3.0)._weights(accuracy)  # so far apart that any correlation may be
    np.testing.assert_allclose(weights, expected / expected.sum(), rtol=1e-6)


@pytest.mark.parametrize("clips_a_source", [5, 50])
def test_each_further_error_lowers_the_interval_of_twenty_sources(clips_a_source: int) -> None:
    found = [_accuracy([1] * k + [0] * (20 - k), [clips_a_source] * 20) for k in range(6, 12)]
    assert all(later < earlier for earlier, later in pairwise(found))


def test_without_errors_no_more_likeness_is_thought_of_than_the_limit() -> None:
    test = _Test(np.zeros(2000, int), np.full(2000, 50), 0.0, 1000.0)
    correlation, _ = _prior()
    weights = test._weights(0.5)  # evidence beyond what floating point holds
    assert weights.sum() == pytest.approx(1)
    assert weights[correlation > 0.4].sum() == 0


def test_no_error_at_all_gives_a_bound_that_is_of_use() -> None:
    low, high = _accuracy([0] * 20, [5] * 20)
    assert high == 1
    assert 0.93 < low < 0.963  # below Wilson's of a hundred clips that are independent
    assert 0.92 < _accuracy([0] * 20, [50] * 20)[0] < 0.99
    assert 0.7 < _accuracy([0] * 5, [1000] * 5)[0] < 0.9  # five sources remain five


def test_wrong_and_right_are_mirrored() -> None:
    low, high = _accuracy([0, 3, 1, 9, 2], [10, 12, 30, 14, 8])
    mirrored_low, mirrored_high = _accuracy([10, 9, 29, 5, 6], [10, 12, 30, 14, 8])
    assert (mirrored_low, mirrored_high) == pytest.approx((1 - high, 1 - low), abs=1e-4)
    assert _accuracy([10, 12, 30, 14, 8], [10, 12, 30, 14, 8])[0] == 0


def test_the_share_of_clips_is_inside_though_most_come_from_one_unlike_source() -> None:
    low, high = _accuracy([450] + [0] * 20, [900] + [5] * 20)
    assert low < 0.55 < high
    assert high - low > 0.5  # one source decides it


def test_errors_in_few_sources_make_it_wider_than_the_same_errors_spread() -> None:
    spread = _accuracy([2] * 10, [20] * 10)
    gathered = _accuracy([10, 10] + [0] * 8, [20] * 10)
    assert gathered[1] - gathered[0] > 2 * (spread[1] - spread[0])
