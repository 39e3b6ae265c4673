"""What several runs of backbones see of each window of a video that is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from violence_detection.video import decode, pictures, sampling
from violence_detection.video.augment import Draw
from violence_detection.video.config import ClipConfig

#: Side of the whole picture, and of the larger one that the stream `crop` is cut from, 0 without; if it is letterboxed.
KeptAs: TypeAlias = tuple[int, int, bool]
#: What is kept of a decoded frame, for all who look at it.
Kept: TypeAlias = Mapping[KeptAs, Any]


@dataclass(frozen=True)
class Viewer:
    """How one run of backbones sees a video: the side of its pictures, and its settings."""

    size: int
    config: ClipConfig

    @property
    def kept_as(self) -> KeptAs:
        """The sizes and the shape at which it needs frames."""
        sides = pictures.frame_side(self.size, self.config), pictures.crop_side(self.size, self.config)
        return *sides, self.config.letterbox

    def draws(self, clip_id: str, variants: Sequence[str]) -> dict[str, Draw]:
        """The parameters of each variant."""
        return pictures.draws_of(clip_id, variants, self.config)


def keeper(viewers: Sequence[Viewer]) -> Callable[[np.ndarray], Kept]:
    """What is kept of a frame (H, W, 3) uint8: it is shrunk at once, so that memory stays small."""
    makers = {viewer.kept_as: pictures.keeper(viewer.size, viewer.config) for viewer in viewers}
    return lambda frame: {kept_as: make(frame) for kept_as, make in makers.items()}


class WindowPlan:
    """Which frames a window needs: for each viewer, and each of its variants, where they are."""

    def __init__(
        self,
        window: sampling.Window,
        info: decode.VideoInfo,
        viewers: Sequence[Viewer],
        draws: Sequence[Mapping[str, Draw]],
    ):
        self.window, self._viewers, self._draws = window, viewers, draws
        self._samplings = [
            {v: sampling.sample(info, window, d, viewer.config) for v, d in by_variant.items()}
            for viewer, by_variant in zip(viewers, draws, strict=True)
        ]
        self.frames = frozenset[int]().union(*(s.frames for by in self._samplings for s in by.values()))

    def seen(self, frames: Mapping[int, Kept]) -> SeenWindow:
        """The window with its frames, by number."""
        return SeenWindow(self.window, self._viewers, self._draws, self._samplings, frames)


class SeenWindow:
    """A window with the frames that it needs. Pictures are made when they are asked for, one view at a time."""

    def __init__(
        self,
        window: sampling.Window,
        viewers: Sequence[Viewer],
        draws: Sequence[Mapping[str, Draw]],
        samplings: Sequence[Mapping[str, sampling.Sampling]],
        frames: Mapping[int, Kept],
    ):
        self.window = window
        self._viewers, self._draws, self._samplings, self._frames = viewers, draws, samplings, frames
        self._whole: dict[int, pictures.Pictures] = {}

    def changed(self, change: Callable[[Mapping[int, Kept]], Mapping[int, Kept]]) -> SeenWindow:
        """The same window with other frames under the same numbers."""
        return SeenWindow(self.window, self._viewers, self._draws, self._samplings, change(self._frames))

    def whole_frames(self) -> Iterator[np.ndarray]:
        """All its frames as the viewer of the smallest ones has them, (F, F, 3) uint8, in no order.

        None of those that are letterboxed, where there are others.
        """
        smallest = min((viewer.kept_as for viewer in self._viewers), key=lambda kept: (kept[2], kept[:2]))
        return (pictures.whole_of(kept[smallest]) for kept in self._frames.values())

    def pictures(self, viewer: int, variant: str) -> dict[str, np.ndarray]:
        """What that viewer sees of it: {stream: (T, S, S, 3) uint8}."""
        size, config = self._viewers[viewer].size, self._viewers[viewer].config
        kept_as = self._viewers[viewer].kept_as
        frames = {number: kept[kept_as] for number, kept in self._frames.items()}
        if viewer not in self._whole:
            self._whole[viewer] = pictures.whole_pictures(frames, size)
        sample, draw = self._samplings[viewer][variant], self._draws[viewer][variant]
        return pictures.images(frames, sample, draw, size, config, self._whole[viewer])


def of_file(
    path: Path,
    info: decode.VideoInfo | decode.PacketTiming,
    windows: Sequence[sampling.Window],
    viewers: Sequence[Viewer],
    clip_id: str,
    variants: Sequence[str],
) -> Iterator[SeenWindow]:
    """The windows of a video file with what is seen of them: one decode, whatever the length and number of viewers.

    A window gets the images that the same stretch would get as a clip, but that the motion at its end may look on, into
    what follows it. Raises UnreadableVideo naming the file, and DecodesOtherwise as decode.read_groups does.
    """
    draws = [viewer.draws(clip_id, variants) for viewer in viewers]
    found = info.info if isinstance(info, decode.PacketTiming) else info
    plans: list[WindowPlan] = []  # those that are decoded, few at a time

    def groups() -> Iterator[frozenset[int]]:
        for window in windows:
            plans.append(WindowPlan(window, found, viewers, draws))
            yield plans[-1].frames

    for frames in decode.read_groups(path, info, groups(), keeper(viewers)):
        yield plans.pop(0).seen(frames)
