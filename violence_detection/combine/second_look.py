"""Compare near duplicates a second time: are they copies, or different scenes before the same fixed camera?

A fingerprint describes the whole picture. Where a fixed camera sees people from afar, they fill about a hundredth of
it, and two different scenes look like copies of one. So the pairs that fingerprints call copies are decoded again:
their static pictures are aligned and subtracted, and the motion that remains must agree in time and place.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from violence_detection.combine import fingerprint
from violence_detection.combine.dedupe import ScannedClip
from violence_detection.errors import UnreadableVideo
from violence_detection.system import console, storage
from violence_detection.video import decode, video_files

log = logging.getLogger(__name__)

JOURNAL_NAME = ".second_look.jsonl"
#: Increase this whenever the comparison gives different results, so that old lines in the journal no longer count.
VERSION = 1
#: Correlation of the motion from which two clips are copies. All of 701 altered copies of 80 real clips exceed 0.7. Of
#: 145 pairs of scenes before one camera, 137 are below 0.6 (in the others one person does the same twice), and so are
#: pairs of scenes with small figures.
SAME_MOTION = 0.6
#: Motion (levels of luma at a contrast of CONTRAST) below which a clip counts as still: less is coding noise. Copies of
#: still pictures reach 0.9 at most; a figure that fills 2 % and is hardly darker than its background reaches 2.4.
STILL = 1.0
#: Standard deviation to which the static picture of each clip is scaled.
CONTRAST = 50.0

#: Number of frames, time of the first, and interval between them.
_N_FRAMES, _FIRST_S, _STEP_S = 24, 0.1, 0.2
#: Side in pixels of the pictures compared; a person who fills 1 % of one still has 90 pixels.
_SIDE = 96
#: Side in pixels at which fingerprints detect black bars.
_BOX_SIDE = 64
#: Pixels ignored at each edge, where a cropped copy has nothing to compare.
_MARGIN = 6
#: Standard deviation in pixels of the blur; coding noise is finer than that, people are coarser.
_BLUR = 1.5
#: Side in pixels of the square over which motion is averaged to find where it is largest.
_SPOT = 8
#: Largest change of a matrix element, and largest shift in pixels, that cropping explains; beyond, it is misalignment.
_MOST_TURN, _MOST_SHIFT = 0.15, 12.0
#: When the search for the alignment ends: after 50 steps, or when a step improves it by less than 1e-4.
_STEPS = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-4)


@dataclass(frozen=True)
class SecondLook:
    """Whether one clip is an altered copy of the other, and the correlation of their motion.

    If `reason` is set, the clips could not be compared, and `same` is False.
    """

    same: bool
    correlation: float = 0.0
    reason: str = ""


def confirm(
    pairs: Sequence[tuple[ScannedClip, ScannedClip]],
    data_root: Path,
    journal_path: Path,
    workers: int,
    put_off: list[str],
) -> list[bool]:
    """Tell which of the pairs are altered copies. Pairs in the journal are not decoded again.

    A pair that cannot be compared now counts as different. The reason is appended to `put_off`, and the next run
    compares the pair again.
    """
    keys = [storage.stable_hash([a.scan.sha256, b.scan.sha256, VERSION], digits=32) for a, b in pairs]
    known = storage.read_journal(journal_path, frozenset(SecondLook.__dataclass_fields__))
    found = {key: SecondLook(**known[key]) for key in keys if key in known}
    todo = {
        (data_root / a.source_path, data_root / b.source_path): key
        for key, (a, b) in zip(keys, pairs, strict=True)
        if key not in found
    }
    if todo:
        log.info(
            "%d pairs of near duplicates: %d known, %d to compare again", len(keys), len(found), len(todo)
        )
        with (
            storage.appending_journal(journal_path) as record,
            console.progress(total=len(todo), desc="second look", unit="pair") as bar,
        ):
            for item, look in video_files.map_files(_look, todo, workers, _larger, _failed):
                found[todo[item]] = look
                if not look.reason:
                    record(todo[item], asdict(look))
                bar.update()
    reasons = [look.reason for look in found.values() if look.reason]
    put_off += reasons
    if reasons:
        log.warning("%d pairs could not be compared again now, so both clips of each stay", len(reasons))
    if others := sum(not look.same and not look.reason for look in found.values()):
        log.info(
            "%d pairs show one camera's picture but different motion: both clips stay, as one source", others
        )
    return [found[key].same for key in keys]


def _look(item: tuple[Path, Path]) -> SecondLook:
    try:
        return compare(*(pictures(path) for path in item))
    except UnreadableVideo as e:
        return SecondLook(False, reason=e.reason)
    except OSError as e:
        return SecondLook(False, reason=video_files.cannot_be_read(item[0], e))


def _larger(item: tuple[Path, Path]) -> Path:
    return max(item, key=video_files.time_limit_s)


def _failed(_: tuple[Path, Path], reason: str) -> SecondLook:
    return SecondLook(False, reason=reason)


def pictures(path: Path) -> np.ndarray:
    """Read up to 24 frames at fixed times; return the luma inside black bars, (frames, 96, 96) float32.

    Raises UnreadableVideo.
    """
    info, found = decode.read(path, _plan, _shrink)
    frames = np.stack([found[i] for i in _plan(info)])
    small = np.stack([_resized(frame, _BOX_SIDE) for frame in frames])
    box = (round(edge * _SIDE / _BOX_SIDE) for edge in fingerprint.picture_box(small))
    top, bottom, left, right = box
    return np.stack([_resized(f[top:bottom, left:right], _SIDE) for f in frames]).astype(np.float32)


def compare(a: np.ndarray, b: np.ndarray) -> SecondLook:
    """Compare the motion of two clips, each (frames, 96, 96) float32 luma, over the frames that both have.

    They are the same if their motion correlates, or if neither has any.
    """
    n = min(len(a), len(b))
    a, b = _at_contrast(a[:n]), _at_contrast(b[:n])
    place = _alignment(a.mean(axis=0), b.mean(axis=0))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    b = np.stack(
        [cv2.warpAffine(f, place, (_SIDE, _SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE) for f in b]
    )
    move_a, move_b = _motion(a), _motion(b)
    energy = float(np.sqrt((move_a**2).mean() * (move_b**2).mean()))
    correlation = round(float((move_a * move_b).mean()) / max(energy, 1e-6), 3)
    still = max(_largest(move_a), _largest(move_b)) < STILL
    return SecondLook(still or correlation >= SAME_MOTION, correlation)


def _plan(info: decode.VideoInfo) -> list[int]:
    times_s = _FIRST_S + _STEP_S * np.arange(_N_FRAMES)
    return sorted({int(f) for f in np.floor(times_s * info.fps + 1e-6) if f < info.n_frames})


def _shrink(frame: np.ndarray) -> np.ndarray:
    return _resized(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), _SIDE)


def _resized(luma: np.ndarray, side: int) -> np.ndarray:
    return cv2.resize(luma, (side, side), interpolation=cv2.INTER_AREA)


def _at_contrast(frames: np.ndarray) -> np.ndarray:
    """Shift and scale the frames so that their mean picture has mean 0 and standard deviation CONTRAST."""
    mean = frames.mean(axis=0)
    return np.asarray((frames - mean.mean()) * (CONTRAST / max(float(mean.std()), 1.0)), np.float32)


def _alignment(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The affine transform (2, 3) from points of picture `a` to those of `b`: a copy may be cropped by a few per cent.

    It is the identity if no transform is found, or one too large for a crop.
    """
    none = np.eye(2, 3, dtype=np.float32)
    everywhere = np.ones_like(a, np.uint8)
    try:
        found = cv2.findTransformECC(a, b, none.copy(), cv2.MOTION_AFFINE, _STEPS, everywhere, 5)[1]
    except cv2.error:  # the pictures have no detail in common
        return none
    change = np.abs(found - none)
    return found if change[:, :2].max() <= _MOST_TURN and change[:, 2].max() <= _MOST_SHIFT else none


def _motion(frames: np.ndarray) -> np.ndarray:
    """The frames without edges, static picture and flicker, blurred: what is left is motion."""
    inner = frames[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]
    moving = inner - inner.mean(axis=0)
    moving -= moving.mean(axis=(1, 2), keepdims=True)
    return np.stack([cv2.GaussianBlur(f, (0, 0), _BLUR) for f in moving])


def _largest(moving: np.ndarray) -> float:
    """Root mean square of the motion in the _SPOT x _SPOT square where it is largest."""
    return float(np.sqrt(np.max(cv2.boxFilter((moving**2).mean(axis=0), -1, (_SPOT, _SPOT)))))
