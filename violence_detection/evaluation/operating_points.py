"""Thresholds for different uses of a model, with a guarantee over sources if there are enough of them.

Clips of one source are alike, so sources can be assumed to be exchangeable, but not clips. From each source one clip of
the class is drawn, and MAPIE's risk control (Learn then Test: Angelopoulos, Bates, Candès, Jordan & Lei 2021,
arXiv:2110.01052) finds the thresholds that keep the rate on the drawn clips. The risk that is controlled is thus that
of a random clip of a random source: the mean, over sources like these, of the share of a source's nonfight clips that
are called fights, or of its fights that are missed. The guarantee is about clips; a long video is judged in many
windows.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mapie.risk_control import BinaryClassificationController

from violence_detection.constants import DEFAULT_THRESHOLD, OPERATING_POINTS
from violence_detection.evaluation import calibration
from violence_detection.models.calibration import key_of

BALANCED, LOW_FALSE_ALARM, HIGH_RECALL = map(key_of, OPERATING_POINTS)
#: Targets of the two points: the highest false alarm rate, the lowest recall, and the confidence of either guarantee.
FALSE_ALARM_RATE, RECALL, CONFIDENCE = 0.05, 0.95, 0.9
#: Candidate thresholds on the members' averages, fixed before any clip is seen: steps of 0.05 in logit, from -8 to 8.
GRID = 1 / (1 + np.exp(-np.linspace(-8, 8, 321)))
#: Decimals of a verdict's probability, and of a threshold: it is rounded to the side on which a rounded probability
#: cannot break the rate.
_DIGITS = 4

Calibrate = Callable[[np.ndarray], np.ndarray]


def choose(
    is_fight: np.ndarray, p_fight: np.ndarray, groups: np.ndarray, calibrate: Calibrate, seed: int
) -> dict[str, dict[str, Any]]:
    """Return name -> {threshold, false_alarm_rate, recall, by_source, guarantee} for each operating point.

    `is_fight` (n,) bool; `p_fight` (n,) the members' averages; `groups` (n,) source groups; `calibrate` maps averages
    to the probabilities that thresholds apply to. Rates are shares of clips, and in `by_source` means over sources;
    None for a class without clips. `seed` decides which clips are drawn.
    """
    is_fight, p_fight, groups = np.asarray(is_fight, bool), np.asarray(p_fight, float), np.asarray(groups)
    points = {
        BALANCED: (
            DEFAULT_THRESHOLD,
            _no_guarantee("no guarantee: the threshold is fixed, not chosen on these clips"),
        ),
        LOW_FALSE_ALARM: _few_false_alarms(is_fight, p_fight, groups, calibrate, seed),
        HIGH_RECALL: _few_missed(is_fight, p_fight, groups, calibrate, seed),
    }
    p = calibrate(p_fight)
    return {
        name: {
            "threshold": threshold,
            **calibration.rates(is_fight, p, groups, threshold),
            "guarantee": guarantee,
        }
        for name, (threshold, guarantee) in points.items()
    }


def fewest_sources(rate: float) -> int:
    """Lowest number n of sources that can guarantee `rate`, with no error at all: (1 - rate)^n <= 1 - CONFIDENCE."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - rate))


def controlled(
    is_fight: np.ndarray, p_fight: np.ndarray, groups: np.ndarray, risk: str, level: float, seed: int
) -> np.ndarray:
    """Thresholds of GRID, ascending, that keep a risk at `level` with confidence CONFIDENCE; there may be none.

    One clip is drawn from each source. `risk`: "fpr", at most `level` of nonfight clips are called fights, or "recall",
    at least `level` of fights are found.
    """
    of_class = np.flatnonzero(is_fight if risk == "recall" else ~is_fight)
    drawn = of_class[_one_of_each(groups[of_class], seed)]
    controller = BinaryClassificationController(
        lambda p: np.column_stack([1 - p, p]),
        risk,
        level,
        confidence_level=CONFIDENCE,
        list_predict_params=GRID,
        fwer_method="fixed_sequence",
    )
    with warnings.catch_warnings():
        # MAPIE warns if no threshold is valid; here the empty result says so
        warnings.simplefilter("ignore")
        controller.calibrate(p_fight[drawn], is_fight[drawn].astype(int))
    return np.sort(controller.valid_predict_params)


def _few_false_alarms(
    is_fight: np.ndarray, p_fight: np.ndarray, groups: np.ndarray, calibrate: Calibrate, seed: int
) -> tuple[float, dict[str, Any]]:
    """The lowest threshold with at most FALSE_ALARM_RATE false alarms in the mean over sources, and its guarantee."""
    measured = [calibration.mean_over_sources(p_fight[~is_fight] >= t, groups[~is_fight]) for t in GRID]
    fit = GRID[np.array(measured) <= FALSE_ALARM_RATE]
    kept = controlled(is_fight, p_fight, groups, "fpr", FALSE_ALARM_RATE, seed)
    empirical = float(fit[0]) if len(fit) else float(GRID[-1])
    # the draw may have been lucky: the threshold must keep the rate on all clips, too
    chosen = max(float(kept[0]), empirical) if len(kept) else empirical
    threshold = _rounded_up(float(calibrate(np.array([chosen]))[0]))
    n_sources = len(np.unique(groups[~is_fight]))
    return threshold, _guarantee(len(kept) > 0, n_sources, FALSE_ALARM_RATE, "false_alarm_rate")


def _few_missed(
    is_fight: np.ndarray, p_fight: np.ndarray, groups: np.ndarray, calibrate: Calibrate, seed: int
) -> tuple[float, dict[str, Any]]:
    """The highest threshold with a recall of at least RECALL in the mean over sources, and its guarantee."""
    measured = [calibration.mean_over_sources(p_fight[is_fight] >= t, groups[is_fight]) for t in GRID]
    fit = GRID[np.array(measured) >= RECALL]
    kept = controlled(is_fight, p_fight, groups, "recall", RECALL, seed)
    empirical = float(fit[-1]) if len(fit) else float(GRID[0])
    chosen = min(float(kept[-1]), empirical) if len(kept) else empirical
    threshold = _rounded_down(float(calibrate(np.array([chosen]))[0]))
    n_sources = len(np.unique(groups[is_fight]))
    return threshold, _guarantee(len(kept) > 0, n_sources, 1 - RECALL, "recall")


#: For the texts of guarantees: what is guaranteed, and what the rate is a share of.
_IN_WORDS: Mapping[str, tuple[str, str]] = {
    "false_alarm_rate": (
        f"at most {100 * FALSE_ALARM_RATE:.0f} % false alarms",
        "of a source's peaceful clips, in the mean over sources",
    ),
    "recall": (f"at least {100 * RECALL:.0f} % of the fights found", "of a source, in the mean over sources"),
}


def _guarantee(holds: bool, n_sources: int, risk: float, of: str) -> dict[str, Any]:
    """Record of a threshold's guarantee. `risk`: the error rate that must not be exceeded."""
    kept, counted = _IN_WORDS[of]
    needed, sure = fewest_sources(risk), f"confidence {100 * CONFIDENCE:.0f} %"
    if holds:
        text = f"{kept} {counted}, with {sure} ({n_sources} sources)"
    elif n_sources < needed:
        text = f"no guarantee: {n_sources} sources, at least {needed} are needed for {kept} with {sure}"
    else:
        text = f"no guarantee: on {n_sources} sources no threshold keeps {kept} with {sure}"
    return {
        "holds": holds,
        "text": text,
        "of": of,
        "level": RECALL if of == "recall" else FALSE_ALARM_RATE,
        "confidence": CONFIDENCE,
        "n_groups": n_sources,
        "needed_groups": needed,
    }


def _no_guarantee(text: str) -> dict[str, Any]:
    return {"holds": False, "text": text}


def _one_of_each(groups: np.ndarray, seed: int) -> np.ndarray:
    """Indices (n_groups,) of one clip of each source, drawn at random."""
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    return order[first]


def _rounded_up(threshold: float) -> float:
    """Round up to a verdict's decimals, far enough that no probability below `threshold` reaches it by rounding."""
    unit = 10.0**-_DIGITS
    return min(round(math.ceil((threshold + unit / 2) / unit) * unit, _DIGITS), 1.0)


def _rounded_down(threshold: float) -> float:
    return round(math.floor(threshold * 10**_DIGITS) * 10.0**-_DIGITS, _DIGITS)
