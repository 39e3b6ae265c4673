"""The settings of judging new videos, of events, and of what is written."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar

from violence_detection.backbones.config import RuntimeConfig
from violence_detection.constants import BALANCED, DEFAULT_THRESHOLD, OPERATING_POINTS
from violence_detection.errors import UserError
from violence_detection.system.settings import BaseConfig, Limits, option


@dataclass(frozen=True)
class EventConfig(BaseConfig):
    """How events are made of the windows' probabilities; see events.find_events for the order in which it is done.

    The terms are those of voice activity detection (pyannote's Binarize, faster-whisper's VadOptions). The defaults
    leave a video's label as its most violent window has it: they only join what flickers. A video of one window
    is judged by its threshold alone.
    """

    HEADING: ClassVar[str] = "events"

    threshold: float = option(
        DEFAULT_THRESHOLD,
        "P(violent) from which a window counts as violent: an event begins (onset)",
        limits=Limits(most=1),
    )
    offset: float | None = option(
        None,
        "P(violent) below which an event ends; default: half the odds of the threshold, 0.33 for 0.5",
        limits=Limits(most=1),
    )
    smoothing_s: float = option(
        0.0, "P(violent) is averaged over windows whose middles lie within so many seconds; 0: as it is"
    )
    min_duration_s: float = option(0.0, "shorter events are left out")
    merge_gap_s: float = option(2.5, "an event that begins so soon after the one before goes on with it")
    padding_s: float = option(0.0, "seconds added to an event at both ends")
    cooldown_s: float = option(0.0, "seconds behind an event in which no other begins")

    def __post_init__(self) -> None:
        """Raises UserError for a setting that cannot work."""
        super().__post_init__()
        if self.offset is not None and self.has_threshold and self.offset > self.threshold:
            raise UserError(
                f"offset must be from 0 to the threshold, {self.threshold:g}, or an event would end where it begins. "
                f"Received: {self.offset}"
            )

    @property
    def has_threshold(self) -> bool:
        """Whether the threshold is known, and not that of an operating point or a camera profile."""
        return True

    @property
    def ends_below(self) -> float:
        """The offset: the one given, else the probability with half the odds of the threshold."""
        return self.threshold / (2 - self.threshold) if self.offset is None else self.offset

    def of_one_window(self) -> EventConfig:
        """What decides on a video of one window: its thresholds alone."""
        return EventConfig(self.threshold, self.offset)

    def at(self, threshold: float) -> EventConfig:
        """The settings of events alone, with the threshold of an operating point.

        Raises UserError where the offset that was given lies above it.
        """
        values = {f.name: getattr(self, f.name) for f in fields(EventConfig)}
        return EventConfig(**(values | {"threshold": threshold}))


@dataclass(frozen=True)
class PredictConfig(EventConfig, RuntimeConfig):
    """How new videos are judged. Sampling and window length are the model's own."""

    HEADING: ClassVar[str] = "judging"

    model: Path | None = option(
        None,
        "ensemble folder, model folder, .safetensors or .keras file, or a name of list_models(), such as accurate "
        "(default: ./models_ensemble where there is one, else accurate)",
    )
    operating_point: str = option(
        BALANCED,
        "whose threshold the model has stored; balanced: that of --threshold",
        choices=OPERATING_POINTS,
    )
    stride_s: float = option(
        2.5,
        "seconds from one window to the next in a video longer than one window; at most a window",
        limits=Limits(above=0),
    )
    tta: int = option(
        1,
        "views of each window that are averaged; 1 is the plain window alone, and the closer look of models that take "
        "one",
        limits=Limits(least=1, most=1000),
    )
    skip_still: bool = option(
        False,
        "no network looks at windows in which nothing moves: their P(violent) is 0. For recordings and cameras of "
        "places where often nothing happens",
    )
    profile: Path | None = option(
        None, "the camera's own threshold and calibration: a file that --save-profile wrote for this model"
    )

    def __post_init__(self) -> None:
        """Raises UserError for a setting that cannot work."""
        super().__post_init__()
        self.check_one_threshold(self.threshold != DEFAULT_THRESHOLD, self.operating_point != BALANCED)

    def check_one_threshold(self, threshold: bool, operating_point: bool) -> None:
        """Raise UserError where one of the two is given, whatever its value, beside what has a threshold of its own."""
        if self.operating_point != BALANCED and threshold:
            raise UserError(
                f"threshold {self.threshold} and operating_point {self.operating_point}, which has one of its own: "
                "give one of the two"
            )
        if self.profile and (threshold or operating_point):
            raise UserError(
                f"the camera profile {self.profile} has a threshold of its own: give it without threshold and "
                "operating_point"
            )

    @property
    def has_threshold(self) -> bool:
        """See EventConfig."""
        return self.operating_point == BALANCED and self.profile is None


@dataclass(frozen=True)
class QuietConfig(BaseConfig):
    """A camera's own threshold from its quiet footage."""

    HEADING: ClassVar[str] = "a camera's own threshold"

    calibrate: Path | None = option(
        None,
        "footage of one camera in which nobody fights, an hour or more: a video, a folder of them, or windows that a "
        "run with --output kept; its own threshold is written to --save-profile",
    )
    false_events_per_hour: float = option(
        1.0, "the rate of false events that --calibrate aims at", limits=Limits(above=0)
    )


@dataclass(frozen=True)
class AdaptConfig(BaseConfig):
    """A model of its own for a place, from footage without labels."""

    HEADING: ClassVar[str] = "a model of its own for a place"

    adapt: Path | None = option(
        None,
        "footage of one place, without labels: a video, or a folder of them; a model that is adapted to it is written "
        "to --save-model",
    )
    save_model: Path | None = option(
        None,
        "where the model of --adapt is written: a folder that is not there yet, for --model in later runs",
    )


@dataclass(frozen=True)
class OutputConfig(BaseConfig):
    """What is made of the verdicts besides the JSON line. The names of formats are those of prediction/outputs/."""

    HEADING: ClassVar[str] = "written files"

    format: tuple[str, ...] = option(
        (),
        "write the verdicts beside --output, or into it where it is a folder: table, json, jsonl, csv, srt, edl; any "
        "number of them, comma separated",
    )
    annotate: Path | None = option(
        None, "write each video into this folder with its score, verdict and a timeline at the bottom (MP4)"
    )
    clips: Path | None = option(None, "write each event into this folder: a picture of it and the clip (MP4)")
    timeline: Path | None = option(
        None,
        "write a page into this folder (index.html) with each video, P(violent) over time and its events, where a "
        "person marks what is right, wrong and missed",
    )
    explain: Path | None = option(
        None,
        "write a picture of each event into this folder: which places and moments P(violent) rests on. Judges its most "
        "violent window 25 times",
    )
    explain_most: int = option(
        5, "events of a video that are explained, the most violent ones", limits=Limits(least=1)
    )
    clip_margin_s: float = option(
        5.0, "seconds before and after the event that such a clip has", limits=Limits(most=86400)
    )
