"""Intervals cover as often as they claim; influences are derivatives; differences and Holm's correction are right."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from benchmarks import bench_intervals
from violence_detection.evaluation import influence, intervals
from violence_detection.evaluation.influence import Figure

N = 80


def _clips(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels (N,) and probabilities (N,) with ties; some clips of both classes are misjudged."""
    rng = np.random.default_rng(seed)
    is_fight = rng.random(N) < 0.4
    return is_fight, np.clip(np.round(0.4 + 0.25 * is_fight + rng.normal(0, 0.2, N), 2), 0, 1)


FIGURES: dict[str, tuple[Callable[..., Figure | None], Callable[..., float], bool]] = {
    "accuracy": (influence.accuracy, sklearn_metrics.accuracy_score, True),
    "balanced_accuracy": (influence.balanced_accuracy, sklearn_metrics.balanced_accuracy_score, True),
    "precision": (influence.precision, sklearn_metrics.precision_score, True),
    "recall": (influence.recall, sklearn_metrics.recall_score, True),
    "f1": (influence.f1, sklearn_metrics.f1_score, True),
    "roc_auc": (influence.roc_auc, sklearn_metrics.roc_auc_score, False),
    "average_precision": (influence.average_precision, sklearn_metrics.average_precision_score, False),
}


@pytest.mark.parametrize("name", FIGURES)
def test_an_influence_is_what_scikit_learns_figure_gains_when_a_clip_counts_more(name: str) -> None:
    ours, theirs, is_called = FIGURES[name]
    is_fight, p = _clips()
    given = p >= 0.5 if is_called else p
    figure = ours(is_fight, given)
    assert figure is not None
    base = theirs(is_fight, given, sample_weight=np.ones(N))
    assert figure.value == pytest.approx(base, abs=1e-12)
    step = 1e-5
    gained = [
        (theirs(is_fight, given, sample_weight=1 + step * (np.arange(N) == i)) - base) / step
        for i in range(N)
    ]
    np.testing.assert_allclose(figure.influence, gained, atol=1e-6)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_recall_at_false_alarms_is_the_highest_on_the_roc_curve_up_to_them(rate: float) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        is_fight = rng.random(400) < 0.5
        p = np.round(0.5 * is_fight + rng.random(400), 2) / 2
        found = influence.recall_at(is_fight, p, rate)
        assert found is not None
        figure, threshold = found
        false_alarms, recall, _ = sklearn_metrics.roc_curve(is_fight, p, drop_intermediate=False)
        assert figure.value == recall[false_alarms <= rate].max()
        assert threshold is not None
        assert (p[is_fight] >= threshold).mean() == figure.value
        assert (p[~is_fight] >= threshold).mean() <= rate
        low, high = intervals.interval(figure, np.arange(400) // 4)
        assert low < figure.value < high


def test_recall_at_one_percent_needs_a_hundred_peaceful_clips() -> None:
    is_fight, p = np.arange(150) < 51, np.linspace(1, 0, 150)
    assert influence.recall_at(is_fight, p, 0.01) is None
    assert influence.recall_at(is_fight[:-1], p[:-1], 0.05) is not None
    assert influence.recall_at(np.arange(150) < 50, p, 0.01) is not None


CASES = [
    (50, 20, 0.75, 0.1),
    (200, 60, 0.9, 0.1),
    (200, 5, 0.75, 0.1),
    (1000, 5, 0.9, 0.05),
    (1000, 200, 0.97, 0.1),
    (5000, 20, 0.9, 0.05),
]


@pytest.mark.parametrize(("n", "sources", "accuracy", "correlation"), CASES)
def test_the_interval_of_an_accuracy_covers_as_it_claims(
    n: int, sources: int, accuracy: float, correlation: float
) -> None:
    low, high, truth = bench_intervals.drawn(
        "accuracy", np.random.default_rng([n, sources]), 500, n, sources, accuracy, correlation
    )
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.97


@pytest.mark.parametrize(
    "figure", ["balanced_accuracy", "f1", "roc_auc", "average_precision", "recall_at_5_percent"]
)
def test_so_do_the_intervals_of_other_figures(figure: str) -> None:
    low, high, truth = bench_intervals.drawn(figure, np.random.default_rng(1), 300, 400, 60, 0.85, 0.1)
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.985


def test_the_error_of_an_auc_on_clips_of_their_own_is_delongs() -> None:
    """DeLong's error: from the placements' variances within the classes. Degrees of freedom: Welch's, plus 1."""
    is_fight, p = _clips()
    auc, chance = influence.roc_auc(is_fight, p), influence.roc_auc(is_fight, np.zeros(N))
    assert auc is not None
    assert chance is not None
    pairs = (p[is_fight][:, None] > p[~is_fight]) + 0.5 * (p[is_fight][:, None] == p[~is_fight])
    m, n = pairs.shape
    error = np.sqrt(pairs.mean(axis=1).var(ddof=1) / m + pairs.mean(axis=0).var(ddof=1) / n)
    freedom = (1 / m + 1 / n) ** 2 / (1 / m**2 / (m - 1) + 1 / n**2 / (n - 1))
    value, ci95, _ = intervals.difference(auc, chance, np.arange(N))
    assert ci95 is not None
    assert ci95[1] - value == pytest.approx(error * stats.t.ppf(0.975, freedom + 1))


@pytest.mark.parametrize("figure", ["balanced_accuracy", "roc_auc", "recall_at_5_percent"])
def test_sources_of_one_class_each_are_half_as_many(figure: str) -> None:
    rng = np.random.default_rng(4)
    low, high, truth = bench_intervals.drawn(figure, rng, 600, 400, 6, 0.85, 0.2, one_class=True)
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.985


def test_a_class_of_a_single_source_does_not_make_an_auc_sure() -> None:
    is_fight, p = _clips()
    groups = np.where(is_fight, np.arange(N) // 4, N)
    figure = influence.roc_auc(is_fight, p)
    assert figure is not None
    low, high = intervals.interval(figure, groups)
    of_two = intervals.interval(figure, np.where(is_fight, np.arange(N) // 4, N + np.arange(N) % 2))
    spread_low, spread_high = intervals.interval(figure, np.arange(N))
    assert 0 < low < of_two[0] < spread_low < spread_high < of_two[1] < high < 1


@pytest.mark.parametrize(
    ("figure", "fights", "others"),
    [("balanced_accuracy", 80, [9] * 9), ("roc_auc", 80, [9] * 9), ("roc_auc", 1, [1] * 80)],
)
def test_fights_of_one_source_are_covered(figure: str, fights: int, others: list[int]) -> None:
    rng, covered, draws = np.random.default_rng(8), 0, 200
    groups = np.repeat([0, *range(1, 2 * len(others), 2)], [fights, *others])
    truth = bench_intervals.drawn(figure, rng, 0, 200, 5, 0.85, 0.2, one_class=True)[2]
    compute = bench_intervals.SCORED[figure]
    while draws:
        is_fight, p = bench_intervals.scores(rng, groups, 0.85, 0.2, one_class=True)
        found = compute(is_fight, p)
        assert found is not None
        low, high = intervals.interval(found, intervals.numbered(groups))
        covered, draws = covered + int(low <= truth <= high), draws - 1
    assert covered >= 186  # 93 %


@pytest.mark.parametrize("fights", [1, 2, 5])
@pytest.mark.parametrize("figure", ["balanced_accuracy", "roc_auc", "average_precision"])
def test_few_fights_among_many_clips_are_covered(figure: str, fights: int) -> None:
    """Each clip is its own source, and the true figure comes from 3,000 times as many clips."""
    rng, covered, compute = np.random.default_rng(3), 0, bench_intervals.SCORED[figure]

    def drawn(times: int) -> Figure:
        is_fight = np.tile(np.arange(100 + fights) < fights, times)
        scores = np.where(is_fight, 1, -1) * stats.norm.ppf(0.8) + rng.normal(size=len(is_fight))
        found = compute(is_fight, stats.norm.cdf(scores))
        assert found is not None
        return found

    truth = drawn(3000).value
    for _ in range(200):
        low, high = intervals.interval(drawn(1), np.arange(100 + fights))
        covered += int(low <= truth <= high)
    assert covered >= (172 if fights == 1 else 180)  # 86 and 90 %


def test_the_average_precision_of_a_single_fight_says_next_to_nothing() -> None:
    is_fight, p_fight = np.arange(101) == 1, np.linspace(1, 0, 101)
    figure = influence.average_precision(is_fight, p_fight)
    assert figure is not None
    assert figure.value == 0.5
    low, high = intervals.interval(figure, np.arange(101))
    assert (low, high) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))


@pytest.mark.parametrize("shift", ["alike", "apart"])
def test_classes_that_a_source_makes_err_together_are_covered(shift: str) -> None:
    """alike: a source is hard for both classes. apart: one class gains what the other loses."""
    rng, held, widths = np.random.default_rng(5), [], []
    groups = np.repeat(np.arange(30), 20)
    sign = {"alike": 1, "apart": -1}[shift]
    for _ in range(400):
        is_fight = rng.random(len(groups)) < 0.5
        of_source = rng.normal(0, np.sqrt(0.2), 30)[groups] * np.where(is_fight, 1, sign)
        right = stats.norm.ppf(0.8) + of_source + rng.normal(0, np.sqrt(0.8), len(groups)) > 0
        figure = influence.balanced_accuracy(is_fight, is_fight == right)
        assert figure is not None
        low, high = intervals.interval(figure, groups)
        held.append(low <= 0.8 <= high)
        widths.append(high - low)
    assert 0.92 <= np.mean(held) <= 0.985
    assert (np.median(widths) > 0.1) == (shift == "alike")


def test_a_mean_of_sets_that_share_their_sources_is_as_unsure_as_they_are() -> None:
    ends = [(0.7, 0.9), (0.6, 0.9)]
    assert intervals.of_mean([0.8, 0.8], ends, intervals.sharing([1, 1])) == pytest.approx((0.65, 0.9))
    apart, some = (
        intervals.of_mean([0.8, 0.8], ends, intervals.sharing(shared)) for shared in ([0, 0], [0.2, 0.3])
    )
    assert intervals.of_mean([0.8, 0.8], ends, intervals.sharing([0, 1])) == pytest.approx(apart), (
        "with nobody"
    )
    assert 0.65 < some[0] < apart[0] < 0.8 < apart[1] < some[1] < 0.9


@pytest.mark.parametrize(("n_shared", "least"), [(1, 0.93), (8, 0.93), (40, 0.94)])
def test_the_interval_of_a_mean_of_sets_that_share_some_sources_covers_it(
    n_shared: int, least: float
) -> None:
    """Two of four sets share `n_shared` of their 40 sources; clips of one source tend to err together."""
    rng, covered, widths, draws = np.random.default_rng(7), 0, [], 200
    accuracies, groups = (0.82, 0.8, 0.85, 0.9), np.repeat(np.arange(40), 6)
    shares = [n_shared / 40, n_shared / 40, 0, 0]
    for _ in range(draws):
        of_source = rng.normal(size=(4, 40))
        of_source[1, :n_shared] = of_source[0, :n_shared]
        noise = np.sqrt(0.4) * of_source[:, groups] + np.sqrt(0.6) * rng.normal(size=(4, 240))
        right = noise < stats.norm.ppf(accuracies)[:, None]
        values, ends = right.mean(axis=1), [intervals.accuracy_interval(r, groups) for r in right]
        low, high = intervals.of_mean(values, ends, intervals.sharing(shares))
        apart = intervals.of_mean(values, ends)
        covered += int(low <= np.mean(accuracies) <= high)
        widths.append((high - low) / (apart[1] - apart[0]))
    assert covered >= least * draws
    assert max(widths) < 1 + 0.4 * n_shared / 40


def test_the_interval_of_a_mean_of_data_sets_covers_it_and_is_narrower_than_theirs() -> None:
    rng, covered, draws = np.random.default_rng(6), 0, 200
    sets = [(300, 11, 0.91), (250, 33, 0.82), (200, 169, 0.8)]
    for _ in range(draws):
        drawn = [bench_intervals.outcomes(rng, n, sources, p, 0.1) for n, sources, p in sets]
        ends = [intervals.accuracy_interval(*one) for one in drawn]
        low, high = intervals.of_mean([correct.mean() for correct, _ in drawn], ends)
        assert high - low < np.mean([b - a for a, b in ends])
        covered += int(low <= np.mean([p for *_, p in sets]) <= high)
    assert 0.93 <= covered / draws <= 0.995


def test_few_sources_and_few_of_them_with_errors_make_it_wide() -> None:
    correct = np.ones(200, bool)
    correct[:20] = False
    spread = intervals.accuracy_interval(np.random.default_rng(0).permutation(correct), np.arange(200) // 10)
    gathered = intervals.accuracy_interval(correct, np.arange(200) // 10)  # two sources are entirely wrong
    five = intervals.accuracy_interval(correct, np.arange(200) // 40)
    assert spread[1] - spread[0] < 0.12 < 0.25 < min(gathered[1] - gathered[0], five[1] - five[0])


def test_errors_of_one_source_widen_the_interval_but_do_not_make_it_meaningless() -> None:
    groups = np.arange(200) // 10
    two, whole = (np.arange(200) >= wrong for wrong in (2, 10))
    low, high = intervals.accuracy_interval(two, groups)
    assert 0.85 < low < 0.95 < 0.99 < high < 1
    low, high = intervals.accuracy_interval(whole, groups)
    assert 0.5 < low < 0.8 < 0.95 < high < 1
    mirrored = intervals.accuracy_interval(~whole, groups)
    assert mirrored == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("sources", "accuracy"), [(10, 0.75), (20, 0.9)])
def test_sources_wholly_right_or_wrong_count_as_one_clip_each(sources: int, accuracy: float) -> None:
    low, high, truth = bench_intervals.drawn(
        "accuracy", np.random.default_rng(2), 300, 200, sources, accuracy, 1.0
    )
    assert ((low <= truth) & (truth <= high)).mean() >= 0.93


def test_seeds_that_differ_widen_the_interval_of_their_mean_and_alike_ones_do_not() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(400) // 4
    base = rng.random(400) < 0.85

    def seed_with(accuracy: float) -> Figure:
        correct = base & (rng.random(400) < accuracy)
        figure = influence.ratio(correct, np.ones(400))
        assert figure is not None
        return figure

    alike, differing = [seed_with(0.9)] * 3, [seed_with(a) for a in (0.98, 0.9, 0.7)]
    (low, high), one = intervals.interval_over_seeds(alike, groups), intervals.interval(alike[0], groups)
    assert (low, high) == pytest.approx(one, abs=2e-3)
    wide_low, wide_high = intervals.interval_over_seeds(differing, groups)
    assert wide_high - wide_low > 1.5 * (high - low)
    assert intervals.interval_over_seeds(alike[:1], groups) == one


def test_the_interval_over_seeds_covers_what_the_recipe_gives_on_new_sources_and_seeds() -> None:
    rng = np.random.default_rng(3)
    groups, covered, draws, mean = np.repeat(np.arange(60), 5), 0, 400, 0.85
    for _ in range(draws):
        source = rng.normal(0, 0.05, 60)[groups]
        figures = []
        for _ in range(4):
            share = mean + source + rng.normal(0, 0.03)
            figure = influence.ratio(rng.random(300) < share, np.ones(300))
            assert figure is not None
            figures.append(figure)
        low, high = intervals.interval_over_seeds(figures, groups)
        covered += low <= mean <= high
    assert 0.93 <= covered / draws <= 0.985


def test_the_difference_of_accuracies_on_clips_of_their_own_is_the_paired_t_tests() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.random(300) < 0.9, rng.random(300) < 0.8
    a, b = (influence.ratio(x, np.ones(300)) for x in (first, second))
    assert a is not None
    assert b is not None
    value, ci95, p = intervals.difference(a, b, np.arange(300))
    test = stats.ttest_rel(first.astype(float), second.astype(float))
    assert value == pytest.approx(first.mean() - second.mean())
    assert ci95 == pytest.approx(tuple(test.confidence_interval()), abs=2e-3)
    assert p == pytest.approx(test.pvalue, abs=2e-3)


def test_a_difference_within_few_sources_is_no_proof() -> None:
    first, second = np.ones(100, bool), np.ones(100, bool)
    second[:25] = False
    a, b = (influence.ratio(x, np.ones(100)) for x in (first, second))
    assert a is not None
    assert b is not None
    *_, clips_alone = intervals.difference(a, b, np.arange(100), imagined=1)
    *_, by_source = intervals.difference(a, b, np.arange(100) // 25, imagined=1)
    assert clips_alone is not None
    assert by_source is not None
    assert clips_alone < 1e-4 < 0.2 < by_source
    assert intervals.difference(a, b, np.zeros(100, int), imagined=1) == (0.25, None, None)
    assert intervals.difference(a, a, np.arange(100)) == (0, None, 1.0)


def test_a_paired_test_of_models_that_are_alike_is_rarely_significant() -> None:
    rng = np.random.default_rng(5)
    groups, significant, draws = np.repeat(np.arange(30), 8), 0, 400
    for _ in range(draws):
        shares = rng.beta(8, 1.5, 30)[groups]
        favour = rng.normal(0, 0.08, 30)[groups]  # a source suits one of the two models better
        a, b = (
            influence.ratio(rng.random(240) < np.clip(shares + s * favour, 0, 1), np.ones(240))
            for s in (1, -1)
        )
        assert a is not None
        assert b is not None
        *_, p = intervals.difference(a, b, groups, imagined=1)
        assert p is not None
        significant += p < 0.05
    assert 0.015 < significant / draws < 0.075


def test_holm_multiplies_by_what_is_left_never_falls_and_counts_only_what_was_tested() -> None:
    corrected = intervals.holm([0.01, 0.04, 0.03, None, 0.005])
    assert corrected[3] is None
    assert [c for c in corrected if c is not None] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert intervals.holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert intervals.holm([]) == []
