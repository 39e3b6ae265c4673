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
    """How events are made of the windows' probabilities. events.find_events says in which order.

    The terms are those of voice activity detection (pyannote's Binarize, faster-whisper's VadOptions). The
    defaults only join what flickers: a video gets the label of its most violent window. A video of one window is
    judged by its threshold alone.
    """

    HEADING: ClassVar[str] = "events"

    threshold: float = option(
        DEFAULT_THRESHOLD,
        "P(violent) from which a window counts as violent and an event begins (onset)",
        limits=Limits(most=1),
    )
    offset: float | None = option(
        None,
        "P(violent) below which an event ends. Default: half the odds of the threshold, 0.33 for 0.5",
        limits=Limits(most=1),
    )
    smoothing_s: float = option(
        0.0,
        "average P(violent) over windows whose middles lie in a span of this many seconds; 0: no smoothing",
    )
    min_duration_s: float = option(0.0, "leave out events shorter than this many seconds")
    merge_gap_s: float = option(
        2.5, "an event that begins within this many seconds of the end of the one before goes on with it"
    )
    padding_s: float = option(0.0, "seconds added to an event at both ends")
    cooldown_s: float = option(0.0, "seconds after an event in which no other begins")

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
    """How new videos are judged. The model itself says how frames are sampled and how long a window is."""

    HEADING: ClassVar[str] = "judging"

    model: Path | None = option(
        None,
        "ensemble folder, model folder, .safetensors or .keras file, or a model's name (accurate, fast, or one of your "
        "own). Default: ./models_ensemble if a model is in it, else accurate",
    )
    operating_point: str = option(
        BALANCED,
        "threshold to judge by, as stored with the model. balanced: that of --threshold",
        choices=OPERATING_POINTS,
    )
    stride_s: float = option(
        2.5,
        "seconds from one window to the next in a video longer than one window; at most a window",
        limits=Limits(above=0),
    )
    tta: int = option(
        1,
        "views of each window to average (test-time augmentation); 1: the plain window alone, and the closer look if "
        "the model takes one",
        limits=Limits(least=1, most=1000),
    )
    skip_still: bool = option(
        False,
        "do not judge windows in which nothing moves: their P(violent) is 0. For recordings and cameras of places "
        "where often nothing happens",
    )
    profile: Path | None = option(
        None,
        "camera profile with the camera's own threshold and calibration: a file that --save-profile wrote for this "
        "model",
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
        "set one camera's own threshold by its quiet footage, an hour or more in which nobody fights: a video, a "
        "folder of videos, or windows that a run with --output kept. The profile is written to --save-profile",
    )
    false_events_per_hour: float = option(
        1.0, "with --calibrate: rate of false events to aim at", limits=Limits(above=0)
    )


@dataclass(frozen=True)
class AdaptConfig(BaseConfig):
    """A model adapted to one place, from footage of it without labels."""

    HEADING: ClassVar[str] = "a model of its own for a place"

    adapt: Path | None = option(
        None,
        "adapt the model to one place by footage of it, without labels: a video, or a folder of videos. The adapted "
        "model is written to --save-model",
    )
    save_model: Path | None = option(
        None,
        "with --adapt: folder for the adapted model, for --model in later runs. It must not exist yet",
    )


@dataclass(frozen=True)
class OutputConfig(BaseConfig):
    """What is written besides the JSON line. The formats are those of prediction/outputs/."""

    HEADING: ClassVar[str] = "written files"

    format: tuple[str, ...] = option(
        (),
        "write the verdicts in these formats, comma separated: table, json, jsonl, csv, srt, edl. They go beside "
        "--output, or into it if it is a folder",
    )
    annotate: Path | None = option(
        None,
        "write each video into this folder with its score, verdict and a timeline below the picture (MP4)",
    )
    clips: Path | None = option(None, "write each event into this folder: a picture and a clip of it (MP4)")
    timeline: Path | None = option(
        None,
        "write a page (index.html) into this folder: each video with P(violent) over time and its events. There a "
        "person marks what is right, wrong and missed",
    )
    explain: Path | None = option(
        None,
        "write a picture of each event into this folder: which places and moments P(violent) rests on. The event's "
        "most violent window is judged 25 times for that",
    )
    explain_most: int = option(
        5,
        "with --explain: explain at most this many events of a video, the most violent ones",
        limits=Limits(least=1),
    )
    clip_margin_s: float = option(
        5.0, "with --clips: seconds that a clip shows before and after its event", limits=Limits(most=86400)
    )
