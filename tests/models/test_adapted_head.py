"""A kernel head adapted to footage without labels ranks the place better, and keeps its threshold and what it knew."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from violence_detection.models import adapted_head
from violence_detection.models.adapted_head import FIGHT, NONE, QUIET
from violence_detection.models.light_heads import KernelHead

NAME = "a.rgb"


def _drawn(n: int, seed: int, turned: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draw clips (n, 2, 8) of two classes, and their labels; the direction between classes is turned by `turned`."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    side = np.where(labels == FIGHT, 1.0, -1.0)[:, None, None]
    between = np.zeros(8)
    between[:2] = np.cos(turned), np.sin(turned)
    return {NAME: (1.0 + 0.5 * side * between + 0.35 * rng.normal(size=(n, 2, 8))).astype(np.float32)}, labels


@pytest.fixture(scope="module")
def head() -> KernelHead:
    """A head fitted to another place, with two landmarks that are all zeros."""
    inputs, labels = _drawn(80, 0, 0.0)
    blank = KernelHead(
        {NAME: np.zeros((1, 8), np.float32)}, {NAME: np.float32(4)}, np.zeros(1), np.float32(0)
    )
    units = blank.units(inputs)[NAME]
    alike = np.exp(8 * (units @ units.T - 1))
    shares = np.linalg.solve(alike + np.eye(80), np.where(labels == FIGHT, 2.0, -2.0))
    vectors = np.concatenate([units, np.zeros((2, 8), np.float32)])
    return KernelHead({NAME: vectors}, {NAME: np.float32(4)}, np.append(shares, [0.0, 0.0]), np.float32(0.1))


def test_it_ranks_the_place_better_and_keeps_the_middle(head: KernelHead) -> None:
    footage, _ = _drawn(100, 1, 1.0)
    others, labels = _drawn(400, 2, 1.0)
    adapted = adapted_head.adapt(head, head.units(footage), head.predict(footage))
    assert {QUIET, FIGHT, NONE} == set(adapted.labels.tolist())
    before, after = head.predict(others), adapted.head.predict(others)
    assert roc_auc_score(labels, after) > roc_auc_score(labels, before) + 0.005
    moved = adapted.head.logits(head.units(others)) - head.logits(head.units(others))
    assert abs(np.median(moved)) < 0.2


def test_footage_that_is_all_quiet_does_not_lower_all_it_says(head: KernelHead) -> None:
    everything, labels = _drawn(200, 3, 1.0)
    quiet = {NAME: everything[NAME][labels == QUIET]}
    adapted = adapted_head.adapt(head, head.units(quiet), head.predict(quiet))
    assert (adapted.labels == FIGHT).sum() <= 5
    assert adapted.moved < -0.1, "without it the threshold would have moved"
    fresh, labels = _drawn(200, 4, 1.0)
    calm = {NAME: fresh[NAME][labels == QUIET]}
    change = adapted.head.logits(head.units(calm)) - head.logits(head.units(calm))
    assert abs(np.median(change)) < 0.3


def test_what_it_knew_hardly_moves_and_windows_go_to_their_labels(head: KernelHead) -> None:
    footage, _ = _drawn(60, 1, 1.0)
    adapted = adapted_head.adapt(head, head.units(footage), head.predict(footage))
    known = {NAME: head.vectors[NAME][:80]}
    change = adapted.head.logits(known) + adapted.moved - head.logits(known)
    assert np.abs(change).mean() < 0.5
    units, sure = head.units(footage), adapted.labels != NONE
    target = np.where(adapted.labels == FIGHT, adapted_head.TARGET, -adapted_head.TARGET)[sure]
    left = target - (adapted.head.logits(units)[sure] + adapted.moved)
    assert np.abs(left).mean() < 0.7 * np.abs(target - head.logits(units)[sure]).mean()


def test_no_more_windows_are_labelled_than_were_tried_and_all_of_the_footage_counts() -> None:
    labels = adapted_head.pseudo_labels(np.tile([0.1, 0.5, 0.9], 1000))
    sure = np.flatnonzero(labels != NONE)
    assert len(sure) == adapted_head.MOST_LABELLED
    assert sure[0] < 50
    assert sure[-1] > 2900
    assert not np.any(labels[1::3] != NONE)
    assert set(labels[sure[sure % 3 == 2]]) == {FIGHT}


def test_where_it_is_sure_of_nothing_it_stays_as_it_is(head: KernelHead) -> None:
    footage, _ = _drawn(40, 1, 1.0)
    adapted = adapted_head.adapt(head, head.units(footage), np.full(40, 0.5))
    np.testing.assert_array_equal(adapted.head.predict(footage), head.predict(footage))


def test_where_lengths_count_nothing_is_learnt_of_windows_that_tell_nothing(head: KernelHead) -> None:
    counting = replace(head, length_counts=frozenset({NAME}))
    footage, _ = _drawn(60, 1, 1.0)
    short = {NAME: footage[NAME] / 20}
    adapted = adapted_head.adapt(counting, counting.units(short), head.predict(footage))
    assert (adapted.labels != NONE).any()

    def change(inputs: dict[str, np.ndarray]) -> np.ndarray:
        units = adapted.head.units(inputs)
        return adapted.head.logits(units) + adapted.moved - counting.logits(units)

    assert np.abs(change({NAME: np.zeros((2, 2, 8), np.float32)})).max() < 1e-5
    assert np.abs(change(short)).mean() > 0.005
    assert np.abs(change(short)).mean() < np.abs(change({NAME: 5 * short[NAME]})).mean() / 3
