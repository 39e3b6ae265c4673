"""Settings for judging new videos, for making events, and for the files that are written."""

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
    """How events are made from the windows' probabilities; events.find_events documents the order of the steps.

    The terms are those of voice activity detection (pyannote's Binarize, faster-whisper's VadOptions). The defaults
    only join violent stretches that lie close together, so that the label of a video is that of its most violent
    window. For a video of one window only the threshold counts.
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
        2.5, "an event that begins within this many seconds of the end of the previous one continues it"
    )
    padding_s: float = option(0.0, "seconds added to an event at both ends")
    cooldown_s: float = option(0.0, "seconds after an event in which no other begins")

    def __post_init__(self) -> None:
        """Raise UserError for a setting that cannot work."""
        super().__post_init__()
        if self.offset is not None and self.has_threshold and self.offset > self.threshold:
            raise UserError(
                f"offset (--offset) must be from 0 to the threshold, {self.threshold:g}; above it an event would end "
                f"where it begins. Received: {self.offset}"
            )

    @property
    def has_threshold(self) -> bool:
        """Whether `threshold` is the one that applies, not that of an operating point or a camera profile."""
        return True

    @property
    def ends_below(self) -> float:
        """The offset: the given one, or by default the probability with half the odds of the threshold."""
        return self.threshold / (2 - self.threshold) if self.offset is None else self.offset

    def of_one_window(self) -> EventConfig:
        """The settings for a video of one window: the threshold and the offset, all others at their defaults."""
        return EventConfig(self.threshold, self.offset)

    def at(self, threshold: float) -> EventConfig:
        """Return the event settings alone, with this threshold.

        Raises UserError if a given offset is above it.
        """
        values = {f.name: getattr(self, f.name) for f in fields(EventConfig)}
        return EventConfig(**(values | {"threshold": threshold}))


@dataclass(frozen=True)
class PredictConfig(EventConfig, RuntimeConfig):
    """How new videos are judged. The sampling of frames and the length of a window come from the model itself."""

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
        "the model has one",
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
        """Raise UserError for a setting that cannot work."""
        super().__post_init__()
        self.check_one_threshold(self.threshold != DEFAULT_THRESHOLD, self.operating_point != BALANCED)

    def check_one_threshold(self, threshold: bool, operating_point: bool) -> None:
        """Raise UserError if a threshold is given together with a setting that has a threshold of its own.

        `threshold`, `operating_point`: whether each was given, even if with its default value.
        """
        if self.operating_point != BALANCED and threshold:
            raise UserError(
                f"threshold {self.threshold} and operating_point {self.operating_point} cannot be combined, because "
                "the operating point has a threshold of its own: give one of the two"
            )
        if self.profile and (threshold or operating_point):
            raise UserError(
                f"the camera profile {self.profile} has a threshold of its own: give it without threshold and "
                "operating_point"
            )

    @property
    def has_threshold(self) -> bool:
        """Whether `threshold` is the one that applies; see EventConfig."""
        return self.operating_point == BALANCED and self.profile is None


@dataclass(frozen=True)
class QuietConfig(BaseConfig):
    """Setting a camera's own threshold by its quiet footage."""

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
    """Adapting a model to one place by unlabelled footage of it."""

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
    """What is written besides the JSON line. prediction/outputs/ implements the formats."""

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
