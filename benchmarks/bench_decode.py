"""Compare the speed of OpenCV's reader and of this package's, which knows the time of every frame.

    python benchmarks/bench_decode.py --clips CLIPS --limit 160 --frames 20,80

Both decode the same clips to the end with one thread, and keep evenly spaced frames as RGB. They take turns in one run;
figures are medians over `--rounds`: seconds for all clips, and `ratio`, this package's seconds over OpenCV's.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2

from violence_detection import cli
from violence_detection.errors import UserError
from violence_detection.video import decode, sampling


def by_opencv(path: Path, count: int) -> None:
    """Read to the end with OpenCV and keep `count` evenly spaced frames."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = frozenset(sampling.sample_indices(stated, count).tolist())
    kept = []
    number = 0
    while capture.grab():
        if number in wanted:
            kept.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
        number += 1
    capture.release()


def by_time(path: Path, count: int) -> None:
    """Do the same with this package."""
    decode.read(path, lambda info: sampling.sample_indices(info.n_frames, count).tolist(), threads=1)


def seconds(read: Callable[[Path, int], None], paths: Sequence[Path], count: int) -> float:
    """Seconds that reading all clips takes."""
    started = time.perf_counter()
    for path in paths:
        read(path, count)
    return time.perf_counter() - started


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--clips", type=Path, required=True, help="folder of videos, searched with its subfolders")
    p.add_argument(
        "--limit", type=int, default=160, help="number of clips, evenly spread over the sorted paths"
    )
    p.add_argument(
        "--frames", default="20,80", help="numbers of frames to keep of each clip, comma separated"
    )
    p.add_argument("--rounds", type=int, default=5)
    args = cli.parse(p)
    cv2.setNumThreads(1)
    paths = sorted(p for p in args.clips.rglob("*") if p.suffix.lower() in (".avi", ".mp4", ".mpg", ".mov"))
    if not paths:
        raise UserError(f"no videos below {args.clips}. Name a folder with videos: --clips FOLDER")
    paths = paths[:: max(1, len(paths) // args.limit)][: args.limit]
    found = {}
    for count in map(int, args.frames.split(",")):
        times: dict[str, list[float]] = {"opencv": [], "this": []}
        for _ in range(args.rounds):
            times["opencv"].append(seconds(by_opencv, paths, count))
            times["this"].append(seconds(by_time, paths, count))
        found[f"{count} frames"] = {name: round(statistics.median(t), 3) for name, t in times.items()} | {
            "ratio": round(statistics.median(b / a for a, b in zip(*times.values(), strict=True)), 3)
        }
    cli.print_summary({"clips": len(paths), **found})
    return 0


if __name__ == "__main__":
    cli.run_main(main)
