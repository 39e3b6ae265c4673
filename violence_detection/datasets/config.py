"""Settings of one's own clips: --own and --labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from violence_detection.system.settings import BaseConfig, option


@dataclass(frozen=True)
class OwnClipsConfig(BaseConfig):
    """One's own clips, and what their folders or labels mean. See docs/guides/own_clips.md."""

    HEADING: ClassVar[str] = "own clips"

    own: tuple[str, ...] = option(
        (),
        "your own clips, under this name: a folder with a folder for each class, or a CSV file. May be given several "
        "times",
        many="append",
        shown_as="NAME=PATH",
    )
    labels: tuple[str, ...] = option(
        (),
        "what the folders or labels of your own clips mean if they are not called fight or nonfight: fight=NAME[,NAME] "
        "nonfight=NAME[,NAME]",
        many="words",
        shown_as="CLASS=NAME",
    )
