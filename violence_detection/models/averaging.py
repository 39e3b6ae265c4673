"""What several members say together: the mean of their probabilities, or of their calibrated logits.

Heads of one kind give probabilities that mean much the same, and these are averaged. Heads of different kinds do not: a
support vector machine's margin and a network's logit have scales of their own, so that the larger would decide. There
each member's logit is first divided by a temperature of its own, and the mean of these logits counts (a product of
experts: Hinton 2002, "Training Products of Experts by Minimizing Contrastive Divergence").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Added to each probability before its logarithm is taken, as scikit-learn's temperature scaling does.
_TINY = 1e-12
#: ensemble.json: a member's own temperature; there for all members or for none.
TEMPERATURE_KEY = "temperature"


def logit(p: np.ndarray) -> np.ndarray:
    """Of probabilities in [0, 1], which stay finite: float64."""
    values = np.asarray(p, np.float64)
    return np.log(values + _TINY) - np.log(1 - values + _TINY)


def scaled(p: np.ndarray, factor: float) -> np.ndarray:
    """Probabilities whose logits are multiplied by `factor`; NaN stays NaN."""
    from scipy.special import expit

    return expit(factor * logit(p))


def together(p: Sequence[np.ndarray] | np.ndarray, weights: Sequence[float], in_logits: bool) -> np.ndarray:
    """The weighted mean, (N,), of the members' P(fight) (M, N) by their own temperatures: not finite where any is."""
    from scipy.special import expit

    if not in_logits:
        return np.average(p, axis=0, weights=weights)
    return expit(np.average([logit(member) for member in p], axis=0, weights=weights))
