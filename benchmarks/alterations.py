"""Write altered copies of a video with OpenCV: the changes that clips undergo when they are shared on the web."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

_WRITERS = {"MJPG": ".avi", "XVID": ".avi", "WMV2": ".avi", "mp4v": ".mp4", "VP80": ".mkv"}


@dataclass(frozen=True)
class Alteration:
    """How one copy is changed. Fractions are of the original; cropping removes `crop` of the width and the height.

    `gain` and `offset` change the brightness: levels (0 to 255) are multiplied by one, and the other is added.
    """

    codec: str = "mp4v"
    jpeg_quality: int | None = None
    scale: float = 1.0
    crop: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    logo: float = 0.0
    letterbox: float = 0.0
    fps_factor: float = 1.0
    trim_end: float = 0.0
    mirrored: bool = False


def draw(kind: str, rng: np.random.Generator) -> Alteration:
    """Draw a random alteration of a kind in KINDS or MIRRORED_KINDS."""
    return {**KINDS, **MIRRORED_KINDS}[kind](rng)


#: Name -> a function that draws an alteration of random strength.
KINDS: dict[str, Callable[[np.random.Generator], Alteration]] = {
    "low_bitrate": lambda rng: Alteration(codec="VP80", jpeg_quality=int(rng.integers(12, 30))),
    "scaled_half": lambda rng: Alteration(codec="XVID", scale=0.5),
    "cropped": lambda rng: Alteration(crop=rng.uniform(0.04, 0.06)),
    "brightness": lambda rng: Alteration(gain=rng.uniform(0.7, 1.4), offset=rng.uniform(-30, 30)),
    "logo": lambda rng: Alteration(logo=rng.uniform(0.12, 0.2)),
    "frame_rate": lambda rng: Alteration(codec="XVID", fps_factor=float(rng.choice([0.5, 0.6, 0.8, 1.2, 2.0]))),
    "trimmed_end": lambda rng: Alteration(trim_end=rng.uniform(0.1, 0.2)),
    "letterbox": lambda rng: Alteration(letterbox=rng.uniform(0.08, 0.16)),
    "combined": lambda rng: Alteration(
        codec="WMV2", jpeg_quality=40, scale=0.75, crop=rng.uniform(0.02, 0.04), gain=rng.uniform(0.85, 1.2),
        offset=rng.uniform(-15, 15), logo=0.1, fps_factor=float(rng.choice([0.6, 0.8])), trim_end=rng.uniform(0.1, 0.2),
    ),
}  # fmt: skip
#: The same for mirrored copies. They share footage with the original, but are not the same clip.
MIRRORED_KINDS: dict[str, Callable[[np.random.Generator], Alteration]] = {
    "mirrored": lambda _: Alteration(mirrored=True),
    "mirrored_combined": lambda rng: replace(KINDS["combined"](rng), mirrored=True),
}


def write(source: Path, stem: Path, alteration: Alteration, rng: np.random.Generator) -> Path:
    """Write an altered copy of `source`; return its path, which is `stem` with the suffix of the container.

    Raises RuntimeError if OpenCV cannot write the codec.
    """
    frames, fps = _read(source)
    frames = frames[: max(8, round(len(frames) * (1 - alteration.trim_end)))]
    count = max(8, round(len(frames) * alteration.fps_factor))
    picks = np.minimum((np.arange(count) / alteration.fps_factor).astype(int), len(frames) - 1)
    corner, shift = int(rng.integers(4)), rng.uniform(0, 1, 2)
    path = stem.with_suffix(_WRITERS[alteration.codec])
    writer: cv2.VideoWriter | None = None
    for pick in picks:
        frame = alter_frame(frames[pick], alteration, corner, shift)
        if writer is None:
            size = frame.shape[1], frame.shape[0]
            fourcc = cv2.VideoWriter.fourcc(*alteration.codec)
            writer = cv2.VideoWriter(str(path), fourcc, fps * alteration.fps_factor, size)
            if not writer.isOpened():
                raise RuntimeError(f"this build of OpenCV cannot write {alteration.codec} to {path.suffix}")
        writer.write(frame)
    if writer is not None:
        writer.release()
    return path


def alter_frame(frame: np.ndarray, alteration: Alteration, corner: int, shift: np.ndarray) -> np.ndarray:
    """Alter one BGR uint8 frame. `corner` (0 to 3): where the logo is; `shift` (2,) in [0, 1): where the crop is."""
    height, width = frame.shape[:2]
    rows, columns = round(height * alteration.crop), round(width * alteration.crop)
    top, left = round(rows * shift[0]), round(columns * shift[1])
    out = frame[top : top + height - rows, left : left + width - columns]
    out = out[:, ::-1] if alteration.mirrored else out
    if alteration.gain != 1.0 or alteration.offset:
        out = cv2.convertScaleAbs(np.maximum(out * alteration.gain + alteration.offset, 0))
    out = _with_logo(out, alteration.logo, corner) if alteration.logo else out
    if alteration.letterbox:
        bar = round(out.shape[0] * alteration.letterbox)
        out = cv2.copyMakeBorder(out, bar, bar, 0, 0, cv2.BORDER_CONSTANT, value=(0, 0, 0))
    size = [max(16, int(n * alteration.scale) // 2 * 2) for n in (out.shape[1], out.shape[0])]
    out = cv2.resize(out, size, interpolation=cv2.INTER_AREA)
    if alteration.jpeg_quality is not None:
        _, coded = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, alteration.jpeg_quality])
        out = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    return out


def _with_logo(frame: np.ndarray, side: float, corner: int) -> np.ndarray:
    """Draw a two-coloured box, `side` of the width and of the height, in a corner with a small margin."""
    height, width = frame.shape[:2]
    box_h, box_w, margin_y, margin_x = int(height * side), int(width * side), height // 40, width // 40
    top = margin_y if corner < 2 else height - margin_y - box_h
    left = margin_x if corner % 2 == 0 else width - margin_x - box_w
    out = frame.copy()
    cv2.rectangle(out, (left, top), (left + box_w, top + box_h), (230, 230, 230), cv2.FILLED)
    cv2.circle(out, (left + box_w // 2, top + box_h // 2), max(2, box_h // 3), (40, 40, 200), cv2.FILLED)
    return out


def _read(path: Path) -> tuple[list[np.ndarray], float]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    fps = capture.get(cv2.CAP_PROP_FPS) or 25.0
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        frames.append(frame)
    capture.release()
    return frames, fps
