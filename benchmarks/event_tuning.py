"""Choose the settings of events on recordings of half of the sources and measure them on the other half, both ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import event_figures, event_rules
from benchmarks.event_figures import Recording, Tally
from benchmarks.event_rules import Choice, Rule
from violence_detection.errors import UserError
from violence_detection.prediction.config import EventConfig
from violence_detection.system import console

#: Most false events an hour at which thresholds are chosen: balanced, and with few false alarms.
BALANCED, FEW = 1.0, 0.1


def tuned(recordings: Sequence[Recording], settings: EventConfig) -> dict[str, Any]:
    """The settings chosen on each half, with their figures on the other, and those chosen on both halves together.

    The settings with the best mean recall (event_figures.RATES) are chosen, the first of equally good ones, and for
    them the thresholds for BALANCED and FEW. Raises UserError if the recordings cannot be cut into halves that both
    show fights.
    """
    halves = apart(recordings)
    if not all(any(r.fights for r in half) for half in halves):
        raise UserError("one half of the recordings has no fight. Make recordings with more hours")
    before: dict[str, Rule] = {
        "touching": event_rules.touching_windows,
        "events": event_rules.by_settings(settings),
    }
    tries = event_rules.choices(settings)
    known = [{name: event_figures.tally(half, rule) for name, rule in before.items()} for half in halves]
    tried = [
        [
            event_figures.tally(half, choice.rule)
            for choice in console.progress(tries, total=len(tries), desc="tuning", unit="settings")
        ]
        for half in halves
    ]
    both = [event_figures.joined(halves) for halves in zip(*tried, strict=True)]
    best = _best(both)
    return {
        "halves": [
            _measured(tries, tried[here], tried[there], known[here], known[there])
            for here, there in ((0, 1), (1, 0))
        ],
        "chosen_on_both": {
            **tries[best].record(),
            "balanced_threshold": both[best].thresholds[both[best].at_rate(BALANCED)],
            "few_false_alarms_threshold": both[best].thresholds[both[best].at_rate(FEW)],
        },
    }


def _best(tallies: Sequence[Tally]) -> int:
    return int(np.argmax([found.froc() for found in tallies]))


def _measured(
    tries: Sequence[Choice], here: Sequence[Tally], there: Sequence[Tally], known_here: dict[str, Tally],
    known_there: dict[str, Tally],
) -> dict[str, Any]:  # fmt: skip
    """Choose the best settings on one half (`here`), and measure them and the other rules on the other (`there`).

    The thresholds are chosen here, too.
    """
    best = _best(here)
    chosen, other = known_here | {"tuned": here[best]}, known_there | {"tuned": there[best]}
    out: dict[str, Any] = {
        "settings": tries[best].record(),
        "hours": round(float(other["tuned"].of("hours")[:, 0].sum()), 2),
        "mean_recall_where_chosen": {name: round(t.froc(), 4) for name, t in chosen.items()},
        "mean_recall": {name: round(t.froc(), 4) for name, t in other.items()},
        "mean_recall_gain": {},
    }
    for name in known_there:
        gain, interval = event_figures.froc_gain(other["tuned"], other[name])
        _, by_source = event_figures.froc_gain(other["tuned"], other[name], "source")
        out["mean_recall_gain"][name] = {
            "gain": round(gain, 4),
            "ci95_by_recording": [round(x, 4) for x in interval],
            "ci95_by_source": [round(x, 4) for x in by_source],
        }
    for name, found in other.items():
        out[name] = {
            point: event_figures.figures_at(found, chosen[name].at_rate(rate))
            for point, rate in (("balanced", BALANCED), ("few_false_alarms", FEW))
        }
    return out


def apart(recordings: Sequence[Recording]) -> tuple[list[Recording], list[Recording]]:
    """Cut recordings into two halves of about equal length that share no source.

    Raises UserError if shared sources link all of them.
    """
    group = event_figures.linked(recordings)
    halves: tuple[list[Recording], list[Recording]] = ([], [])
    by_length = sorted(
        set(group.tolist()),
        key=lambda g: -sum(r.duration_s for r, h in zip(recordings, group, strict=True) if h == g),
    )
    for g in by_length:
        shorter = min(halves, key=lambda half: sum(r.duration_s for r in half))
        shorter += [r for r, h in zip(recordings, group, strict=True) if h == g]
    if not all(halves):
        raise UserError(
            "shared sources link all recordings, so they cannot be cut into halves for --tune. Make them with "
            "--parts 2, or with the models of two folds"
        )
    return halves
