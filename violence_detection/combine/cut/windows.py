"""Which stretches of an untrimmed video become clips, and of which class. Plain arithmetic on frame numbers.

All windows have one length, so that the length tells nothing about the class. Fight windows lie inside annotated
segments; non-fight windows lie outside, at a margin, because annotated borders are a person's estimate. Of many
possible windows an evenly spread few are taken, so that one long video does not flood the set. Nothing is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from violence_detection.combine.config import CutConfig
from violence_detection.datasets.annotations import Segments
from violence_detection.datasets.own_table import Stretch
from violence_detection.errors import UserError

#: A window has at least so many frames, whatever the frame rate: fewer are no clip (as video.decode.MIN_FRAMES).
_MIN_FRAMES = 8
#: Lengths that differ by less are the same: 8.3 - 3.3 is a little more than 5.
_SAME_S = 1e-6


@dataclass(frozen=True, order=True)
class CutWindow:
    """Frames [first, end) of a video and their class: fight or nonfight."""

    first: int
    end: int
    label: str


def check(config: CutConfig) -> None:
    """Raise UserError where the settings make no sense."""
    if config.window_s <= 0 or config.margin_s < 0:
        raise UserError(
            "--window-s must be more than 0 and --margin-s at least 0. "
            f"Received: {config.window_s}, {config.margin_s}"
        )
    if config.windows_per_video < 1 or config.normal_windows < 1:
        raise UserError(
            "--windows-per-video and --normal-windows must be at least 1. "
            f"Received: {config.windows_per_video}, {config.normal_windows}"
        )
    if not 0 <= config.shortest_s <= config.window_s:
        raise UserError(f"--shortest-s is between 0 and --window-s. Received: {config.shortest_s}")


def plan(
    n_frames: int, fps: float, label: str, segments: Segments | None, config: CutConfig
) -> tuple[CutWindow, ...]:
    """The windows of a video of class `label` (that of its folder or name), sorted; none overlaps another.

    A nonfight video is nonfight but for what is annotated in it. A fight video is what its segments say; without
    any it gives nothing, or with `cut_unannotated` is fight throughout. Raises ValueError when a segment begins
    past the last frame: then the annotation belongs to another cut or frame rate of the video.
    """
    fights = segments.frames(fps) if segments else []
    if any(first >= n_frames for first, _ in fights):
        raise ValueError(
            f"its annotation speaks of frame {max(f for f, _ in fights)}, but it has {n_frames} frames at "
            f"{fps:g} a second: it was annotated in another version"
        )
    fights = [(first, min(end, n_frames)) for first, end in fights]
    if label == "fight" and not fights:
        if segments is None and config.cut_unannotated:
            return _windows([(0, n_frames)], "fight", fps, config, config.windows_per_video)
        return ()
    quiet = _gaps(fights, n_frames, round(config.margin_s * fps))
    if label == "nonfight":
        return _windows(quiet, label, fps, config, config.normal_windows)
    found = (
        *_windows(fights, "fight", fps, config, config.windows_per_video),
        *_windows(quiet, "nonfight", fps, config, config.windows_per_video),
    )
    return tuple(sorted(found))


def inside(
    n_frames: int, fps: float, stretches: Sequence[Stretch], config: CutConfig
) -> tuple[tuple[CutWindow, ...], dict[int, str]]:
    """The windows of stretches that a person has labelled, sorted and apart; and which of them give none, and why.

    A stretch no longer than a window is one clip, as long as it is; a longer one gives windows as an annotated fight
    does. One that lasts past the end of the video is cut off there.
    """
    found: list[CutWindow] = []
    refused: dict[int, str] = {}
    for position, stretch in enumerate(stretches):
        first, end = round(stretch.start_s * fps), min(round(stretch.end_s * fps), n_frames)
        if first >= n_frames:
            refused[position] = (
                f"starts at {stretch.start_s:g} s, but the video ends after {n_frames / fps:.2f} s"
            )
        elif end - first < _MIN_FRAMES:
            refused[position] = f"has {end - first} frames, fewer than the {_MIN_FRAMES} that a clip needs"
        elif stretch.end_s - stretch.start_s <= config.window_s + _SAME_S:
            found.append(CutWindow(first, end, stretch.label))
        else:
            found += _windows([(first, end)], stretch.label, fps, config, config.windows_per_video)
    return tuple(found), refused


def _gaps(stretches: Sequence[tuple[int, int]], n_frames: int, margin: int) -> list[tuple[int, int]]:
    """What lies at least `margin` frames from every stretch (sorted, apart)."""
    starts = [0, *(end + margin for _, end in stretches)]
    ends = [*(first - margin for first, _ in stretches), n_frames]
    return [(a, b) for a, b in zip(starts, ends, strict=True) if a < b]


def _windows(
    stretches: Sequence[tuple[int, int]], label: str, fps: float, config: CutConfig, most: int
) -> tuple[CutWindow, ...]:
    length = max(round(config.window_s * fps), _MIN_FRAMES)
    shortest = max(round(config.shortest_s * fps), _MIN_FRAMES)
    admit_short = label == "fight" and config.shortest_s > 0
    slots = [slot for stretch in stretches for slot in _slots(*stretch, length)]
    if admit_short:
        slots += [(a, b) for a, b in stretches if shortest <= b - a < length]
    return tuple(CutWindow(a, b, label) for a, b in _spread(sorted(slots), most))


def _slots(first: int, end: int, length: int) -> list[tuple[int, int]]:
    """As many windows as fit into [first, end), side by side, what is left over spread evenly around them."""
    count = (end - first) // length
    rest = end - first - count * length
    starts = (first + i * length + (2 * i + 1) * rest // (2 * count) for i in range(count))
    return [(start, start + length) for start in starts]


def _spread(slots: Sequence[tuple[int, int]], most: int) -> list[tuple[int, int]]:
    """At most `most` of them, the middles of equal parts."""
    if len(slots) <= most:
        return list(slots)
    return [slots[(2 * i + 1) * len(slots) // (2 * most)] for i in range(most)]
