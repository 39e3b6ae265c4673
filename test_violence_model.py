#!/usr/bin/env python3
"""Judge new videos with a trained model: violent or not, how likely, and when.

    python test_violence_model.py --model models_ensemble video.mp4 folder_of_videos/

The verdicts are the JSON line on stdout. Frames are sampled and prepared exactly as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from violence_detection import cli
from violence_detection.prediction.config import PredictConfig


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("videos", nargs="+", type=Path, help="video files, or folders searched for them")
    cli.add_config(parser, PredictConfig)
    parser.add_argument("--output", type=Path, help="also write the verdicts to this JSON file")
    args = cli.parse(parser, argv)

    from violence_detection.prediction import batch  # heavy imports only now
    from violence_detection.prediction.detector import Detector
    from violence_detection.system import storage

    videos = batch.find_videos(args.videos)
    judged = list(batch.judge_all(Detector(cli.build(PredictConfig, args)), videos))
    summary = batch.summary(judged)
    if args.output:
        storage.write_json(args.output, summary)
    cli.print_summary(summary)
    return cli.exit_code(summary["failures"])


if __name__ == "__main__":
    cli.run_main(main)
