"""Measure time and memory to combine N small real files, and to combine them again when nothing is new.

    python benchmarks/bench_combine.py --clips DIR --n 10000

The files are excerpts of the videos below DIR (16 frames, 96 x 64 pixels, XVID), named like those of Hockey Fights and
Violent Flows. No two are the same, but excerpts of one video may share footage, so that the near-duplicate search has
real work. They are made once and kept in --work. Then combine_all_datasets.py is run twice, each time as a separate
process. Prints one JSON line. `peak_rss_mb` is an upper bound: the peak of the largest process times the number of
processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2

from benchmarks import peak_memory
from violence_detection.errors import UnreadableVideo
from violence_detection.video import decode
from violence_detection.video.video_files import VideoSearch

SCRIPT = Path(__file__).resolve().parent.parent / "combine_all_datasets.py"
FRAMES, SIZE = 16, (96, 64)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True, help="folder of real videos")
    parser.add_argument(
        "--n", type=int, default=10_000, help="smallest number of files to combine (default: 10000)"
    )
    parser.add_argument(
        "--work", type=Path, help="folder in which the files are kept (default: a temporary one)"
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = args.work or Path(temporary)
        made = make_files(args.clips, root, args.n, args.workers)
        first, again = combine(root, args.workers), combine(root, args.workers)
    print(json.dumps({
        "n": made, "seconds": first["seconds"], "seconds_again": again["seconds"],
        "cpu_seconds": first["cpu_seconds"], "cpu_seconds_again": again["cpu_seconds"],
        "again_over_first": round(again["cpu_seconds"] / first["cpu_seconds"], 4),
        "peak_rss_mb": max(first["peak_rss_mb"], again["peak_rss_mb"]), "train": first["train"], "val": first["val"],
        "duplicates_removed": first["duplicates_removed"], "near_duplicate_groups": first["near_duplicate_groups"],
    }))  # fmt: skip
    return 0


def make_files(clips: Path, root: Path, n: int, workers: int) -> int:
    """Make at least n excerpts below <root>/raw, unless it has some; return how many there are.

    Exits with a message if there are fewer than n.
    """
    paths = sorted(VideoSearch().below(clips))
    raw = root / "raw"
    made = sum(1 for _ in raw.rglob("*.avi"))
    per_video = -(-n // max(len(paths), 1)) + 1  # one more, because short videos yield fewer
    if made == 0:
        jobs = [(p, k, raw, per_video) for k, p in enumerate(paths)]
        with ProcessPoolExecutor(workers, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
            for count in pool.map(excerpts, jobs, chunksize=4):
                made += count
    if made < n:
        sys.exit(f"{clips} yields {made} excerpts, not {n}. Use --n {made}, or an empty --work folder")
    return made


def excerpts(job: tuple[Path, int, Path, int]) -> int:
    """Write up to `count` excerpts of one video, which share frames only if it is short; return how many.

    `job`: the video, its number, the folder raw/, and `count`.
    """
    path, number, raw, count = job
    try:
        info, frames = decode.read(path, lambda i: range(min(i.n_frames, FRAMES * count)), _small)
    except UnreadableVideo:
        return 0
    available = min(info.n_frames, FRAMES * count)
    step = max(1, min(FRAMES, (available - FRAMES) // max(count - 1, 1)))
    starts = range(0, max(available - FRAMES, 0) + 1, step)[:count]
    for k, start in enumerate(starts):
        target = raw / _place(number * count + k, number)
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(target), cv2.VideoWriter.fourcc(*"XVID"), info.fps, SIZE)
        for i in range(start, min(start + FRAMES, available)):
            writer.write(frames[i])
        writer.release()
    return len(starts)


def _small(frame: decode.Frame) -> decode.Frame:
    return cv2.cvtColor(cv2.resize(frame, SIZE, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)


def _place(number: int, source: int) -> str:
    """A file name as published: every third video poses as Hockey Fights, the others as Violent Flows."""
    fight = source % 2 == 0
    if source % 3 == 0:
        return f"hockey/data/{'fi' if fight else 'no'}{number}_xvid.avi"
    label = "Violence" if fight else "NonViolence"
    return f"flows/{1 + source % 5}/{label}/crowd__Title{number}__someone__id{source:09d}.avi"


def combine(root: Path, workers: int) -> dict[str, float]:
    """Run the script once; return its summary with wall time, processor time and peak memory."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [
        sys.executable,
        str(SCRIPT),
        "--data-root",
        str(root),
        "--no-caches",
        "--workers",
        str(workers),
    ]
    done, peak_mb = peak_memory.of_command(command)
    if done.returncode not in (0, 1):  # 1: it left out copies of one video under both labels
        sys.exit(f"combine_all_datasets.py ended with status {done.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        **json.loads(done.stdout),
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(sum(after[:2]) - sum(before[:2]), 2),
        "peak_rss_mb": (1 + workers) * peak_mb,
    }


if __name__ == "__main__":
    sys.exit(main())
