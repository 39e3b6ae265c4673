"""Learning a threshold and a logit offset for one camera from marks.

The threshold is the one with the fewest false events and missed fights in the marked videos. The logit offset is that
one of Platt's two numbers for which a few marks are enough (Platt 1999; the slope stays the model's). It is fitted by
log loss, with a Gaussian prior around 0, on the windows of videos that were looked at from end to end, because marks
alone are of the highest windows. Each of the two is tested on every video in turn, learnt from the others, and changed
only if the others' values are better than the present one.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from violence_detection.errors import UserError
from violence_detection.prediction import camera_profile, kept_windows
from violence_detection.prediction.camera_profile import CameraProfile
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import Event, Verdict, find_events
from violence_detection.prediction.review.marks import (
    LEAST_MARKS,
    LEAST_VIDEOS,
    WRONG,
    Mark,
    MarkedVideo,
    Marks,
)
from violence_detection.system.figures import number, plural
from violence_detection.video import sampling

log = logging.getLogger(__name__)

#: The logit offset is fitted only with this many videos that have a fight and were looked at from end to end.
_MIN_VIDEOS_WITH_FIGHTS = 2
#: An event with a fight in it is false, too, if more than this many seconds of it are outside of fights and more than
#: _MOST_OUTSIDE_SHARE times its seconds inside fights. Otherwise one event over a whole night would be right.
_MOST_OUTSIDE_S = 10.0
#: See _MOST_OUTSIDE_S.
_MOST_OUTSIDE_SHARE = 3.0
#: Logits of the thresholds that are tried.
_LOGITS = np.arange(-50, 71) / 10
#: Standard deviation of the Gaussian prior of the logit offset.
_PRIOR_SD = 2.0
#: Added to P and to 1 - P before their logarithms are taken.
_TINY = 1e-12
#: At most this many videos are named in a log line.
_SHOWN = 3
#: Durations that differ by less than this count as equal.
_SAME_LENGTH_S = 0.05


@dataclass(frozen=True)
class Mistakes:
    """What events get wrong in marked videos: events that are not fights, and fights without an event."""

    false_events: int = 0
    missed_fights: int = 0

    @property
    def count(self) -> int:
        """Their sum: both count the same."""
        return self.false_events + self.missed_fights

    def __add__(self, other: Mistakes) -> Mistakes:
        return Mistakes(self.false_events + other.false_events, self.missed_fights + other.missed_fights)


@dataclass(frozen=True)
class Learned:
    """The outcome of `learn`.

    `profile`: None: nothing was learnt, and `why_not` says why. `figures`: what was measured, for JSON. `too_few`:
    whether there were too few marks to learn from.
    """

    profile: CameraProfile | None
    figures: Mapping[str, Any]
    why_not: str = ""
    too_few: bool = False


def learn(
    verdicts: Sequence[Verdict],
    marks: Marks,
    settings: EventConfig,
    model: str,
    now: CameraProfile | None = None,
) -> Learned:
    """Learn a camera profile from the marks of videos whose windows were kept.

    `verdicts`: with the model's own probabilities, without a camera profile. `settings`: of events. `model`: identity
    of the model that judged. `now`: the profile used so far, whose threshold then replaces that of `settings`. Raises
    UserError if the marks are of another model or of other videos, even of others with the same names.
    """
    marks = _marks_of_verdicts(marks, verdicts)
    marked = _marked(verdicts, marks, model)
    taken = kept_windows.early_exit(marked)
    of_them = {v.path: marks.by_video[v.path] for v in marked}
    n_marks = sum(map(len, of_them.values()))
    found = {"videos": len(marked), "marks": n_marks, "reviewed": sum(p in marks.reviewed for p in of_them)}
    if n_marks < LEAST_MARKS or len(marked) < LEAST_VIDEOS:
        return Learned(
            None,
            found,
            f"too few marks: {n_marks} in {plural(len(marked), 'video')}; at least {LEAST_MARKS} in {LEAST_VIDEOS} "
            "videos are needed, because what is learnt is tested on videos that it was not learnt from",
            too_few=True,
        )
    before_offset = now.logit_offset if now else 0.0
    present = camera_profile.shifted(now.threshold, -before_offset) if now else settings.threshold
    of_model = _of_model(settings, present, before_offset)
    threshold, of_threshold = _threshold(marked, of_them, marks.reviewed, of_model, present)
    offset, of_offset = _offset(marked, of_them, marks.reviewed, of_model, before_offset)
    figures = {
        **found,
        "tried_on": "each video, learnt from the others",
        **of_threshold,
        "calibration": of_offset,
    }
    if threshold == present and offset == before_offset:
        why = "no other threshold or calibration is better on videos that it was not learnt from"
        return Learned(None, figures, why)
    of_camera = round(camera_profile.shifted(threshold, offset), 4)
    profile = CameraProfile(
        model,
        of_camera,
        round(offset, 4),
        {"what": "marks", **found},
        figures,
        camera_profile.other_settings(_at(settings, of_camera)),
        camera_profile.judging_of(marked),
        early_exit=taken,
    )
    return Learned(profile, figures)


def _of_model(settings: EventConfig, present: float, before_offset: float) -> EventConfig:
    """The settings of events for the model's own probabilities, of which `present` is the threshold."""
    ends = settings.offset
    if ends is not None:
        ends = camera_profile.shifted(ends, -before_offset)
    return replace(settings.at(settings.threshold), threshold=present, offset=ends)


def _marks_of_verdicts(marks: Marks, verdicts: Sequence[Verdict]) -> Marks:
    """The marks with the paths of `verdicts`, without marks of other recordings of the same names.

    Paths in the marks may differ, as when they were made from another folder. Files are recognised by their real paths
    or, if these are not known, by any of their names that no other file has. Raises UserError if all marks are of other
    recordings.
    """
    of_path = {v.path: v for v in verdicts}
    names = [(name, v.path) for v in verdicts for name in (v.given_as, v.real_path) if name]
    count = Counter(name for name, _ in names)
    path_of = {name: path for name, path in names if count[name] == 1 and name not in of_path}
    path_by_real = {v.real_path: v.path for v in verdicts if v.real_path}
    path_of |= {
        name: path_by_real[was.real_path]
        for name, was in marks.videos.items()
        if was.real_path in path_by_real
    }
    others = {
        name: was
        for name, was in marks.videos.items()
        if (v := of_path.get(path_of.get(name, name))) and not _is_of(v, was)
    }
    if others:
        name, was = min(others.items())
        judged = of_path[path_of.get(name, name)]
        what = (
            f"marked was {was.real_path} of {was.duration_s:g} s, judged was {judged.real_path or judged.path} of "
            f"{judged.duration_s:g} s. Give --rejudge the output of the run whose page was marked. If the recordings "
            "were only moved, load the marks into the page of this run and save them there"
        )
        if others.keys() >= marks.by_video.keys():
            raise UserError(f"the marks are of other recordings with the same names: {what}")
        log.warning("%d of %d marked videos are other recordings with the same names, so their marks do not count: %s",
                    len(others), len(marks.by_video), what)  # fmt: skip
    told = path_by_real and [n for n in marks.by_video if not os.path.isabs(n)]  # noqa: PTH117
    if unknown := len(set(told) - marks.videos.keys()):
        log.warning(
            "the marks, made by an earlier version, do not say where %d of %d marked videos were: whether they are of "
            "other recordings with the same names cannot be checked",
            unknown, len(marks.by_video),
        )  # fmt: skip
    return marks.without(others.keys()).of_paths(path_of)


def _is_of(verdict: Verdict, marked: MarkedVideo) -> bool:
    """Whether the file that was marked is the one that was judged, by real path (if known) and duration."""
    is_there = not verdict.real_path or verdict.real_path == marked.real_path
    return is_there and math.isclose(verdict.duration_s, marked.duration_s, abs_tol=_SAME_LENGTH_S)


def _marked(verdicts: Sequence[Verdict], marks: Marks, model: str) -> list[Verdict]:
    """The verdicts on marked videos. Marks of videos without a verdict are logged.

    Raises UserError if the marks are of another model, or all of them of videos without a verdict.
    """
    if marks.model and marks.model != model:
        raise UserError(
            "the marks were made on events of another model. Name the --model that judged them, or mark the events of "
            "this model"
        )
    marked = [v for v in verdicts if v.path in marks.by_video]
    if not marked and marks.by_video:
        raise UserError(
            f"none of the marked videos is among those judged (marked, for example: {next(iter(marks.by_video))}; "
            f"judged: {verdicts[0].path}). Give --rejudge the output of the run whose page was marked"
        )
    if left_out := sorted(marks.by_video.keys() - {v.path for v in marked}):
        log.warning(
            "%d of %d marked videos are not among those judged, so their marks do not count: %s%s. Give --rejudge the "
            "output of the run whose page was marked",
            len(left_out), len(marks.by_video), ", ".join(left_out[:_SHOWN]), " ..." if left_out[_SHOWN:] else "",
        )  # fmt: skip
    return marked


def say(learned: Learned, path: Path) -> None:
    """Log what was learnt and what it was tested with. `path`: of the profile."""
    found = learned.figures
    log.info("marks: %d in %s, %d of them looked at from end to end", found["marks"],
             plural(found["videos"], "video"), found["reviewed"])  # fmt: skip
    if "before" in found:
        before, after = found["before"], found["on_others"]
        log.info(
            "on videos that it was not learnt from (%.2f h, %d fights): with the present threshold, %s, %d false "
            "events and %d missed fights; with the threshold learnt from the other videos, %d and %d",
            found["hours"], found["fights"], number(before["threshold"]), before["false_events"],
            before["missed_fights"], after["false_events"], after["missed_fights"],
        )  # fmt: skip
        if learned.profile and not found["fights"]:
            log.warning("no fight is marked, so nobody knows how many fights the new threshold would miss")
        calibration = found["calibration"]
        if "log_loss_before" in calibration:
            log.info(
                "log loss of the windows of videos looked at from end to end: before %.4f, after %.4f",
                calibration["log_loss_before"], calibration["log_loss_after"],
            )  # fmt: skip
        if "why_not" in calibration:
            log.info("calibration is unchanged: %s", calibration["why_not"])
    if learned.profile:
        if (ends := learned.profile.events["offset"]) == learned.profile.threshold:
            log.warning("the learnt threshold is not above the given --offset, so events end at the probability at "
                        "which they begin: for later runs give --offset %g", ends)  # fmt: skip
        log.info("threshold %s, logit offset %+.2f: written to %s, for use with --profile",
                 number(learned.profile.threshold), learned.profile.logit_offset, path)  # fmt: skip
    else:
        log.info("nothing was changed: %s", learned.why_not)


# ---- the threshold


def mistakes_of(
    events: Sequence[Event], marks: Sequence[Mark], reviewed: bool, before: Sequence[Event]
) -> Mistakes:
    """What these events get wrong. `before`: the events at the present threshold, which the marks were made on.

    False events are: a stretch marked wrong that overlaps an event; an event that overlaps no mark, if the video was
    looked at from end to end (`reviewed`) or no event of `before` is there; and an event that reaches far beyond the
    fights in it. Missed is a fight that overlaps no event.
    """
    missed = sum(m.is_fight and not _overlaps_any(events, m) for m in marks)
    false = sum(m.mark == WRONG and _overlaps_any(events, m) for m in marks)
    for event in events:
        touched = [m for m in marks if m.overlaps(event.start_s, event.end_s)]
        if touched:
            fights = [(m.start_s, m.end_s) for m in touched if m.is_fight]
            inside_s = sampling.overlap_s([(event.start_s, event.end_s)], sorted(fights))
            outside_s = event.duration_s - inside_s
            far = outside_s > max(_MOST_OUTSIDE_S, _MOST_OUTSIDE_SHARE * inside_s)
            false += far and any(m.is_fight for m in touched)
        elif reviewed or not any(b.start_s < event.end_s and event.start_s < b.end_s for b in before):
            false += 1
    return Mistakes(false, missed)


def _overlaps_any(events: Sequence[Event], mark: Mark) -> bool:
    return any(mark.overlaps(e.start_s, e.end_s) for e in events)


def _threshold(
    verdicts: Sequence[Verdict],
    marks: Mapping[str, Sequence[Mark]],
    reviewed: frozenset[str],
    settings: EventConfig,
    present: float,
) -> tuple[float, dict[str, Any]]:
    """The threshold for the model's own probabilities, and its figures for JSON.

    It stays `present` unless thresholds make fewer mistakes on videos that they were not learnt from: on each video in
    turn, learnt from the others, in sum.
    """
    tried = sorted({*(1 / (1 + np.exp(-_LOGITS))).tolist(), present})
    at = tried.index(present)
    table = [
        [_mistakes_at(v, marks[v.path], v.path in reviewed, settings, t, present) for t in tried]
        for v in verdicts
    ]
    counts = np.array([[m.count for m in row] for row in table])  # (videos, thresholds)
    before, after = Mistakes(), Mistakes()
    fights = sum(m.is_fight for found in marks.values() for m in found)
    for i, row in enumerate(table):
        others = counts.sum(axis=0) - counts[i]
        before += row[at]
        after += row[_best(others, at, bool(fights))]
    chosen = _best(counts.sum(axis=0), at, bool(fights)) if after.count < before.count else at
    hours = sum(v.judged_s for v in verdicts) / 3600
    return tried[chosen], {
        "fights": fights,
        "hours": round(hours, 3),
        "before": {"threshold": round(present, 4), **vars(before)},
        "on_others": vars(after),
        "after": {"threshold": round(tried[chosen], 4)},
    }


def _mistakes_at(
    verdict: Verdict,
    marks: Sequence[Mark],
    reviewed: bool,
    settings: EventConfig,
    threshold: float,
    present: float,
) -> Mistakes:
    before = find_events(verdict.windows, _at(settings, present))
    return mistakes_of(find_events(verdict.windows, _at(settings, threshold)), marks, reviewed, before)


def _at(settings: EventConfig, threshold: float) -> EventConfig:
    """The settings with this threshold; a given offset is lowered to it if it is higher."""
    offset = None if settings.offset is None else min(settings.offset, threshold)
    return replace(settings.at(settings.threshold), threshold=threshold, offset=offset)


def _best(counts: np.ndarray, present: int, with_fights: bool) -> int:
    """The index of the threshold with the fewest mistakes; the present one if none has fewer.

    Of the runs of best thresholds the one nearest to the present threshold counts, and of that its middle; without a
    marked fight (`with_fights` false) its lowest, since then nothing bounds the run from above. `counts`:
    (thresholds,), the mistakes of each.
    """
    best = counts == counts.min()
    if best[present]:
        return present
    runs: list[list[int]] = []
    for is_best, group in itertools.groupby(range(len(counts)), key=lambda i: bool(best[i])):
        if is_best:
            runs.append(list(group))
    nearest = min(runs, key=lambda run: min(abs(i - present) for i in run))
    return nearest[len(nearest) // 2 if with_fights else 0]


# ---- the offset of the logit


def _offset(
    verdicts: Sequence[Verdict],
    marks: Mapping[str, Sequence[Mark]],
    reviewed: frozenset[str],
    settings: EventConfig,
    before: float,
) -> tuple[float, dict[str, Any]]:
    """The logit offset, and its figures for JSON.

    It stays `before` if it cannot be fitted, or unless log loss falls on videos that it was not fitted on: on each
    video in turn, fitted on the others, in sum. `why_not` among the figures then says why.
    """
    if settings.offset is not None:
        return before, {
            "why_not": "--offset is given, and events would end elsewhere once probabilities are shifted"
        }
    if settings.smoothing_s:
        return before, {
            "why_not": "probabilities are smoothed, and a logit offset would shift each mean by a different amount"
        }
    whole = [v for v in verdicts if v.path in reviewed]
    with_fights = sum(any(m.is_fight for m in marks[v.path]) for v in whole)
    if len(whole) < LEAST_VIDEOS or with_fights < _MIN_VIDEOS_WITH_FIGHTS:
        return before, {
            "why_not": f"{len(whole)} videos were looked at from end to end, {with_fights} of them with fights; "
            f"at least {LEAST_VIDEOS} and {_MIN_VIDEOS_WITH_FIGHTS} are needed"
        }
    labelled = [_labelled(v, marks[v.path]) for v in whole]
    n = sum(len(labels) for _, labels in labelled)
    if not n:
        return before, {"why_not": "no window can be used: all are still or have only the edge of a fight"}
    losses = np.zeros(2)
    for i, (logits, labels) in enumerate(labelled):
        others = [pair for j, pair in enumerate(labelled) if j != i]
        offset = _fit(np.concatenate([x for x, _ in others]), np.concatenate([y for _, y in others]))
        losses += [_loss(logits + b, labels).sum() for b in (before, offset)]
    figures: dict[str, Any] = {
        "windows": n,
        "log_loss_before": round(float(losses[0]) / n, 4),
        "log_loss_after": round(float(losses[1]) / n, 4),
    }
    if losses[1] >= losses[0]:
        return before, {**figures, "why_not": "log loss does not fall on videos that it was not fitted on"}
    return _fit(*(np.concatenate(part) for part in zip(*labelled, strict=True))), figures


def _labelled(verdict: Verdict, marks: Sequence[Mark]) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N,) and labels (N,) of windows, to fit the offset on. Labels are True if the middle is in a fight.

    Left out are windows that overlap a fight only at its edge, and still windows, whose P(violent) no offset changes.
    """
    fights = [m for m in marks if m.is_fight]
    logits: list[float] = []
    labels: list[bool] = []
    for window in verdict.windows:
        if window.still:
            continue
        inside = any(m.start_s <= window.middle_s < m.end_s for m in fights)
        if inside or not any(m.overlaps(window.start_s, window.end_s) for m in fights):
            p = window.p_judged
            logits.append(float(np.log(p + _TINY) - np.log(1 - p + _TINY)))
            labels.append(inside)
    return np.array(logits), np.array(labels, bool)


def _loss(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Log loss (N,) of P(violent) with these logits."""
    return np.logaddexp(0.0, np.where(labels, -logits, logits))


def _fit(logits: np.ndarray, labels: np.ndarray) -> float:
    """The offset with the lowest log loss plus penalty of the Gaussian prior around 0."""
    from scipy.optimize import minimize_scalar

    def cost(offset: float) -> float:
        return float(_loss(logits + offset, labels).sum() + offset**2 / (2 * _PRIOR_SD**2))

    bound = camera_profile.MOST_OFFSET
    return float(minimize_scalar(cost, bounds=(-bound, bound), method="bounded").x)
