"""What several runs of backbones see of each window of a video that is decoded once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from violence_detection.video import decode, pictures, sampling
from violence_detection.video.augment import CLOSER, Draw
from violence_detection.video.config import ClipConfig
from violence_detection.video.focus import CLOSER_GREY, Square

#: Side of the whole picture, and of the larger one that the stream `crop` is cut from, 0 without; if it is letterboxed.
KeptAs: TypeAlias = tuple[int, int, bool]
#: What is kept of a decoded frame, for all who look at it.
Kept: TypeAlias = Mapping[KeptAs, Any]
#: Where a frame stands that is kept for a closer look, in its own shape: a pictures.NearFrame.
NEAR: KeptAs = (0, 0, False)
#: Asked for of a frame in which cuts are looked for: the smallest there is will do.
COMPARED: KeptAs = (1, 0, False)
#: A size at which frames are often kept anyway: what a closer look goes by.
_AS_CLOSER: KeptAs = (CLOSER_GREY, 0, False)


@dataclass(frozen=True)
class Viewer:
    """How one run of backbones sees a video: the side of its pictures, its settings, whether it takes a closer look.

    `one_shot`: of a window of a longer video that was cut it sees one shot.
    """

    size: int
    config: ClipConfig
    closer_look: bool = False
    one_shot: bool = True

    @property
    def kept_as(self) -> KeptAs:
        """The sizes and the shape at which it needs frames."""
        sides = pictures.frame_side(self.size, self.config), pictures.crop_side(self.size, self.config)
        return *sides, self.config.letterbox

    def draws(self, clip_id: str, variants: Sequence[str]) -> dict[str, Draw]:
        """The parameters of each variant."""
        return pictures.draws_of(clip_id, variants, self.config)


def keeper(viewers: Sequence[Viewer], to_change: bool = False) -> Callable[..., Kept]:
    """What is kept of a frame (H, W, 3) uint8: it is shrunk at once, so that memory stays small.

    One that a closer look keeps as it is, is shrunk when somebody asks, but with `to_change`: then it is there in all
    sizes. What is returned takes a frame and, where it is known, in which sizes it will be asked for: few frames are
    looked at by all viewers. The smallest is always there.
    """
    makers = {viewer.kept_as: pictures.keeper(viewer.size, viewer.config) for viewer in viewers}
    always = _plainest(viewers)
    looks_closer = any(viewer.closer_look for viewer in viewers)

    def keep(frame: np.ndarray, asked: Collection[KeptAs] | None = None) -> Kept:
        side = max(frame.shape[:2])
        if looks_closer and side <= pictures.NEAR_SIDE and not to_change:
            return _Whole(frame, makers)
        # of a large frame halving is most of the work, and all begin with it
        half = pictures.halved(frame) if looks_closer and side >= 2 * pictures.NEAR_SIDE else None
        kept: dict[KeptAs, Any] = {
            kept_as: makers[kept_as](frame, half)
            for kept_as in (makers if asked is None else {*asked, always} - {COMPARED})
        }
        if looks_closer and (asked is None or set(asked) != {COMPARED}):
            kept[NEAR] = pictures.NearFrame(frame, kept.get(_AS_CLOSER), half)
        return kept

    return keep


class _Whole(dict[KeptAs, Any]):
    """What is kept of a frame that is kept as it is: each size is made when somebody asks.

    Most frames of a quiet camera nobody asks for in most sizes.
    """

    def __init__(self, frame: np.ndarray, makers: Mapping[KeptAs, Callable[..., Any]]):
        self._frame, self._makers = frame, makers

    def __missing__(self, kept_as: KeptAs) -> Any:
        if kept_as == NEAR:
            small = self[_AS_CLOSER] if _AS_CLOSER in self._makers else None
            made: Any = pictures.NearFrame(self._frame, small)
        else:
            made = self._makers[kept_as](self._frame)
        self[kept_as] = made
        return made


def _plainest(viewers: Sequence[Viewer]) -> KeptAs:
    """How the viewer of the smallest frames has them; of those that are not letterboxed, where there are such."""
    return min((viewer.kept_as for viewer in viewers), key=lambda kept: (kept[2], kept[:2]))


class WindowPlan:
    """Which frames a window needs: for each viewer, and each of its variants, where they are.

    A window of a longer video needs frames besides in which cuts are looked for, if any viewer keeps to one shot.
    """

    def __init__(
        self,
        window: sampling.Window,
        info: decode.VideoInfo,
        viewers: Sequence[Viewer],
        draws: Sequence[Mapping[str, Draw]],
    ):
        self.window, self.viewers, self.draws = window, viewers, draws
        self._look_at(
            [
                {v: sampling.sample(info, window, d, viewer.config) for v, d in by_variant.items()}
                for viewer, by_variant in zip(viewers, draws, strict=True)
            ]
        )
        self._compared: list[int] = []
        if any(v.one_shot for v in viewers) and not sampling.is_whole(window, info.n_frames):
            from violence_detection.video import shots  # clips have no need of it

            every = [s for by in self.samplings for s in by.values()]
            self._compared = shots.compared(info.fps, every).tolist()
        self.frames = frozenset(self._compared).union(*self.by_viewer)

    def _look_at(self, samplings: list[dict[str, sampling.Sampling]]) -> None:
        self.samplings = samplings
        self.by_viewer = [frozenset[int]().union(*(s.frames for s in by.values())) for by in samplings]

    def decoded(self, info: decode.VideoInfo) -> dict[KeptAs, frozenset[int]]:
        """Which of the frames that decode are asked for in each size."""
        asked: dict[KeptAs, set[int]] = {viewer.kept_as: set() for viewer in self.viewers}
        for viewer, frames in zip(self.viewers, self.by_viewer, strict=True):
            asked[viewer.kept_as].update(info.decoded(number) for number in frames)
        asked[COMPARED] = {info.decoded(number) for number in self._compared}
        return {kept_as: frozenset(frames) for kept_as, frames in asked.items()}

    def seen(self, frames: Mapping[int, Kept]) -> SeenWindow:
        """The window with its frames, by number. Where it was cut, viewers that keep to one shot see that."""
        if not self._compared:
            return SeenWindow(self, frames)
        from violence_detection.video import shots

        plainest = _plainest(self.viewers)
        smalls = [shots.small(pictures.whole_of(frames[n][plainest])) for n in self._compared]
        shot = shots.middle_shot(self._compared, smalls, self.window)
        if shot is None:
            return SeenWindow(self, frames)
        of_shot = copy.copy(self)
        of_shot._look_at(
            [
                {v: shots.within(s, shot, viewer.config.burst) for v, s in by.items()}
                if viewer.one_shot
                else by
                for viewer, by in zip(self.viewers, self.samplings, strict=True)
            ]
        )
        return SeenWindow(of_shot, frames)


class SeenWindow:
    """A window with the frames that it needs. Pictures are made when they are asked for, one view at a time."""

    def __init__(self, plan: WindowPlan, frames: Mapping[int, Kept]):
        self._plan, self._frames = plan, frames
        self._whole: dict[int, pictures.Pictures] = {}
        self._squares: dict[tuple[int, ...], Square | None] = {}

    @property
    def window(self) -> sampling.Window:
        return self._plan.window

    def changed(self, change: Callable[[Mapping[int, Kept]], Mapping[int, Kept]]) -> SeenWindow:
        """The same window with other frames under the same numbers."""
        return SeenWindow(self._plan, change(self._frames))

    def whole_frames(self) -> Iterator[np.ndarray]:
        """All frames that are looked at, as the viewer of the smallest ones has them, (F, F, 3) uint8.

        None of those that are letterboxed, where there are others.
        """
        plainest = _plainest(self._plan.viewers)
        looked_at = sorted(frozenset[int]().union(*self._plan.by_viewer))
        return (pictures.whole_of(self._frames[number][plainest]) for number in looked_at)

    def closer(self, viewer: int) -> Square | None:
        """Where that viewer looks closer; None where it would see no more than the whole picture."""
        numbers = tuple(self._plan.samplings[viewer][CLOSER].base.tolist())
        if numbers not in self._squares:  # several viewers look at the same frames
            nears = [self._frames[number][NEAR] for number in numbers]
            self._squares[numbers] = pictures.closer_square(nears)
        return self._squares[numbers]

    def pictures(self, viewer: int, variant: str) -> dict[str, np.ndarray]:
        """What that viewer sees of it: {stream: (T, S, S, 3) uint8}."""
        plan, looks = self._plan, self._plan.viewers[viewer]
        if variant == CLOSER and (square := self.closer(viewer)):
            nears = {number: self._frames[number][NEAR] for number in plan.by_viewer[viewer]}
            return pictures.closer_images(
                nears, square, plan.samplings[viewer][variant], looks.size, looks.config
            )
        frames = {number: self._frames[number][looks.kept_as] for number in plan.by_viewer[viewer]}
        if viewer not in self._whole:
            self._whole[viewer] = pictures.whole_pictures(frames, looks.size)
        sample, draw = plan.samplings[viewer][variant], plan.draws[viewer][variant]
        return pictures.images(frames, sample, draw, looks.size, looks.config, self._whole[viewer])


def of_file(
    path: Path,
    info: decode.VideoInfo | decode.PacketTiming,
    windows: Sequence[sampling.Window],
    viewers: Sequence[Viewer],
    clip_id: str,
    variants: Sequence[str],
    *,
    to_change: bool = False,
) -> Iterator[SeenWindow]:
    """The windows of a video file with what is seen of them: one decode, whatever the length and number of viewers.

    A window gets the images that the same stretch would get as a clip, but that the motion at its end may look on, into
    what follows it. With `to_change` each frame is there in all sizes, so that one may take another's place. Raises
    UnreadableVideo naming the file, and DecodesOtherwise as decode.read_groups does.
    """
    draws = [viewer.draws(clip_id, variants) for viewer in viewers]
    found = decode.info_of(info)
    plans: list[WindowPlan] = []  # those that are decoded, few at a time
    asked: list[Mapping[KeptAs, frozenset[int]]] = []  # in which sizes each of them asks for frames
    keep = keeper(viewers, to_change)

    def groups() -> Iterator[frozenset[int]]:
        for window in windows:
            plans.append(WindowPlan(window, found, viewers, draws))
            asked.append(plans[-1].decoded(found))
            yield plans[-1].frames

    def kept(frame: np.ndarray, decoded: int) -> Kept:
        if to_change:
            return keep(frame)
        return keep(frame, {size for sizes in asked for size, those in sizes.items() if decoded in those})

    for frames in decode.read_groups(path, info, groups(), kept):
        del asked[0]
        yield plans.pop(0).seen(frames)
