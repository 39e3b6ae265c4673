"""Thresholds for what one wants of a model, with a guarantee by source where there are sources enough.

Clips of one source are alike, so sources are what can be taken to be exchangeable, not clips. From each source one clip
of the class is drawn, and MAPIE's risk control (Learn then Test: Angelopoulos, Bates, Candès, Jordan & Lei 2021,
arXiv:2110.01052) is asked on the drawn clips for the thresholds that keep the rate. What is controlled then is the rate
of a clip drawn from a source drawn: the mean, over sources like these, of the share of a source's peaceful clips that
are called fights, or of its fights that are missed. It holds of clips; a long video is judged in many windows.
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
#: What the two points are to keep: at most so many false alarms, at least so many fights found, and how surely.
FALSE_ALARM_RATE, RECALL, CONFIDENCE = 0.05, 0.95, 0.9
#: Thresholds on the averages that are tried, chosen before any clip is seen: steps of 0.05 of the logit.
GRID = 1 / (1 + np.exp(-np.linspace(-8, 8, 321)))
#: Verdicts have so many digits, and a threshold no more: rounded so that no verdict's rounding breaks the rate.
_DIGITS = 4

Calibrate = Callable[[np.ndarray], np.ndarray]


def choose(
    is_fight: np.ndarray, p_fight: np.ndarray, groups: np.ndarray, calibrate: Calibrate, seed: int
) -> dict[str, dict[str, Any]]:
    """Name -> {threshold, false_alarm_rate, recall, by_source, guarantee} of each operating point.

    `is_fight` (n,) bool; `p_fight` (n,) the members' averages; `groups` (n,) source groups; `calibrate` makes the
    probabilities of averages that thresholds apply to. Rates are shares of clips, `by_source` means over sources; None
    where there is no clip of the class. `seed` decides which clips are drawn.
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
    """Sources below which nothing can be guaranteed, even without one error: (1 - rate)^n must be 1 - CONFIDENCE."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - rate))


def controlled(
    is_fight: np.ndarray, p_fight: np.ndarray, groups: np.ndarray, risk: str, level: float, seed: int
) -> np.ndarray:
    """The thresholds of GRID that keep a risk at `level`, surely enough, ascending; none may do.

    `risk`: fpr, at most `level` of the drawn peaceful clips; or recall, at least `level` of the drawn fights.
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
        warnings.simplefilter("ignore")  # that no threshold is found is said by what is returned
        controller.calibrate(p_fight[drawn], is_fight[drawn].astype(int))
    return np.sort(controller.valid_predict_params)


def _few_false_alarms(
    is_fight: np.ndarray, p_fight: np.ndarray, groups: np.ndarray, calibrate: Calibrate, seed: int
) -> tuple[float, dict[str, Any]]:
    """The lowest threshold that keeps false alarms rare, and what is guaranteed of it."""
    measured = [calibration.mean_over_sources(p_fight[~is_fight] >= t, groups[~is_fight]) for t in GRID]
    fit = GRID[np.array(measured) <= FALSE_ALARM_RATE]
    kept = controlled(is_fight, p_fight, groups, "fpr", FALSE_ALARM_RATE, seed)
    empirical = float(fit[0]) if len(fit) else float(GRID[-1])
    # the draw may have been lucky: what is guaranteed is not above what all the clips show
    chosen = max(float(kept[0]), empirical) if len(kept) else empirical
    threshold = _rounded_up(float(calibrate(np.array([chosen]))[0]))
    n_sources = len(np.unique(groups[~is_fight]))
    return threshold, _guarantee(len(kept) > 0, n_sources, FALSE_ALARM_RATE, "false_alarm_rate")


def _few_missed(
    is_fight: np.ndarray, p_fight: np.ndarray, groups: np.ndarray, calibrate: Calibrate, seed: int
) -> tuple[float, dict[str, Any]]:
    """The highest threshold that finds nearly every fight, and what is guaranteed of it."""
    measured = [calibration.mean_over_sources(p_fight[is_fight] >= t, groups[is_fight]) for t in GRID]
    fit = GRID[np.array(measured) >= RECALL]
    kept = controlled(is_fight, p_fight, groups, "recall", RECALL, seed)
    empirical = float(fit[-1]) if len(fit) else float(GRID[0])
    chosen = min(float(kept[-1]), empirical) if len(kept) else empirical
    threshold = _rounded_down(float(calibrate(np.array([chosen]))[0]))
    n_sources = len(np.unique(groups[is_fight]))
    return threshold, _guarantee(len(kept) > 0, n_sources, 1 - RECALL, "recall")


#: What is kept, in words, and over what it is counted.
_IN_WORDS: Mapping[str, tuple[str, str]] = {
    "false_alarm_rate": (
        f"at most {100 * FALSE_ALARM_RATE:.0f} % false alarms",
        "of a source's peaceful clips, in the mean over sources",
    ),
    "recall": (f"at least {100 * RECALL:.0f} % of the fights found", "of a source, in the mean over sources"),
}


def _guarantee(holds: bool, n_sources: int, risk: float, of: str) -> dict[str, Any]:
    """What is said of a threshold. `risk`: the rate of errors that is not to be exceeded."""
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
    """Indices (n_groups,) of a clip of each source, drawn."""
    order = np.random.default_rng(seed).permutation(len(groups))
    _, first = np.unique(groups[order], return_index=True)
    return order[first]


def _rounded_up(threshold: float) -> float:
    """With a verdict's digits, so that what is below `threshold` does not reach it by being rounded."""
    unit = 10.0**-_DIGITS
    return min(round(math.ceil((threshold + unit / 2) / unit) * unit, _DIGITS), 1.0)


def _rounded_down(threshold: float) -> float:
    return round(math.floor(threshold * 10**_DIGITS) * 10.0**-_DIGITS, _DIGITS)
