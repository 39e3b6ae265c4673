"""What one camera needs of a model: its own threshold, and an offset of the logit; a small JSON file.

`--learn` makes one of a user's marks, `--calibrate` of quiet footage; `--save-profile FILE` says where it is written,
and `--profile FILE` applies it in later runs. Windows keep what the model said beside what the profile makes of it, so
that a profile may be applied to what was kept of any run, once, whatever was applied before.
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
#: Such an offset takes P 0.5 to 0.9999999979; what is beyond is a mistake.
MOST_OFFSET = 20.0
_TINY = 1e-12
#: Times of windows have two digits.
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
    """How the probabilities of one model are read for one camera.

    `model`: model_files.identity of the model that judged; the profile of another is refused. `logit_offset`: added to
    the logit of each P(violent). `threshold`: of the probability that then comes out, from which an event begins.
    `made_from`: {what: "marks" or "quiet footage", ...} and how much of it. `figures`: what was measured of it, and
    how. `events`: the other settings of events with which it was measured. `judging`: how the windows were made that it
    was measured on, see judging_of; what nobody knows is not in it. `created`: ISO time. `early_exit`: whether
    the probabilities were with the model's early exit, if it has one; the profile is applied to such alone.

    Raises ValueError for numbers that cannot be.
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
            raise ValueError(f"early_exit {self.early_exit!r} is neither true nor false")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold {self.threshold} is none")
        if not abs(self.logit_offset) <= MOST_OFFSET:
            raise ValueError(f"logit_offset {self.logit_offset} is not within {MOST_OFFSET:g} of 0")

    @property
    def name(self) -> str:
        """What tells it from others: a hash of all that changes verdicts."""
        with_exit = [] if self.early_exit else [EARLY_EXIT_KEY]
        return storage.stable_hash([self.model, self.threshold, self.logit_offset, *with_exit])

    def probability(self, p: float) -> float:
        """What it makes of the model's P(violent) in [0, 1]."""
        return shifted(p, self.logit_offset)

    def window(self, window: JudgedWindow) -> JudgedWindow:
        """The window with the camera's probability; what the model said is kept in `p_model`. A still one stays 0."""
        p = window.p_judged
        if window.still:
            return window
        if self.logit_offset == 0:
            return JudgedWindow(window.start_s, window.end_s, p)
        return JudgedWindow(window.start_s, window.end_s, round(self.probability(p), 4), p)

    def settings(self, settings: EventConfig) -> EventConfig:
        """The settings of events with its threshold.

        Raises UserError where the offset that was given lies above it.
        """
        return settings.at(self.threshold)

    def warn_of_other(self, judging: Mapping[str, Any], path: Path) -> None:
        """Log where windows are made otherwise than those that it was measured on. `judging`: see judging_of."""
        changed = [
            f"{name} {was}, now {judging[name]}"
            for name, was in self.judging.items()
            if name in judging and abs(judging[name] - was) > _SAME_STRIDE_S
        ]
        if changed:
            log.warning(
                "%s was measured on windows that were judged otherwise (%s): its figures, such as the false events an "
                "hour, are not of these",
                path, "; ".join(changed),
            )  # fmt: skip

    def verdict(self, verdict: Verdict) -> Verdict:
        """The verdict as it is for this camera, whatever profile was applied before."""
        windows = tuple(map(self.window, verdict.windows))
        return dataclasses.replace(
            verdict, windows=windows, events_by=self.settings(verdict.events_by), profile=self.name
        )


def shifted(p: float, offset: float) -> float:
    """The probability whose logit is that of `p` plus `offset`; `p` itself where that is 0."""
    if offset == 0:
        return p
    logit = math.log(p + _TINY) - math.log(1 - p + _TINY) + offset
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def other_settings(settings: EventConfig) -> dict[str, Any]:
    """What of the settings of events a profile does not decide: all but the threshold."""
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(EventConfig)}
    return {name: value for name, value in values.items() if name != "threshold"}


def judging_of(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """What windows tell of how they were made, as PredictConfig has it: `stride_s`, and `skip_still` where some are.

    Of videos of one window nobody knows the stride.
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
    """Raise UserError where a profile cannot be written, or would replace what is none. To be asked before the work."""
    remedy = f"{flag} takes a .json file"
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
    """Write the file, whole or not at all."""
    storage.write_json(path, {"format": FORMAT, "version": VERSION, **asdict(profile)})


def read(path: Path) -> CameraProfile:
    """Read such a file. Raises UserError where there is none, and DamagedFile for one that is none."""
    if not path.is_file():
        raise UserError(
            f"no camera profile at {path}. --learn MARKS and --calibrate FOOTAGE make one, with --save-profile {path}"
        )
    stored = storage.read_json(path)
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise DamagedFile(f"{path} is no camera profile, as --save-profile writes it")
    if stored.get("version") != VERSION:
        raise DamagedFile(
            f"{path} is a camera profile of version {stored.get('version')!r}; this package reads {VERSION}. Make it "
            "again, or use the version that made it"
        )
    values = {name: value for name, value in stored.items() if name in _KEYS - {"format", "version"}}
    try:
        if not all(isinstance(values.get(name, {}), dict) for name in _TABLES):
            raise TypeError(f"{', '.join(_TABLES)} are tables")
        if not all(isinstance(value, int | float) for value in values.get("judging", {}).values()):
            raise TypeError("judging holds numbers, true and false")
        for name in ("threshold", "logit_offset"):
            if not isinstance(values[name], int | float) or isinstance(values[name], bool):
                raise TypeError(f"{name} is a number")
        return CameraProfile(**values)
    except (KeyError, TypeError, ValueError) as e:
        raise DamagedFile(
            f"{path} is a damaged camera profile ({type(e).__name__}: {e}). Make it again"
        ) from e


def read_for(path: Path, model: Path, settings: EventConfig) -> CameraProfile:
    """The profile of that file, for the model that lies there and the settings of events of now.

    Raises UserError where it was made for another model: its numbers say nothing of this one. Where it was measured
    with other settings of events, that is logged.
    """
    from violence_detection.models import model_files  # who only reads profiles needs none

    profile = read(path)
    if profile.model != model_files.identity(model):
        raise UserError(
            f"{path} was made for another model than {model}: its threshold says nothing of this one. Name the model "
            "that it was made with, or make a profile for this one (--learn, --calibrate)"
        )
    now = other_settings(settings)
    changed = [f"{k} {v}, now {now[k]}" for k, v in profile.events.items() if k in now and now[k] != v]
    if changed:
        log.warning("%s was measured with other settings of events: %s", path, "; ".join(changed))
    return profile


def leaves_out_exit(config: PredictConfig) -> bool:
    """Whether the model's early exit is not taken with these settings: by their profile, operating point or threshold.

    Raises UserError where there is no such model or profile.
    """
    # who only reads profiles needs none
    from violence_detection.models import calibration, model_files, shipped

    if config.profile:
        return not read(config.profile).early_exit
    model = shipped.find(config.model)
    return calibration.read(model).leaves_out(
        model_files.early_exit(model), config.operating_point, config.threshold
    )
