#!/usr/bin/env python3
"""Judge new videos with a trained model: violent or not, how likely, and when.

The verdicts are the JSON line on stdout. Frames are sampled and prepared
exactly as in training.

Judge:
    python test_violence_model.py video.mp4 folder_of_videos/ 'night*.mp4'
    python test_violence_model.py --model models_ensemble video.mp4
Write files for people and programs, then judge again by another threshold:
    python test_violence_model.py night.mp4 --output night --format table,srt,csv --annotate night --clips night
    python test_violence_model.py --rejudge night --threshold 0.8 --output stricter --format table,srt,csv
Set a camera's own threshold by quiet footage, and use it:
    python test_violence_model.py --calibrate quiet_hour.mp4 --save-profile door.json
    python test_violence_model.py --profile door.json night.mp4
Make a page for marks, and learn a camera's threshold from them:
    python test_violence_model.py night.mp4 --output night --timeline night/page
    python test_violence_model.py --rejudge night --model accurate --learn marks.json --save-profile camera.json
Adapt a model to a place:
    python test_violence_model.py --adapt footage_of_the_place --save-model place
Watch a camera:
    python test_violence_model.py front=rtsp://user@192.168.1.20/stream1 --clips events --mqtt mqtt://localhost
Write a model for other programs:
    python test_violence_model.py --model fast --export onnx,tflite exported
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from violence_detection import cli
from violence_detection.constants import BALANCED
from violence_detection.errors import UnreadableVideo, UserError
from violence_detection.prediction import obeyed_flags
from violence_detection.prediction.config import AdaptConfig, OutputConfig, PredictConfig, QuietConfig
from violence_detection.prediction.events import Verdict
from violence_detection.prediction.live.config import LiveConfig
from violence_detection.system import settings

if TYPE_CHECKING:
    from violence_detection.prediction.live.camera_names import NamedCamera

#: What failed before anything was judged, the paths of all videos, and the verdicts, which come one by one.
JudgedRun = tuple[list[Verdict | UnreadableVideo], list[str], Iterable[Verdict | UnreadableVideo]]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    cameras = _cameras(args)
    obeyed_flags.check(vars(args), cli.flags_given(_parser(), argv), bool(cameras))
    for value, run in ((args.export, _export), (args.calibrate, _calibrate), (args.adapt, _adapt)):
        if value:
            try:
                return run(args)
            except KeyboardInterrupt as e:
                if args.calibrate and args.output:
                    raise  # what was judged is kept, and the same command continues from there
                keep = ". With --output FILE what was judged would have been kept" if args.calibrate else ""
                raise KeyboardInterrupt(
                    f"nothing was written, and the same command starts from the beginning{keep}"
                ) from e

    from violence_detection.prediction import batch, written_outputs  # slow imports, hence only here

    config, outputs = cli.build(PredictConfig, args), cli.build(OutputConfig, args)
    if args.learn:
        return _learn(args, config)
    judged_by = None if args.rejudge and config.model is None else config
    output: Path | None = batch.output_file(args.output) if args.output else None
    if output:
        batch.check_output(output, [*args.videos, *filter(None, [args.rejudge])])
    if cameras:
        return _watch(cameras, args, config, outputs, output)
    judged, paths, verdicts = _rejudged(args, config) if args.rejudge else _judged(args, config, output)
    written_outputs.check(outputs, output, judged_by)
    on_samples = batch.on_samples(judged_by)
    try:
        with written_outputs.outputs(outputs, output, paths, judged_by) as written:
            for item in verdicts:
                judged.append(item)
                if isinstance(item, Verdict):
                    judged += written.add(item)
            failures = [item for item in judged if isinstance(item, UnreadableVideo)]
            written.finish([item for item in judged if isinstance(item, Verdict)], failures)
    except BaseException as e:  # whatever ends the run, the verdicts so far are reported
        if judged:
            cli.print_summary({**batch.summary(judged), **on_samples})
        if isinstance(e, KeyboardInterrupt):
            so_far = "the verdicts so far are on stdout" if judged else "no video was judged yet"
            raise KeyboardInterrupt(
                f"the same command continues from here: the verdicts are kept beside {output}"
                if output
                else f"{so_far}. With --output FILE, the same command could continue from here"
            ) from e
        raise
    summary = {**batch.summary(judged), **on_samples}
    try:
        if output:
            batch.write(output, summary)
    finally:
        cli.print_summary(summary)
    return cli.exit_code([*summary["failures"], *(v for v in summary["videos"] if "warning" in v)])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    args = cli.parse(parser, argv)
    by_flag = {
        "--rejudge": args.rejudge,
        "--export": args.export,
        "--calibrate": args.calibrate,
        "--adapt": args.adapt,
    }
    modes = [flag for flag, value in by_flag.items() if value]
    if len(modes) > 1:
        parser.error(f"{' and '.join(modes)} exclude each other: use only one of them")
    if args.learn and not (args.rejudge and args.save_profile and args.model):
        parser.error(
            "--learn goes with --rejudge PATH, the --model that judged the windows, and --save-profile FILE"
        )
    if args.videos and modes and not args.export:
        parser.error(f"{modes[0]} and videos to judge exclude each other: use only one of them")
    if not args.videos and not modes:
        parser.error(
            "give videos to judge, or --rejudge PATH, --export FORMAT DIR, --calibrate or --adapt FOOTAGE"
        )
    if args.calibrate and not args.save_profile:
        parser.error("--calibrate needs --save-profile FILE: where the camera's profile is written")
    if args.save_profile and not (args.calibrate or args.learn):
        parser.error("--save-profile FILE goes with --calibrate or --learn, which make the profile")
    if bool(args.adapt) != bool(args.save_model):
        parser.error("--adapt FOOTAGE and --save-model DIR, where the adapted model is written, go together")
    typed = cli.flags_given(_parser(), argv)
    cli.build(PredictConfig, args).check_one_threshold("threshold" in typed, "operating_point" in typed)
    return args


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser(__doc__, "[options] VIDEO ...")
    parser.add_argument(
        "videos",
        nargs="*",
        help="video files, folders to search for them, quoted patterns ('night*.mp4'), or lists of paths (.txt, .m3u, "
        "@FILE). Or cameras, judged until Ctrl-C or SIGTERM: a number, an rtsp, http, udp or tcp address, or "
        "growing:FILE. NAME= before a camera names it",
    )
    cli.add_config(parser, PredictConfig)
    parser.add_argument(
        "--output",
        type=Path,
        help="also write the verdicts to this JSON file, or into this folder. The same command then continues where "
        "it was interrupted; cameras start over. A new name that does not end in .json is a folder. Only what "
        "such a run has written is replaced",
    )
    parser.add_argument(
        "--rejudge",
        type=Path,
        metavar="PATH",
        help="judge no video: take the windows that a run with --output kept, a file or a folder of them, with the "
        "thresholds and settings of events given now",
    )
    parser.add_argument(
        "--export",
        nargs=2,
        metavar=("FORMAT[,FORMAT]", "DIR"),
        help="judge no video: write the model into this folder as onnx, openvino, tflite or several of them, for "
        "programs that need neither this package nor TensorFlow. What these say is compared with what the model says "
        "here, on made-up pictures and on the videos given, if any",
    )
    cli.add_config(parser, QuietConfig)
    cli.add_config(parser, AdaptConfig)
    parser.add_argument(
        "--save-profile",
        type=Path,
        metavar="FILE",
        help="with --calibrate or --learn: file for the camera profile, for --profile in later runs. Only a profile is "
        "replaced",
    )
    cli.add_config(parser, OutputConfig)
    cli.add_config(parser, LiveConfig)
    parser.add_argument(
        "--learn",
        type=Path,
        metavar="MARKS",
        help="judge no video: learn the camera's threshold and calibration from marks that the page of --timeline "
        "saved, and from the windows of --rejudge. Says what that gives on videos that it did not learn from. Goes "
        "with --rejudge, --model and --save-profile",
    )
    return parser


def _export(args: argparse.Namespace) -> int:
    """Write the model in formats of other programs; return the exit code."""
    from violence_detection.prediction import batch
    from violence_detection.prediction.exports import export

    formats, folder = args.export
    found = batch.find_videos(args.videos) if args.videos else batch.FoundVideos((), ())
    config = cli.build(PredictConfig, args)
    summary = export.run(
        config,
        [name.strip() for name in formats.split(",") if name.strip()],
        settings.expanded(folder),
        found.videos,
    )
    unlisted = [failure.failure() for failure in found.failures]
    summary["failures"] = [*unlisted, *summary["failures"]]
    cli.print_summary(summary)
    return cli.exit_code(summary["failures"])


def _calibrate(args: argparse.Namespace) -> int:
    """Set a camera's own threshold by its quiet footage; return the exit code."""
    from violence_detection.prediction import batch, quiet_footage

    output = batch.output_file(args.output) if args.output else None
    summary = quiet_footage.run(
        cli.build(PredictConfig, args), cli.build(QuietConfig, args), args.save_profile, output
    )
    cli.print_summary(summary)
    return cli.exit_code(summary["failures"])


def _adapt(args: argparse.Namespace) -> int:
    """Adapt the model to a place; return the exit code."""
    from violence_detection.combine import fingerprint
    from violence_detection.prediction import adapting

    adapt = cli.build(AdaptConfig, args)
    assert adapt.adapt
    assert adapt.save_model
    config = cli.build(PredictConfig, args)
    summary = adapting.run(config, adapt.adapt, adapt.save_model, fingerprint.along)
    cli.print_summary(summary)
    return cli.exit_code(summary["failures"])


def _cameras(args: argparse.Namespace) -> Sequence[NamedCamera]:
    """The cameras among the positional arguments; empty if they name videos."""
    from violence_detection.prediction.live import camera_names

    return camera_names.among(args.videos)


def _watch(
    cameras: Sequence[NamedCamera],
    args: argparse.Namespace,
    config: PredictConfig,
    outputs: OutputConfig,
    output: Path | None,
) -> int:
    """Judge cameras until the run is asked to stop; return the exit code."""
    from violence_detection.prediction import batch
    from violence_detection.prediction.live import live_model, watch
    from violence_detection.system import stopping

    live = cli.build(LiveConfig, args)
    watch.check(live, outputs)
    # asked of the model that judges now: at the end, another may be in its place
    on_samples = batch.on_samples(config)
    with stopping.asked_to_stop() as stop:
        summary = watch.run(cameras, live_model.load(config), live, outputs, stop) | on_samples
    try:
        if output:
            batch.write(output, summary)
    finally:
        cli.print_summary(summary)
    return cli.exit_code(summary["failures"])


def _judged(args: argparse.Namespace, config: PredictConfig, output: Path | None) -> JudgedRun:
    """The videos of the positional arguments, judged by the model."""
    from violence_detection.prediction import batch, verdict_journal

    found = batch.find_videos(args.videos)
    journal = verdict_journal.path_for(output) if output else None
    paths = [str(path) for path in found.videos]
    return [*found.failures], paths, batch.judge_all(found.videos, config, journal)


def _rejudged(args: argparse.Namespace, config: PredictConfig) -> JudgedRun:
    """The windows kept by an earlier run, judged again with the thresholds and event settings of this one."""
    from violence_detection.prediction import batch

    if config.model is None and (config.profile or config.operating_point != BALANCED):
        raise UserError(
            f"{config.profile or config.operating_point} belongs to a model, and none is named. Name the --model that "
            "judged the windows"
        )
    profile = batch.profile_of(config)
    verdicts = batch.kept(args.rejudge, config)
    if profile:
        verdicts = [profile.verdict(verdict) for verdict in verdicts]
    return [*batch.unjudged(args.rejudge, verdicts)], [v.path for v in verdicts], verdicts


def _learn(args: argparse.Namespace, config: PredictConfig) -> int:
    """Learn a camera profile from marks; return the exit code."""
    from violence_detection.models import model_files, shipped
    from violence_detection.prediction import batch, camera_profile
    from violence_detection.prediction.review import learning, marks

    camera_profile.check_place(args.save_profile, "--save-profile")
    settings, now = batch.events_by(config), batch.profile_of(config)
    model = model_files.identity(shipped.find(config.model))
    learned = learning.learn(batch.kept(args.rejudge, config), marks.read(args.learn), settings, model, now)
    if learned.profile:
        camera_profile.write(args.save_profile, learned.profile)
    learning.say(learned, args.save_profile)
    written = str(args.save_profile) if learned.profile else None
    cli.print_summary({"profile": written, "why_not": learned.why_not, **learned.figures})
    if learned.too_few:
        raise UserError(
            f"{args.save_profile} was not written: {learned.why_not}. Mark more on the page of --timeline"
        )
    return cli.EXIT_DONE


if __name__ == "__main__":
    cli.run_main(main)
