"""Measure feature extraction in clips a second, next to the plain way and to the limits of the network and the decoder.

    python benchmarks/bench_extract.py --clips CLIPS --limit 60 --backbone efficientnet_lite0 --streams rgb,motion
    python benchmarks/bench_extract.py --clips CLIPS --memory 300,1200 --backbone efficientnet_lite0

The ways are timed on the same real clips in one run, after a warm-up; each figure is the median over `--rounds`:
    plain     a seek for each frame, one `model.predict` for each clip, TensorFlow float32, one clip after the other
    engine    `extraction_pass`, as the scripts use it: from video files to features on disk
    network   the engine alone, on pictures that are in memory already
    decoder   decoding and shrinking of the same frames alone, on all cores
`engine_over_limit` is engine / min(network, decoder). It would be 1 if the two overlapped without taking processors
from each other. On a machine without a GPU both run on the same cores, so that the rate cannot exceed
`shared_limit` = 1 / (1 / network + 1 / decoder), whatever the schedule; `engine_over_shared_limit` is engine / that.
`cpu_s` is processor seconds per clip of each way; other work on the machine affects it less than the rates.
With `--variants N`, `variants_over_network` is the time for all N variants, which share the decoding, over the
network's time for one; `cpu_variants_over_network` is the same in processor seconds.
With `--memory A,B`, only the peak memory of extracting A clips and B clips is measured, each in its own process, and
the larger one is divided by the smaller one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import itertools

import cv2
import numpy as np

from benchmarks import peak_memory
from violence_detection import cli
from violence_detection.backbones import engines, registry
from violence_detection.errors import UserError
from violence_detection.features import cache, key
from violence_detection.features.config import FeatureConfig
from violence_detection.features.extraction_pass import (
    ExtractionPass,
    WantedClip,
    default_workers,
    open_groups,
)
from violence_detection.video import augment, decode, pictures, sampling
from violence_detection.video.video_files import VideoSearch

#: Number of clips whose pictures are kept in memory; the network alone is timed on them, over and over.
_IMAGES_IN_MEMORY = 8


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--clips", type=Path, required=True, help="folder of videos, searched with its subfolders")
    p.add_argument(
        "--limit", type=int, default=60, help="number of clips, evenly spread over the sorted paths"
    )
    p.add_argument("--backbone", default="efficientnet_lite0")
    p.add_argument("--streams", default="rgb,motion")
    p.add_argument(
        "--variants", type=int, default=1, help="variants of each clip; the plain way always makes one"
    )
    p.add_argument("--engine", default="auto", choices=("auto", "tensorflow", "openvino"))
    p.add_argument("--backbone-weights", type=Path)
    p.add_argument("--random-weights", action="store_true",
                   help="untrained weights, if the published ones are unavailable; the speed is the same")  # fmt: skip
    p.add_argument("--workers", type=int, default=0, help="decoding threads; 0: as the scripts choose")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--skip-plain", action="store_true", help="leave out the plain way, which takes longest")
    p.add_argument("--memory", help="measure peak memory instead, for two numbers of clips, comma separated")
    args = cli.parse(p)
    with tempfile.TemporaryDirectory() as folder:
        if args.random_weights:
            args.backbone_weights = random_weights(args.backbone, Path(folder))
        result = measure_memory(args) if args.memory else measure_speed(args)
    cli.print_summary(result)
    return 0


def measure_speed(args: argparse.Namespace) -> dict[str, Any]:
    bench = Bench(args)
    phases: dict[str, Callable[[], None]] = {
        "engine": bench.engine_way, "network": bench.network_alone, "decoder": bench.decoder_alone,
    }  # fmt: skip
    if not args.skip_plain:
        phases["plain"] = bench.plain_way
    seconds: dict[str, list[float]] = {name: [] for name in phases}
    cpu_s: dict[str, list[float]] = {name: [] for name in phases}
    for _ in range(args.rounds):
        for name, phase in phases.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            phase()
            seconds[name].append(time.perf_counter() - started)
            cpu_s[name].append(time.process_time() - cpu_started)
    n = len(bench.todo)
    rate = {name: n / statistics.median(s) for name, s in seconds.items()}
    limit = min(rate["network"], rate["decoder"])
    shared = 1 / (1 / rate["network"] + 1 / rate["decoder"])
    plain = rate.get("plain")
    return {
        "plain": plain and round(plain, 3),
        **{name: round(rate[name], 3) for name in ("engine", "network", "decoder")},
        "engine_over_plain": plain and round(rate["engine"] / plain, 3),
        "engine_over_limit": round(rate["engine"] / limit, 3),
        "shared_limit": round(shared, 3), "engine_over_shared_limit": round(rate["engine"] / shared, 3),
        "cpu_s": {name: round(statistics.median(s) / n, 4) for name, s in cpu_s.items()},
        "variants": args.variants,
        "variants_over_network": round(args.variants * rate["network"] / rate["engine"], 2),
        "cpu_variants_over_network": round(
            args.variants * statistics.median(cpu_s["engine"]) / statistics.median(cpu_s["network"]), 2
        ),
        "clips": n, "backbone": args.backbone, "streams": args.streams, "engine_name": bench.engine.name,
        "random_weights": args.random_weights, "workers": bench.workers, "cores": os.cpu_count(),
    }  # fmt: skip


class Bench:
    """The ways that are timed, on the same clips."""

    def __init__(self, args: argparse.Namespace):
        asked = FeatureConfig(backbone=(args.backbone,), streams=tuple(args.streams.split(",")))
        self.config = key.for_backbone(asked, args.backbone)
        self.backbone = registry.get(args.backbone)
        self.weights = self.backbone.weights_file(args.backbone_weights)
        self.workers = args.workers or default_workers()
        self.todo = choose(args.clips, args.limit, augment.variant_names("v", args.variants))
        self.engine = engines.create(args.engine, self.backbone, self.weights, self.config.frames)
        self._model: Any = None
        self._images = [
            [images for _, streams in self._variants(clip) for images in streams.values()]
            for clip in self.todo[:_IMAGES_IN_MEMORY]
        ]
        for clip in self.todo:
            clip.path.read_bytes()  # so that every way finds the file in the page cache
        self.engine.submit(self._images[0][0]).result()
        if not args.skip_plain:
            self._model = engines._build(self.backbone, self.weights, "float32")
            self._plain_clip(self.todo[0].path)

    def engine_way(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            (group,) = open_groups(
                self.config,
                self.weights,
                lambda name, stream, weights: cache.FeatureStore.open(
                    Path(folder), key.record(self.config, name, stream, weights)
                ),
            )
            run = ExtractionPass(group, self.engine)
            run.extract(self.todo, self.workers)
        if run.failures:
            raise UserError(f"{run.failures[0]['path']}: {run.failures[0]['reason']}. Remove it from --clips")

    def network_alone(self) -> None:
        jobs = [
            self.engine.submit(images)
            for i in range(len(self.todo))
            for images in self._images[i % len(self._images)]
        ]
        for job in jobs:
            job.result()

    def decoder_alone(self) -> None:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self._decode, self.todo))

    def plain_way(self) -> None:
        for clip in self.todo:
            self._plain_clip(clip.path)

    def _variants(self, clip: WantedClip) -> Any:
        return pictures.clip_variants(
            clip.path, clip.clip_id, clip.variants, self.backbone.input_size, self.config
        )

    def _decode(self, clip: WantedClip) -> None:
        draws = [augment.draw(self.config.augment_seed, clip.clip_id, v) for v in clip.variants]

        def plan(info: decode.VideoInfo) -> Sequence[int]:
            window = sampling.middle_window(info, self.config.window_s)
            samples = [sampling.sample(info, window, d, self.config) for d in draws]
            return sorted(frozenset[int]().union(*(s.frames for s in samples)))

        decode.read(clip.path, plan, pictures.frame_resizer(self.backbone.input_size), threads=1)

    def _plain_clip(self, path: Path) -> None:
        """Seek to each frame, read on for the differences, and predict the clip's pictures of all streams at once."""
        capture = cv2.VideoCapture(str(path))
        n_frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        gap = max(1, round(self.config.motion_spacing_s * capture.get(cv2.CAP_PROP_FPS)))
        motion = "motion" in self.config.streams
        size = self.backbone.input_size
        read_on = sampling.MOTION_STEPS * gap + 1 if motion else 1
        rgb, differences = [], []
        for position in sampling.sample_indices(n_frames, self.config.frames):
            capture.set(cv2.CAP_PROP_POS_FRAMES, int(position))
            read = []
            for _ in range(read_on):
                ok, frame = capture.read()
                if ok:
                    read.append(cv2.cvtColor(cv2.resize(frame, (size, size)), cv2.COLOR_BGR2RGB))
            read = read[::gap]
            if "rgb" in self.config.streams:
                rgb.append(read[0] if read else np.zeros((size, size, 3), np.uint8))
            if motion:
                grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in read]
                grey += [np.zeros((size, size), np.uint8)] * (sampling.MOTION_STEPS + 1 - len(grey))
                differences.append(cv2.merge([cv2.absdiff(a, b) for a, b in itertools.pairwise(grey)]))
        capture.release()
        self._model.predict(np.stack(rgb + differences).astype(np.float32), verbose=0)


def choose(folder: Path, limit: int, variants: tuple[str, ...]) -> list[WantedClip]:
    """Choose `limit` clips, evenly spread over the sorted paths below the folder; repeat them if there are fewer.

    Raises UserError if there are none.
    """
    paths = sorted(VideoSearch().below(folder))
    if not paths:
        raise UserError(f"no videos below {folder}. Name a folder with videos: --clips FOLDER")
    chosen = [paths[i * len(paths) // limit if limit <= len(paths) else i % len(paths)] for i in range(limit)]
    return [WantedClip(f"{i:05}", path, variants) for i, path in enumerate(chosen)]


def random_weights(backbone: str, folder: Path) -> Path:
    """Write untrained weights of a backbone whose published weights come from Keras; return the file's path.

    Raises UserError for other backbones.
    """
    import keras

    untrained: dict[str, Callable[[], Any]] = {
        "efficientnet_b4": lambda: keras.applications.EfficientNetB4(
            include_top=False, weights=None, input_shape=(380, 380, 3), pooling="avg"
        ),
        "vgg19": lambda: keras.applications.VGG19(include_top=True, weights=None),
    }
    if backbone not in untrained:
        raise UserError(
            f"--random-weights works only with {', '.join(untrained)}. For {backbone}, use the published weights"
        )
    path = folder / f"{backbone}.weights.h5"
    untrained[backbone]().save_weights(path)
    return path


def measure_memory(args: argparse.Namespace) -> dict[str, Any]:
    counts = [int(n) for n in args.memory.split(",")]
    peaks = {}
    for count in counts:
        with ThreadPoolExecutor(1) as pool:  # so that an error in the child process is raised here
            peaks[count] = pool.submit(_in_child, args, count).result()
    return {
        "peak_rss_mb": peaks, "largest_over_smallest": round(max(peaks.values()) / min(peaks.values()), 3),
        "backbone": args.backbone, "streams": args.streams, "variants": args.variants,
        "random_weights": args.random_weights,
    }  # fmt: skip


def _in_child(args: argparse.Namespace, count: int) -> int:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_rss_mb, (args, count))


def _peak_rss_mb(args: argparse.Namespace, count: int) -> int:
    args.limit, args.skip_plain = count, True
    Bench(args).engine_way()
    return peak_memory.of_this_mb()


if __name__ == "__main__":
    cli.run_main(main)
