"""Perceptual fingerprints of clips: what stays when one is re-encoded, scaled, cropped, brightened or trimmed.

Up to eight frames at fixed times from the start (so that neither the frame rate nor a trimmed end moves them) lose
their black bars and are reduced to the lowest spatial frequencies of their luma, without the constant term (2D DCT,
as in pHash: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010). The values are
weighted by frequency, which whitens the 1/f spectrum of natural images, and scaled to a common contrast.

192 bytes at most, written as hex: the first frame, then the change from frame to frame on a square-root scale, fine
enough for the small motions that alone tell two moments of one fixed camera apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from violence_detection.video import decode

N_FRAMES = 8
N_COEFFICIENTS = 24
FIRST_S = 0.1
STEP_S = 0.2
#: Between those of a long video. Of 29 real clips cut from one at any moment 24 were found again; at 0.2 seconds 25.
EVERY_S = 0.8
#: Standard deviation of the low-pass luma (levels of 255) below which there is nothing to know a clip by.
MIN_TEXTURE = 2.0

_SMALL = 64  # side of a frame when black bars are looked for
_SIDE = 32  # and when it is transformed
_BAR_CONTRAST = 0.1  # a bar's pixels stay this close to black, as a part of the clip's contrast,
_BAR_SHARE = 0.75  # in this share of the row (the rest may be a logo),
_BAR_LIMIT = 0.3  # over at most this part of the picture
_LEVELS = 127
_CHUNK = 500  # clips at a time: temporary arrays of less than 1 MB stay in the processor's caches
_CLIP_RMS = 4.0  # values beyond this many times the clip's root mean square saturate


def sample_plan(info: decode.VideoInfo, start: int = 0, length: int | None = None) -> list[int]:
    """Frame numbers a fingerprint needs: up to N_FRAMES, ascending, at fixed times from frame `start`.

    `start` and `length` (in frames) are for a window of a longer video; without them it is the whole clip.
    """
    end = info.n_frames if length is None else min(start + length, info.n_frames)
    times_s = FIRST_S + STEP_S * np.arange(N_FRAMES)
    frames = start + np.floor(times_s * info.fps + 1e-6).astype(int)
    return sorted({int(f) for f in frames if f < end})


def shrink(frame: np.ndarray) -> np.ndarray:
    """Reduce an RGB uint8 frame of any size to (64, 64) uint8 luma: the `transform` for `video.decode.read`."""
    luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)  # first: one channel shrinks at twice the speed
    return _shrink_luma(luma)


def _shrink_luma(luma: np.ndarray) -> np.ndarray:
    return cv2.resize(luma, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA)


def from_frames(frames: Sequence[np.ndarray]) -> str:
    """Fingerprint of the frames of `sample_plan`, in its order: RGB uint8 of any size, or results of `shrink`.

    Returns lower-case hex, 48 digits a frame. A clip without texture (black, one colour) has no identity: its
    fingerprint is the empty string, which pairs with nothing.
    """
    if not len(frames):
        return ""
    small = np.stack(
        [f if f.ndim == 2 else _shrink_luma(cv2.cvtColor(f, cv2.COLOR_RGB2GRAY)) for f in frames]
    )
    top, bottom, left, right = picture_box(small)
    spectra = np.stack([_spectrum(f[top:bottom, left:right]) for f in small])
    return encode(spectra)


def of_video(path: Path) -> tuple[decode.VideoInfo, str]:
    """Decode a video and fingerprint it. Raises UnreadableVideo."""
    info, frames = decode.read(path, sample_plan, shrink)
    return info, from_frames([frames[i] for i in sample_plan(info)])


def along(path: Path) -> list[tuple[int, str]]:
    """Of a video of any length, decoded once, the fingerprint every EVERY_S seconds, with the frame that it begins at.

    The first is that of `of_video`; a clip that is cut from the video begins near one of them. Raises UnreadableVideo.
    """
    info = decode.probe(path)
    starts = [int(k * EVERY_S * info.fps) for k in range(int(info.n_frames / info.fps / EVERY_S) + 1)]
    plans = {start: sample_plan(info, start) for start in starts}
    if not plans[0]:
        return [(0, "")]
    whole = {start: plan for start, plan in plans.items() if len(plan) == len(plans[0])}
    groups = (frozenset(plan) for plan in whole.values())
    found = decode.read_groups(path, info, groups, lambda picture, _: shrink(picture))
    return [
        (start, from_frames([frames[i] for i in plan]))
        for (start, plan), frames in zip(whole.items(), found, strict=True)
    ]


def encode(spectra: np.ndarray) -> str:
    """Hex of (frames, N_COEFFICIENTS) spectra in levels of luma; empty where they are below MIN_TEXTURE."""
    if np.sqrt((spectra**2).sum(axis=1).mean()) < MIN_TEXTURE:
        return ""
    weighted = spectra * _WEIGHTS
    scaled = weighted / (np.sqrt((weighted**2).mean()) * _CLIP_RMS)  # 1.0 saturates
    changes = np.diff(scaled, axis=0)
    codes = np.vstack([scaled[:1], np.sign(changes) * np.sqrt(np.abs(changes))])
    return np.clip(np.rint(codes * _LEVELS), -_LEVELS, _LEVELS).astype(np.int8).tobytes().hex()


def to_arrays(fingerprints: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Weighted spectra of the frames of clips, (n, N_FRAMES, 24) int32, and how many frames each has, (n,) int64.

    Past the last frame it is repeated; an empty fingerprint is all zero. One clip's contrast is on one scale, whole
    numbers throughout, so that comparing is exact on any machine. Raises ValueError where a text is no fingerprint.
    """
    digits = 2 * N_COEFFICIENTS
    spectra = np.zeros((len(fingerprints), N_FRAMES, N_COEFFICIENTS), np.int32)
    counts = np.array([len(text) // digits for text in fingerprints], np.int64)
    if any(len(text) % digits or len(text) > digits * N_FRAMES for text in fingerprints):
        raise ValueError(f"a fingerprint has {digits} hex digits a frame and at most {N_FRAMES} frames")
    for count in range(1, N_FRAMES + 1):
        alike = np.flatnonzero(counts == count)
        for start in range(0, len(alike), _CHUNK):
            rows = alike[start : start + _CHUNK]
            data = bytes.fromhex("".join(fingerprints[int(k)] for k in rows))
            codes = np.frombuffer(data, np.int8).astype(np.int32).reshape(-1, count, N_COEFFICIENTS)
            values = codes * np.abs(codes)
            values[:, 0] = codes[:, 0] * _LEVELS
            spectra[rows, :count] = np.cumsum(values, axis=1, dtype=np.int32)
            spectra[rows, count:] = spectra[rows, count - 1 : count]
    return spectra, counts


def mirrored(spectra: np.ndarray) -> np.ndarray:
    """What spectra (..., N_COEFFICIENTS) are of pictures with left and right changed over, exactly."""
    return spectra * _MIRRORED


def frequency_weights() -> np.ndarray:
    """What `encode` multiplies the spectra with: the frequencies themselves, (N_COEFFICIENTS,) float64."""
    return _WEIGHTS.copy()


def picture_box(small: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the picture inside its black bars, from (frames, 64, 64) uint8 luma.

    Without this, bars outweigh the picture at low frequencies: all letterboxed clips would look alike.
    """
    brightest = small.max(axis=0).astype(np.float64)
    black, white = np.percentile(brightest, 1), np.percentile(small, 98)
    dark = brightest - black <= _BAR_CONTRAST * (white - black)
    top, bottom = _bars(dark.mean(axis=1))
    left, right = _bars(dark[top : _SMALL - bottom].mean(axis=0))
    return top, _SMALL - bottom, left, _SMALL - right


def _bars(dark_share: np.ndarray) -> tuple[int, int]:
    """How many lines to drop at both ends, with the one that mixes bar and picture."""
    limit = int(_SMALL * _BAR_LIMIT)
    counts = []
    for shares in (dark_share, dark_share[::-1]):
        is_bar = shares[:limit] >= _BAR_SHARE
        count = limit if is_bar.all() else int(np.argmin(is_bar))
        counts.append(count + 1 if count else 0)
    return counts[0], counts[1]


def _spectrum(picture: np.ndarray) -> np.ndarray:
    """The lowest spatial frequencies, (N_COEFFICIENTS,) float64, as standard deviations in levels of luma."""
    square = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    return (_BASIS @ square @ _BASIS.T)[_ROWS, _COLUMNS] / _SIDE


def _low_frequencies() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the N_COEFFICIENTS lowest frequencies, lowest first."""
    pairs = sorted(
        ((r, c) for r in range(8) for c in range(8) if r + c), key=lambda p: (p[0] ** 2 + p[1] ** 2, p)
    )
    rows, columns = zip(*pairs[:N_COEFFICIENTS], strict=True)
    return np.array(rows), np.array(columns)


_ROWS, _COLUMNS = _low_frequencies()
_WEIGHTS = np.hypot(_ROWS, _COLUMNS)
#: Cosines of an odd number of half waves across the picture are turned over by a mirror, the others stay.
_MIRRORED = np.where(_COLUMNS % 2, -1, 1).astype(np.int32)
#: The first 8 rows of the orthonormal DCT-II of length _SIDE; the constant row is never used.
_BASIS = np.sqrt(2 / _SIDE) * np.cos(np.pi * np.arange(8)[:, None] * (np.arange(_SIDE) + 0.5) / _SIDE)
