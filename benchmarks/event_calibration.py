"""Measure a camera's own threshold: chosen on quiet footage of some of its sources, tested on the others.

A camera stands for the recordings of one data set that are linked by shared sources. Its sources are dealt into SHARES
parts that are shown for similar times. For each part the threshold is chosen as `--calibrate` chooses it
(prediction/quiet_footage.py), on windows that show only the other sources and no fight; the events that peak while this
part is shown are counted. So no clip on which events are counted has influenced their threshold. Two other thresholds
are measured on the same footage for comparison: the one of the settings, and the single threshold for all cameras that
finds most fights with no more false events an hour. The latter is chosen on these very recordings, so its figures are
too good.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from benchmarks import event_figures, event_rules
from benchmarks.event_figures import Recording, Tally
from violence_detection.errors import UserError
from violence_detection.prediction import quiet_footage
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import JudgedWindow, Verdict

#: Parts into which a camera's sources are dealt; each is measured once, at the threshold chosen on the others.
SHARES = 4
#: False events an hour for which thresholds are chosen.
ASKED = (1.0, 6.0, 20.0)


def calibrated(recordings: Sequence[Recording], settings: EventConfig) -> dict[str, Any]:
    """Figures at the cameras' own thresholds for each rate in ASKED, and at the two thresholds for comparison.

    Recordings of cameras with fewer than SHARES sources are left out. Raises UserError if no camera has that many.
    """
    cameras = [camera for camera in _cameras(recordings) if len(_sources(camera)) >= SHARES]
    if not cameras:
        raise UserError(
            f"no camera shows {SHARES} sources, so there is nothing to calibrate on. Make recordings of more sources"
        )
    rule = event_rules.by_settings(settings)
    counted = [recording for camera in cameras for recording in camera]
    for_all = event_figures.tally(counted, rule)
    before = event_figures.tally(counted, rule, [settings.threshold])
    out: dict[str, Any] = {
        "shares": SHARES,
        "cameras": len(cameras),
        "left_out": len(recordings) - len(counted),
        "before": event_figures.figures_at(before, 0),
    }
    for asked in ASKED:
        measured = [_measured(camera, settings, asked) for camera in cameras]
        own = event_figures.joined([tally for camera in measured for tally, _ in camera])
        thresholds = [threshold for camera in measured for _, threshold in camera]
        rate = float(own.ratio("false", "hours")[0])
        out[f"asked_{asked:g}_an_hour"] = {
            **event_figures.figures_at(own, 0),
            "threshold": None,
            "thresholds": {
                "lowest": min(thresholds), "median": float(np.median(thresholds)), "highest": max(thresholds),
            },
            "one_for_all": event_figures.figures_at(for_all, for_all.at_rate(rate)),
            "by_style": _by_style(cameras, measured),
        }  # fmt: skip
    return out


def _by_style(
    cameras: Sequence[Sequence[Recording]], measured: Sequence[Sequence[tuple[Tally, float]]]
) -> dict[str, Any]:
    """Recall and false events an hour of each data set."""
    of_style: dict[str, list[Tally]] = {}
    for camera, shares in zip(cameras, measured, strict=True):
        of_style.setdefault(camera[0].style, []).extend(tally for tally, _ in shares)
    out = {}
    for style, tallies in sorted(of_style.items()):
        both = event_figures.joined(tallies)
        out[style] = {
            "recall_by_overlap": event_figures.rounded(both.ratio("by_overlap", "fights")[0]),
            "false_an_hour": event_figures.rounded(both.ratio("false", "hours")[0]),
        }
    return out


def _cameras(recordings: Sequence[Recording]) -> list[list[Recording]]:
    """Group the recordings into cameras: those of one data set that are linked by shared sources."""
    found: dict[tuple[str, int], list[Recording]] = {}
    for recording, group in zip(recordings, event_figures.linked(recordings), strict=True):
        found.setdefault((recording.style, int(group)), []).append(recording)
    return [found[camera] for camera in sorted(found)]


def _sources(camera: Sequence[Recording]) -> list[str]:
    """A camera's sources, from the one that is shown longest."""
    hours: dict[str, float] = {}
    for recording in camera:
        for source, shown in recording.hours_by_source().items():
            hours[source] = hours.get(source, 0.0) + shown
    return sorted(hours, key=lambda source: (-hours[source], source))


def _measured(
    camera: Sequence[Recording], settings: EventConfig, asked_per_hour: float
) -> list[tuple[Tally, float]]:
    """For each part of the sources, the tally at the threshold chosen on the others, and that threshold."""
    sources = _sources(camera)
    out = []
    for number in range(SHARES):
        share = set(sources[number::SHARES])
        verdicts = [v for recording in camera for v in quiet_stretches(recording, share, settings)]
        threshold = quiet_footage.choose(verdicts, settings, asked_per_hour).threshold
        found = event_figures.tally(camera, event_rules.by_settings(settings), [threshold])
        out.append((found.of_sources(share), threshold))
    return out


def quiet_stretches(recording: Recording, without: Collection[str], settings: EventConfig) -> list[Verdict]:
    """The windows of a recording that show no fight and none of the sources `without`: a verdict per stretch."""
    stretches: list[list[JudgedWindow]] = [[]]
    for window in recording.windows:
        fights = any(window.start_s < end_s and window.end_s > start_s for start_s, end_s in recording.fights)
        if fights or not recording.sources_within(window.start_s, window.end_s).isdisjoint(without):
            stretches.append([])
        else:
            stretches[-1].append(window)
    return [
        Verdict(recording.name, tuple(stretch), settings, seconds, seconds)
        for stretch in stretches
        if stretch
        for seconds in [stretch[-1].end_s - stretch[0].start_s]
    ]
