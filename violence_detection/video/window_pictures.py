"""What several runs of backbones see of each window of a video. The video is decoded once for all of them."""

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

#: A size at which frames are kept: side of the whole picture; side of the larger picture from which the stream `crop`
#: is cut, 0 without that stream; whether they are letterboxed.
KeptAs: TypeAlias = tuple[int, int, bool]
#: What is kept of a decoded frame for all viewers: size -> pictures.KeptFrame, and for closer looks NEAR -> NearFrame.
Kept: TypeAlias = Mapping[KeptAs, Any]
#: Key of what is kept for a closer look: a pictures.NearFrame, which has the frame's own shape.
NEAR: KeptAs = (0, 0, False)
#: Requested for a frame in which cuts are looked for. It is not a real size: the smallest one that is kept will do.
COMPARED: KeptAs = (1, 0, False)
#: The size in which a closer look is placed. If a viewer needs frames of this size anyway, NearFrame uses them.
_AS_CLOSER: KeptAs = (CLOSER_GREY, 0, False)


@dataclass(frozen=True)
class Viewer:
    """How one run of backbones sees a video: the side of its pictures, its settings, whether it takes a closer look.

    `one_shot`: if there is a cut in a window of a longer video, it sees only the shot in the middle (video/shots.py).
    """

    size: int
    config: ClipConfig
    closer_look: bool = False
    one_shot: bool = True

    @property
    def kept_as(self) -> KeptAs:
        """The sizes and the shape in which this viewer needs frames."""
        sides = pictures.frame_side(self.size, self.config), pictures.crop_side(self.size, self.config)
        return *sides, self.config.letterbox

    def draws(self, clip_id: str, variants: Sequence[str]) -> dict[str, Draw]:
        """The parameters of each variant."""
        return pictures.draws_of(clip_id, variants, self.config)


def keeper(viewers: Sequence[Viewer], to_change: bool = False) -> Callable[..., Kept]:
    """A function that makes of a frame (H, W, 3) uint8 what is kept of it: shrunk copies, to save memory.

    Its second argument, if given, says in which sizes the frame will be asked for, since few frames are looked at by
    all viewers; the smallest size is made in any case. If a viewer takes a closer look and the frame is no larger than
    NEAR_SIDE, the frame itself is kept and shrunk only when a size is first read. With `to_change` all sizes that may
    be asked for are made at once, so that they can be changed.
    """
    makers = {viewer.kept_as: pictures.keeper(viewer.size, viewer.config) for viewer in viewers}
    always = _plainest(viewers)
    looks_closer = any(viewer.closer_look for viewer in viewers)

    def keep(frame: np.ndarray, asked: Collection[KeptAs] | None = None) -> Kept:
        side = max(frame.shape[:2])
        if looks_closer and side <= pictures.NEAR_SIDE and not to_change:
            return _Whole(frame, makers)
        # halving a large frame is most of the work of shrinking it, and every size begins with it
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
    """A frame that is kept as it is. Each size is made when it is first read.

    For a quiet camera most sizes of most frames are never read.
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
    """The smallest size in which a viewer needs frames; a letterboxed one only if all are."""
    return min((viewer.kept_as for viewer in viewers), key=lambda kept: (kept[2], kept[:2]))


class WindowPlan:
    """Which frames a window needs, for each viewer and each of its variants.

    A window of a longer video also needs the frames in which cuts are looked for, if any viewer sees only one shot.
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
            from violence_detection.video import shots  # imported only here: clips do not need it

            every = [s for by in self.samplings for s in by.values()]
            self._compared = shots.compared(info.fps, every).tolist()
        self.frames = frozenset(self._compared).union(*self.by_viewer)

    def _look_at(self, samplings: list[dict[str, sampling.Sampling]]) -> None:
        self.samplings = samplings
        self.by_viewer = [frozenset[int]().union(*(s.frames for s in by.values())) for by in samplings]

    def decoded(self, info: decode.VideoInfo) -> dict[KeptAs, frozenset[int]]:
        """For each size, the decoded frames (numbers in order of decoding) that are needed in it."""
        asked: dict[KeptAs, set[int]] = {viewer.kept_as: set() for viewer in self.viewers}
        for viewer, frames in zip(self.viewers, self.by_viewer, strict=True):
            asked[viewer.kept_as].update(info.decoded(number) for number in frames)
        asked[COMPARED] = {info.decoded(number) for number in self._compared}
        return {kept_as: frozenset(frames) for kept_as, frames in asked.items()}

    def seen(self, frames: Mapping[int, Kept]) -> SeenWindow:
        """The window with its frames, by number. If it contains a cut, viewers with `one_shot` see the middle shot."""
        if not self._compared:
            return SeenWindow(self, frames)
        from violence_detection.video import shots

        plainest = _plainest(self.viewers)
        thumbnails = [shots.small(pictures.whole_of(frames[n][plainest])) for n in self._compared]
        shot = shots.middle_shot(self._compared, thumbnails, self.window)
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
    """A window with the frames that it needs. Pictures are made on request, one view at a time."""

    def __init__(self, plan: WindowPlan, frames: Mapping[int, Kept]):
        self._plan, self._frames = plan, frames
        self._whole: dict[int, pictures.Pictures] = {}
        self._squares: dict[tuple[int, ...], Square | None] = {}

    @property
    def window(self) -> sampling.Window:
        return self._plan.window

    def changed(self, change: Callable[[Mapping[int, Kept]], Mapping[int, Kept]]) -> SeenWindow:
        """The same window with its frames replaced: `change` gets them by number and returns the new ones."""
        return SeenWindow(self._plan, change(self._frames))

    def whole_frames(self) -> Iterator[np.ndarray]:
        """All frames that any viewer looks at, whole, in the smallest size that is kept: (F, F, 3) uint8 each.

        They are letterboxed only if every viewer's are.
        """
        plainest = _plainest(self._plan.viewers)
        looked_at = sorted(frozenset[int]().union(*self._plan.by_viewer))
        return (pictures.whole_of(self._frames[number][plainest]) for number in looked_at)

    def closer(self, viewer: int) -> Square | None:
        """The part that the closer look of a viewer (by number) shows; None where it would be the whole picture."""
        numbers = tuple(self._plan.samplings[viewer][CLOSER].base.tolist())
        if numbers not in self._squares:  # several viewers look at the same frames
            nears = [self._frames[number][NEAR] for number in numbers]
            self._squares[numbers] = pictures.closer_square(nears)
        return self._squares[numbers]

    def pictures(self, viewer: int, variant: str) -> dict[str, np.ndarray]:
        """What a viewer (by number) sees of a variant of the window: {stream: (T, S, S, 3) uint8}."""
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
    """Yield the windows of a video file with what is seen of them, decoding it once for all windows and viewers.

    A window gets the same images as a clip of that stretch would, except that the stream `motion` may look beyond the
    window's end. With `to_change`, every frame is kept in all sizes, so that any may replace another. Raises
    UnreadableVideo, naming the file, and DecodesOtherwise as decode.read_groups does.
    """
    draws = [viewer.draws(clip_id, variants) for viewer in viewers]
    found = decode.info_of(info)
    plans: list[WindowPlan] = []  # of the few windows whose frames are being decoded
    asked: list[Mapping[KeptAs, frozenset[int]]] = []  # for each of these, by size: the frames needed
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
