"""Measure what judging costs: the first verdict after a cold start, clips a second, and hours of a camera.

    python benchmarks/bench_predict.py --clips CLIPS --model fast

One JSON line; what is measured repeatedly is the median over --rounds:
    first_start_s      seconds that `test_violence_model.py CLIP` takes if no network is kept yet (see
                       backbones/stored_networks.py), measured once
    cold_start_s       the same with kept networks, and with the files in memory
    judged_with        the engines and their precision; compare with --precision float32
    clips_per_s        from files to verdicts, for --limit real clips and a detector that is loaded
    plain_clips_per_s  the same for --plain of the clips the plain way, on the same pictures: a seek per frame, a Keras
                       `predict` per picture stream, one clip after the other, the middle window of each only
    over_plain         how many times faster these clips are judged here, although longer ones have two windows here
    times_real_time    seconds judged per second of a recording: the clips one after another, 640 x 360 at 25 frames a
                       second, H.264, --minutes long. cameras: how many of them this machine can follow
    cpu_s_an_hour      processor seconds per hour of the recording
    peak_mb            of a process that judges a minute of it, and of one that judges all of it (Linux only);
                       bench_memory.py measures other lengths
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np

from violence_detection import cli
from violence_detection.backbones import engines
from violence_detection.errors import UserError
from violence_detection.prediction.detector import Detector, load
from violence_detection.video import augment, decode, sampling, window_pictures, writer
from violence_detection.video.video_files import VideoSearch

ROOT = Path(__file__).resolve().parent.parent
WIDTH, HEIGHT, FPS = 640, 360, 25.0


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--clips", type=Path, required=True, help="folder of videos, searched with its subfolders")
    p.add_argument("--model", default="accurate", help="as for test_violence_model.py (default: accurate)")
    p.add_argument(
        "--limit", type=int, default=100, help="number of clips, evenly spread over the sorted paths"
    )
    p.add_argument("--plain", type=int, default=10, help="how many of them are also judged the plain way")
    p.add_argument("--minutes", type=float, default=3.0, help="length of the recording (default: 3)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--precision", choices=("auto", "bfloat16", "float32"), default="auto")
    args = cli.parse(p)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    cli.print_summary({**result, "model": args.model, "cores": os.cpu_count()})
    return 0


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    clips = choose(args.clips, args.limit)
    recording = record(clips, folder / "recording.mp4", args.minutes)
    minute = record(clips, folder / "minute.mp4", min(1.0, args.minutes))
    first_s = _seconds(lambda: _cold_start(args, clips[0], folder / "networks"))
    detector = load(args.model, precision=args.precision)
    plain = PlainWay(detector)
    for clip in clips[: args.plain]:
        detector.judge(clip)  # warm-up for both ways
    plain.judge(clips[0])
    cold, ours, by_plain, same, real, cpu = [], [], [], [], [], []
    for _ in range(args.rounds):
        cold.append(_seconds(lambda: _cold_start(args, clips[0], folder / "networks")))
        ours.append(len(clips) / _seconds(lambda: [detector.judge(clip) for clip in clips]))
        some = clips[:: max(1, len(clips) // args.plain)][: args.plain]
        by_plain.append(len(some) / _seconds(lambda some=some: [plain.judge(clip) for clip in some]))
        same.append(len(some) / _seconds(lambda some=some: [detector.judge(clip) for clip in some]))
        used = time.process_time()
        real.append(60 * args.minutes / _seconds(lambda: detector.judge(recording)))
        cpu.append((time.process_time() - used) * 60 / args.minutes)
    return {
        "judged_with": detector.judge(clips[0]).judged_with,
        "first_start_s": round(first_s, 2),
        "cold_start_s": round(statistics.median(cold), 2),
        "clips_per_s": round(statistics.median(ours), 3),
        "plain_clips_per_s": round(statistics.median(by_plain), 3),
        "over_plain": round(statistics.median(a / b for a, b in zip(same, by_plain, strict=True)), 2),
        "times_real_time": round(statistics.median(real), 2),
        "cameras": int(statistics.median(real)),
        "cpu_s_an_hour": round(statistics.median(cpu)),
        "peak_mb": [_peak_mb(args, video) for video in (minute, recording)],
        "clips": len(clips), "plain_clips": len(clips[: args.plain]), "minutes": args.minutes,
    }  # fmt: skip


def choose(folder: Path, limit: int) -> list[Path]:
    """Choose up to `limit` videos of the folder, evenly spread. Raises UserError if there are none."""
    found = sorted(VideoSearch().below(folder))
    if not found:
        raise UserError(f"no videos below {folder}. Name a folder with videos: --clips FOLDER")
    return found[:: max(1, len(found) // limit)][:limit]


def record(clips: Sequence[Path], path: Path, minutes: float) -> Path:
    """Write a recording of this length: the clips one after another, repeated if they are too short; return `path`."""
    wanted = round(minutes * 60 * FPS)
    with writer.h264(path, FPS) as put:
        for _, frame in zip(range(wanted), _endless(clips), strict=False):
            put(frame)
    return path


def _endless(clips: Sequence[Path]) -> Iterator[np.ndarray]:
    while True:
        for clip in clips:
            info = decode.timing(clip)
            for _, frame in decode.moments(clip, info, range(info.n_frames)):
                yield cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)


def _cold_start(args: argparse.Namespace, clip: Path, networks: Path) -> None:
    script = str(ROOT / "test_violence_model.py")
    command = [sys.executable, script, str(clip), "--model", args.model, "--precision", args.precision]
    environment = {**os.environ, "VIOLENCE_NETWORK_CACHE": str(networks)}
    subprocess.run(command, check=True, capture_output=True, env=environment)


def _peak_mb(args: argparse.Namespace, video: Path) -> int:
    """Peak memory, in MB, of a process that only judges the video."""
    program = (
        "import sys, violence_detection as vd; from benchmarks import peak_memory; "
        "vd.load(sys.argv[1], precision=sys.argv[2]).judge(sys.argv[3]); print(peak_memory.of_this_mb())"
    )
    command = [sys.executable, "-c", program, args.model, args.precision, str(video)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return int(said.split()[-1])


def _seconds(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class PlainWay:
    """The same model on the same pictures, in the simplest code: a seek per frame, one `predict` per stream."""

    def __init__(self, detector: Detector):
        self._detector = detector
        self._networks = [engines._build(run.backbone, run.weights, "float32") for run in detector.runs]
        self._views = [viewer.draws("", detector.views) for viewer in detector.viewers]
        self._keep = window_pictures.keeper(detector.viewers)

    def judge(self, path: Path) -> float:
        """P(violent) of the window in the middle of a clip."""
        info = decode.timing(path)
        window = sampling.middle_window(info, self._detector.model.features.window_s)
        plan = window_pictures.WindowPlan(window, info, self._detector.viewers, self._views)
        capture = cv2.VideoCapture(str(path))
        frames = {}
        for number in sorted(plan.frames):
            capture.set(cv2.CAP_PROP_POS_FRAMES, number)
            _, frame = capture.read()
            frames[number] = self._keep(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
        seen = plan.seen(frames)
        model, views = self._detector.model, self._detector.views
        made: dict[str, list[np.ndarray]] = {}
        for number, (run, network) in enumerate(zip(self._detector.runs, self._networks, strict=True)):
            for view in views:
                # without a closer look this view is the plain one again
                if view == augment.CLOSER and seen.closer(number) is None:
                    for stream in run.config.streams:
                        for name in run.inputs(stream):
                            made[name].append(made[name][0])
                    continue
                for stream, images in seen.pictures(number, view).items():
                    features = network.predict(images, batch_size=len(images), verbose=0)
                    for name, values in run.by_input(stream, features).items():
                        made.setdefault(name, []).append(np.asarray(values, np.float32))
        inputs = {name: np.stack(of_views)[None] for name, of_views in made.items()}
        return float(model.average(model.average_views(inputs))[0])


if __name__ == "__main__":
    cli.run_main(main)
