"""Ways to adapt a detector to unlabelled footage of a place, for bench_adapt.py.

Some methods move the threshold: they return the logit from which a clip counts as a fight, where 0 is the shipped
threshold. The others return pseudo-labels, to which the kernel head is fitted in addition to its training clips.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

QUIET, FIGHT, NONE = 0, 1, -1
#: Expectation maximisation ends after this many steps, or when a step changes the share by less than _CONVERGED.
_MAX_STEPS = 1000
_CONVERGED = 1e-7
#: Smallest share of either class that it may find.
_RAREST = 1e-3
#: Smallest standard deviation, in logits, of the prior for the move in `moved_classes`.
_NARROWEST = 0.25


@dataclass(frozen=True)
class Elsewhere:
    """Clips of another data set: logits (n,) by a model that was not trained on it, and labels (n,), 0 or 1."""

    logits: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Footage:
    """Unlabelled clips of the place, as logits (n,) with the threshold at 0, and labelled clips of other data sets."""

    logits: np.ndarray
    elsewhere: Sequence[Elsewhere]

    def log_odds(self) -> tuple[np.ndarray, float]:
        """Log odds (n,) of a fight if both classes are equally frequent, and the factor from logits to log odds.

        The factor is fitted on the other data sets.
        """
        from sklearn.linear_model import LogisticRegression

        logits = np.concatenate([e.logits for e in self.elsewhere])
        labels = np.concatenate([e.labels for e in self.elsewhere])
        model = LogisticRegression(C=np.inf, fit_intercept=False, class_weight="balanced")
        factor = float(model.fit(logits[:, None], labels).coef_[0, 0])
        return factor * self.logits, factor


def share_of_fights(log_odds: np.ndarray) -> float:
    """Estimate the share of fights by expectation maximisation.

    Saerens, Latinne & Decaestecker 2002, Neural Computation 14. `log_odds` (n,): if both classes are equally frequent.
    """
    share = 0.5
    likelihood = np.exp(np.clip(log_odds, -30, 30))
    for _ in range(_MAX_STEPS):
        odds = likelihood * share / (1 - share)
        before, share = share, float(np.clip(np.mean(odds / (1 + odds)), _RAREST, 1 - _RAREST))
        if abs(share - before) < _CONVERGED:
            break
    return share


def by_share(footage: Footage) -> float:
    """The logit at which fights and peaceful clips are equally likely, given the share of fights that EM finds."""
    log_odds, factor = footage.log_odds()
    share = share_of_fights(log_odds)
    return -float(np.log(share / (1 - share))) / factor


def at_share(footage: Footage) -> float:
    """The logit above which the footage has the share of fights that EM finds."""
    return float(np.quantile(footage.logits, 1 - share_of_fights(footage.log_odds()[0])))


def otsu(footage: Footage) -> float:
    """Midway between the means of the two groups with the largest variance between them (Otsu 1979)."""
    z = np.sort(footage.logits)
    n = np.arange(1, len(z))
    below = np.cumsum(z)[:-1]
    means = below / n, (z.sum() - below) / (len(z) - n)
    best = int(np.argmax(n * (len(z) - n) * (means[1] - means[0]) ** 2))
    return float((means[0][best] + means[1][best]) / 2)


def mixture(footage: Footage, weighted: bool) -> float:
    """The logit at which two fitted Gaussians of equal variance are equally likely; `weighted`: given their shares."""
    from sklearn.mixture import GaussianMixture

    found = GaussianMixture(2, covariance_type="tied", n_init=3, random_state=0).fit(footage.logits[:, None])
    order = np.argsort(found.means_[:, 0])
    (low, high), (quiet, fights) = found.means_[order, 0], found.weights_[order]
    shift = found.covariances_[0, 0] * np.log(quiet / fights) / (high - low) if weighted else 0.0
    return float(np.clip((low + high) / 2 + shift, footage.logits.min(), footage.logits.max()))


def moved_classes(footage: Footage) -> float:
    """How far both classes together are shifted here relative to elsewhere, if the share of fights is unknown.

    The most probable move on a grid of moves and shares. Both classes are Gaussian, with the means and standard
    deviations of the other data sets. The prior of the move is Gaussian, and as wide as the midpoints between the two
    classes differ among those sets.
    """
    per_class = [[e.logits[e.labels == k] for e in footage.elsewhere] for k in (QUIET, FIGHT)]
    means = [float(np.mean([v.mean() for v in values])) for values in per_class]
    widths = [float(np.mean([v.std() for v in values])) for values in per_class]
    middles = [(q.mean() + f.mean()) / 2 for q, f in zip(*per_class, strict=True)]
    usual = max(float(np.std(middles, ddof=1)), _NARROWEST)
    moves, shares = np.linspace(-3, 3, 121), np.linspace(0.01, 0.99, 50)
    away = footage.logits[:, None] - moves
    # (n, moves)
    quiet, fight = (np.exp(-0.5 * ((away - m) / w) ** 2) / w for m, w in zip(means, widths, strict=True))
    likely = [
        np.log(s * fight + (1 - s) * quiet + 1e-300).sum(axis=0) - 0.5 * (moves / usual) ** 2 for s in shares
    ]
    return float(moves[np.argmax(np.max(likely, axis=0))])


def half(way: Callable[[Footage], float]) -> Callable[[Footage], float]:
    """Move the threshold only half as far as the method `way` does."""
    return lambda footage: way(footage) / 2


def as_quiet_elsewhere(footage: Footage, quantile: float) -> float:
    """How far a quantile of quiet footage is above the same quantile of quiet clips elsewhere (mean of those sets)."""
    usual = [np.quantile(e.logits[e.labels == QUIET], quantile) for e in footage.elsewhere]
    return float(np.quantile(footage.logits, quantile) - np.mean(usual))


def confident(footage: Footage, quiet_below: float, fight_above: float) -> np.ndarray:
    """Label the clips whose P(fight) is at most `quiet_below` or at least `fight_above`."""
    p = 1 / (1 + np.exp(-footage.log_odds()[0]))
    return np.where(p >= fight_above, FIGHT, np.where(p <= quiet_below, QUIET, NONE))


def tails(footage: Footage, quiet: float, fights: float) -> np.ndarray:
    """Label the share `quiet` of the footage with the lowest logits, and the share `fights` with the highest."""
    rank = np.argsort(np.argsort(footage.logits)) / len(footage.logits)
    return np.where(rank < quiet, QUIET, np.where(rank >= 1 - fights, FIGHT, NONE))


def surer_halves(footage: Footage) -> np.ndarray:
    """Label the surer half of each class, where the classes have the sizes that EM finds."""
    share = share_of_fights(footage.log_odds()[0])
    return tails(footage, (1 - share) / 2, share / 2)


def all_quiet(footage: Footage) -> np.ndarray:
    return np.full(len(footage.logits), QUIET)


#: Methods that know nothing about the footage.
THRESHOLDS: Mapping[str, Callable[[Footage], float]] = {
    "share by EM": by_share,
    "share by EM, half way": half(by_share),
    "quantile at EM's share": at_share,
    "own median": lambda f: float(np.median(f.logits)),
    "own median, half way": half(lambda f: float(np.median(f.logits))),
    "Otsu": otsu,
    "Otsu, half way": half(otsu),
    "mixture, by shares": lambda f: mixture(f, weighted=True),
    "mixture, middle": lambda f: mixture(f, weighted=False),
    "mixture, middle, half way": half(lambda f: mixture(f, weighted=False)),
    "classes moved as one": moved_classes,
    "classes moved as one, half way": half(moved_classes),
}
LABELS: Mapping[str, Callable[[Footage], np.ndarray]] = {
    "labels: P below .2, above .8": lambda f: confident(f, 0.2, 0.8),
    "labels: P below .5, above .9 (quiet prior)": lambda f: confident(f, 0.5, 0.9),
    "labels: lowest and highest 30 %": lambda f: tails(f, 0.3, 0.3),
    "labels: lowest 50, highest 10 % (quiet prior)": lambda f: tails(f, 0.5, 0.1),
    "labels: lowest half alone": lambda f: tails(f, 0.5, 0.0),
    "labels: surer half of EM's classes": surer_halves,
}
#: Methods that know that the footage is quiet.
QUIET_THRESHOLDS: Mapping[str, Callable[[Footage], float]] = {
    "median as of quiet elsewhere": lambda f: as_quiet_elsewhere(f, 0.5),
    "median as of quiet elsewhere, half way": half(lambda f: as_quiet_elsewhere(f, 0.5)),
    "90 % quantile as of quiet elsewhere": lambda f: as_quiet_elsewhere(f, 0.9),
    "90 % quantile as of quiet elsewhere, half way": half(lambda f: as_quiet_elsewhere(f, 0.9)),
    "90 % quantile": lambda f: float(np.quantile(f.logits, 0.9)),
    "95 % quantile": lambda f: float(np.quantile(f.logits, 0.95)),
    "95 % quantile, only upwards": lambda f: max(0.0, float(np.quantile(f.logits, 0.95))),
}
QUIET_LABELS: Mapping[str, Callable[[Footage], np.ndarray]] = {
    "labels: all quiet": all_quiet,
    "labels: all but the highest tenth quiet": lambda f: tails(f, 0.9, 0.0),
}
