"""What several members say together: the mean of their probabilities, or of their calibrated logits.

Heads of one kind give probabilities that mean much the same, and these are averaged. Heads of different kinds do not: a
support vector machine's margin and a network's logit have scales of their own, so that the larger would decide. There
each member's logit is first divided by a temperature of its own, and the mean of these logits counts (a product of
experts: Hinton 2002, "Training Products of Experts by Minimizing Contrastive Divergence").

A cheap member may judge first, and alone where it is sure that there is no fight, so that the dear ones look at the
rest only: a cascade (Viola & Jones 2001, "Rapid Object Detection using a Boosted Cascade of Simple Features"). What may
be a fight is always judged by all: which of two windows is the likelier one decides how many false alarms there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from violence_detection.constants import CLOSER_LOOK_KEY as CLOSER_LOOK_KEY
from violence_detection.constants import EARLY_EXIT_KEY as EARLY_EXIT_KEY

#: Added to each probability before its logarithm is taken, as scikit-learn's temperature scaling does.
_TINY = 1e-12
#: P(fight) of the same features differs by no more from one pass of a network to the next.
_THE_SAME = 1e-6
#: ensemble.json: a member's own temperature; there for all members or for none.
TEMPERATURE_KEY = "temperature"


@dataclass(frozen=True)
class EarlyExit:
    """Where P(fight) of `member`, by its own temperature, is below `below`, it alone counts."""

    member: str
    below: float

    def __post_init__(self) -> None:
        number = isinstance(self.below, int | float) and not isinstance(self.below, bool)
        if not (isinstance(self.member, str) and self.member and number and 0 < self.below < 0.5):
            raise ValueError(f"a member and a number between 0 and 0.5, not {self.member!r}, {self.below!r}")

    def is_sure(self, p: np.ndarray) -> np.ndarray:
        """Where that is, (N,) bool, of the member's P(fight)."""
        return p < self.below

    def decides_at(self, threshold: float) -> bool:
        """Whether P on either side of such a threshold are what it settles: the other members would have no say."""
        return bool(self.is_sure(np.asarray(threshold)))

    def record(self) -> dict[str, Any]:
        """As files have it."""
        return asdict(self)


@dataclass(frozen=True)
class Averaging:
    """How several members' P(fight) become one. `in_logits`: their logits are averaged, else their probabilities."""

    in_logits: bool = False
    early_exit: EarlyExit | None = None

    def settled(self, p: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """Where one member counts alone, (N,) bool, of the members' P(fight) (N,); None without an early exit."""
        return self.early_exit.is_sure(p[self.early_exit.member]) if self.early_exit else None

    def in_words(self) -> str:
        """What several members say together, for people."""
        what = (
            "their logits, each divided by a temperature of the member's own"
            if self.in_logits
            else "their probabilities"
        )
        first = self.early_exit
        alone = f"; {first.member} alone where its P(fight) is below {first.below:g}" if first else ""
        return f"the weighted mean of {what}{alone}"

    def without_exit(self) -> Averaging:
        """The same by all members."""
        return replace(self, early_exit=None)

    def exit_record(self) -> dict[str, Any] | None:
        """The early exit as files have it, None without."""
        return self.early_exit.record() if self.early_exit else None


#: The mean of all members' probabilities.
PLAIN = Averaging()


def logit(p: np.ndarray) -> np.ndarray:
    """Of probabilities in [0, 1], which stay finite: float64."""
    values = np.asarray(p, np.float64)
    return np.log(values + _TINY) - np.log(1 - values + _TINY)


def scaled(p: np.ndarray, factor: float) -> np.ndarray:
    """Probabilities whose logits are multiplied by `factor`; NaN stays NaN."""
    from scipy.special import expit

    return expit(factor * logit(p))


def over_views(p: np.ndarray, closer_look: bool = False) -> np.ndarray:
    """What a member says of clips, (N,), from P(fight) of each view, (V, N).

    The mean over the views; where the last of them is the closer look, that look and the others together count the
    same, as logits. Where it is the plain view again, the first one, it counts no second time.
    """
    if not closer_look or len(p) == 1:
        mean: np.ndarray = np.mean(p, axis=0)
        return mean
    from scipy.special import expit

    plain, whole, closer = p[0], np.mean(p[:-1], axis=0), p[-1]
    is_plain = np.isclose(plain, closer, rtol=_THE_SAME, atol=0)
    return np.where(is_plain, whole, expit((logit(whole) + logit(closer)) / 2))


def together(p: Mapping[str, np.ndarray], weights: Sequence[float], how: Averaging) -> np.ndarray:
    """The weighted mean, (N,), of the members' P(fight), name -> (N,) by their own temperatures.

    It is not finite where any member's is not, but where one alone counts.
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
