"""95 % interval of a share of clips, where clips of one source are alike and by how much is not known.

An accuracy is in the interval unless the share that was seen is too far from it (p < 0.05). Two p-values are averaged:

- The score test (Wilson 1927, JASA 22), its variance enlarged by the design effect of an intraclass correlation, and
  averaged over the correlations as a prior and the beta-binomial likelihood leave them (beta-binomial: Williams 1975,
  Biometrics 31; a nuisance parameter averaged out of a p-value: Bayarri & Berger 2000, "P values for composite null
  models", JASA 95). It holds however few the errors, and reckons with bad sources that are not among those drawn.
- Student's t test on sums over sources (CR2, Satterthwaite: see `intervals`). It supposes nothing of how sources
  differ, but needs errors in nearly all of them.

The second counts the more, the more errors a source has and the more evenly they spread. Prior and weights were chosen
by simulation (docs/decisions.md); how often the whole covers is measured: benchmarks/bench_intervals.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

_ALPHA = 0.05
#: Prior of the intraclass correlation: none with this probability, otherwise beta(1, 5), of mean 1/6.
_NOT_ALIKE, _DECAY = 0.7, 5
#: Above this it is thought of only as far as the data show it. Without a limit, sources wholly alike would explain any
#: number of clips that are all right.
_MOST_ALIKE = 0.4
#: So many errors a source count as half a reason to trust the sums over sources.
_ERRORS_A_SOURCE = 0.15
#: How much it takes from that trust that errors gather in few sources.
_SPREAD_POWER = 6
#: Degrees of freedom that the score interval has been seen to want above Satterthwaite's, where sources are many.
_MORE_FREEDOM = 2
#: Sources that happen to be as good as each other do not make clips worth more than so many times as much.
_LEAST_EFFECT = 0.15
_EDGE = 1e-9


def share_interval(
    wrong: np.ndarray, clips: np.ndarray, variance: float, freedom: float
) -> tuple[float, float]:
    """95 % interval (low, high) in [0, 1] of the share of clips that are right, by source.

    `wrong` and `clips` (sources,): clips that are wrong, and all, of each source; at least two sources. `variance` of
    the share by sums over sources, and Satterthwaite's `freedom`.
    """
    test = _Test(wrong, clips, variance, freedom)
    share = 1 - float(wrong.sum()) / float(clips.sum())
    low, high = (_end(test.p_value, share, edge, test.step) for edge in (0.0, 1.0))
    return low, high


class _Test:
    """p-values of accuracies, given one set of clips."""

    def __init__(self, wrong: np.ndarray, clips: np.ndarray, variance: float, freedom: float):
        self._counts = [_counted(values) for values in (wrong, clips - wrong, clips)]
        self._n = float(clips.sum())
        self._wrong = float(wrong.sum())
        part = clips / self._n
        correlation, self._prior = _prior()
        most = self._n * float((part**2).sum()) - 1  # what wholly alike clips add to the design effect
        self._effects = 1 + correlation * most
        share = self._wrong / self._n
        independent = share * (1 - share) / self._n
        effect = variance / independent if independent > 0 else 1.0
        self._effect = max(effect, _LEAST_EFFECT)
        self._prior = self._prior * (correlation <= max(_MOST_ALIKE, (effect - 1) / most))
        self._freedom = freedom + _MORE_FREEDOM * (1 - 2 / len(clips))
        self._trust = _trust(wrong if share <= 0.5 else clips - wrong, part)
        self.step = 0.5 * float(np.sqrt(max(effect, 1.0) / self._n))

    def p_value(self, accuracy: float) -> float:
        """How likely a share as far from `accuracy` as the one seen would be, two-sided."""
        from scipy import special

        distance = abs(self._wrong / self._n - (1 - accuracy))
        z = distance / np.sqrt(accuracy * (1 - accuracy) / self._n)
        of_model = float(self._weights(accuracy) @ (2 * special.ndtr(-z / np.sqrt(self._effects))))
        of_sums = 2 * float(special.stdtr(self._freedom, -z / np.sqrt(self._effect)))
        return (1 - self._trust) * of_model + self._trust * of_sums

    def _weights(self, accuracy: float) -> np.ndarray:
        """What the data leave of the prior of the correlation if this is the accuracy; 1 in sum."""
        correlation, _ = _prior()
        strength = (1 - correlation[1:]) / correlation[1:]
        errors, rights, sizes = self._counts
        log = np.empty(len(correlation))
        log[0] = self._wrong * np.log(1 - accuracy) + (self._n - self._wrong) * np.log(accuracy)
        log[1:] = _rising(errors, (1 - accuracy) * strength) + _rising(rights, accuracy * strength)
        log[1:] -= _rising(sizes, strength)
        weights: np.ndarray = self._prior * np.exp(np.minimum(log - log[self._prior > 0].max(), 0))
        return weights / weights.sum()


def _trust(rarer: np.ndarray, part: np.ndarray) -> float:
    """How far sums over sources tell how sources differ, in [0, 1): by number and spread of the rarer outcome."""
    count = float(rarer.sum())
    together = float((rarer.astype(float) ** 2).sum()) - count
    # Sources that the errors come from (Simpson 1949, Nature 163) over those that the clips come from (Kish 1965).
    spread = (count**2 - count) / together * float((part**2).sum()) if together > 0 else 1.0
    a_source = count / len(rarer)
    return a_source / (a_source + _ERRORS_A_SOURCE) * min(spread, 1.0) ** _SPREAD_POWER


@cache
def _prior() -> tuple[np.ndarray, np.ndarray]:
    """Intraclass correlations, 0 the first, and how likely each is beforehand."""
    steps = np.geomspace(2e-5, 0.9, 47)
    ends = np.concatenate([[0.0], np.sqrt(steps[1:] * steps[:-1]), [1.0]])
    some = np.diff(1 - (1 - ends) ** _DECAY)
    return np.concatenate([[0.0], steps]), np.concatenate([[_NOT_ALIKE], (1 - _NOT_ALIKE) * some])


def _counted(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values that occur, without 0, and how often each does."""
    found, often = np.unique(values[values > 0], return_counts=True)
    return found.astype(float), often.astype(float)


def _rising(counted: tuple[np.ndarray, np.ndarray], start: np.ndarray) -> np.ndarray:
    """Sum over counts k of log(start (start + 1) ... (start + k - 1)), one for each start."""
    from scipy import special

    k, often = counted
    sums: np.ndarray = often @ (special.gammaln(start + k[:, None]) - special.gammaln(start))
    return sums


def _end(p_value: Callable[[float], float], share: float, edge: float, step: float) -> float:
    """The accuracy nearest to `share`, towards `edge`, at which the p-value falls to 0.05; `edge` where it does not."""
    from scipy import optimize

    inside, last = _angle(share), _angle(edge)
    while inside != last:
        outside = inside + float(np.clip(last - inside, -step, step))
        if p_value(_share_at(outside)) < _ALPHA:
            return _share_at(
                optimize.brentq(lambda a: p_value(_share_at(a)) - _ALPHA, inside, outside, xtol=1e-5)
            )
        inside, step = outside, 1.5 * step
    return edge


def _angle(share: float) -> float:
    """On a scale on which shares of so many clips vary alike everywhere."""
    return float(np.arcsin(np.sqrt(share)))


def _share_at(angle: float) -> float:
    return float(np.clip(np.sin(angle) ** 2, _EDGE, 1 - _EDGE))
