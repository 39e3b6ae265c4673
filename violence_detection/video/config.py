"""The settings of what is seen of a clip."""

from __future__ import annotations

from dataclasses import dataclass

from violence_detection.system.settings import BaseConfig, option

STREAMS = ("rgb", "motion", "crop", "moving")


@dataclass(frozen=True)
class ClipConfig(BaseConfig):
    """Which frames of a clip are looked at, and what is made of them. All of it changes the pictures."""

    streams: tuple[str, ...] = option(
        ("rgb", "motion"),
        "rgb (frames), motion (differences of successive frames), crop (frames, cut to where most moves), moving "
        "(frames without what stands still); a video backbone takes those of them that it knows, rgb if none",
    )
    frames: int = option(20, "frames that image backbones take of a clip, evenly spaced")
    window_s: float = option(5.0, "seconds a model sees at once; a longer clip is judged on its middle")
    motion_spacing_s: float = option(0.08, "seconds between the frames that motion subtracts")
    motion_gain: float = option(2.0, "factor on the absolute difference, clipped at 255")
    focus: float = option(
        0.0,
        "side of the crop around the strongest motion that every second variant and view shows, as a fraction "
        "of the picture's; 0: every one shows the whole picture",
    )
    augment_seed: int = option(0, "seed of the augmentation; cached variants of another seed are not reused")
    # Not for users: what a video backbone asks for. Its frames come in bursts, at evenly spaced moments.
    burst: int = 1
    burst_spacing_s: float = 0.0
    span_s: float = 0.0  # seconds in the middle of a window that it looks at; 0: all
