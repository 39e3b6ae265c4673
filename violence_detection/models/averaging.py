"""How the P(fight) of several members becomes one: by the mean of their probabilities or of their calibrated logits.

Probabilities of heads of one kind mean much the same, so they are averaged. Those of different kinds do not: a support
vector machine's margin and a network's logit have different scales, and the larger would decide. Then each member's
logit is divided by a temperature of its own before the logits are averaged (a product of experts: Hinton 2002,
"Training Products of Experts by Minimizing Contrastive Divergence").

A cheap member may judge first, and alone where it is sure that there is no fight, so that the expensive members see
only the rest: a cascade (Viola & Jones 2001, "Rapid Object Detection using a Boosted Cascade of Simple Features").
Whatever may be a fight is judged by all members, because the number of false alarms depends on how such windows rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from violence_detection.constants import CLOSER_LOOK_KEY as CLOSER_LOOK_KEY
from violence_detection.constants import EARLY_EXIT_KEY as EARLY_EXIT_KEY

#: Added to P and to 1 - P before their logarithms are taken, as in scikit-learn's temperature scaling.
_TINY = 1e-12
#: Relative tolerance for P(fight) of the same features: a network's passes over them differ by no more.
_SAME_FEATURES_RTOL = 1e-6
#: Key of a member's own temperature in ensemble.json, where either all members have one or none.
TEMPERATURE_KEY = "temperature"


@dataclass(frozen=True)
class EarlyExit:
    """The rule that `member` alone counts where its P(fight), by its own temperature, is below `below`.

    Raises ValueError if `member` is empty or not text, or `below` is not between 0 and 0.5.
    """

    member: str
    below: float

    def __post_init__(self) -> None:
        number = isinstance(self.below, int | float) and not isinstance(self.below, bool)
        if not (isinstance(self.member, str) and self.member and number and 0 < self.below < 0.5):
            raise ValueError(
                f"expected a member and a number between 0 and 0.5, found {self.member!r}, {self.below!r}"
            )

    def is_sure(self, p: np.ndarray) -> np.ndarray:
        """Where the member alone counts, (N,) bool, by its P(fight) (N,)."""
        return p < self.below

    def decides_at(self, threshold: float) -> bool:
        """Whether the member would decide at this threshold, so that the other members would have no say there."""
        return bool(self.is_sure(np.asarray(threshold)))

    def record(self) -> dict[str, Any]:
        """The rule as it is stored in JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Averaging:
    """How the P(fight) of several members becomes one.

    `in_logits`: the mean is of their logits, otherwise of their probabilities. `early_exit`: None: all members count
    everywhere.
    """

    in_logits: bool = False
    early_exit: EarlyExit | None = None

    def settled(self, p: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Where one member counts alone, (N,) bool; None without an early exit. `p`: member name -> P(fight) (N,)."""
        return self.early_exit.is_sure(p[self.early_exit.member]) if self.early_exit else None

    def in_words(self) -> str:
        """How members are averaged, as a phrase for people."""
        what = (
            "their logits, each divided by a temperature of the member's own"
            if self.in_logits
            else "their probabilities"
        )
        first = self.early_exit
        alone = f"; {first.member} alone where its P(fight) is below {first.below:g}" if first else ""
        return f"the weighted mean of {what}{alone}"

    def without_exit(self) -> Averaging:
        """The same averaging without an early exit: all members count everywhere."""
        return replace(self, early_exit=None)

    def exit_record(self) -> dict[str, Any] | None:
        """The early exit as it is stored in JSON; None without one."""
        return self.early_exit.record() if self.early_exit else None


#: The plain mean of all members' probabilities.
PLAIN = Averaging()


def logit(p: np.ndarray) -> np.ndarray:
    """Logits, float64, of probabilities in [0, 1]; finite for 0 and 1 too."""
    values = np.asarray(p, np.float64)
    return np.log(values + _TINY) - np.log(1 - values + _TINY)


def scaled(p: np.ndarray, factor: float) -> np.ndarray:
    """Probabilities whose logits are multiplied by `factor`; NaN stays NaN."""
    from scipy.special import expit

    return expit(factor * logit(p))


def over_views(p: np.ndarray, closer_look: bool = False) -> np.ndarray:
    """A member's P(fight) of clips, (N,), from its P(fight) of each view, (V, N).

    It is the mean over the views. With `closer_look` the last view is the closer look: then the logit is the mean of
    that look's logit and the logit of the mean over the other views. A clip without a closer look has its plain view,
    the first, again as the last; there the last view is ignored.
    """
    if not closer_look or len(p) == 1:
        mean: np.ndarray = np.mean(p, axis=0)
        return mean
    from scipy.special import expit

    plain, whole, closer = p[0], np.mean(p[:-1], axis=0), p[-1]
    is_plain = np.isclose(plain, closer, rtol=_SAME_FEATURES_RTOL, atol=0)
    return np.where(is_plain, whole, expit((logit(whole) + logit(closer)) / 2))


def together(p: Mapping[str, np.ndarray], weights: Sequence[float], how: Averaging) -> np.ndarray:
    """The weighted mean of the members' P(fight), (N,).

    `p`: member name -> P(fight) (N,), by its own temperature, in the order of `weights`. The mean is not finite where
    any member's P(fight) is not, except where one member counts alone.
    """
    from scipy.special import expit

    if how.in_logits:
        mean = expit(np.average([logit(member) for member in p.values()], axis=0, weights=weights))
    else:
        mean = np.average(list(p.values()), axis=0, weights=weights)
    settled = how.settled(p)
    if how.early_exit is None or settled is None:
        return mean
    return np.where(settled, p[how.early_exit.member], mean)
