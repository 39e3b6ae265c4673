"""Compute perceptual fingerprints of clips.

They hardly change if a clip is encoded again, scaled, cropped, brightened or trimmed.

Up to eight frames are taken at fixed times from the start, so that neither the frame rate nor a trimmed end moves them.
Their black bars are removed, and each frame is reduced to the lowest spatial frequencies of its luma, without the
constant term (2D DCT, as in pHash: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010).
The values are weighted by frequency, which whitens the 1/f spectrum of natural images, and scaled to a common contrast.

A fingerprint has at most 192 bytes, written as hex: the first frame, then the changes from frame to frame. The changes
are on a square-root scale, which resolves the small motions that alone distinguish two moments of a fixed camera.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from violence_detection.video import decode

N_FRAMES = 8
N_COEFFICIENTS = 24
#: Time of the first frame of a fingerprint, and the interval between its frames.
FIRST_S = 0.1
STEP_S = 0.2
#: Interval between the fingerprints of a long video. Of 29 real clips cut from one at arbitrary moments, 24 were found
#: again; with an interval of 0.2 s, 25.
EVERY_S = 0.8
#: Standard deviation of the low-pass luma (in levels of 0 to 255) below which a clip has nothing to be recognised by.
MIN_TEXTURE = 2.0

#: Side in pixels of the frames in which black bars are detected, and of those that are transformed.
_SMALL = 64
_SIDE = 32
#: A pixel belongs to a bar if it never differs from black by more than this fraction of the clip's contrast.
_BAR_CONTRAST = 0.1
#: A row or column belongs to a bar if this share of its pixels does; the rest may be a logo.
_BAR_SHARE = 0.75
#: A bar covers at most this share of the picture's height or width.
_BAR_LIMIT = 0.3
#: Largest value of a fingerprint's signed bytes.
_LEVELS = 127
#: Clips per step, so that temporary arrays stay below 1 MB and in the processor's caches.
_CHUNK = 500
#: Values beyond this multiple of the clip's root mean square saturate.
_CLIP_RMS = 4.0


def sample_plan(info: decode.VideoInfo, start: int = 0, length: int | None = None) -> list[int]:
    """Return the frame numbers that a fingerprint needs: up to N_FRAMES, ascending, at fixed times from frame `start`.

    `start` and `length` (in frames) select a window of a longer video; the default is the whole clip.
    """
    end = info.n_frames if length is None else min(start + length, info.n_frames)
    times_s = FIRST_S + STEP_S * np.arange(N_FRAMES)
    frames = start + np.floor(times_s * info.fps + 1e-6).astype(int)
    return sorted({int(f) for f in frames if f < end})


def shrink(frame: np.ndarray) -> np.ndarray:
    """Reduce an RGB uint8 frame of any size to (64, 64) uint8 luma: the `transform` for `video.decode.read`."""
    # before shrinking: one channel shrinks twice as fast as three
    luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return _shrink_luma(luma)


def _shrink_luma(luma: np.ndarray) -> np.ndarray:
    return cv2.resize(luma, (_SMALL, _SMALL), interpolation=cv2.INTER_AREA)


def from_frames(frames: Sequence[np.ndarray]) -> str:
    """Fingerprint the frames of `sample_plan`, in its order: RGB uint8 of any size, or results of `shrink`.

    Returns lower-case hex, 48 digits per frame. A clip without texture (black, one colour) cannot be recognised: its
    fingerprint is the empty string, which matches nothing.
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
    """Fingerprint a video of any length every EVERY_S seconds; return (frame at which it starts, fingerprint) of each.

    The first is that of `of_video`; a clip cut from the video starts near one of them. A start is left out if the video
    ends before its last frame. Raises UnreadableVideo.
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
    """Encode spectra (frames, N_COEFFICIENTS), in levels of luma, as hex; empty if they are below MIN_TEXTURE."""
    if np.sqrt((spectra**2).sum(axis=1).mean()) < MIN_TEXTURE:
        return ""
    weighted = spectra * _WEIGHTS
    scaled = weighted / (np.sqrt((weighted**2).mean()) * _CLIP_RMS)  # 1.0 saturates
    changes = np.diff(scaled, axis=0)
    codes = np.vstack([scaled[:1], np.sign(changes) * np.sqrt(np.abs(changes))])
    return np.clip(np.rint(codes * _LEVELS), -_LEVELS, _LEVELS).astype(np.int8).tobytes().hex()


def to_arrays(fingerprints: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Decode fingerprints to weighted spectra, (n, N_FRAMES, 24) int32, and numbers of real frames, (n,) int64.

    The last frame is repeated where a clip has fewer than N_FRAMES; an empty fingerprint gives zeros. All frames of a
    clip are on one scale, and all values are whole numbers, so that comparisons are exact on any machine. Raises
    ValueError if a text is not a fingerprint.
    """
    digits = 2 * N_COEFFICIENTS
    spectra = np.zeros((len(fingerprints), N_FRAMES, N_COEFFICIENTS), np.int32)
    counts = np.array([len(text) // digits for text in fingerprints], np.int64)
    if any(len(text) % digits or len(text) > digits * N_FRAMES for text in fingerprints):
        raise ValueError(f"a fingerprint has {digits} hex digits per frame and at most {N_FRAMES} frames")
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
    """Return the spectra (..., N_COEFFICIENTS) of the mirrored pictures (left and right swapped); this is exact."""
    return spectra * _MIRRORED


def frequency_weights() -> np.ndarray:
    """Return the factors by which `encode` multiplies spectra: the frequencies, (N_COEFFICIENTS,) float64."""
    return _WEIGHTS.copy()


def picture_box(small: np.ndarray) -> tuple[int, int, int, int]:
    """Find the top, bottom, left and right of the picture inside its black bars, from (frames, 64, 64) uint8 luma.

    Bars left in would outweigh the picture at low frequencies, and all letterboxed clips would look alike.
    """
    brightest = small.max(axis=0).astype(np.float64)
    black, white = np.percentile(brightest, 1), np.percentile(small, 98)
    dark = brightest - black <= _BAR_CONTRAST * (white - black)
    top, bottom = _bars(dark.mean(axis=1))
    left, right = _bars(dark[top : _SMALL - bottom].mean(axis=0))
    return top, _SMALL - bottom, left, _SMALL - right


def _bars(dark_share: np.ndarray) -> tuple[int, int]:
    """Return how many lines to drop at either end, including the line in which bar and picture mix."""
    limit = int(_SMALL * _BAR_LIMIT)
    counts = []
    for shares in (dark_share, dark_share[::-1]):
        is_bar = shares[:limit] >= _BAR_SHARE
        count = limit if is_bar.all() else int(np.argmin(is_bar))
        counts.append(count + 1 if count else 0)
    return counts[0], counts[1]


def _spectrum(picture: np.ndarray) -> np.ndarray:
    """The lowest spatial frequencies of a picture, (N_COEFFICIENTS,) float64, as standard deviations in luma levels."""
    square = cv2.resize(picture, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    return (_BASIS @ square @ _BASIS.T)[_ROWS, _COLUMNS] / _SIDE


def _low_frequencies() -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns, in the DCT, of the N_COEFFICIENTS lowest frequencies, lowest first."""
    pairs = sorted(
        ((r, c) for r in range(8) for c in range(8) if r + c), key=lambda p: (p[0] ** 2 + p[1] ** 2, p)
    )
    rows, columns = zip(*pairs[:N_COEFFICIENTS], strict=True)
    return np.array(rows), np.array(columns)


_ROWS, _COLUMNS = _low_frequencies()
_WEIGHTS = np.hypot(_ROWS, _COLUMNS)
#: Mirroring a picture negates cosines with an odd number of half waves across its width, and keeps the others.
_MIRRORED = np.where(_COLUMNS % 2, -1, 1).astype(np.int32)
#: The first 8 rows of the orthonormal DCT-II of length _SIDE; the constant row is never used.
_BASIS = np.sqrt(2 / _SIDE) * np.cos(np.pi * np.arange(8)[:, None] * (np.arange(_SIDE) + 0.5) / _SIDE)
