"""How large what goes into the convolutions of a backbone is on real clips, so that it may judge in 8 bits.

    python benchmarks/measure_ranges.py --clips ../data/raw --write

Writes violence_detection/backbones/networks/i3d_ranges.json (see backbones/eight_bits.py), and prints one JSON line: of
clips that the ranges were not measured on, how far features are off in 8 and in 16 bits.

    features     ||a - b|| / ||b|| of a clip's features and stream, b in float32: mean and largest
    processor_s  of a clip and stream
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
from violence_detection.backbones import eight_bits, engines, stored_networks
from violence_detection.backbones.eight_bits import ActivationRange
from violence_detection.backbones.registry import Backbone
from violence_detection.errors import UserError
from violence_detection.features.key import BackboneRun
from violence_detection.prediction.detector import Detector, load
from violence_detection.system import storage
from violence_detection.video import decode, sampling, window_pictures
from violence_detection.video.augment import PLAIN
from violence_detection.video.video_files import VideoSearch

TO = Path(__file__).resolve().parents[1] / "violence_detection/backbones/networks/i3d_ranges.json"


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--clips", type=Path, required=True, help="folder with videos, searched below")
    p.add_argument("--model", default="accurate", help="with whose pictures (default: accurate)")
    p.add_argument("--backbone", default="i3d_actions")
    p.add_argument("--limit", type=int, default=48, help="clips, evenly spread; as many others are compared")
    p.add_argument("--write", action="store_true", help=f"write {TO.name}")
    args = cli.parse(p)
    paths = sorted(VideoSearch().below(args.clips))
    if len(paths) < 2 * args.limit:
        raise UserError(f"{args.clips} has {len(paths)} videos, fewer than {2 * args.limit}")
    some = [paths[i] for i in np.linspace(0, len(paths) - 1, 2 * args.limit).round().astype(int)]
    detector = load(args.model)
    (run,) = (r for r in detector.runs if r.name == args.backbone)
    ranges = measured(run, pictures(detector, run, some[::2]))
    if args.write:
        storage.write_json(TO, eight_bits.as_record(ranges))
    found = compare(run, ranges, list(pictures(detector, run, some[1::2])))
    cli.print_summary({"backbone": run.name, "clips": args.limit, **found})
    return 0


def pictures(detector: Detector, run: BackboneRun, paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """What the backbone sees of the middle of each clip, (F, S, S, 3) uint8, one stream after the other."""
    viewer = detector.runs.index(run)
    for path in paths:
        found = decode.packet_timing(path)
        window = sampling.middle_window(found.info, detector.model.features.window_s)
        for seen in window_pictures.of_file(path, found, [window], detector.viewers, "", [PLAIN]):
            yield from seen.pictures(viewer, PLAIN).values()


def network_of(run: BackboneRun) -> Any:
    """The openvino.Model in float32, as the engines have it."""
    return stored_networks.network(
        run.backbone,
        run.weights,
        run.config.frames,
        lambda: engines._converted(engines._build(run.backbone, run.weights, "float32")),
    )


def measured(run: BackboneRun, shown: Iterator[np.ndarray]) -> list[ActivationRange]:
    """The range of each convolution over all the pictures."""
    import openvino as ov
    from openvino import opset13 as ops

    network = network_of(run)
    convolutions = eight_bits.convolutions(network)
    ends = [ops.result(convolution.input_value(0)) for convolution in convolutions]
    watched = ov.Model(ends, network.get_parameters(), "inputs of convolutions")
    (runner, *_) = engines._openvino(watched, engines._shape(run.backbone, run.config.frames), "float32")
    spans = np.array([[(v.min(), v.max()) for v in runner(images)] for images in shown])
    return [
        ActivationRange.of(eight_bits._kernel(convolution), span[:, 0].min(), span[:, 1].max())
        for convolution, span in zip(convolutions, spans.swapaxes(0, 1), strict=True)
    ]


def compare(
    run: BackboneRun, ranges: Sequence[ActivationRange], shown: Sequence[np.ndarray]
) -> dict[str, Any]:
    """How far features are off, and what they cost."""
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
    engine = engines._engine("openvino", backbone, run.weights, run.config.frames, dtype)
    return lambda images: engine.submit(images).result()


if __name__ == "__main__":
    cli.run_main(main)
