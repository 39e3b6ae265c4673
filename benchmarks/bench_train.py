"""Measure how fast the ultimate head trains on features from disk, compared with the same features in memory.

    python benchmarks/bench_train.py --folder /tmp/bench_train

Prints one JSON line: samples_per_second (from disk), in_memory_samples_per_second and ratio (both measured in one
process, in alternating epochs), peak_rss_mb (of a process that only reads from disk) and peak_rss_mb_double (the same
with a cache twice as large). The feature cache contains random features (20, 1792) float16; its files are dropped from
the system's page cache before each epoch from disk.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peak_memory

STEP = (20, 1792)
INPUT = "efficientnet_b4.rgb"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder in which the cache is made; removed afterwards"
    )
    parser.add_argument("--clips", type=int, default=1024)
    parser.add_argument("--variants", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument(
        "--epochs", type=int, default=3, help="measured epochs of each kind, after one unmeasured"
    )
    parser.add_argument("--mixed-precision", default="auto", choices=("auto", "on", "off"))
    parser.add_argument("--part", choices=("both", "disk"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(_measure(args)))
        return
    try:
        _make_cache(args.folder, 2 * args.clips, args.variants)
        both = _part("both", args.clips, args)
        rss = [_part("disk", clips, args)["peak_rss_mb"] for clips in (args.clips, 2 * args.clips)]
    finally:
        shutil.rmtree(args.folder, ignore_errors=True)
    print(
        json.dumps(
            {
                **{k: both[k] for k in ("samples_per_second", "in_memory_samples_per_second", "ratio")},
                "peak_rss_mb": rss[0],
                "peak_rss_mb_double": rss[1],
                "cache_mb": round(args.clips * args.variants * STEP[0] * STEP[1] * 2 / 1e6),
                "batch_size": args.batch_size,
                "cores": os.cpu_count(),
            }
        )
    )


def _part(part: str, clips: int, args: argparse.Namespace) -> dict[str, float]:
    """Measure in a separate process, so that its peak memory is that of this part alone."""
    command = [sys.executable, __file__, "--part", part, "--folder", str(args.folder), "--clips", str(clips)]
    for name in ("variants", "batch_size", "epochs", "mixed_precision"):
        command += ["--" + name.replace("_", "-"), str(getattr(args, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _names(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    return [f"c{i:06d}" for i in range(args.clips)], [f"v{i}" for i in range(args.variants)]


def _make_cache(folder: Path, clips: int, variants: int) -> None:
    import numpy as np

    from violence_detection.features.cache import FeatureStore

    rng = np.random.default_rng(0)
    store = FeatureStore(folder)
    pool = rng.normal(size=(variants, *STEP)).astype(np.float16)
    for i in range(clips):
        store.add(f"c{i:06d}", {f"v{j}": pool[j] * (1 + i % 7) for j in range(variants)}, "bench")


def _measure(args: argparse.Namespace) -> dict[str, float]:
    import dataclasses

    import numpy as np
    import pandas as pd

    from violence_detection.features.cache import FeatureStore
    from violence_detection.training import compiled_model, devices, training_data
    from violence_detection.training.config import HeadConfig, TrainConfig
    from violence_detection.training.feed import Feed

    config = TrainConfig(batch_size=args.batch_size, mixed_precision=args.mixed_precision)
    strategy = devices.set_up(config)
    clip_ids, variants = _names(args)
    store = FeatureStore(args.folder)
    labels = np.where(np.arange(args.clips) % 2, "fight", "nonfight")
    rows = pd.DataFrame({"clip_id": clip_ids, "label": labels})
    feeds = {"disk": Feed(training_data.load({INPUT: store}, rows, variants, in_memory=False))}
    if args.part == "both":
        feeds["memory"] = Feed(training_data.load({INPUT: store}, rows, variants, in_memory=True))
    steps = -(-args.clips // args.batch_size)
    record: dict[str, Any] = {
        "architecture": "bilstm_attention",
        "inputs": {INPUT: STEP},
        "head": dataclasses.asdict(HeadConfig()),
        "train": dataclasses.asdict(config),
    }
    with strategy.scope():
        model = compiled_model.build(record, steps)
    epoch, seconds = 0, dict.fromkeys(feeds, 0.0)
    batches = {name: feed.training(args.batch_size, 0, lambda: epoch) for name, feed in feeds.items()}
    for epoch in range(args.epochs + 1):
        for name in feeds:
            if name == "disk":
                _drop_from_page_cache([store.path(c) for c in clip_ids])
            started = time.monotonic()
            model.fit(batches[name], steps_per_epoch=steps, epochs=1, shuffle=False, verbose=0)
            if epoch:  # the first one builds the graph
                seconds[name] += time.monotonic() - started
    samples = args.epochs * steps * args.batch_size
    rates = {name: round(samples / s, 1) for name, s in seconds.items()}
    return {
        "samples_per_second": rates["disk"],
        "in_memory_samples_per_second": rates.get("memory", 0.0),
        "ratio": round(seconds.get("memory", 0.0) / seconds["disk"], 3),
        "peak_rss_mb": peak_memory.of_this_mb(),
    }


def _drop_from_page_cache(paths: list[Path]) -> None:
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


if __name__ == "__main__":
    main()
