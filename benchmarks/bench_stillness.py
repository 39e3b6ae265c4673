"""Measure how much of fights, quiet footage and noise `--skip-still` skips, and how much faster it judges a night.

    python benchmarks/bench_stillness.py --data-root DATA --quiet QUIET

DATA/combined_all is the output of combine_all_datasets.py, QUIET a folder of videos without a fight. One JSON line:
    still_below   grey levels: a window that changes by less is still (video/stillness.py)
    windows       for each data set's fights and other clips, and for the quiet videos: how many windows there are, how
                  many are still, the smallest change, and its 1 %, 5 % and 50 % quantiles
    fights        the same for fights that are made harder to see. `quarter`, `eighth`: shrunk to this fraction of each
                  side, in a picture that is otherwise still; `dark`: a fifth of the contrast; `noisy`: sensor noise of
                  10 grey levels
    noise         share of windows that count as moving, although they show a still picture with this much sensor noise
                  (standard deviation in grey levels, before the picture of 640 x 360 is shrunk); one window per video
    night         H.264, --minutes long: the first picture of one quiet video with noise of 5 grey levels, and in the
                  middle up to a minute of the video itself. Times real time, windows and events, with --skip-still and
                  without; null if --minutes is 0
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np

from violence_detection import cli
from violence_detection.combine import manifest
from violence_detection.constants import CLASS_NAMES
from violence_detection.prediction.detector import Detector, load
from violence_detection.video import decode, sampling, stillness, window_pictures, writer
from violence_detection.video.video_files import VideoSearch

Frames: TypeAlias = list[np.ndarray]
WIDTH, HEIGHT, FPS = 640, 360, 25
#: Standard deviations of sensor noise, in grey levels.
NOISES = (2, 5, 10, 20)
NIGHT_NOISE = 5
#: Pictures of noise that are generated; frames draw from them.
GRAINS = 400


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--data-root", type=Path, required=True, help="folder that contains combined_all/")
    p.add_argument("--quiet", type=Path, required=True, help="folder of videos without a fight")
    p.add_argument(
        "--model", default="fast", help="model whose windows and frames are measured (default: fast)"
    )
    p.add_argument("--minutes", type=float, default=10.0, help="length of the night; 0: none (default: 10)")
    args = cli.parse(p)
    detector = load(args.model)
    by_group, harder, noise = looked_at(detector, groups(args))
    cli.print_summary(
        {
            "still_below": stillness.STILL_BELOW,
            "windows": {name: figures(changes) for name, changes in by_group.items()},
            "fights": {name: figures(changes) for name, changes in harder.items()},
            "noise": noise,
            "night": night(args) if args.minutes else None,
            "model": args.model,
        }
    )
    return 0


def groups(args: argparse.Namespace) -> dict[str, list[Path]]:
    """The videos by `data set, class`, and the quiet ones."""
    combined = args.data_root / "combined_all"
    out: dict[str, list[Path]] = {}
    for row in manifest.read(combined).itertuples():
        out.setdefault(f"{row.dataset}, {row.label}", []).append(combined / str(row.path))
    return {**dict(sorted(out.items())), "quiet": quiet_videos(args)}


def quiet_videos(args: argparse.Namespace) -> list[Path]:
    return sorted(VideoSearch().below(args.quiet))


def looked_at(
    detector: Detector, videos: Mapping[str, Sequence[Path]]
) -> tuple[dict[str, list[float]], dict[str, list[float]], dict[str, float]]:
    """Changes of windows by group, of fights made harder to see, and the share of noise that counts as moving."""
    rng = np.random.default_rng(0)
    by_group: dict[str, list[float]] = {name: [] for name in videos}
    harder: dict[str, list[float]] = {name: [] for name in HARDER}
    moving: dict[int, list[bool]] = {noise: [] for noise in NOISES}
    for group, paths in videos.items():
        for path in paths:
            for number, frames in enumerate(windows(detector, path)):
                by_group[group].append(stillness.change_of(frames))
                if group.endswith(f", {CLASS_NAMES[1]}"):
                    for name, change in HARDER.items():
                        harder[name].append(stillness.change_of(change(frames, rng)))
                if number == 0:
                    for noise in NOISES:
                        moving[noise].append(
                            not stillness.is_still(noisy([frames[0]] * len(frames), rng, noise))
                        )
    return by_group, harder, {str(noise): round(float(np.mean(m)), 4) for noise, m in moving.items()}


def windows(detector: Detector, path: Path) -> Iterator[Frames]:
    """Yield, for each window of a file, the frames that the model looks at."""
    info = decode.timing(path)
    every = sampling.sliding_windows(info, detector.model.features.window_s, detector.stride_s)
    shown = [window for window in every if sampling.shows_movement(info, window)]
    for seen in window_pictures.of_file(path, info, shown, detector.viewers, "", detector.views):
        yield list(seen.whole_frames())


def smaller(part: int) -> Callable[[Frames, np.random.Generator], Frames]:
    def change(frames: Frames, _: np.random.Generator) -> Frames:
        side = len(frames[0]) // part
        at = (len(frames[0]) - side) // 2
        out = []
        for frame in frames:
            out.append(frames[0].copy())
            out[-1][at : at + side, at : at + side] = cv2.resize(
                frame, (side, side), interpolation=cv2.INTER_AREA
            )
        return out

    return change


def dark(frames: Frames, _: np.random.Generator) -> Frames:
    return [cv2.convertScaleAbs(frame, alpha=0.2) for frame in frames]


def noisy(frames: Frames, rng: np.random.Generator, noise: float = 10.0) -> Frames:
    """Add the noise of a sensor with WIDTH x HEIGHT pixels, whose standard deviation is `noise` grey levels there."""
    height, width, _ = frames[0].shape
    made = grains(height, width)
    chosen = made[rng.integers(len(made), size=len(frames))]
    return [
        np.clip(frame + noise * grain[..., None] + 0.5, 0, 255).astype(np.uint8)
        for frame, grain in zip(frames, chosen, strict=True)
    ]


@functools.cache
def grains(height: int, width: int) -> np.ndarray:
    """Pictures of noise with standard deviation 1 before they are shrunk: (GRAINS, height, width) float32."""
    rng = np.random.default_rng(1)
    whole = (rng.normal(0, 1, (HEIGHT, WIDTH)).astype(np.float32) for _ in range(GRAINS))
    return np.stack([cv2.resize(grain, (width, height), interpolation=cv2.INTER_AREA) for grain in whole])


HARDER: dict[str, Callable[[Frames, np.random.Generator], Frames]] = {
    "quarter": smaller(4),
    "eighth": smaller(8),
    "dark": dark,
    "noisy": noisy,
}


def figures(changes: Sequence[float]) -> dict[str, Any]:
    least, one, five, half = np.quantile(changes, [0, 0.01, 0.05, 0.5])
    return {
        "n": len(changes),
        "still": sum(change < stillness.STILL_BELOW for change in changes),
        "least": round(float(least), 1),
        "quantiles": {"1%": round(float(one), 1), "5%": round(float(five), 1), "50%": round(float(half), 1)},
    }


def night(args: argparse.Namespace) -> dict[str, Any]:
    video = quiet_videos(args)[0]
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "night.mp4"
        with writer.h264(recording, FPS) as put:
            for frame in night_frames(video, args.minutes):
                put(frame)
        for skip in (True, False, True, False):  # alternating, so that the machine's other work affects both
            detector = load(args.model, skip_still=skip)
            began_s = time.perf_counter()
            verdict = detector.judge(recording)
            name = "skip_still" if skip else "all"
            speed = round(verdict.duration_s / (time.perf_counter() - began_s), 1)
            out.setdefault(name, {"windows": len(verdict.windows), "still": verdict.still_windows})
            out[name].setdefault("times_real_time", []).append(speed)
            out[name]["events"] = len(verdict.events)
    return out


def night_frames(video: Path, minutes: float) -> Iterator[np.ndarray]:
    info = decode.timing(video)
    rng = np.random.default_rng(0)
    _, first = decode.read(video, lambda _: range(1))
    still = cv2.resize(first[0], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    noise = [rng.normal(0, NIGHT_NOISE, (HEIGHT, WIDTH, 1)).astype(np.float32) for _ in range(50)]
    quiet_frames = round((minutes * 60 - min(60.0, info.duration_s)) * FPS / 2)

    def quiet() -> Iterator[np.ndarray]:
        for _ in range(quiet_frames):
            yield np.clip(still + noise[rng.integers(len(noise))], 0, 255).astype(np.uint8)

    yield from quiet()
    for _, frame in decode.moments(video, info, range(min(info.n_frames, 60 * FPS))):
        yield cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    yield from quiet()


if __name__ == "__main__":
    cli.run_main(main)
