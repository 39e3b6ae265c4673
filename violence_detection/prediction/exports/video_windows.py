"""Read a video as the pictures that an exported model takes, window by window, with NumPy and OpenCV alone.

Windows, frames, resizing and crop are those of the package that the model was exported from. Pictures are RGB; all
further steps are in the model. A frame is shown from its time stamp in the file on, counted from the first frame. The
package itself is more careful with damaged files and with files whose frame rate changes.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from violence_detection.video.decode import MIN_FRAMES
from violence_detection.video.focus import CLOSER_GREY, STREAM_SIDE, closer, crop_position
from violence_detection.video.pictures import letterboxed, near, resize
from violence_detection.video.sampling import is_whole, sample, shows_movement, sliding_windows
from violence_detection.video.shots import compared, middle_shot, small, within

#: The lowest and highest frame rate that is believed if a header states it.
_RATES = (1.0, 240.0)
#: The rate assumed instead of one outside `_RATES`.
_USUAL_RATE = 25.0
#: A time stamp that goes back by more than this many seconds begins another recording, as in the package.
_BACK_S = 2.0
#: So does one that jumps ahead by more than this.
_AHEAD_S = 3600.0
#: If more than this share of the time stamps go back, they are in the order of packets, not of display.
_SHUFFLED = 0.1
#: In that case only going back by more than this many frames, too, begins another recording.
_REORDERED = 32
#: Missing frames are reported if they last longer than this...
_WORTH_NAMING_S = 0.5
#: ...and are more than this share of the video.
_WORTH_NAMING = 0.05
#: Containers that state when the video ends instead of how long it is: in a part of a recording, OpenCV then counts too
#: many frames.
_END_STATED = (".mkv", ".webm", ".nut")
#: The (side, letterboxed) under which a frame is kept for a closer look: in its own shape, see `_shrunk`.
_NEAR = (0, False)
#: The draw of the plain window, without augmentation.
_PLAIN = SimpleNamespace(place=0.5, window_start=0.0, window_length=1.0)


class CannotJudge(ValueError):
    """Raised for a video that cannot be judged; the message names the file and the reason."""


class MomentsOfVideo:
    """A video as a screen of constant rate shows it: `n_frames` moments, `fps` a second.

    `shown`: the number of the frame that is shown at each moment, (n_frames,) int64. `shortfall`: a message if fewer
    frames decode than the header states, otherwise empty.
    """

    start_s = 0.0

    def __init__(self, path: Path | str):
        """Read the file to its end.

        Raises CannotJudge if it does not open, fewer than MIN_FRAMES frames decode, or all frames are identical.
        """
        video = _opened(path)
        if not video.isOpened():
            raise CannotJudge(f"{path}: no such file, or not a video that OpenCV can open")
        stamps = []
        first, changes = None, False
        while video.grab():
            stamps.append(video.get(cv2.CAP_PROP_POS_MSEC) / 1000)
            if not changes:
                there, frame = video.retrieve()
                first = frame if first is None else first
                changes = not there or not np.array_equal(first, frame)
        count, fps = len(stamps), round(video.get(cv2.CAP_PROP_FPS), 3)
        if count < MIN_FRAMES:
            raise CannotJudge(f"{path}: only {count} of at least {MIN_FRAMES} frames decode")
        if not changes:
            # for an interlaced frame OpenCV reports success and returns whatever was in the picture's memory
            raise CannotJudge(
                f"{path}: all frames show the same picture. The video is a still, or it is interlaced, which OpenCV "
                f"from 4.13 on cannot decode (here {cv2.__version__}). Install an earlier OpenCV, or convert the "
                "video: ffmpeg -i OLD -vf yadif NEW.mp4"
            )
        self.fps = fps if _RATES[0] <= fps <= _RATES[1] else _USUAL_RATE
        seconds = _in_order(np.array(stamps), 1 / self.fps)
        end_stated = Path(path).suffix.lower() in _END_STATED
        stated = 0 if end_stated else int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        if np.ptp(stamps) - np.ptp(seconds) > _AHEAD_S:
            stated = 0  # in some containers the frame count is computed from the time stamps
        is_short = stated - count > max(_WORTH_NAMING_S * self.fps, _WORTH_NAMING * stated)
        self.shortfall = (
            f"{path}: only {count} of {stated} frames decode; the rest was not judged" if is_short else ""
        )
        late_s = seconds - np.arange(count) / self.fps
        if np.abs(late_s).max() <= 0.5 / self.fps:
            self.n_frames, self.shown = count, np.arange(count)
            return
        self.n_frames = round(float(seconds[-1]) * self.fps) + 1
        middles = (np.arange(self.n_frames) + 0.5) / self.fps
        self.shown = np.maximum(np.searchsorted(seconds, middles, side="right") - 1, 0)

    def distinct(self, first: int, end: int) -> int:
        """Return how many different frames are shown at the moments in [first, end)."""
        return len(np.unique(self.shown[first:end]))


def _opened(path: Path | str) -> cv2.VideoCapture:
    """Open a video. Raises CannotJudge for a path that is not UTF-8, on which OpenCV would crash the process."""
    try:
        str(path).encode()
    except UnicodeEncodeError as e:
        raise CannotJudge(
            f"{path}: the path is not UTF-8, and OpenCV accepts no other. Rename the file or its folder"
        ) from e
    # without "./", a name with a colon would be taken for a protocol
    return cv2.VideoCapture(str(path) if Path(path).is_absolute() else f"./{path}")


def _in_order(stamps: np.ndarray, step_s: float) -> np.ndarray:
    """Return the times of the frames in seconds after the first, in ascending order, (n,) float64.

    Some frames, mostly at the end of a file, have no time stamp, for which OpenCV gives 0. They are placed one step
    after the frame before. Time stamps that go back or far ahead begin another recording, which is placed one step
    after the one before.
    """
    is_shuffled = np.mean(np.diff(stamps) < 0) > _SHUFFLED
    back_s, known = max(_BACK_S, _REORDERED * step_s if is_shuffled else 0.0), stamps.tolist()
    recordings = [known[:1]]
    for stamp, following in itertools.zip_longest(known[1:], known[2:], fillvalue=0.0):
        last_s = recordings[-1][-1]
        if 0 < max(stamp, following) < last_s - back_s or stamp > last_s + _AHEAD_S:
            recordings.append([stamp])
        else:
            recordings[-1].append(stamp or last_s + step_s)
    parts = [np.sort(recording) for recording in recordings]
    for before, part in itertools.pairwise(parts):
        part += before[-1] + step_s - part[0]
    return np.concatenate(parts) - parts[0][0]


def read_manifest(folder: Path | str) -> dict[str, Any]:
    """Read manifest.json, which describes the exported model's inputs and outputs, from the folder of the export."""
    manifest: dict[str, Any] = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
    return manifest


def p_violent(raw_logits: Sequence[np.ndarray], manifest: Mapping[str, Any]) -> float:
    """Return P(violent) of a window from the model's output `raw_logits`, (M,) for M members, of each look at it."""
    members, how = manifest["members"], manifest["judging"]
    weights = np.array([member["weight"] for member in members])
    own = np.mean(raw_logits, axis=0) / [member["temperature"] or 1.0 for member in members]
    if exits := how["early_exit"]:
        first = own[[member["name"] for member in members].index(exits["member"])]
        if first < np.log(exits["below"] / (1 - exits["below"])):
            return float(_sigmoid(first))
    if how["in_logits"]:
        mean = np.average(own, weights=weights)
    else:
        p, q = (np.average(_sigmoid(sign * own), weights=weights) for sign in (1, -1))
        mean = np.log(p + 1e-12) - np.log(q + 1e-12)
    return float(_sigmoid(mean / how["temperature"]))


def _sigmoid(logit: Any) -> Any:
    return 1 / (1 + np.exp(-logit))


def windows(
    path: Path | str, manifest: Mapping[str, Any], video: MomentsOfVideo | None = None
) -> Iterator[tuple[float, float, list[dict[str, np.ndarray]]]]:
    """Yield (start_s, end_s, looks) for each window of a video; a look is {input name: (T, S, S, 3) uint8 RGB}.

    The first look is at the whole picture. If the model takes a closer look and the window calls for one, the second is
    at the part that moves. `video`: the file at `path`, if it has been read already. Raises CannotJudge if the file
    does not open, a frame cannot be shown, or too few frames decode to judge movement.
    """
    info: Any = video or MomentsOfVideo(path)
    inputs, times = manifest["inputs"], manifest["windows"]
    every = sliding_windows(info, times["window_s"], times["stride_s"])
    spans = [span for span in every if shows_movement(info, span)]
    if not spans:
        raise CannotJudge(f"{path}: its frames come too seldom to judge movement")
    plans = [{i["name"]: _sample(info, span, i) for i in inputs} for span in spans]
    seen_for_cuts = [_compared(info, span, plan, inputs) for span, plan in zip(spans, plans, strict=True)]
    frames = _frames(
        path,
        (
            _needed_sizes(plan, of_cuts, manifest, info.shown)
            for plan, of_cuts in zip(plans, seen_for_cuts, strict=True)
        ),
    )
    for span, plan, of_cuts, kept in zip(spans, plans, seen_for_cuts, frames, strict=True):
        numbers = {n for s in plan.values() for n in s.frames} | set(of_cuts)
        at = {n: kept[int(info.shown[n])] for n in numbers}
        shown = _of_one_shot(plan, at, of_cuts, span, manifest)
        start_s = span.start / info.fps
        yield (
            start_s,
            start_s + span.length / info.fps,
            _looks(at, shown, manifest),
        )


def of_arguments(
    arguments: Sequence[str], manifest: Mapping[str, Any]
) -> Iterator[tuple[float, float, list[dict[str, np.ndarray]]]]:
    """Yield the windows of the one video in a script's command line, as `windows` does.

    Exits with a message if the video cannot be judged, and, after its windows, if a part of it does not decode.
    """
    if len(arguments) != 2:
        sys.exit(f"usage: python {Path(arguments[0]).name} VIDEO")
    try:
        video = MomentsOfVideo(arguments[1])
        yield from windows(arguments[1], manifest, video)
    except CannotJudge as e:
        sys.exit(f"cannot judge {e}")
    if video.shortfall:
        sys.exit(video.shortfall)


def _sample(info: Any, span: Any, wanted: Mapping[str, Any]) -> Any:
    config: Any = SimpleNamespace(**wanted["sampling"], streams=(wanted["stream"],))
    plain: Any = _PLAIN
    return sample(info, span, plain, config)


def _compared(
    info: Any, span: Any, plan: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]
) -> list[int]:
    """Return the frames to compare for cuts; none if the window is a whole video or no input keeps to one shot."""
    if is_whole(span, info.n_frames) or not any(i["one_shot"] for i in inputs):
        return []
    found: list[int] = compared(info.fps, list(plan.values())).tolist()
    return found


def _of_one_shot(
    plan: Mapping[str, Any],
    frames: Mapping[int, dict[tuple[int, bool], np.ndarray]],
    of_cuts: Sequence[int],
    span: Any,
    manifest: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Return the plan, with inputs that keep to one shot limited to the middle shot if the window has cuts."""
    if not of_cuts:
        return plan
    thumbnails = [small(frames[number][_plainest(manifest)]) for number in of_cuts]
    shot = middle_shot(of_cuts, thumbnails, span)
    if shot is None:
        return plan
    bursts = {i["name"]: i["sampling"]["burst"] for i in manifest["inputs"] if i["one_shot"]}
    return {name: within(s, shot, bursts[name]) if name in bursts else s for name, s in plan.items()}


def _plainest(manifest: Mapping[str, Any]) -> tuple[int, bool]:
    """The smallest (side, letterboxed) in which frames are kept; letterboxed only if there is no other."""
    return min((_kept_as(i)[0] for i in manifest["inputs"]), key=lambda kept: (kept[1], kept[0]))


def _needed_sizes(
    plan: Mapping[str, Any], of_cuts: Sequence[int], manifest: Mapping[str, Any], shown: Any
) -> dict[int, set[tuple[int, bool]]]:
    """The frames that a window needs, and in which sizes: {frame: {(side, letterboxed)}}."""
    needed: dict[int, set[tuple[int, bool]]] = {int(shown[n]): {_plainest(manifest)} for n in of_cuts}
    for i in manifest["inputs"]:
        for number in plan[i["name"]].frames:
            sizes = needed.setdefault(int(shown[number]), set())
            sizes.update(_kept_as(i), {_NEAR} if manifest["closer_look"] else ())
    return needed


def _frames(
    path: Path | str, needed: Iterator[Mapping[int, set[tuple[int, bool]]]]
) -> Iterator[dict[int, dict[tuple[int, bool], np.ndarray]]]:
    """Yield {frame: {(side, letterboxed): (side, side, 3) uint8 RGB}} for each window, reading the video once.

    `needed`: what each window needs, see `_needed_sizes`; windows ascend in both their first and last frames.
    """
    video = _opened(path)
    kept: dict[int, dict[tuple[int, bool], np.ndarray]] = {}
    due: list[Mapping[int, set[tuple[int, bool]]]] = []  # the windows that have begun
    coming = next(needed, None)
    number = -1
    while due or coming is not None:
        if not video.grab():
            raise CannotJudge(
                f"{path}: ended at frame {number + 1}, although more frames were counted before"
            )
        number += 1
        while coming is not None and min(coming) <= number:
            due.append(coming)
            coming = next(needed, None)
        if sizes := {size for window in due for size in window.get(number, ())}:
            there, frame = video.retrieve()
            if not there:
                raise CannotJudge(f"{path}: frame {number} cannot be shown")
            frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            kept[number] = {(side, box): _shrunk(frame, side, box) for side, box in sizes}
        while due and max(due[0]) <= number:
            yield {n: kept[n] for n in due.pop(0)}
            oldest = min(due[0]) if due else number + 1
            kept = {n: sized for n, sized in kept.items() if n >= oldest}


def _kept_as(wanted: Mapping[str, Any]) -> list[tuple[int, bool]]:
    """The sizes in which an input needs frames: (side, letterboxed)."""
    return [(side, wanted["letterbox"]) for side in wanted["kept_sides"]]


def _shrunk(frame: np.ndarray, side: int, letterbox: bool) -> np.ndarray:
    if not side:
        return near(frame)
    return letterboxed(frame, side) if letterbox else resize(frame, side)


def _looks(
    frames: Mapping[int, dict[tuple[int, bool], np.ndarray]],
    plan: Mapping[str, Any],
    manifest: Mapping[str, Any],
) -> list[dict[str, np.ndarray]]:
    """Return the looks at a window, see `windows`."""
    inputs = manifest["inputs"]
    looks = [{i["name"]: _pictures(frames, plan[i["name"]], i) for i in inputs}]
    if not manifest["closer_look"]:
        return looks
    squares: dict[tuple[int, ...], Any] = {}
    second, is_closer = {}, False
    for i in inputs:
        sampled = plan[i["name"]]
        numbers = tuple(sampled.base.tolist())
        if numbers not in squares:
            small = [resize(frames[n][_NEAR], CLOSER_GREY) for n in numbers]
            squares[numbers] = closer([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in small])
        if square := squares[numbers]:
            parts = {n: square.of(frames[n][_NEAR]) for n in sampled.frames}
            large = {n: {size: _shrunk(part, *size) for size in _kept_as(i)} for n, part in parts.items()}
            second[i["name"]], is_closer = _pictures(large, sampled, i), True
        else:
            second[i["name"]] = looks[0][i["name"]]
    return [*looks, second] if is_closer else looks


def _pictures(
    frames: Mapping[int, dict[tuple[int, bool], np.ndarray]], plan: Any, wanted: Mapping[str, Any]
) -> np.ndarray:
    """Return the pictures of one input, (T, S, S, 3) uint8 RGB."""
    size, numbers = wanted["shape"][1], plan.base.tolist()
    kept_as = _kept_as(wanted)

    def whole(number: int) -> np.ndarray:
        return resize(frames[number][kept_as[0]], size)

    def grey(number: int) -> np.ndarray:
        return cv2.cvtColor(whole(number), cv2.COLOR_RGB2GRAY)

    if wanted["stream"] == "rgb":
        return np.stack([whole(n) for n in numbers])
    if wanted["stream"] == "crop":
        large, _ = kept_as[1]
        left, top = (
            round(c * (large - size)) for c in crop_position([grey(n) for n in numbers], STREAM_SIDE)
        )
        return np.stack([frames[n][kept_as[1]][top : top + size, left : left + size] for n in numbers])
    gain = wanted["sampling"]["motion_gain"]
    steps = [
        [cv2.absdiff(grey(a), grey(b)) for a, b in itertools.pairwise(row)] for row in plan.motion.tolist()
    ]
    return np.stack([cv2.convertScaleAbs(cv2.merge(row), alpha=gain) for row in steps])
