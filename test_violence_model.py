#!/usr/bin/env python3
"""Judge new videos with a trained model: violent or not, how likely, and when.

    python test_violence_model.py video.mp4 folder_of_videos/
    python test_violence_model.py --model models_ensemble video.mp4

The verdicts are the JSON line on stdout. Frames are sampled and prepared exactly as in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection import cli
from violence_detection.prediction.config import PredictConfig

if TYPE_CHECKING:
    from violence_detection.errors import UnreadableVideo
    from violence_detection.prediction.events import Verdict


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("videos", nargs="+", type=Path, help="video files, or folders searched for them")
    cli.add_config(parser, PredictConfig)
    parser.add_argument(
        "--output",
        type=Path,
        help="also write the verdicts to this JSON file; the same command then goes on where it was interrupted",
    )
    args = cli.parse(parser, argv)

    from violence_detection.prediction import batch, verdict_journal  # heavy imports only now

    output: Path | None = args.output
    config = cli.build(PredictConfig, args)
    found = batch.find_videos(args.videos)
    journal = None
    if output:
        batch.check_output(output)
        journal = verdict_journal.path_for(output)
    judged: list[Verdict | UnreadableVideo] = [*found.failures]
    try:
        for item in batch.judge_all(found.videos, config, journal):
            judged.append(item)
    except BaseException as e:  # whatever it is: what is judged is said
        if judged:
            cli.print_summary(batch.summary(judged))
        if isinstance(e, KeyboardInterrupt):
            raise KeyboardInterrupt(
                f"the same command goes on from here: {journal} has the verdicts"
                if journal
                else "the verdicts so far are on stdout. With --output FILE the same command would go on from here"
            ) from e
        raise
    summary = batch.summary(judged)
    try:
        if output:
            batch.write(output, summary)
    finally:
        cli.print_summary(summary)
    return cli.exit_code([*summary["failures"], *(v for v in summary["videos"] if "warning" in v)])


if __name__ == "__main__":
    cli.run_main(main)
