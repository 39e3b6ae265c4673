"""A camera's own threshold, chosen on footage of the camera in which nobody fights.

All events that a threshold leaves in quiet footage are false. If k of them are left in T hours, and the threshold lies
just above the next highest peak, the rate of false events an hour is distributed as Gamma(k + 1) / T, whatever the
distribution of the probabilities (the spacings of a Poisson process). Its mean is (k + 1) / T; with 95 % certainty the
rate is at most the 0.95 quantile, which for k = 0 is 3 / T (Hanley & Lippman-Hand 1983, "If Nothing Goes Wrong, Is
Everything All Right?"). T hours can therefore show no rate below 1 / T, and nothing is extrapolated beyond them.
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
#: -log(0.05), rounded: T hours without an event exclude a rate of this / T an hour, with 95 % certainty.
_RULE_OF_THREE = 3.0
#: A threshold lies this much, the last digit of probabilities, above the peak that it excludes.
_DIGIT = 1e-4
#: How many events of the footage are listed, the most violent first.
_SHOWN = 5
_PEAK_DIGITS = 4
_NAMED = 3


@dataclass(frozen=True)
class QuietThreshold:
    """A threshold, the false events that it leaves in the quiet footage, and the rate that this promises.

    `hours`, `n_videos`: how much footage was judged. `asked_per_hour`: the rate of false events asked for.
    `false_events`: those left by `threshold`. `before`: the threshold the run began from, `false_events_before`: the
    events that it finds, `loudest`: the most violent of these, each with its video's path. `early_exit`: as the footage
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
        """Expected number of false events an hour in other footage like this."""
        return (self.false_events + 1) / self.hours

    @property
    def at_most_per_hour(self) -> float:
        """Upper bound of the false events an hour, with 95 % certainty."""
        from scipy.stats import gamma

        return float(gamma.ppf(_CONFIDENCE, self.false_events + 1)) / self.hours

    @property
    def shows_asked(self) -> bool:
        """Whether the expected rate is at most the one asked for: the footage is long enough and quiet enough."""
        return self.expected_per_hour <= self.asked_per_hour

    def described(self) -> list[str]:
        """Describe the result to people, a sentence per line."""
        changed = "stays" if self.threshold == self.before else f"rises from {self.before:g} to"
        lines = [
            f"the threshold {changed} {self.threshold:g}: in {self.hours:.3g} h of quiet footage it leaves "
            f"{self.false_events} false events, where {self.before:g} leaves {self.false_events_before}",
            f"expect {_figure(self.expected_per_hour)} false events an hour, with 95 % certainty at most "
            f"{_figure(self.at_most_per_hour)}, in hours like these; other light, weather or crowds may give more",
        ]
        if not self.shows_asked and self.false_events == 0:
            shown_h, certain_h = 1 / self.asked_per_hour, _RULE_OF_THREE / self.asked_per_hour
            lines.append(
                f"{self.asked_per_hour:g} an hour was asked for. It takes at least {_figure(shown_h)} h of quiet "
                f"footage to show that, and {_figure(certain_h)} h to be 95 % certain"
            )
        elif not self.shows_asked:
            lines.append(
                f"{self.asked_per_hour:g} an hour was asked for: no threshold achieves that in this footage"
            )
        if self.loudest:
            lines.append(
                "the most violent events; if one of them is a fight, remove that footage and calibrate again:"
            )
            lines += [
                f"  {path}  {e.start_s:.1f}-{e.end_s:.1f} s  {number(e.p_violent)}"
                for path, e in self.loudest
            ]
        return lines

    def figures(self) -> dict[str, Any]:
        """Return the figures as they stand in the profile and in the summary."""
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
        """Make the camera's profile. `model`: the model's identity; `applied`: the profile used in judging."""
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
    """Format a rate or a duration: three significant digits, from 1,000 on whole numbers."""
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"


def choose(verdicts: Sequence[Verdict], settings: EventConfig, asked_per_hour: float) -> QuietThreshold:
    """Choose the lowest threshold that is expected to give at most `asked_per_hour` false events an hour.

    `verdicts`: of footage in which nobody fights. Thresholds are tried from just above the highest peak downwards until
    one leaves too many events. If the footage is too short to show the rate, none may be left; if even the highest
    threshold leaves too many, it is chosen. The threshold of `settings` is never lowered, as quiet footage says nothing
    of the fights that a threshold finds. Raises UserError if there is no footage.
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
    """Yield thresholds just above each P(violent) that reaches that of `settings`, highest first; then that one."""
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
    """Judge the quiet footage, or read its kept windows, and write the camera's profile to `save_to`.

    `output`: a file beside which verdicts are kept as they come, so that a stopped run can go on, and beside which the
    failures are listed. Returns the summary {profile, calibration, failures}. Raises UserError if there is nothing to
    judge, if kept windows are given without the model that judged them, if `output` lies in the footage's folder, and
    if `save_to`, `output` or the list of failures would replace a file of another kind.
    """
    assert quiet.calibrate is not None
    if config.model is None and kept_windows.are_at(quiet.calibrate):
        raise UserError(f"{quiet.calibrate} holds kept windows: name the --model that judged them")
    camera_profile.check_place(save_to, "--save-profile")
    if output and output.resolve().is_relative_to(quiet.calibrate.resolve()):
        raise UserError(
            f"--output {output} is in {quiet.calibrate}: the next run would read the windows kept there instead of "
            "judging all of the footage. Name a place outside that folder"
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
    if not kept_windows.are_at(quiet.calibrate):  # kept windows do not tell these settings
        judging |= {"tta": config.tta, "skip_still": config.skip_still}
    camera_profile.write(save_to, found.profile(model_files.identity(model), settings, judging, applied))
    for line in found.described():
        log.info("%s", line)
    log.info("wrote %s: use it with --profile %s", save_to, shlex.quote(str(save_to)))
    return {"profile": str(save_to), "calibration": found.figures(), "failures": failures}


def _judged(
    config: PredictConfig, footage: Path, output: Path | None
) -> tuple[list[Verdict], list[dict[str, str]]]:
    """Return the verdicts and the failures."""
    if kept_windows.are_at(footage):
        verdicts = batch.kept(footage, config)
        log.info("%s: using the kept windows of %d videos; no video is judged", footage, len(verdicts))
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
    # a link to a video must not count as more footage
    by_file = {v.real_path or v.path: v for v in judged if isinstance(v, Verdict)}
    return list(by_file.values()), failures


def _say_what_is_not_in(verdicts: Sequence[Verdict], folder: Path) -> None:
    """Warn of videos below the folder that have no kept windows and so do not count, except those that a run wrote."""
    judged = {os.path.realpath(verdict.path) for verdict in verdicts}
    # of videos that were judged from another folder, or moved since, only the name can be compared
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
            "%d videos below %s have no kept windows and do not count: %s%s. Judge them with --output first",
            len(others), folder, ", ".join(map(str, others[:_NAMED])), " ..." if others[_NAMED:] else "",
        )  # fmt: skip
