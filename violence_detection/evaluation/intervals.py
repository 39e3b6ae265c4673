"""95 % intervals that know how few sources a figure rests on, and p-values of differences.

A figure's variance is that of its sums over sources, with each source's residual enlarged for its share of the whole
(CR2: Bell & McCaffrey 2002, "Bias reduction in standard errors for linear regression with multi-stage samples",
Survey Methodology 28). From it comes an effective number of clips, and on that the score interval for a share (Wilson
1927, JASA 22; for clustered shares: Rao & Scott 1992, Biometrics 48; Korn & Graubard 1998, Survey Methodology 24; for
the AUC: Kottas, Kuss & Zapf 2014, BMC Med. Res. Methodol. 14). The quantile is Student's, with Satterthwaite's
degrees of freedom for uneven sources (Bell & McCaffrey), and no more of them than sources that the errors come from.
What was added to these was chosen by simulation. For a plain share (accuracy, precision, recall) that quantile is
averaged with that of a beta-binomial posterior, which knows more where sources are few. How often the whole covers is
measured: benchmarks/bench_intervals.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from violence_detection.evaluation import beta_binomial
from violence_detection.evaluation.influence import Figure, ratio

_CONFIDENCE = 0.95
_TAIL = 1 - (1 - _CONFIDENCE) / 2
#: How alike clips of one source are taken to be (intraclass correlation) where there is next to no error to tell it.
_PRIOR_CORRELATION = 0.3
#: The same where there is no error at all.
_UNSEEN_CORRELATION = 0.35
#: The same for degrees of freedom, where it hardly matters.
_WORKING_CORRELATION = 0.1
#: From so many sources on, the score interval has been seen to want a degree of freedom more than Satterthwaite's.
_SEVERAL_SOURCES = 8
#: Degrees of freedom beyond the sources that are wholly wrong where none is so in part.
_BEYOND_ERRING = 2
#: So many sources tell as much of how they vary as the beta-binomial model knows beforehand.
_EQUAL_SOURCES = 30
#: The mean of two normal quantiles that agree but partly varies less than either.
_MEAN_OF_TWO = 1.015
#: So many sources with clips of both halves of a figure tell as much of how these err together as that they do not.
_TELL_OF_HALVES = 5
_NEGLIGIBLE = 1e-18


def accuracy_interval(correct: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95 % interval of an accuracy. `correct` (n,) bool, `groups` (n,) source groups; returns (low, high) in [0, 1].

    Where every clip is its own source it is Wilson's interval. All clips right still gives a width, and the fewer
    sources, the wider. Raises ValueError for no clips or for lengths that differ.
    """
    return interval(*_share(correct, groups))


def effective_count(correct: np.ndarray, groups: np.ndarray) -> float:
    """How many independent clips (n,) clips of `groups` are worth where an accuracy is measured, above 0.

    Raises ValueError for no clips or for lengths that differ.
    """
    figure, numbers = _share(correct, groups)
    return _effective_n(figure, _Sources(figure.weight, numbers))[0]


def _share(correct: np.ndarray, groups: np.ndarray) -> tuple[Figure, np.ndarray]:
    correct, groups = np.asarray(correct, dtype=bool), np.asarray(groups)
    if len(correct) == 0 or correct.shape != groups.shape:
        raise ValueError(f"one group a clip, at least one clip. Received: {correct.shape} and {groups.shape}")
    figure = ratio(correct, np.ones(len(correct)))
    assert figure is not None
    return figure, numbered(groups)


def numbered(groups: np.ndarray) -> np.ndarray:
    """The groups (n,) as integers from 0 on: made once for many figures."""
    return np.unique(groups, return_inverse=True)[1]


def interval(figure: Figure, groups: np.ndarray) -> tuple[float, float]:
    """95 % interval (low, high) in [0, 1] of a figure on clips of `groups` (n,), as `numbered` gives them."""
    from scipy import stats

    if figure.halves:
        return _of_halves(figure.halves, groups)
    sources = _Sources(figure.weight, groups, figure.classes)
    effective_n, freedom = _effective_n(figure, sources)
    if sources.all_single and _is_share(figure):
        return _wilson(figure.value, effective_n, float(stats.norm.ppf(_TAIL)))
    freedom = max(min(freedom, figure.clips), 1.0)  # it may rest on few of the clips
    if sources.count > 1 and 0 < figure.value < 1 and _is_share(figure):
        right, clips = sources.sums(figure.weight - figure.loss), sources.sums(figure.weight)
        if ((right > 0) & (right < clips)).any():
            return _share_interval(figure.value, right, clips, effective_n, freedom)
        rarer = right == (0 if figure.value >= 0.5 else clips)
        if clips[rarer].max() > 1:  # each source speaks with one voice, and not for being a single clip
            effective_n = 1 / float((sources.share**2).sum())
            freedom = min(int(rarer.sum()) + _BEYOND_ERRING, sources.count - 1)
    return _wilson(figure.value, effective_n, float(stats.t.ppf(_TAIL, freedom)))


def _is_share(figure: Figure) -> bool:
    """Whether each clip counts wholly or not at all, and is right or wrong."""
    return bool(np.isin(figure.weight, (0, 1)).all() and np.isin(figure.loss, (0, 1)).all())


def _share_interval(
    value: float, right: np.ndarray, clips: np.ndarray, effective_n: float, freedom: float
) -> tuple[float, float]:
    """The interval of a share, `right` (sources,) of `clips` (sources,), some source being right in part.

    Holds every true share that the data lie no further from than 95 % do, as the mean of two normal quantiles says:
    of the beta-binomial posterior, and of Student's t of the score. The more sources, the more the second counts, as it
    holds whatever the distribution of the sources.
    """
    from scipy import special, stats

    shares, below = beta_binomial.posterior(right, clips)
    score = (shares - value) / np.sqrt(shares * (1 - shares) / effective_n)
    modelled, measured = (
        special.ndtri(p.clip(1e-12, 1 - 1e-12)) for p in (below, stats.t.cdf(score, freedom))
    )
    weight = len(clips) / (len(clips) + _EQUAL_SOURCES)
    z = _MEAN_OF_TWO * ((1 - weight) * modelled + weight * measured)
    limit = float(stats.norm.ppf(_TAIL))
    low, high = np.interp([-limit, limit], z, shares)
    return min(float(low), value), max(float(high), value)


def interval_over_seeds(figures: Sequence[Figure], groups: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of a figure over models that differ by their seed, measured on the same clips.

    Sources and seeds are both draws. The variance is that of the mean figure over sources plus that between seeds over
    their number, as for crossed factors (Owen 2007, "The pigeonhole bootstrap", Ann. Appl. Stat. 1; why seeds belong in
    it: Bouthillier et al. 2021, "Accounting for variance in machine learning benchmarks", MLSys), with Satterthwaite's
    degrees of freedom of the sum (1946, Biometrics Bulletin 2). One seed tells nothing of seeds: `interval`.
    """
    from scipy import stats

    if len(figures) == 1:
        return interval(figures[0], groups)
    mean = Figure(
        float(np.mean([f.value for f in figures])),
        np.mean([f.influence for f in figures], axis=0),
        np.mean([f.weight for f in figures], axis=0),
        np.mean([f.loss for f in figures], axis=0),
        float(np.mean([f.clips for f in figures])),
        figures[0].classes,
    )
    spread = float(mean.value * (1 - mean.value))
    if spread <= 0:
        return interval(mean, groups)
    effective_n, freedom = _effective_n(mean, _Sources(mean.weight, groups, mean.classes))
    by_source = spread / effective_n
    by_seed = float(np.var([f.value for f in figures], ddof=1)) / len(figures)
    total = by_source + by_seed
    freedom = total**2 / (by_source**2 / freedom + by_seed**2 / (len(figures) - 1))
    return _wilson(float(mean.value), spread / total, float(stats.t.ppf(_TAIL, freedom)))


def of_mean(
    figures: Sequence[float], intervals: Sequence[Sequence[float]], alike: np.ndarray | None = None
) -> tuple[float, float]:
    """95 % interval of the mean of figures in [0, 1], from the interval of each.

    By their ends' distances from the figures (MOVER: Zou, Huang & Zhang 2009, "A note on confidence interval estimation
    for a linear function of binomial proportions", Comput. Stat. Data Anal. 53). `alike` (n, n): how they err together,
    correlations with 1 in the diagonal; none do by default. That further figures, of other data sets, would lie
    elsewhere is not in it.
    """
    values, (lows, highs) = np.asarray(figures, float), np.transpose(intervals)
    mean, n = float(values.mean()), len(values)
    alike = np.eye(n) if alike is None else alike
    below, above = (float(np.sqrt(d @ alike @ d)) / n for d in (values - lows, highs - values))
    return mean - below, mean + above


def sharing(shares: Sequence[float]) -> np.ndarray:
    """How figures err together, for `of_mean`, (n, n): the most that they can.

    `shares`: of each the share of its sources, in [0, 1], that others rest on, too.
    """
    alike = np.sqrt(np.outer(shares, shares))
    np.fill_diagonal(alike, 1.0)
    return alike


def _of_halves(halves: tuple[Figure, Figure], groups: np.ndarray) -> tuple[float, float]:
    """Of the mean of two figures on clips of their own, each with its interval.

    How they err together sources tell that have clips of both.
    """
    sums = [np.bincount(groups, weights=half.influence) for half in halves]
    clips = [np.bincount(groups, weights=half.weight) for half in halves]
    both = int(((clips[0] > 0) & (clips[1] > 0)).sum())
    size = float(np.linalg.norm(sums[0]) * np.linalg.norm(sums[1]))
    r = float(sums[0] @ sums[1]) / size * both / (both + _TELL_OF_HALVES) if size else 0.0
    ends = [interval(half, groups) for half in halves]
    return of_mean([half.value for half in halves], ends, np.array([[1, r], [r, 1]]))


def _wilson(value: float, effective_n: float, z: float) -> tuple[float, float]:
    """The score interval of a share on so many clips."""
    scale = 1 + z**2 / effective_n
    centre = (value + z**2 / (2 * effective_n)) / scale
    spread = value * (1 - value) / effective_n + z**2 / (4 * effective_n**2)
    half = z / scale * float(np.sqrt(max(spread, 0.0)))
    return min(max(centre - half, 0.0), value), max(min(centre + half, 1.0), value)  # but for rounding


def difference(
    first: Figure, second: Figure, groups: np.ndarray, imagined: float = 0.0
) -> tuple[float, tuple[float, float] | None, float | None]:
    """`first` minus `second` on the same clips, its 95 % interval and two-sided p-value, by source.

    A t interval on the sums over sources of the clips' influences: for accuracies Obuchowski 1998, "On the comparison
    of correlated proportions for clustered data", Stat. Med. 17; for AUCs Obuchowski 1997, Biometrics 53. `imagined`:
    clips more on which the two are taken to differ, so that few of them are not taken for none: 1 suits accuracies
    (Agresti & Min 2005, Stat. Med. 24). The interval is None where no source differs from another, or there is one
    alone; then p is 1 for no difference, else None.
    """
    from scipy import stats

    value = first.value - second.value
    sources = _Sources(first.weight, groups, first.classes)
    variance = sources.variance(first.influence - second.influence) if sources.count > 1 else 0.0
    variance += (imagined / first.clips) ** 2 if sources.count > 1 else 0.0
    if variance < _NEGLIGIBLE:
        return value, None, 1.0 if value == 0 else None
    error, freedom = float(np.sqrt(variance)), sources.freedom()
    half = float(stats.t.ppf(_TAIL, freedom)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, freedom))
    return value, (max(value - half, -1.0), min(value + half, 1.0)), p


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for being several, in the same order; None stays None and does not count.

    Holm 1979, "A simple sequentially rejective multiple test procedure", Scand. J. Stat. 6.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min((len(known) - rank) * p, 1.0))
        corrected[i] = largest
    return corrected


class _Sources:
    """The sources that a figure rests on: how much of it (`share`, 1 in sum), and how sums over them vary.

    `classes`: see Figure. Residuals are those about the mean of their class then, and a source's are enlarged for its
    share of that class: where each source is of one class, a class's sources are half as many. A class of a single
    source tells nothing of how its sources vary: it is not told apart, and leaves one degree of freedom.
    """

    def __init__(self, weight: np.ndarray, groups: np.ndarray, classes: np.ndarray | None = None):
        total = np.bincount(groups, weights=weight)
        used = total > 0
        self._groups, self._used = groups, used
        self.count = int(used.sum())
        self.share = total[used] / total.sum()
        counts = np.bincount(groups, weights=weight > 0)[used]
        self.all_single = bool((counts <= 1).all())
        by_class = [] if classes is None else [classes, ~classes]
        fewest = min((len(set(groups[members & (weight > 0)])) for members in by_class), default=0)
        self._classes = by_class if fewest > 1 else [np.ones(len(weight), bool)]
        self._is_lone = fewest == 1  # a class of one source
        self._shares, self._within = [], []  # of each class, a row a source; the shares of all are 1 in sum
        for members in self._classes:
            self._shares.append(self.sums(weight * members) / total.sum())
            self._within.append(self.sums(weight**2 * members) / total.sum() ** 2)
        self._enlarged = [1 / np.sqrt(np.maximum(1 - h / h.sum(), _NEGLIGIBLE)) for h in self._shares]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Of values (n,), those of each source."""
        return np.bincount(self._groups, weights=values)[self._used]

    def variance(self, influence: np.ndarray) -> float:
        """Of the figure, by CR2; needs two sources."""
        classes = zip(self._classes, self._enlarged, strict=True)
        return float((sum(c * self.sums(influence * members) for members, c in classes) ** 2).sum())

    def effect_of(self, correlation: float) -> float:
        """The design effect of an intraclass correlation (Kish 1965, Survey Sampling)."""
        within = float(np.sum(self._within))
        return 1 + correlation * (float((self.share**2).sum()) / within - 1)

    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom of `variance` (Bell & McCaffrey 2002), up to one more for several sources.

        They are trace(M)^2 / trace(M^2), M the covariance of the enlarged residuals where the sums over sources have
        variances v (a working correlation's): over the classes, C (I - h 1') diag(v) (I - 1 h') C in sum, h the shares
        of the class's sources and C how they are enlarged. That is D + U K U', D diagonal, U of two columns a class.
        """
        if self._is_lone:
            return 1.0
        diagonal, columns = np.zeros(self.count), []
        inner = np.zeros((2 * len(self._classes), 2 * len(self._classes)))
        for k, (share, within, c) in enumerate(zip(self._shares, self._within, self._enlarged, strict=True)):
            v = within + _WORKING_CORRELATION * (share**2 - within)
            diagonal += c**2 * v
            columns += [c * share / share.sum(), c * v]
            inner[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = [[v.sum(), -1], [-1, 0]]
        u = np.stack(columns, axis=1)
        low_rank = inner @ u.T @ u
        trace = diagonal.sum() + np.trace(low_rank)
        square = (
            (diagonal**2).sum() + 2 * np.trace(inner @ (u.T * diagonal) @ u) + np.trace(low_rank @ low_rank)
        )
        return max(float(trace**2 / square), 1.0) + min((self.count - 2) / (_SEVERAL_SOURCES - 2), 1.0)


def _effective_n(figure: Figure, sources: _Sources) -> tuple[float, float]:
    """How many independent clips the figure is worth, and the degrees of freedom of that."""
    loss, n_assumed = figure.loss, figure.clips
    if figure.value < 0.5:  # the rarer outcome is what counts
        loss = ((figure.weight > 0) - loss).clip(0)
    errors = float(loss.sum()) ** 2 / max(float((loss**2).sum()), 1e-12)  # clips that they come from
    assumed = sources.effect_of(_PRIOR_CORRELATION)
    if sources.count < 2:
        return n_assumed / assumed, 1.0
    # Against one for what is assumed. Losses in parts, those of ranks, tell less than whole errors.
    graded = bool(((loss > 0) & (loss < 1)).any())
    information = errors if graded else errors**2
    alone = float((figure.influence**2).sum())
    spread = figure.value * (1 - figure.value)
    if alone == 0 or spread <= 0:
        n, effect = n_assumed, sources.effect_of(_UNSEEN_CORRELATION)
    else:
        n = (information * spread / alone + n_assumed) / (information + 1)
        estimated = 1.0 if sources.all_single else sources.variance(figure.influence) / alone
        effect = (information * estimated + assumed) / (information + 1)
    freedom = max(min(sources.freedom(), _erring_sources(loss, sources)), 1.0)
    return n / effect, freedom


def _erring_sources(loss: np.ndarray, sources: _Sources) -> float:
    """From how many sources of like share the errors come: one over the chance that two errors share a source.

    Simpson's index without its bias (Simpson 1949, "Measurement of diversity", Nature 163). Infinite where no two do.
    """
    own = float((loss**2).sum())
    together = float((sources.sums(loss) ** 2).sum()) - own
    return (float(loss.sum()) ** 2 - own) / together if together > 1e-12 else np.inf
