"""Measure how far away people may be: clips shown small in a still scene, judged with and without the closer look.

    python train_ensemble_models.py --leave-one-dataset-out --closer-look ... --output MODELS
    python benchmarks/bench_distance.py --data-root DATA --models MODELS --output judged.csv

Every --every-th clip of each data set is judged by the model that this data set was left out of
(MODELS/seed_0/without_*). At size 0.5 a clip keeps its resolution and is placed in a picture of twice its width and
height, at a position that depends on its id, as a camera at twice the distance would see it. The rest of the picture is
still: it is the median over time of a clip without a fight from the same data set. The files are H.264. At size 1 the
clip itself is judged. With `--passers-by`, another clip without a fight from the same data set is shown at the same
size in the corner farthest from it. That needs sizes of at most a third, and its own --output.

Prints one JSON line: by size and way of judging, {accuracy, roc_auc, found, false_alarms} at threshold 0.5 of each data
set, and their mean. `whole`: the whole picture only; `closer`: with the closer look, as the model judges. `square` is
the share of clips of which a part was looked at closer. judged.csv (clip_id, dataset, source_group, label, size,
passers_by, whole, closer, square, every, models) has P(fight) of each clip and size. If the command is killed, running
it again continues.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import os
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from violence_detection import cli
from violence_detection.combine import manifest
from violence_detection.errors import UserError
from violence_detection.evaluation import metrics
from violence_detection.models import model_files, trained_model
from violence_detection.prediction.detector import Detector, load
from violence_detection.system import console
from violence_detection.video import decode, writer

COLUMNS = (
    "clip_id", "dataset", "source_group", "label", "size", "passers_by", "whole", "closer", "square", "every", "models",
)  # fmt: skip
WAYS = ("whole", "closer")
#: Number of frames of a clip whose median is the still scene.
_STILLS = 9
#: x264's constant rate factor: low enough that hardly any detail is lost.
_CRF = 18
#: Largest size at which another clip fits into the farthest corner, wherever the first one is.
_LARGEST_OF_TWO = 1 / 3


def main() -> int:
    p = cli.parser(__doc__)
    p.add_argument("--data-root", type=Path, required=True, help="folder that contains combined_all/")
    p.add_argument("--models", type=Path, required=True, help="output folder of train_ensemble_models.py")
    p.add_argument("--output", type=Path, required=True, help="CSV file for the judged clips")
    p.add_argument(
        "--every", type=int, default=4, help="judge every N-th clip of a data set, by id (default: 4)"
    )
    p.add_argument(
        "--sizes",
        type=float,
        nargs="+",
        default=[1.0, 0.5, 0.33],
        help="fractions of the picture's width that a clip fills",
    )
    p.add_argument("--passers-by", action="store_true", help="show another clip without a fight beside it")
    args = cli.parse(p)
    if args.passers_by and max(args.sizes) > _LARGEST_OF_TWO:
        raise UserError("--passers-by needs --sizes of at most a third, such as 0.33")
    judged = _known(args.output)
    how = {
        "passers_by": str(int(args.passers_by)),
        "every": str(args.every),
        "models": _identity(args.models),
    }
    for name, value in how.items():
        if any(row.get(name) != value for row in judged):
            flag = name.replace("_", "-")
            raise UserError(f"{args.output} was judged with a different --{flag}: name another --output")
    with args.output.open("a", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, COLUMNS)
        if not judged:
            out.writeheader()
        for row in _judged(args, {(r["clip_id"], float(r["size"])) for r in judged}):
            out.writerow({**row, **how})
            file.flush()
    cli.print_summary(summarised(pd.read_csv(args.output)))
    return 0


def _identity(models: Path) -> str:
    """Hash of all models that a data set was left out of: the folder may contain others when the run continues."""
    found = sorted((models / "seed_0").glob("without_*"))
    text = "".join(f"{path.name} {model_files.identity(path)}\n" for path in found)
    return hashlib.sha256(text.encode()).hexdigest()


def _known(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _judged(args: argparse.Namespace, known: set[tuple[str, float]]) -> Iterator[dict[str, Any]]:
    combined = args.data_root / "combined_all"
    frame = manifest.read(combined).sort_values("clip_id", ignore_index=True)
    for dataset in sorted(set(frame.dataset)):
        model = args.models / "seed_0" / f"without_{dataset}"
        if not trained_model.load(model).closer_look:
            raise UserError(f"{model} was trained without the closer look: train it with --closer-look")
        mine = frame[frame.dataset == dataset]
        quiet = mine[mine.label != metrics.FIGHT].reset_index(drop=True)
        detector = load(model)
        chosen = mine.iloc[:: args.every]
        for clip_id, path, group, label in console.progress(
            list(zip(chosen.clip_id, chosen.path, chosen.source_group, chosen.label, strict=True)),
            desc=dataset,
            unit="clip",
        ):
            sizes = [size for size in args.sizes if (clip_id, size) not in known]
            if not sizes:
                continue
            rng = np.random.default_rng(zlib.crc32(clip_id.encode()))
            others = quiet[quiet.clip_id != clip_id]
            other = others.iloc[int(rng.integers(len(quiet) - 1))]
            scene, places = _still(combined / other.path), rng.random((1, 2))
            shown = [combined / path]
            if args.passers_by:
                shown.append(combined / others.iloc[int(rng.integers(len(others)))].path)
                places = np.stack([*places, places[0] < 0.5])
            for size in sizes:
                with tempfile.TemporaryDirectory() as folder:
                    video = shown[0]
                    if size < 1:
                        video = laid_in(shown, scene, size, places, Path(folder) / "laid.mp4")
                    whole, closer, square = judged(detector, video)
                yield {
                    "clip_id": clip_id,
                    "dataset": dataset,
                    "source_group": group,
                    "label": label,
                    "size": size,
                    "whole": round(whole, 4),
                    "closer": round(closer, 4),
                    "square": int(square),
                }


def judged(detector: Detector, video: Path) -> tuple[float, float, bool]:
    """The highest P(fight) of a video's windows from the whole picture only and with the closer look.

    Also returns whether any window was looked at closer.
    """
    model = detector.model

    def both(inputs: trained_model.Inputs, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool]:
        whole = model.average(model.average_views({name: v[:, :1] for name, v in inputs.items()}))
        return whole, p, any((v[:, 0] != v[:, -1]).any() for v in inputs.values())

    found, _ = detector.windows_of(video, both)
    whole, closer = (float(np.concatenate(p).max()) for p in list(zip(*found, strict=True))[:2])
    return whole, closer, any(square for *_, square in found)


def laid_in(videos: Sequence[Path], scene: np.ndarray, size: float, places: np.ndarray, path: Path) -> Path:
    """Write a video that shows others in a still scene; return `path`.

    The first video fills `size` of the picture's width and height, and the others are scaled to its size. `places`
    (N, 2): x, y of each in the room that is left, 0 to 1. The others play forwards and backwards until the first ends.
    """
    info = decode.probe(videos[0])
    besides = [_there_and_back(video, info) for video in videos[1:]]
    ground: np.ndarray | None = None
    with writer.h264(path, info.fps, crf=_CRF) as put:
        first = (frame for _, frame in decode.moments(videos[0], info, range(info.n_frames)))
        for frames in zip(first, *besides, strict=False):  # the others never end
            height, width = frames[0].shape[:2]
            if ground is None:
                ground = cv2.resize(scene, (round(width / size), round(height / size)))
            room = ground.shape[1] - width, ground.shape[0] - height
            shown = ground.copy()
            for frame, place in zip(frames, places, strict=True):
                left, top = (round(float(n)) for n in place * room)
                shown[top : top + height, left : left + width] = cv2.resize(frame, (width, height))
            put(shown)
    return path


def _there_and_back(video: Path, shown_with: decode.VideoInfo) -> Iterator[np.ndarray]:
    """Yield frames of a video at the moments of `shown_with`, forwards and backwards without end: (H, W, 3) uint8."""
    info = decode.probe(video)
    frames = [frame for _, frame in decode.moments(video, info, range(info.n_frames))]
    for number in itertools.count():
        at = round(number * info.fps / shown_with.fps) % max(2 * len(frames) - 2, 1)
        yield frames[min(at, 2 * len(frames) - 2 - at)]


def _still(video: Path) -> np.ndarray:
    """The still scene of a video, (H, W, 3) uint8 RGB: the median over time."""
    info = decode.probe(video)
    numbers = sorted(set(np.linspace(0, info.n_frames - 1, _STILLS, dtype=int).tolist()))
    frames = np.stack([frame for _, frame in decode.moments(video, info, numbers)])
    return np.median(frames, axis=0).astype(np.uint8)


def summarised(rows: pd.DataFrame) -> dict[str, Any]:
    """The figures that `main` prints, by size and way of judging."""
    found: dict[str, Any] = {}
    for size, of_size in rows.groupby("size", sort=False):
        ways: dict[str, Any] = {}
        for way in WAYS:
            sets = {str(name): _figures(part, way) for name, part in of_size.groupby("dataset")}
            mean = {
                key: round(float(np.mean([s[key] for s in sets.values()])), 4)
                for key in next(iter(sets.values()))
            }
            ways[way] = {"mean": mean, **sets}
        found[f"{size:g}"] = {**ways, "square": round(float(of_size.square.mean()), 4), "n": len(of_size)}
    return found


def _figures(rows: pd.DataFrame, way: str) -> dict[str, float]:
    p, is_fight = rows[way].to_numpy(float), (rows.label == metrics.FIGHT).to_numpy()
    return {
        "accuracy": float(((p >= 0.5) == is_fight).mean()),
        "roc_auc": float(roc_auc_score(is_fight, p)),
        "found": float((p[is_fight] >= 0.5).mean()),
        "false_alarms": float((p[~is_fight] >= 0.5).mean()),
    }


if __name__ == "__main__":
    sys.exit(cli.run_main(main))
