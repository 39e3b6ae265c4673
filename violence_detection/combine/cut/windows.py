"""Choose which stretches of an untrimmed video become clips, and of which class, by plain arithmetic on its moments.

All windows have the same length, so that the length does not reveal the class. Fight windows are inside annotated
segments; non-fight windows are outside them, with a margin, because a person estimated the borders. No window is where
nothing decodes, as a frozen picture shows neither class. Of many possible windows, a few evenly spread ones are taken,
so that one long video does not flood the set. Nothing is random.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from violence_detection.combine.config import CutConfig
from violence_detection.datasets.annotations import Segments
from violence_detection.datasets.own_table import Stretch
from violence_detection.errors import UserError
from violence_detection.video.decode import MIN_FRAMES, VideoInfo

#: A frame shown for longer than this is a pause of the recorder or a loss, and never part of a clip. At the lowest rate
#: at which movement can be judged, 8 frames in 5 s, a frame is shown for 0.6 s.
_LONGEST_FROZEN_S = 1.0
#: Lengths that differ by less are equal: in floating point, 8.3 - 3.3 is slightly more than 5.
_LENGTH_TOLERANCE_S = 1e-6
#: The end of the reason for a video that is complete, but shorter than its annotation says. Journals contain it, and
#: cutting.py recognises such reasons by it.
OTHER_VERSION = "it was annotated in another version"


@dataclass(frozen=True, order=True)
class CutWindow:
    """The moments [first, end) of a video, and their class: fight or nonfight."""

    first: int
    end: int
    label: str


def check(config: CutConfig) -> None:
    """Raise UserError for settings that do not go together."""
    if not 0 <= config.shortest_s <= config.window_s:
        raise UserError(
            f"--shortest-s must be at least 0 and at most --window-s. Received: {config.shortest_s}"
        )


def plan(info: VideoInfo, label: str, segments: Segments | None, config: CutConfig) -> tuple[CutWindow, ...]:
    """Place the windows of a video of class `label` (from its folder or name); they are sorted and do not overlap.

    A nonfight video is nonfight except where a fight is annotated. In a fight video, the segments are fight and the
    rest is nonfight. A fight video with an annotation that names no segments gives no windows; nor does one without an
    annotation, unless `cut_unannotated` is set: then all of it is fight. No window is where the picture is frozen.
    Raises ValueError as `fights` does.
    """
    annotated = fights(info, segments) if segments else []
    moving = moving_stretches(info)
    if label == "fight" and not annotated:
        if segments is None and config.cut_unannotated:
            return _windows(info, moving, "fight", config, config.windows_per_video)
        return ()
    quiet = _within(_gaps(annotated, info.n_frames, round(config.margin_s * info.fps)), moving)
    if label == "nonfight":
        return _windows(info, quiet, label, config, config.normal_windows)
    found = (
        *_windows(info, _within(annotated, moving), "fight", config, config.windows_per_video),
        *_windows(info, quiet, "nonfight", config, config.windows_per_video),
    )
    return tuple(sorted(found))


def inside(
    info: VideoInfo, stretches: Sequence[Stretch], config: CutConfig
) -> tuple[tuple[CutWindow, ...], dict[int, str]]:
    """Place the windows of labelled stretches, which are sorted and do not overlap.

    A stretch no longer than a window becomes one clip of its own length; a longer one gives windows as an annotated
    fight does. Whatever is before the first picture or past the end of the video is cut off first. Also returns
    position -> reason, of the stretches that give no window.
    """
    found: list[CutWindow] = []
    refused: dict[int, str] = {}
    moving, ends_s = moving_stretches(info), info.start_s + info.played_s
    for position, stretch in enumerate(stretches):
        first, end = _moment(info, stretch.start_s), min(_moment(info, stretch.end_s), info.n_frames)
        begins_before, first = first < 0, max(first, 0)
        length_s = min(stretch.end_s, ends_s) - max(stretch.start_s, info.start_s)
        seen = _within([(first, end)], moving)
        if first >= info.n_frames:
            refused[position] = f"starts at {stretch.start_s:g} s, but the video ends after {ends_s:.2f} s"
        elif end - first < MIN_FRAMES and begins_before:
            refused[position] = (
                f"starts before the pictures do: at {stretch.start_s:g} s, and they begin at {info.start_s:.2f} s"
            )
        elif end - first < MIN_FRAMES:
            refused[position] = f"has {end - first} frames, fewer than the {MIN_FRAMES} that a clip needs"
        elif length_s > config.window_s + _LENGTH_TOLERANCE_S:
            placed = _windows(info, seen, stretch.label, config, config.windows_per_video)
            found += placed
            if not placed:
                refused[position] = _seen_too_little(info, first, end, config.window_s)
        elif seen == [(first, end)] and _shows_enough(info, first, end):
            found.append(CutWindow(first, end, stretch.label))
        else:
            refused[position] = _seen_too_little(info, first, end, length_s)
    return tuple(found), refused


def fights(info: VideoInfo, segments: Segments) -> list[tuple[int, int]]:
    """Convert annotated segments to moments [first, end) of the video, sorted; those that touch or overlap are joined.

    They may extend before the first moment or past the last. Raises ValueError if a segment starts past the end, as the
    annotation then belongs to another version of the video, or part of the video does not decode; and if segments are
    given as frame numbers, and damage makes it uncertain which frames are meant.
    """
    if segments.in_seconds:
        spans = [(_moment(info, start_s), _moment(info, end_s)) for start_s, end_s in segments.spans]
        last_s = max((start_s for start_s, _ in segments.spans), default=0.0)
        if any(first >= info.n_frames for first, _ in spans):
            raise ValueError(
                f"its annotation speaks of {last_s:g} s, but it ends after {info.start_s + info.played_s:.2f} s: "
                f"{_why_not_there(info, last_s)}"
            )
    else:
        numbers = [(round(first), round(end)) for first, end in segments.spans]
        _check_count(info, numbers)
        spans = [(_moment_of(info, first), _moment_of(info, end)) for first, end in numbers]
    joined: list[tuple[int, int]] = []
    for first, end in sorted(spans):
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((first, end))
    return joined


def _check_count(info: VideoInfo, numbers: Sequence[tuple[int, int]]) -> None:
    """Raise ValueError unless the frames [first, end) that an annotation counts can be matched to decoded ones."""
    if info.damaged and info.lost:
        before = min(max(_moment(info, info.lost[0][0]), 0), info.n_frames)
        sure = info.decoded(before - 1) + 1 if before else 0
        if sure < info.n_decoded and any(end > sure for _, end in numbers):
            raise ValueError(
                f"its annotation counts frames, and behind frame {sure} nobody knows which are meant: "
                f"{info.shortfall()}"
            )
    last = max((first for first, _ in numbers), default=0)
    if last >= info.n_decoded:
        due_s = info.start_s + info.played_s + (last - info.n_decoded) / info.fps
        raise ValueError(
            f"its annotation speaks of frame {last}, but it has {info.n_decoded} frames at {info.fps:g} a second: "
            f"{_why_not_there(info, due_s)}"
        )


def _why_not_there(info: VideoInfo, time_s: float) -> str:
    """The reason why an annotation refers to a time after the last picture: a part is missing, or another version."""
    return info.shortfall() if time_s < info.duration_s - 1 / info.fps else OTHER_VERSION


def _moment(info: VideoInfo, time_s: float) -> int:
    """The moment at a time of the video; it may be before the first moment or after the last."""
    return round((time_s - info.start_s) * info.fps)


def _moment_of(info: VideoInfo, number: int) -> int:
    """The first moment that shows a decoded frame, or a later one if that frame is never shown."""
    return number if info.shown is None else int(np.searchsorted(info.shown, number))


def moving_stretches(info: VideoInfo) -> list[tuple[int, int]]:
    """Find where frames follow each other without pauses or losses: moments [first, end), sorted, not overlapping."""
    if info.shown is None:
        return [] if _always_stands(info) else [(0, info.n_frames)]
    begins = np.flatnonzero(np.diff(info.shown, prepend=-1))
    ends = np.append(begins[1:], info.n_frames)
    stands = ends - begins > _LONGEST_FROZEN_S * info.fps
    starts = [0, *ends[stands].tolist()]
    stops = [*(begins[stands] + 1).tolist(), info.n_frames]
    return [(a, b) for a, b in zip(starts, stops, strict=True) if a < b]


def _always_stands(info: VideoInfo) -> bool:
    return info.fps * _LONGEST_FROZEN_S < 1


def _shows_enough(info: VideoInfo, first: int, end: int) -> bool:
    return info.distinct(first, end) >= MIN_FRAMES


def _seen_too_little(info: VideoInfo, first: int, end: int, length_s: float) -> str:
    """The reason why the moments [first, end) give no clip of length `length_s`."""
    pauses = [
        (a, b) for (_, a), (b, _) in itertools.pairwise(moving_stretches(info)) if a < end and b > first
    ]
    if _always_stands(info):
        return f"has pictures that stand for {1 / info.fps:g} s each: no movement is seen in them"
    if not pauses:
        slots = _slots(first, end, max(round(length_s * info.fps), 1)) or [(first, end)]
        count = max(info.distinct(*slot) for slot in slots)
        return (
            f"has {count} different frames in {length_s:g} s, fewer than the {MIN_FRAMES} that a clip needs"
        )
    spans_s = [(info.start_s + a / info.fps, info.start_s + b / info.fps) for a, b in pauses]
    where = ", ".join(f"{start_s:.1f}-{end_s:.1f}" for start_s, end_s in spans_s[:3])
    more = " ..." if len(pauses) > 3 else ""
    return f"has no {length_s:g} s in which pictures come: there are none at {where}{more} s"


def _within(stretches: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The intersections of the stretches with the others, sorted."""
    both = [(max(a, c), min(b, d)) for a, b in stretches for c, d in others]
    return sorted((first, end) for first, end in both if first < end)


def _gaps(stretches: Sequence[tuple[int, int]], n_frames: int, margin: int) -> list[tuple[int, int]]:
    """The gaps between stretches (sorted, not overlapping), at least `margin` frames away from each."""
    starts = [0, *(max(end + margin, 0) for _, end in stretches)]
    ends = [*(first - margin for first, _ in stretches), n_frames]
    return [(a, b) for a, b in zip(starts, ends, strict=True) if a < b]


def _windows(
    info: VideoInfo, stretches: Sequence[tuple[int, int]], label: str, config: CutConfig, most: int
) -> tuple[CutWindow, ...]:
    length = round(config.window_s * info.fps)
    if length < MIN_FRAMES:  # longer windows would break the rule that all have one length
        return ()
    shortest = max(round(config.shortest_s * info.fps), MIN_FRAMES)
    admit_short = label == "fight" and config.shortest_s > 0
    slots = [slot for stretch in stretches for slot in _slots(*stretch, length)]
    if admit_short:
        slots += [(a, b) for a, b in stretches if shortest <= b - a < length]
    slots = [slot for slot in sorted(slots) if _shows_enough(info, *slot)]
    return tuple(CutWindow(a, b, label) for a, b in _spread(slots, most))


def _slots(first: int, end: int, length: int) -> list[tuple[int, int]]:
    """As many windows as fit into [first, end), with the remaining moments spread evenly around them."""
    count = (end - first) // length
    rest = end - first - count * length
    starts = (first + i * length + (2 * i + 1) * rest // (2 * count) for i in range(count))
    return [(start, start + length) for start in starts]


def _spread(slots: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """At most `most` of the slots, evenly spread: the middle one of each of `most` equal parts."""
    if len(slots) <= most:
        return list(slots)
    return [slots[(2 * i + 1) * len(slots) // (2 * most)] for i in range(most)]
