#!/usr/bin/env python3
"""Judge new videos with a trained model: violent or not, how likely, and when.

    python test_violence_model.py video.mp4 folder_of_videos/ 'night*.mp4'
    python test_violence_model.py --model models_ensemble video.mp4
    python test_violence_model.py night.mp4 --output night --format table,srt,csv --annotate night --clips night
    python test_violence_model.py --rejudge night --threshold 0.8 --output night

The verdicts are the JSON line on stdout. Frames are sampled and prepared exactly as in training.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from violence_detection import cli
from violence_detection.constants import OPERATING_POINTS
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction.config import OutputConfig, PredictConfig
from violence_detection.prediction.events import Verdict

#: What failed before anything is judged, the paths of all videos, and the verdicts to come.
Given = tuple[list[Verdict | UnreadableVideo], list[str], Iterable[Verdict | UnreadableVideo]]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)

    from violence_detection.prediction import batch, written_outputs  # heavy imports only now

    config, outputs = cli.build(PredictConfig, args), cli.build(OutputConfig, args)
    output: Path | None = batch.output_file(args.output) if args.output else None
    if output:
        batch.check_output(output)
    written_outputs.check(outputs, output)
    judged, paths, verdicts = _rejudged(args, config) if args.rejudge else _judged(args, config, output)
    try:
        with written_outputs.outputs(outputs, output, paths) as written:
            for item in verdicts:
                judged.append(item)
                if isinstance(item, Verdict):
                    judged += written.add(item)
            written.finish([item for item in judged if isinstance(item, Verdict)])
    except BaseException as e:  # whatever it is: what is judged is said
        if judged:
            cli.print_summary(batch.summary(judged))
        if isinstance(e, KeyboardInterrupt):
            raise KeyboardInterrupt(
                f"the same command goes on from here: the verdicts are kept beside {output}"
                if output
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


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "videos",
        nargs="*",
        help="video files, folders searched for them, quoted patterns ('night*.mp4'), or lists of paths (.txt, .m3u, "
        "@FILE)",
    )
    cli.add_config(parser, PredictConfig)
    parser.add_argument(
        "--output",
        type=Path,
        help="also write the verdicts to this JSON file, or into this folder; the same command then goes on where it "
        "was interrupted",
    )
    parser.add_argument(
        "--rejudge",
        type=Path,
        metavar="PATH",
        help="judge no video: a file with windows that a run with --output wrote, or a folder of such, with the "
        "thresholds and settings of events given now",
    )
    cli.add_config(parser, OutputConfig)
    args = cli.parse(parser, argv)
    if bool(args.videos) == bool(args.rejudge):
        parser.error("give videos to judge, or --rejudge PATH")
    return args


def _judged(args: argparse.Namespace, config: PredictConfig, output: Path | None) -> Given:
    """The videos that are meant, judged by the model."""
    from violence_detection.prediction import batch, verdict_journal

    found = batch.find_videos(args.videos)
    journal = verdict_journal.path_for(output) if output else None
    paths = [str(path) for path in found.videos]
    return [*found.failures], paths, batch.judge_all(found.videos, config, journal)


def _rejudged(args: argparse.Namespace, config: PredictConfig) -> Given:
    """Windows that were kept, with the thresholds of now."""
    from violence_detection.prediction import batch, kept_windows

    if config.model is None and config.operating_point != OPERATING_POINTS[0]:
        raise UserError(f"whose {config.operating_point}? Name the --model that judged the windows")
    verdicts = kept_windows.read(args.rejudge, batch.events_by(config))
    return [], [v.path for v in verdicts], verdicts


if __name__ == "__main__":
    cli.run_main(main)
