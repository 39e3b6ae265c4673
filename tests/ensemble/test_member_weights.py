"""Members have equal weights unless others prove better on sources that they were not fitted on."""

from __future__ import annotations

import numpy as np
import pytest

from violence_detection.ensemble import member_weights
from violence_detection.evaluation import paired


def _members(sharpness: list[float], sources: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """P(fight) (M, n), labels and sources of 5 clips; a member's logits are its sharpness times +-1, plus noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 5 * sources)
    shared = rng.normal(0, 1, sources).repeat(5)  # makes a source hard or easy for all members
    logits = [s * (2 * labels - 1) + shared + rng.normal(0, 1, len(labels)) for s in sharpness]
    return 1 / (1 + np.exp(-np.array(logits))), labels, [f"s{i // 5}" for i in range(len(labels))]


def test_members_of_equal_worth_weigh_the_same() -> None:
    uniform = [member_weights.choose(*_members([2, 2, 2, 2, 2], 30, seed), 0).uniform for seed in range(20)]
    assert sum(uniform) >= 18


def test_a_member_that_only_guesses_loses_its_weight() -> None:
    p, labels, groups = _members([3, 3, 3, 3, 0], 40, 1)
    p[4] = np.random.default_rng(5).uniform(0, 1, p.shape[1])
    weights = member_weights.choose(p, labels, groups, 0)
    assert not weights.uniform
    assert weights.values[4] < 0.05
    assert sum(weights.values) == pytest.approx(1)
    assert weights.gain_ci95 is not None
    assert weights.gain_ci95[0] > 0


def test_one_bad_source_or_few_sources_decide_nothing() -> None:
    p, labels, groups = _members([2, 2], 30, 3)
    p[1, :5] = np.where(labels[:5] == 1, 0.001, 0.999)  # the second member fails on one source only
    assert member_weights.choose(p, labels, groups, 0).uniform
    p, labels, groups = _members([3, -3], member_weights.FEWEST_SOURCES - 1, 3)
    weights = member_weights.choose(p, labels, groups, 0)
    assert weights.uniform
    assert "too few" in weights.why


def test_paired_interval_counts_sources_not_clips() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(400) // 20
    difference = rng.normal(0, 1, 20)[groups]  # clips of a source have the same difference
    low, high = paired.interval(difference, groups) or (0, 0)
    alone = paired.interval(difference, np.arange(400)) or (0, 0)
    assert high - low > 3 * (alone[1] - alone[0])
    assert paired.interval(difference[:20], groups[:20]) is None
    covered = 0
    for _ in range(200):
        drawn = rng.normal(0.3, 1, 30)[np.arange(120) // 4]
        low, high = paired.interval(drawn, np.arange(120) // 4) or (0, 0)
        covered += low <= 0.3 <= high
    assert covered >= 180
