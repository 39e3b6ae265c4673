"""Scores are compared with what exchanging whole sources gives, not single clips."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from violence_detection.evaluation.audits import source_permutation


def _auc_of_assignment(fight_sources: set[int], scores: np.ndarray, source: np.ndarray) -> float:
    return float(roc_auc_score(np.isin(source, list(fight_sources)), scores))


def test_the_p_value_is_the_share_of_all_ways_to_exchange_sources() -> None:
    rng = np.random.default_rng(3)
    source = np.repeat(np.arange(8), [1, 2, 3, 1, 2, 2, 1, 3])
    is_fight = source < 4
    scores = rng.normal(0, 1, len(source)) + 0.8 * is_fight
    found = source_permutation.permutation_test(is_fight, scores, source, draws=20_000)
    auc = roc_auc_score(is_fight, scores)
    ways = [_auc_of_assignment(set(c), scores, source) for c in itertools.combinations(range(8), 4)]
    assert found.auc == pytest.approx(auc)
    assert found.p_value == pytest.approx(np.mean(np.array(ways) >= auc - 1e-12), abs=0.01)
    assert found.attainable == pytest.approx(1 / 70)


def test_within_a_source_of_both_classes_its_clips_are_exchanged() -> None:
    source = np.zeros(8, int)
    is_fight = np.arange(8) < 4
    found = source_permutation.permutation_test(is_fight, is_fight.astype(float), source, draws=20_000)
    assert found.auc == 1
    assert found.p_value == pytest.approx(1 / 70, abs=0.003)


def test_what_clips_of_one_source_share_is_no_difference_between_classes() -> None:
    small = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        source = np.repeat(np.arange(10), 20)
        scores = rng.normal(0, 1, 10)[source] + rng.normal(0, 0.1, 200)
        small += (
            source_permutation.permutation_test(source % 2 == 0, scores, source, draws=199).p_value <= 0.05
        )
    assert 2 <= small <= 20  # chance gives 10 of 200; permuting clips, most of them


def test_one_class_has_no_auc() -> None:
    with pytest.raises(ValueError, match="both classes"):
        source_permutation.permutation_test(np.ones(3, bool), np.arange(3.0), np.arange(3))
