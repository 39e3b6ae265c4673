"""Settings of what networks see of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from violence_detection.system.settings import BaseConfig, Limits, option

STREAMS = ("rgb", "motion", "crop", "moving")


@dataclass(frozen=True)
class ClipConfig(BaseConfig):
    """Which frames of a clip networks see, and which streams are made of them. Each setting changes the pictures."""

    HEADING: ClassVar[str] = "features"

    streams: tuple[str, ...] = option(
        ("rgb", "motion"),
        "what is made of the frames, comma separated: rgb (the frames), motion (differences of successive frames), "
        "crop (the frames cut to where most moves), moving (the frames without what stands still). A video backbone "
        "takes those of them that it knows, rgb if none",
    )
    frames: int = option(
        20, "frames that image backbones take of a clip, evenly spaced", limits=Limits(least=2, most=1000)
    )
    window_s: float = option(
        5.0,
        "seconds that a model sees at once. A longer clip is judged on its middle",
        limits=Limits(least=0.01, most=3600),
    )
    motion_spacing_s: float = option(
        0.08, "stream motion: seconds between the frames that it subtracts", limits=Limits(above=0, most=3600)
    )
    motion_gain: float = option(
        2.0,
        "stream motion: factor on the absolute difference, clipped at 255",
        limits=Limits(above=0, most=1000),
    )
    focus: float = option(
        0.0,
        "side of the crop around the strongest motion, as a fraction of the picture's, 0.25 to 0.9. Every second "
        "variant and view shows this crop; 0: all show the whole picture. Not with the stream crop",
        limits=Limits(most=0.9),
    )
    augment_seed: int = option(
        0,
        "seed of the augmentation. Cached variants of another seed are not reused",
        limits=Limits(least=-(2**63), most=2**63),
    )
    # The rest are not options: video backbones set them.
    # frames of a burst, and seconds between them; bursts come at evenly spaced moments
    burst: int = 1
    burst_spacing_s: float = 0.0
    # seconds of a window that are looked at, in its middle except in some test-time views; 0: all
    span_s: float = 0.0
    # whether pictures keep their shape, with black beside them
    letterbox: bool = False
