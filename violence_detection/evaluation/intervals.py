"""95 % confidence intervals that account for how few sources a figure rests on, and p-values of differences.

The variance of a figure is that of its sums over sources, with each source's residual enlarged for the source's share
of the figure (CR2: Bell & McCaffrey 2002, "Bias reduction in standard errors for linear regression with multi-stage
samples", Survey Methodology 28). The variance gives an effective number of clips, for which the score interval of a
share is computed (Wilson 1927, JASA 22; for clustered shares: Rao & Scott 1992, Biometrics 48; Korn & Graubard 1998,
Survey Methodology 24; for the AUC: Kottas, Kuss & Zapf 2014, BMC Med. Res. Methodol. 14). The quantile is that of
Student's t, with Satterthwaite's degrees of freedom for sources of uneven size (Bell & McCaffrey), at most as many as
the effective number of sources that the errors come from. Adjustments beyond these publications were chosen by
simulation. For a plain share (accuracy, precision, recall) that quantile is averaged with the one of a beta-binomial
posterior, which is more informative where sources are few. benchmarks/bench_intervals.py measures the coverage.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from violence_detection.evaluation import beta_binomial
from violence_detection.evaluation.influence import Figure, ratio

_CONFIDENCE = 0.95
_TAIL = 1 - (1 - _CONFIDENCE) / 2
#: Intraclass correlation to which the estimated design effect is shrunk, the more so the fewer errors there are; also
#: assumed with a single source.
_PRIOR_CORRELATION = 0.3
#: Intraclass correlation that is assumed if the figure is 0 or 1, so that nothing can be estimated.
_UNSEEN_CORRELATION = 0.35
#: Working intraclass correlation for the degrees of freedom, on which it has little effect.
_WORKING_CORRELATION = 0.1
#: From this number of sources on, one degree of freedom is added to Satterthwaite's; with fewer, a part of one, down to
#: none with two sources. In simulations the score interval needed it.
_SEVERAL_SOURCES = 8
#: If every source is wholly right or wholly wrong: degrees of freedom beyond the number of sources of the rarer kind.
_BEYOND_ERRING = 2
#: Number of sources with which the score's quantile has the same weight as that of the beta-binomial posterior.
_EQUAL_SOURCES = 30
#: Factor on the mean of two normal quantiles: as they agree only in part, their mean varies less than either.
_MEAN_OF_TWO = 1.015
#: Number of sources with clips of both halves of a figure at which the correlation that they show counts half.
_TELL_OF_HALVES = 5
#: A variance below this is a rounding error.
_NEGLIGIBLE = 1e-18


def accuracy_interval(correct: np.ndarray, groups: np.ndarray) -> tuple[float, float]:
    """95 % interval (low, high) in [0, 1] of an accuracy. `correct` (n,) bool, `groups` (n,) source groups.

    If every clip is its own source, this is Wilson's interval. If all clips are right, the interval still has a width,
    the larger the fewer sources there are. Raises ValueError without clips, or if the lengths differ.
    """
    return interval(*_share(correct, groups))


def effective_count(correct: np.ndarray, groups: np.ndarray) -> float:
    """How many independent clips would measure an accuracy as precisely as these (n,) clips of `groups`; above 0.

    Raises ValueError without clips, or if the lengths differ.
    """
    figure, numbers = _share(correct, groups)
    return _effective_n(figure, _Sources(figure.weight, numbers))[0]


def _share(correct: np.ndarray, groups: np.ndarray) -> tuple[Figure, np.ndarray]:
    correct, groups = np.asarray(correct, dtype=bool), np.asarray(groups)
    if len(correct) == 0 or correct.shape != groups.shape:
        raise ValueError(
            f"expected one group per clip and at least one clip, got {correct.shape} and {groups.shape}"
        )
    figure = ratio(correct, np.ones(len(correct)))
    assert figure is not None
    return figure, numbered(groups)


def numbered(groups: np.ndarray) -> np.ndarray:
    """Source groups (n,) as integers from 0 on. Computed once and used for many figures."""
    return np.unique(groups, return_inverse=True)[1]


def interval(figure: Figure, groups: np.ndarray) -> tuple[float, float]:
    """95 % interval (low, high) in [0, 1] of a figure. `groups` (n,): the clips' sources as `numbered` returns them."""
    from scipy import stats

    if figure.halves:
        return _interval_of_halves(figure.halves, groups)
    sources = _Sources(figure.weight, groups, figure.classes)
    effective_n, freedom = _effective_n(figure, sources)
    if sources.all_single and _is_share(figure):
        return _wilson(figure.value, effective_n, float(stats.norm.ppf(_TAIL)))
    freedom = max(min(freedom, figure.clips), 1.0)  # a precision may rest on few of the clips
    if sources.count > 1 and 0 < figure.value < 1 and _is_share(figure):
        right, clips = sources.sums(figure.weight - figure.loss), sources.sums(figure.weight)
        if ((right > 0) & (right < clips)).any():
            return _share_interval(figure.value, right, clips, effective_n, freedom)
        rarer = right == (0 if figure.value >= 0.5 else clips)
        # The clips of a source are right or wrong together, and not just because each source has a single one.
        if clips[rarer].max() > 1:
            effective_n = 1 / float((sources.share**2).sum())
            freedom = min(int(rarer.sum()) + _BEYOND_ERRING, sources.count - 1)
    return _wilson(figure.value, effective_n, float(stats.t.ppf(_TAIL, freedom)))


def _is_share(figure: Figure) -> bool:
    """Whether the figure is a plain share: every clip counts as 1 or 0, and is wholly right or wholly wrong."""
    return bool(np.isin(figure.weight, (0, 1)).all() and np.isin(figure.loss, (0, 1)).all())


def _share_interval(
    value: float, right: np.ndarray, clips: np.ndarray, effective_n: float, freedom: float
) -> tuple[float, float]:
    """95 % interval of a share, with `right` (sources,) of `clips` (sources,) right; some source must be partly right.

    It contains the true shares whose normal quantile is within the central 95 %. That quantile is the weighted mean of
    two: of the beta-binomial posterior, and of Student's t of the score. The second counts more the more sources there
    are (see _EQUAL_SOURCES), as it is valid whatever the distribution of the sources.
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

    Sources and seeds are crossed random factors: the variance is that of the mean figure over sources, plus the
    variance between seeds divided by their number (Owen 2007, "The pigeonhole bootstrap", Ann. Appl. Stat. 1; why seeds
    belong in it: Bouthillier et al. 2021, "Accounting for variance in machine learning benchmarks", MLSys). The degrees
    of freedom are Satterthwaite's for that sum (1946, Biometrics Bulletin 2). With one seed, or a mean of 0 or 1, only
    the sources count, as in `interval`.
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
    """95 % interval of the mean of figures in [0, 1], from the 95 % interval of each.

    Combines the distances of the intervals' ends from the figures (MOVER: Zou, Huang & Zhang 2009, "A note on
    confidence interval estimation for a linear function of binomial proportions", Comput. Stat. Data Anal. 53).
    `alike` (n, n): correlations of the figures' errors, 1 on the diagonal; uncorrelated by default. The interval is
    about these figures: it does not include how much those of other data sets would differ from them.
    """
    values, (lows, highs) = np.asarray(figures, float), np.transpose(intervals)
    mean, n = float(values.mean()), len(values)
    alike = np.eye(n) if alike is None else alike
    below, above = (float(np.sqrt(d @ alike @ d)) / n for d in (values - lows, highs - values))
    return mean - below, mean + above


def sharing(shares: Sequence[float]) -> np.ndarray:
    """Upper bound of the correlations (n, n) of the errors of figures that share sources, as `of_mean` takes them.

    `shares`: for each figure, the share of its sources, in [0, 1], that other figures rest on too.
    """
    alike = np.sqrt(np.outer(shares, shares))
    np.fill_diagonal(alike, 1.0)
    return alike


def _interval_of_halves(halves: tuple[Figure, Figure], groups: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of two figures that share no clip, from the interval of each.

    The correlation of their errors is estimated from the sources with clips of both, and shrunk to 0 if these are few.
    """
    sums = [np.bincount(groups, weights=half.influence) for half in halves]
    clips = [np.bincount(groups, weights=half.weight) for half in halves]
    both = int(((clips[0] > 0) & (clips[1] > 0)).sum())
    size = float(np.linalg.norm(sums[0]) * np.linalg.norm(sums[1]))
    r = float(sums[0] @ sums[1]) / size * both / (both + _TELL_OF_HALVES) if size else 0.0
    ends = [interval(half, groups) for half in halves]
    return of_mean([half.value for half in halves], ends, np.array([[1, r], [r, 1]]))


def _wilson(value: float, effective_n: float, z: float) -> tuple[float, float]:
    """Wilson's score interval of the share `value` of `effective_n` clips, with the quantile `z`."""
    scale = 1 + z**2 / effective_n
    centre = (value + z**2 / (2 * effective_n)) / scale
    spread = value * (1 - value) / effective_n + z**2 / (4 * effective_n**2)
    half = z / scale * float(np.sqrt(max(spread, 0.0)))
    # `value` is inside, rounding errors aside
    return min(max(centre - half, 0.0), value), max(min(centre + half, 1.0), value)


def difference(
    first: Figure, second: Figure, groups: np.ndarray, imagined: float = 0.0
) -> tuple[float, tuple[float, float] | None, float | None]:
    """Return `first` minus `second` on the same clips, its 95 % interval by source, and the two-sided p-value.

    A t interval from the sums over sources of the clips' influences: for accuracies Obuchowski 1998, "On the comparison
    of correlated proportions for clustered data", Stat. Med. 17; for AUCs Obuchowski 1997, Biometrics 53. `imagined`:
    pseudo-clips on which the two are taken to differ, so that the variance is not underestimated if they differ on few
    clips or none; 1 suits accuracies (Agresti & Min 2005, Stat. Med. 24). With a single source, or a variance of 0, the
    interval is None, and p is 1 if the difference is 0, else None.
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
    """Correct p-values for multiple comparisons, in the same order; None stays None and is not counted.

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
    """The sources that a figure rests on: their shares of the figure (`share`, 1 in sum) and variances over them.

    With `classes` (see Figure), residuals are about the mean of their class, and those of a source are enlarged for its
    share of that class, because a class may have only half of the sources. If all clips of a class are of one source,
    the variance between its sources cannot be estimated: classes are then not distinguished, and there is one degree of
    freedom.
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
        self._is_lone = fewest == 1  # one of the classes has a single source
        self._shares, self._within = [], []  # an array (sources,) per class; all shares sum to 1
        for members in self._classes:
            self._shares.append(self.sums(weight * members) / total.sum())
            self._within.append(self.sums(weight**2 * members) / total.sum() ** 2)
        self._enlarged = [1 / np.sqrt(np.maximum(1 - h / h.sum(), _NEGLIGIBLE)) for h in self._shares]

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of `values` (n,) over each source, (sources,)."""
        return np.bincount(self._groups, weights=values)[self._used]

    def variance(self, influence: np.ndarray) -> float:
        """Variance of the figure by CR2, from the clips' influences (n,); needs two sources or more."""
        classes = zip(self._classes, self._enlarged, strict=True)
        return float((sum(c * self.sums(influence * members) for members, c in classes) ** 2).sum())

    def effect_of(self, correlation: float) -> float:
        """Design effect of an intraclass correlation (Kish 1965, Survey Sampling)."""
        within = float(np.sum(self._within))
        return 1 + correlation * (float((self.share**2).sum()) / within - 1)

    def freedom(self) -> float:
        """Satterthwaite's degrees of freedom of `variance` (Bell & McCaffrey 2002), plus up to 1 (_SEVERAL_SOURCES).

        They are trace(M)^2 / trace(M^2), where M is the covariance of the enlarged residuals if the sums over sources
        have the variances v that the working correlation implies. M is the sum over the classes of
        C (I - h 1') diag(v) (I - 1 h') C, with h the shares of the class's sources and C the factors that enlarge their
        residuals. It equals D + U K U', with D diagonal and two columns of U per class.
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
    """Number of independent clips that would be as precise, and the degrees of freedom of the figure's variance."""
    loss, n_assumed = figure.loss, figure.clips
    if figure.value < 0.5:  # the rarer outcome carries the information
        loss = ((figure.weight > 0) - loss).clip(0)
    errors = float(loss.sum()) ** 2 / max(float((loss**2).sum()), 1e-12)  # effective number of erring clips
    assumed = sources.effect_of(_PRIOR_CORRELATION)
    if sources.count < 2:
        return n_assumed / assumed, 1.0
    # Weight of what is estimated; what is assumed has weight 1. Graded losses, such as those of ranks, say less than
    # whole errors.
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
    """Effective number of sources with errors: 1 over the probability that two errors come from the same source.

    Simpson's unbiased index (Simpson 1949, "Measurement of diversity", Nature 163). Infinite if no two errors do.
    """
    own = float((loss**2).sum())
    together = float((sources.sums(loss) ** 2).sum()) - own
    return (float(loss.sum()) ** 2 - own) / together if together > 1e-12 else np.inf
