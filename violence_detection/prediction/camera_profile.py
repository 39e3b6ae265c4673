"""Camera profiles: a threshold and a logit offset for one camera and one model, in a small JSON file.

`--learn` makes one from a user's marks, `--calibrate` from quiet footage; `--save-profile FILE` says where it is
written, and `--profile FILE` applies it in later runs. Windows store the model's own probability beside the one that
the profile makes of it. So a profile can be applied to the stored windows of any run, and replaces the profile that was
applied before.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from violence_detection.constants import EARLY_EXIT_KEY
from violence_detection.errors import DamagedFile, UserError
from violence_detection.prediction.config import EventConfig, PredictConfig
from violence_detection.prediction.events import JudgedWindow, Verdict
from violence_detection.system import disks, own_files, storage
from violence_detection.video import video_files

log = logging.getLogger(__name__)

FORMAT, VERSION = "violence-detection camera profile", 1
#: Largest logit offset, in either direction. It takes P 0.5 to 0.9999999979; a larger one can only be a mistake.
MOST_OFFSET = 20.0
#: Added to probabilities before the logarithm, which is infinite at 0.
_TINY = 1e-12
#: Strides that differ by no more than this are the same: times of windows are rounded to hundredths of a second.
_SAME_STRIDE_S = 0.02
_TABLES = ("made_from", "figures", "events", "judging")
_KEYS = frozenset(
    (
        "format",
        "version",
        "model",
        "threshold",
        "logit_offset",
        "made_from",
        "figures",
        "events",
        "judging",
        "created",
        "early_exit",
    )
)


@dataclass(frozen=True)
class CameraProfile:
    """How the probabilities of one model are interpreted for one camera.

    `model`: model_files.identity of the model; the profile is refused for any other. `logit_offset`: added to the logit
    of each P(violent). `threshold`: the probability, after the offset, from which an event begins. `made_from`: {what:
    "marks" or "quiet footage", ...} and how much of it. `figures`: what was measured with the profile, and how.
    `events`: the other event settings with which it was measured. `judging`: how the windows were made on which it was
    measured, see judging_of; what is not known is left out. `created`: ISO time. `early_exit`: whether the
    probabilities were made with the model's early exit, if it has one; the profile applies only to such probabilities.

    Raises ValueError if no model is named, or for a value outside its range.
    """

    model: str
    threshold: float
    logit_offset: float = 0.0
    made_from: Mapping[str, Any] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    events: Mapping[str, Any] = field(default_factory=dict)
    judging: Mapping[str, Any] = field(default_factory=dict)
    created: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    early_exit: bool = True

    def __post_init__(self) -> None:
        if not self.model or not isinstance(self.model, str):
            raise ValueError("no model is named")
        if not isinstance(self.early_exit, bool):
            raise ValueError(f"early_exit must be true or false, not {self.early_exit!r}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold {self.threshold} is not between 0 and 1")
        if not abs(self.logit_offset) <= MOST_OFFSET:
            raise ValueError(f"logit_offset {self.logit_offset} is not within {MOST_OFFSET:g} of 0")

    @property
    def name(self) -> str:
        """A hash of everything in the profile that changes verdicts."""
        with_exit = [] if self.early_exit else [EARLY_EXIT_KEY]
        return storage.stable_hash([self.model, self.threshold, self.logit_offset, *with_exit])

    def probability(self, p: float) -> float:
        """Return P(violent) for this camera, given the model's P(violent), in [0, 1]."""
        return shifted(p, self.logit_offset)

    def window(self, window: JudgedWindow) -> JudgedWindow:
        """Return the window with the camera's P(violent), and the model's own in `p_model` if there is an offset.

        A still window is returned as it is, with P(violent) 0.
        """
        p = window.p_judged
        if window.still:
            return window
        if self.logit_offset == 0:
            return JudgedWindow(window.start_s, window.end_s, p)
        return JudgedWindow(window.start_s, window.end_s, round(self.probability(p), 4), p)

    def settings(self, settings: EventConfig) -> EventConfig:
        """Return the event settings with the profile's threshold.

        Raises UserError if `settings` has an offset above that threshold.
        """
        return settings.at(self.threshold)

    def warn_of_other(self, judging: Mapping[str, Any], path: Path) -> None:
        """Log how `judging` (see judging_of) differs from the windows on which the profile was measured, if it does."""
        changed = [
            f"{name} {was}, now {judging[name]}"
            for name, was in self.judging.items()
            if name in judging and abs(judging[name] - was) > _SAME_STRIDE_S
        ]
        if changed:
            log.warning(
                "%s was measured on windows that were judged with other settings (%s): its figures, such as the false "
                "events an hour, do not apply to these windows",
                path, "; ".join(changed),
            )  # fmt: skip

    def verdict(self, verdict: Verdict) -> Verdict:
        """Return the verdict for this camera. It replaces any profile that was applied before."""
        windows = tuple(map(self.window, verdict.windows))
        return dataclasses.replace(
            verdict, windows=windows, events_by=self.settings(verdict.events_by), profile=self.name
        )


def shifted(p: float, offset: float) -> float:
    """Return the probability whose logit is that of `p` plus `offset`; exactly `p` if the offset is 0."""
    if offset == 0:
        return p
    logit = math.log(p + _TINY) - math.log(1 - p + _TINY) + offset
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def other_settings(settings: EventConfig) -> dict[str, Any]:
    """Return the event settings that a profile does not decide: all but the threshold."""
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(EventConfig)}
    return {name: value for name, value in values.items() if name != "threshold"}


def judging_of(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """Infer from windows how they were judged, under the names that PredictConfig has for it.

    `stride_s`: the median time from one window's start to the next; missing if every video has only one window.
    `skip_still`: True if any window is still; missing otherwise.
    """
    windows = [verdict.windows for verdict in verdicts]
    apart_s = [
        after.start_s - before.start_s for some in windows for before, after in itertools.pairwise(some)
    ]
    return {
        **({"stride_s": round(statistics.median(apart_s), 2)} if apart_s else {}),
        **({"skip_still": True} if any(window.still for some in windows for window in some) else {}),
    }


def check_place(path: Path, flag: str) -> None:
    """Raise UserError if a profile cannot be written to `path`, or would replace a file that is not a profile.

    `flag` names the path in the message. Meant to be called before the work whose result is written there.
    """
    remedy = f"Name another file for {flag}, with the suffix .json"
    if path.suffix.lower() in video_files.VIDEO_SUFFIXES:
        raise UserError(f"{flag} {path} has the name of a video. {remedy}")
    own_files.check_file(
        path,
        flag,
        "a camera profile",
        lambda found: own_files.json_object(found).get("format") == FORMAT,
        remedy,
    )
    disks.check_can_write(path.absolute().parent, flag)


def write(path: Path, profile: CameraProfile) -> None:
    """Write the profile atomically, as JSON."""
    storage.write_json(path, {"format": FORMAT, "version": VERSION, **asdict(profile)})


def read(path: Path) -> CameraProfile:
    """Read a profile. Raises UserError if there is no file, and DamagedFile if it is not a profile or is damaged."""
    if not path.is_file():
        raise UserError(
            f"no camera profile at {path}. --learn MARKS and --calibrate FOOTAGE make one, with --save-profile {path}"
        )
    stored = storage.read_json(path)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise DamagedFile(f"{path} is not a camera profile. Give a file that --save-profile wrote")
    if stored.get("version") != VERSION:
        raise DamagedFile(
            f"{path} is a camera profile of format version {stored.get('version')!r}, but this package reads only "
            f"version {VERSION}. Make it again, or use the version of the package that made it"
        )
    values = {name: value for name, value in stored.items() if name in _KEYS - {"format", "version"}}
    try:
        if not all(isinstance(values.get(name, {}), dict) for name in _TABLES):
            raise TypeError(f"{', '.join(_TABLES)} must be JSON objects")
        if not all(isinstance(value, int | float) for value in values.get("judging", {}).values()):
            raise TypeError("the values in judging must be numbers, true or false")
        for name in ("threshold", "logit_offset"):
            if not isinstance(values[name], int | float) or isinstance(values[name], bool):
                raise TypeError(f"{name} must be a number")
        return CameraProfile(**values)
    except (KeyError, TypeError, ValueError) as e:
        raise DamagedFile(
            f"{path} is a damaged camera profile ({type(e).__name__}: {e}). Make it again"
        ) from e


def read_for(path: Path, model: Path, settings: EventConfig) -> CameraProfile:
    """Read a profile that is to be used with the model at `model` and these event settings.

    Raises UserError, besides what `read` raises, if it was made for another model. If it was measured with other event
    settings, that is logged.
    """
    from violence_detection.models import model_files  # not needed by those who only read profiles

    profile = read(path)
    if profile.model != model_files.identity(model):
        raise UserError(
            f"{path} was made for another model than {model}, so its threshold does not apply. Name the model that it "
            "was made with, or make a profile for this one (--learn, --calibrate)"
        )
    now = other_settings(settings)
    changed = [f"{k} {v}, now {now[k]}" for k, v in profile.events.items() if k in now and now[k] != v]
    if changed:
        log.warning("%s was measured with other event settings: %s", path, "; ".join(changed))
    return profile


def leaves_out_exit(config: PredictConfig) -> bool:
    """Return whether the profile, operating point or threshold of these settings turns off the model's early exit.

    Raises UserError if there is no such model or profile.
    """
    # not needed by those who only read profiles
    from violence_detection.models import calibration, model_files, shipped

    if config.profile:
        return not read(config.profile).early_exit
    model = shipped.find(config.model)
    return calibration.read(model).leaves_out(
        model_files.early_exit(model), config.operating_point, config.threshold
    )
