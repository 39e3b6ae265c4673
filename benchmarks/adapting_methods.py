"""Ways to adapt a detector to unlabelled footage of a place, for bench_adapt.py.

One kind moves the threshold: it gives the logit from which a clip is a fight, 0 being the shipped one. The other gives
pseudo-labels, to which the kernel head is fitted besides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

QUIET, FIGHT, NONE = 0, 1, -1
_ROUNDS, _CLOSE, _RAREST = 1000, 1e-7, 1e-3
_NARROWEST = 0.25  # logits


@dataclass(frozen=True)
class Elsewhere:
    """Logits (n,) of clips of another data set, by a model that was not trained on it, and their labels (n,) 0 or 1."""

    logits: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Footage:
    """Logits (n,) of unlabelled clips of the place, 0 the threshold, and what is known of labelled clips elsewhere."""

    logits: np.ndarray
    elsewhere: Sequence[Elsewhere]

    def log_odds(self) -> tuple[np.ndarray, float]:
        """The logits as log odds where both classes are alike frequent, (n,), and the factor: by the other sets."""
        from sklearn.linear_model import LogisticRegression

        logits = np.concatenate([e.logits for e in self.elsewhere])
        labels = np.concatenate([e.labels for e in self.elsewhere])
        model = LogisticRegression(C=np.inf, fit_intercept=False, class_weight="balanced")
        factor = float(model.fit(logits[:, None], labels).coef_[0, 0])
        return factor * self.logits, factor


def share_of_fights(log_odds: np.ndarray) -> float:
    """The prior by expectation maximisation (Saerens, Latinne & Decaestecker 2002, Neural Computation 14)."""
    share = 0.5
    likelihood = np.exp(np.clip(log_odds, -30, 30))
    for _ in range(_ROUNDS):
        odds = likelihood * share / (1 - share)
        before, share = share, float(np.clip(np.mean(odds / (1 + odds)), _RAREST, 1 - _RAREST))
        if abs(share - before) < _CLOSE:
            break
    return share


def by_share(footage: Footage) -> float:
    """Where the posterior is even under the share that EM finds."""
    log_odds, factor = footage.log_odds()
    share = share_of_fights(log_odds)
    return -float(np.log(share / (1 - share))) / factor


def at_share(footage: Footage) -> float:
    """Above it lies the share that EM finds."""
    return float(np.quantile(footage.logits, 1 - share_of_fights(footage.log_odds()[0])))


def otsu(footage: Footage) -> float:
    """Between the two groups that lie furthest apart (Otsu 1979), midway between their means."""
    z = np.sort(footage.logits)
    n = np.arange(1, len(z))
    below = np.cumsum(z)[:-1]
    means = below / n, (z.sum() - below) / (len(z) - n)
    best = int(np.argmax(n * (len(z) - n) * (means[1] - means[0]) ** 2))
    return float((means[0][best] + means[1][best]) / 2)


def mixture(footage: Footage, weighted: bool) -> float:
    """Between two Gaussians of one width, where they are alike likely; `weighted`: by their shares."""
    from sklearn.mixture import GaussianMixture

    found = GaussianMixture(2, covariance_type="tied", n_init=3, random_state=0).fit(footage.logits[:, None])
    order = np.argsort(found.means_[:, 0])
    (low, high), (quiet, fights) = found.means_[order, 0], found.weights_[order]
    shift = found.covariances_[0, 0] * np.log(quiet / fights) / (high - low) if weighted else 0.0
    return float(np.clip((low + high) / 2 + shift, footage.logits.min(), footage.logits.max()))


def moved_classes(footage: Footage) -> float:
    """How far both classes of elsewhere have moved here, as one, with the share of fights unknown.

    By likelihood over a grid of moves and shares; classes are Gaussian, and a move is as likely as the other sets'
    middles lie apart.
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
    """Half of the way there."""
    return lambda footage: way(footage) / 2


def as_quiet_elsewhere(footage: Footage, quantile: float) -> float:
    """How far this quantile of the footage lies from the mean of that of quiet clips elsewhere: for quiet footage."""
    usual = [np.quantile(e.logits[e.labels == QUIET], quantile) for e in footage.elsewhere]
    return float(np.quantile(footage.logits, quantile) - np.mean(usual))


def confident(footage: Footage, quiet_below: float, fight_above: float) -> np.ndarray:
    """By P(fight) of the clip."""
    p = 1 / (1 + np.exp(-footage.log_odds()[0]))
    return np.where(p >= fight_above, FIGHT, np.where(p <= quiet_below, QUIET, NONE))


def tails(footage: Footage, quiet: float, fights: float) -> np.ndarray:
    """The lowest and the highest of the footage, by shares."""
    rank = np.argsort(np.argsort(footage.logits)) / len(footage.logits)
    return np.where(rank < quiet, QUIET, np.where(rank >= 1 - fights, FIGHT, NONE))


def surer_halves(footage: Footage) -> np.ndarray:
    """Of the classes as large as EM finds them, the surer half of each."""
    share = share_of_fights(footage.log_odds()[0])
    return tails(footage, (1 - share) / 2, share / 2)


def all_quiet(footage: Footage) -> np.ndarray:
    return np.full(len(footage.logits), QUIET)


#: Methods that are told nothing of the footage.
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
#: Methods that are told that the footage is quiet.
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
