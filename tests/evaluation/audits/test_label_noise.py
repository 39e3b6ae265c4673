"""The estimated share of wrong labels: about right if labels were swapped, no alarm if a model is poor or too sure."""

from __future__ import annotations

import numpy as np
import pytest

from violence_detection.evaluation.audits import label_noise


def predicted(
    seed: int, n: int = 1200, sources: int = 200, strength: float = 3.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated probabilities, labels drawn from them, and source groups."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, strength, n)
    p = 1 / (1 + np.exp(-logits))
    return p, rng.random(n) < p, rng.integers(0, sources, n)


@pytest.mark.parametrize("seed", range(5))
def test_exchanged_labels_are_estimated_and_alarm(seed: int) -> None:
    p, is_fight, groups = predicted(seed, strength=5.0)
    flipped = np.random.default_rng(seed + 100).random(len(p)) < 0.05
    found = label_noise.estimate(p, is_fight ^ flipped, groups)
    assert found.low <= 0.05 <= found.high
    assert 0.03 <= found.share <= 0.08
    assert found.alarm


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("strength", [0.5, 2.0, 5.0])
def test_a_clean_set_raises_no_alarm_however_good_the_model(seed: int, strength: float) -> None:
    assert not label_noise.estimate(*predicted(seed, strength=strength)).alarm


@pytest.mark.parametrize("seed", range(10))
def test_a_model_that_is_too_sure_and_leans_to_one_class_is_no_sign_of_wrong_labels(seed: int) -> None:
    p, is_fight, groups = predicted(seed, strength=2.0)
    logits = 2.5 * np.log(p / (1 - p)) + 1
    assert not label_noise.estimate(1 / (1 + np.exp(-logits)), is_fight, groups).alarm


@pytest.mark.parametrize("seed", range(5))
def test_one_source_that_the_model_misreads_is_no_evidence(seed: int) -> None:
    p, is_fight, groups = predicted(seed, strength=5.0)
    misread = groups < 4  # a fiftieth of the clips, made one large source below
    groups = np.where(misread, 0, groups)
    assert not label_noise.estimate(np.where(misread, 1 - p, p), is_fight, groups).alarm


def test_probabilities_of_nought_and_one_are_taken() -> None:
    found = label_noise.estimate(np.array([0.0, 1.0] * 30), np.array([False, True] * 30), np.arange(60))
    assert found.share == 0.0
