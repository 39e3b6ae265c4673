"""Measure the range of the inputs of a backbone's layers on real clips, so that the backbone can judge in 8 bits.

    python benchmarks/measure_ranges.py --clips ../data/raw --write
    python benchmarks/measure_ranges.py --clips ../data/raw --backbone dinov2_spread --write

With --write, writes i3d_ranges.json or dinov2_ranges.json to violence_detection/backbones/networks (see
backbones/eight_bits.py). Prints one JSON line: how far features computed in 16 bits (`bfloat16`) and in 8 bits (`int8`)
are from those in float32, on clips that the ranges were not measured on.

    features     ||a - b|| / ||b||, where a are the features of a clip and stream and b the same in float32: [mean,
                 largest]
    processor_s  processor seconds per clip and stream
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

from violence_detection import cli
from violence_detection.backbones import eight_bits, engines
from violence_detection.backbones.eight_bits import ActivationRange
from violence_detection.backbones.registry import Backbone
from violence_detection.errors import UserError
from violence_detection.features.key import BackboneRun
from violence_detection.prediction.detector import Detector, load
from violence_detection.system import storage
from violence_detection.video import decode, sampling, window_pictures
from violence_detection.video.augment import PLAIN
from violence_detection.video.video_files import VideoSearch

TO = Path(__file__).resolve().parents[1] / "violence_detection/backbones/networks"
#: A dense layer stays in 16 bits if an input of it is more than this many times their root mean square: with such an
#: outlier in the range, the steps of 8 bits are too wide.
OUTLIER = 25
FILES = {"i3d_actions": "i3d_ranges.json", "dinov2_spread": "dinov2_ranges.json"}


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--clips", type=Path, required=True, help="folder with videos, also in its subfolders")
    p.add_argument("--model", default="accurate", help="model that defines the pictures (default: accurate)")
    p.add_argument("--backbone", choices=tuple(FILES), default="i3d_actions")
    p.add_argument(
        "--limit",
        type=int,
        default=48,
        help="clips to measure, evenly spread; as many others are compared (default: 48)",
    )
    p.add_argument("--write", action="store_true", help="write the ranges beside the backbone's code")
    args = cli.parse(p)
    paths = sorted(VideoSearch().below(args.clips))
    if len(paths) < 2 * args.limit:
        raise UserError(
            f"{args.clips} has {len(paths)} videos, but twice --limit are needed: {2 * args.limit}"
        )
    some = [paths[i] for i in np.linspace(0, len(paths) - 1, 2 * args.limit).round().astype(int)]
    detector = load(args.model)
    (run,) = (r for r in detector.runs if r.name == args.backbone)
    ranges = measured(run, pictures(detector, run, some[::2]))
    if args.write:
        storage.write_json(TO / FILES[run.name], eight_bits.as_record(ranges))
    found = compare(run, ranges, list(pictures(detector, run, some[1::2])))
    cli.print_summary({"backbone": run.name, "clips": args.limit, **found})
    return 0


def pictures(detector: Detector, run: BackboneRun, paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Yield what the backbone sees of each clip's middle window, (F, S, S, 3) uint8, one stream after the other."""
    viewer = detector.runs.index(run)
    for path in paths:
        found = decode.packet_timing(path)
        window = sampling.middle_window(found.info, detector.model.features.window_s)
        for seen in window_pictures.of_file(path, found, [window], detector.viewers, "", [PLAIN]):
            yield from seen.pictures(viewer, PLAIN).values()


def measured(run: BackboneRun, shown: Iterator[np.ndarray]) -> list[ActivationRange]:
    """The input range, over all pictures, of each convolution and of each dense layer without outliers."""
    import openvino as ov
    from openvino import opset13 as ops

    by_frame = run.backbone.per_frame is not None
    frames = 1 if by_frame else run.config.frames
    network = engines.openvino_network(run.backbone, run.weights, frames, by_frame=by_frame)
    layers = eight_bits.convolutions(network) + eight_bits.dense_layers(network)
    ends = [ops.result(layer.input_value(0)) for layer in layers]
    watched = ov.Model(ends, network.get_parameters(), "inputs of layers")
    (runner, *_) = engines._openvino(watched, engines._shape(run.backbone, frames), "float32")
    seen = (images[i : i + frames] for images in shown for i in range(0, len(images), frames))
    spans = np.array([[(v.min(), v.max(), np.square(v).mean()) for v in runner(images)] for images in seen])
    return [
        ActivationRange.of(eight_bits.kernel_of(layer), low, high)
        for layer, low, high, mean in zip(
            layers, spans[..., 0].min(0), spans[..., 1].max(0), np.sqrt(spans[..., 2].mean(0)), strict=True
        )
        if layer.get_type_name() == "Convolution" or max(high, -low) <= OUTLIER * mean
    ]


def compare(
    run: BackboneRun, ranges: Sequence[ActivationRange], shown: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Compare features in 16 and in 8 bits with those in float32: distance, and processor time per clip and stream."""
    backbone = replace(run.backbone, ranges=tuple(ranges))
    exact_runner = _runner(backbone, run, "float32")
    exact = [exact_runner(images) for images in shown]
    out: dict[str, Any] = {}
    for dtype in ("bfloat16", "int8"):
        runner = _runner(backbone, run, dtype)
        runner(shown[0])
        used = time.process_time()
        made = [runner(images) for images in shown]
        used = (time.process_time() - used) / len(shown)
        off = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(made, exact, strict=True)]
        out[dtype] = {
            "features": [round(float(np.mean(off)), 4), round(float(np.max(off)), 4)],
            "processor_s": round(used, 3),
        }
    return out


def _runner(backbone: Backbone, run: BackboneRun, dtype: str) -> Callable[[np.ndarray], np.ndarray]:
    engine = engines.judging_on_cpu(backbone, run.weights, run.config.frames, dtype)
    return lambda images: engine.submit(images).result()


if __name__ == "__main__":
    cli.run_main(main)
