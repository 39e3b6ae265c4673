"""Measure what evaluating many clips costs when their features are cached: time, memory and the size of the page.

    python benchmarks/bench_evaluation.py --folder /tmp/bench_evaluation --clips 10000

Makes a data root of synthetic clips (one drawn video under many names, random features of efficientnet_lite0, random
fingerprints), trains the default ensemble on some of them for two epochs, and runs test_ensemble.py on the others as a
user would. Prints one JSON line with, among others, seconds, peak_rss_mb (of the largest process) and page_mb.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import peak_memory

if TYPE_CHECKING:
    import numpy as np

BACKBONE, STEP = "efficientnet_lite0", (20, 1280)
_REPOSITORY = Path(__file__).resolve().parent.parent
_FRAMES, _FPS, _SIZE = 60, 20.0, (160, 120)
_CLIPS_A_SOURCE = 5
_FINGERPRINT_BYTES = 192


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--folder", type=Path, required=True, help="folder for everything that is made; removed afterwards"
    )
    parser.add_argument("--clips", type=int, default=10_000, help="number of clips that are judged")
    parser.add_argument("--train-clips", type=int, default=400)
    parser.add_argument("--streams", default="rgb")
    parser.add_argument("--tta", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="print to stderr where the time is spent")
    parser.add_argument("--keep", action="store_true", help="keep the folder; the next run uses it as it is")
    args = parser.parse_args()
    root = args.folder.resolve() / "data"
    try:
        if not (root / "combined_all").is_dir():
            _make(root, args.clips, args.train_clips, args.streams.split(","), args.tta)
        if not (args.folder / "models" / "ensemble.json").is_file():
            _train(args.folder, args.streams)
        print(json.dumps(_measure(args)))
    finally:
        if not args.keep:
            shutil.rmtree(args.folder, ignore_errors=True)


def _make(root: Path, clips: int, train_clips: int, streams: Sequence[str], views: int) -> None:
    import numpy as np

    from violence_detection.backbones import registry
    from violence_detection.combine import manifest
    from violence_detection.features import key
    from violence_detection.features.cache import FeatureStore
    from violence_detection.features.config import FeatureConfig
    from violence_detection.system import storage
    from violence_detection.video import augment

    rng = np.random.default_rng(0)
    config = FeatureConfig(backbone=(BACKBONE,), streams=tuple(streams))
    weights = registry.get(BACKBONE).weights_file(None)
    stores = [FeatureStore.open(root, key.record(config, BACKBONE, s, weights)) for s in streams]
    for store in stores:
        store.note_engine("tensorflow")
    rows = [_row(rng, i, "train" if i < train_clips else "val") for i in range(train_clips + clips)]
    combined = root / "combined_all"
    video = root / "raw" / "one.avi"
    _draw(video)
    for row in rows:
        path = combined / str(row["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(video, path)
        names = augment.variant_names(augment.VIEW, views) if row["split"] == "val" else ["v0"]
        for store in stores:
            values = {}
            for name in names:
                values[name] = rng.normal(0, 1, STEP).astype(np.float32)
                values[name][:, :16] += 0.1 * (row["label"] == "fight")
            store.add(str(row["clip_id"]), values, "tensorflow")
    for store in stores:
        store.index.save()
    storage.write_csv(combined / manifest.BY_TIME_NAME, ["clip_id"], [])
    storage.write_csv(combined / manifest.FILE_NAME, list(manifest.COLUMNS), rows)


def _row(rng: np.random.Generator, i: int, side: str) -> dict[str, object]:
    label = ("nonfight", "fight")[i % 2]
    return {
        "clip_id": f"{i:016x}",
        "path": f"{side}/{label}/{i:05d}.avi",
        "source_path": "raw/one.avi",
        "label": label,
        "dataset": ("rwf_2000", "hockey_fights", "real_life_violence", "surveillance_fight")[(i // 20) % 4],
        "source_group": f"{side}:{i // _CLIPS_A_SOURCE}",
        "split": side,
        "official_split": "",
        "sha256": f"{i:064x}",
        "fingerprint": rng.bytes(_FINGERPRINT_BYTES).hex(),
        "duration_s": _FRAMES / _FPS,
        "fps": _FPS,
        "width": _SIZE[0] + int(rng.integers(0, 3)),
        "height": _SIZE[1],
        "n_frames": _FRAMES,
        "codec": "mjpeg",
    }


def _draw(path: Path) -> None:
    import cv2
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), _FPS, _SIZE)
    for i in range(_FRAMES):
        frame = np.random.default_rng(i // 10).integers(0, 255, (*_SIZE[::-1], 3), dtype=np.uint8)
        writer.write(cv2.GaussianBlur(frame, (0, 0), 4))
    writer.release()


def _train(folder: Path, streams: str) -> None:
    command = [sys.executable, str(_REPOSITORY / "train_ensemble_models.py"), "--data-root", str(folder / "data"),
               "--output", str(folder / "models"), "--log-dir", str(folder), "--backbone", BACKBONE,
               "--streams", streams, "--augment", "1", "--epochs", "2", "--batch-size", "64"]  # fmt: skip
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=_REPOSITORY)


def _measure(args: argparse.Namespace) -> dict[str, object]:
    report = args.folder / "report"
    profiled = ["-m", "cProfile", "-o", str(args.folder / "profile")] if args.profile else []
    command = [sys.executable, *profiled, str(_REPOSITORY / "test_ensemble.py"), "--models",
               str(args.folder / "models"), "--data", str(args.folder / "data/combined_all/val"), "--output",
               str(report), "--tta", str(args.tta)]  # fmt: skip
    started = time.monotonic()
    done, peak_mb = peak_memory.of_command(command, _REPOSITORY)
    seconds = time.monotonic() - started
    if done.returncode:
        raise SystemExit("test_ensemble.py failed")
    said = json.loads(done.stdout.splitlines()[-1])
    if args.profile:
        import pstats

        pstats.Stats(str(args.folder / "profile"), stream=sys.stderr).sort_stats("cumulative").print_stats(60)
    return {
        "clips": said["n"],
        "members": len(said["members"]),
        "views": args.tta,
        "seconds": round(seconds, 1),
        "peak_rss_mb": peak_mb,
        "page_mb": round((report / "index.html").stat().st_size / 1e6, 2),
        "report_mb": round(sum(f.stat().st_size for f in report.iterdir()) / 1e6, 2),
        "cores": os.cpu_count(),
    }


if __name__ == "__main__":
    main()
