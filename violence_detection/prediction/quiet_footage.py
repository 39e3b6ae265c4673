"""A camera's own threshold from footage of it in which nobody fights.

The events that a threshold leaves in quiet footage are false. With k of them in T hours, and the threshold just above
the next highest peak, the rate of false events above it is distributed as Gamma(k + 1) / T, whatever the distribution
of the probabilities is (the spacings of a Poisson process): k + 1 an hour over T are to be expected, and with 95 %
certainty there are no more than the quantile of that, which for k = 0 is 3 / T (Hanley & Lippman-Hand 1983, "If Nothing
Goes Wrong, Is Everything All Right?"). So T hours can show no rate below 1 / T, and this does not guess beyond them.
"""

from __future__ import annotations

import functools
import logging
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.models import model_files, shipped
from violence_detection.prediction import batch, camera_profile, kept_windows, verdict_journal
from violence_detection.prediction.camera_profile import CameraProfile, other_settings
from violence_detection.prediction.config import EventConfig, PredictConfig, QuietConfig
from violence_detection.prediction.events import Event, Verdict, find_events, smoothed
from violence_detection.system import storage
from violence_detection.system.figures import number
from violence_detection.system.own_files import WrittenFiles
from violence_detection.video.video_files import VideoSearch

log = logging.getLogger(__name__)

_CONFIDENCE = 0.95
#: -log(0.05): hours without an event times the rate that they exclude.
_RULE_OF_THREE = 3.0
#: Probabilities have so many digits; a threshold is this much above the one that it excludes.
_DIGIT = 1e-4
#: Events of the footage that are shown to people, the most violent first.
_SHOWN = 5
_PEAK_DIGITS = 4
_NAMED = 3


@dataclass(frozen=True)
class QuietThreshold:
    """A threshold with what it left in the quiet footage, and what that says of other hours like these.

    `before`: the threshold that the run was asked for, with the events that it finds, `loudest` the most violent of
    them with the video's path. `asked_per_hour`: the rate of false events that was wanted. `early_exit`: as the footage
    was judged, see Verdict.
    """

    threshold: float
    hours: float
    n_videos: int
    asked_per_hour: float
    false_events: int
    before: float
    false_events_before: int
    loudest: tuple[tuple[str, Event], ...]
    early_exit: bool = True

    @property
    def expected_per_hour(self) -> float:
        """False events an hour to be expected of other footage like this."""
        return (self.false_events + 1) / self.hours

    @property
    def at_most_per_hour(self) -> float:
        """What the rate stays below, with 95 % certainty."""
        from scipy.stats import gamma

        return float(gamma.ppf(_CONFIDENCE, self.false_events + 1)) / self.hours

    @property
    def shows_asked(self) -> bool:
        """Whether the footage is long enough, and quiet enough, that the rate asked for is to be expected."""
        return self.expected_per_hour <= self.asked_per_hour

    def described(self) -> list[str]:
        """What is said to people, a sentence a line."""
        changed = "stays" if self.threshold == self.before else f"rises from {self.before:g} to"
        lines = [
            f"the threshold {changed} {self.threshold:g}: in {self.hours:.3g} h of quiet footage it leaves "
            f"{self.false_events} false events, where {self.before:g} leaves {self.false_events_before}",
            f"expect {_figure(self.expected_per_hour)} false events an hour, with 95 % certainty at most "
            f"{_figure(self.at_most_per_hour)}, of hours like these; other light, weather and crowds may give more",
        ]
        if not self.shows_asked and self.false_events == 0:
            shown_h, certain_h = 1 / self.asked_per_hour, _RULE_OF_THREE / self.asked_per_hour
            lines.append(
                f"{self.asked_per_hour:g} an hour was asked for. It takes at least {_figure(shown_h)} h of quiet "
                f"footage to show that, and {_figure(certain_h)} h to be 95 % certain"
            )
        elif not self.shows_asked:
            lines.append(
                f"{self.asked_per_hour:g} an hour was asked for: no threshold keeps that in this footage"
            )
        if self.loudest:
            lines.append("what was taken for a fight; if one is, take it out and calibrate again:")
            lines += [
                f"  {path}  {e.start_s:.1f}-{e.end_s:.1f} s  {number(e.p_violent)}"
                for path, e in self.loudest
            ]
        return lines

    def figures(self) -> dict[str, Any]:
        """As the profile and the summary have it."""
        return {
            "threshold": self.threshold,
            "threshold_before": self.before,
            "hours": round(self.hours, 4),
            "false_events": self.false_events,
            "false_events_before": self.false_events_before,
            "asked_per_hour": self.asked_per_hour,
            "expected_per_hour": self.expected_per_hour,
            "at_most_per_hour": self.at_most_per_hour,
            "confidence": _CONFIDENCE,
            "shows_asked": self.shows_asked,
            "loudest": [
                {"path": path, "start_s": e.start_s, "end_s": e.end_s, "p_violent": e.p_violent}
                for path, e in self.loudest
            ],
        }

    def profile(
        self,
        model: str,
        settings: EventConfig,
        judging: Mapping[str, Any],
        applied: CameraProfile | None = None,
    ) -> CameraProfile:
        """The camera's profile. `model`: its identity; `applied`: a profile through which the footage was judged."""
        return CameraProfile(
            model,
            self.threshold,
            applied.logit_offset if applied else 0.0,
            made_from={"what": "quiet footage", "hours": round(self.hours, 4), "videos": self.n_videos},
            figures=self.figures(),
            events=other_settings(settings),
            judging=judging,
            early_exit=self.early_exit,
        )


def _figure(value: float) -> str:
    """For people: three digits, and none behind the point from 1,000 on."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def choose(verdicts: Sequence[Verdict], settings: EventConfig, asked_per_hour: float) -> QuietThreshold:
    """The lowest threshold, not below that of `settings`, for which `asked_per_hour` false events are to be expected.

    `verdicts`: of footage in which nobody fights. Where no threshold is shown to keep the rate, the one that leaves
    fewest events. Lower than asked for it never gets: quiet footage says nothing of the fights that are found.
    Raises UserError where there is no footage.
    """
    hours = sum(verdict.judged_s for verdict in verdicts) / 3600
    if not hours > 0:
        raise UserError("there is no quiet footage to calibrate on: no second of it was judged")
    allowed = max(int(asked_per_hour * hours + 1e-9) - 1, 0)
    threshold = left = None
    for candidate in _from_the_top(verdicts, settings):
        count = _count(verdicts, settings.at(candidate))
        if threshold is not None and count > allowed:
            break
        threshold, left = candidate, count
    assert threshold is not None
    assert left is not None
    found = sorted(
        ((v.path, e) for v in verdicts for e in find_events(v.windows, settings)),
        key=lambda item: -item[1].p_violent,
    )
    return QuietThreshold(
        threshold=threshold,
        hours=hours,
        n_videos=len(verdicts),
        asked_per_hour=asked_per_hour,
        false_events=left,
        before=settings.threshold,
        false_events_before=len(found),
        loudest=tuple(found[:_SHOWN]),
        early_exit=kept_windows.early_exit(verdicts),
    )


def _from_the_top(verdicts: Sequence[Verdict], settings: EventConfig) -> Iterator[float]:
    """Thresholds just above each probability that reaches that of `settings`, from the highest on; its own at last."""
    peaks = {
        p for v in verdicts for p in smoothed(v.windows, settings.smoothing_s) if p >= settings.threshold
    }
    for p in sorted(peaks, reverse=True):
        yield min(round(p + _DIGIT, _PEAK_DIGITS), 1.0)
    yield settings.threshold


def _count(verdicts: Sequence[Verdict], settings: EventConfig) -> int:
    return sum(len(find_events(v.windows, settings)) for v in verdicts)


def run(
    config: PredictConfig, quiet: QuietConfig, save_to: Path, output: Path | None = None
) -> dict[str, Any]:
    """Judge the quiet footage, or take its windows as they were kept, and write the camera's profile.

    `output`: a file beside which verdicts are kept as they come, so that a run that was stopped goes on, and what could
    not be judged is listed. Returns the summary {profile, calibration, failures}. Raises UserError where there is
    nothing to judge, where kept windows come without the model that judged them, and where `output`, or the list, would
    replace another file.
    """
    assert quiet.calibrate is not None
    if config.model is None and kept_windows.are_at(quiet.calibrate):
        raise UserError(f"whose windows are in {quiet.calibrate}? Name the --model that judged them")
    camera_profile.check_place(save_to, "--save-profile")
    if output and output.resolve().is_relative_to(quiet.calibrate.resolve()):
        raise UserError(
            f"--output {output} lies in {quiet.calibrate}: the next run would take what is kept there for all of the "
            "footage. Name a place outside of it"
        )
    if output:
        batch.check_output(output)
    model = shipped.find(config.model)
    settings, applied = batch.events_by(config), batch.profile_of(config)
    verdicts, failures = _judged(config, quiet.calibrate, output)
    failures += [{"path": v.path, "reason": v.warning} for v in verdicts if v.warning]
    if output:
        storage.write_failures(batch.failures_path(output), failures)
    if applied:
        verdicts = [applied.verdict(verdict) for verdict in verdicts]
    found = choose(verdicts, settings, quiet.false_events_per_hour)
    judging = camera_profile.judging_of(verdicts)
    if not kept_windows.are_at(quiet.calibrate):  # which do not say it
        judging |= {"tta": config.tta, "skip_still": config.skip_still}
    camera_profile.write(save_to, found.profile(model_files.identity(model), settings, judging, applied))
    for line in found.described():
        log.info("%s", line)
    log.info("%s: give it as --profile %s", save_to, shlex.quote(str(save_to)))
    return {"profile": str(save_to), "calibration": found.figures(), "failures": failures}


def _judged(
    config: PredictConfig, footage: Path, output: Path | None
) -> tuple[list[Verdict], list[dict[str, str]]]:
    """The verdicts, and what could not be judged."""
    if kept_windows.are_at(footage):
        verdicts = batch.kept(footage, config)
        log.info(
            "%s: the windows that were kept of %d videos are taken, none is judged", footage, len(verdicts)
        )
        for verdict in verdicts:
            if verdict.warning:
                log.warning("%s: %s", verdict.path, verdict.warning)
        if footage.is_dir():
            _say_what_is_not_in(verdicts, footage)
        return verdicts, []
    found = batch.find_videos([footage])
    journal = verdict_journal.path_for(output) if output else None
    judged = [*found.failures, *batch.judge_all(found.videos, config, journal)]
    failures = [f.failure() for f in judged if isinstance(f, UnreadableVideo)]
    # a link is no other footage
    by_file = {v.real_path or v.path: v for v in judged if isinstance(v, Verdict)}
    return list(by_file.values()), failures


def _say_what_is_not_in(verdicts: Sequence[Verdict], folder: Path) -> None:
    """Log which videos below the folder have no kept windows: they do not count. Those that runs wrote are none."""
    judged = {os.path.realpath(verdict.path) for verdict in verdicts}
    # of those that were judged from another folder, or were moved, the name is all that is known
    names = {Path(verdict.path).name for verdict in verdicts if not Path(verdict.path).exists()}
    written_in = functools.cache(WrittenFiles)
    others = [
        video
        for video in sorted(VideoSearch().below(folder))
        if os.path.realpath(video) not in judged
        and video.name not in names
        and written_in(video.parent).source_of(video) is None
    ]
    if others:
        log.warning(
            "%d videos below %s are not among them, and do not count: %s%s. Judge them with --output first",
            len(others), folder, ", ".join(map(str, others[:_NAMED])), " ..." if others[_NAMED:] else "",
        )  # fmt: skip
