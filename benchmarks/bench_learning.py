"""Measure what --learn gains on recordings whose fights are known, with the marks that a perfect reviewer would make.

    python benchmarks/bench_learning.py --recordings recordings/judged.json.journal.jsonl --truth recordings/truth.csv

--recordings names windows that a run with --output kept; --truth is a table with the columns file (its name only),
start_s, end_s and dataset. The recordings of one data set stand for a camera; recordings that are not in the table are
left out. Each event of the given settings (--threshold ...) is marked right if it overlaps a fight, otherwise wrong;
fights without an event are marked missed; all recordings count as watched from beginning to end. What is learnt for a
camera is tested on each of its recordings after learning from the others. Prints one JSON line: for each camera the
mistakes before, and with what was learnt from the others (`on_others`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from violence_detection import cli
from violence_detection.prediction import kept_windows
from violence_detection.prediction.config import EventConfig
from violence_detection.prediction.events import Verdict
from violence_detection.prediction.review import learning
from violence_detection.prediction.review.marks import MISSED, RIGHT, WRONG, Mark, Marks
from violence_detection.system import storage


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--recordings", type=Path, required=True, help="file or folder of kept windows")
    parser.add_argument("--truth", type=Path, required=True, help="table of the fights, .csv")
    cli.add_config(parser, EventConfig)
    args = cli.parse(parser, argv)
    settings = cli.build(EventConfig, args)
    fights: dict[str, list[tuple[float, float]]] = {}
    camera_of: dict[str, str] = {}
    for row in storage.read_csv(args.truth):
        fights.setdefault(row["file"], []).append((float(row["start_s"]), float(row["end_s"])))
        camera_of[row["file"]] = row["dataset"]
    cameras: dict[str, list[Verdict]] = {}
    for verdict in kept_windows.read(args.recordings, settings):
        if camera := camera_of.get(Path(verdict.path).name):
            cameras.setdefault(camera, []).append(verdict)
    found = {}
    for camera, verdicts in sorted(cameras.items()):
        learned = learning.learn(verdicts, marked(verdicts, fights), settings, "bench")
        found[camera] = {**learned.figures, "learnt": learned.profile is not None, "why_not": learned.why_not}
    cli.print_summary({"settings": vars(settings), "cameras": found})
    return cli.EXIT_DONE


def marked(verdicts: Sequence[Verdict], fights: Mapping[str, Sequence[tuple[float, float]]]) -> Marks:
    """The marks of somebody who knows the fights, file name -> (start, end) in seconds, and watched everything."""
    by_video: dict[str, list[Mark]] = {}
    for verdict in verdicts:
        events, true = verdict.events, fights.get(Path(verdict.path).name, ())
        marks = [
            Mark(e.start_s, e.end_s, RIGHT if any(_meet((e.start_s, e.end_s), f) for f in true) else WRONG)
            for e in events
        ]
        marks += [Mark(*f, MISSED) for f in true if not any(_meet((e.start_s, e.end_s), f) for e in events)]
        by_video[verdict.path] = sorted(marks, key=lambda m: m.start_s)
    return Marks(by_video, frozenset(by_video), "bench")


def _meet(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


if __name__ == "__main__":
    cli.run_main(main)
