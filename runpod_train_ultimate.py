#!/usr/bin/env python3
"""Step 3: train one model on cached features: by default a BiLSTM with attention.

Reads    <root>/combined_all
Writes   <root>/features: what is missing
         ./models_ultimate: the model, and its card, README.md

Val is looked at only with --show-val: tune by the selection figures. It may be
killed at any moment: the same command continues where it stopped.

Before, look at devices, memory, disk, data and hours; this trains nothing:
    python runpod_train_ultimate.py --check
On a pod:
    python runpod_train_ultimate.py --data-root /workspace/data
On a CPU:
    python runpod_train_ultimate.py --backbone efficientnet_lite0 --augment 5 --batch-size 64
The roadmap's stages: --preset baseline, then ultra, then ultimate (the
default), each with an --output of its own. Any flag overrides a preset.
To watch:
    tail -f training_ultimate_*.log
    tensorboard --logdir models_ultimate/tensorboard_logs
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from violence_detection import cli
from violence_detection.features.config import ExtractConfig, FeatureConfig, FeatureTaskConfig
from violence_detection.training.config import PRESETS, HeadConfig, TrainConfig, check_patience


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    train = cli.build(TrainConfig, args)
    check_patience(train)
    if args.check:
        from violence_detection.features import feature_tasks  # slow imports, hence only here
        from violence_detection.training import pod_check

        feature_tasks.asked_for(cli.build(FeatureTaskConfig, args), "--check")
        how, features = cli.build(ExtractConfig, args), cli.build(FeatureConfig, args)
        found = pod_check.run(how, features, train.epochs)
        cli.print_summary(found)
        return cli.EXIT_DONE if found["ready"] else cli.EXIT_USER_MUST_ACT
    return _train(args, train, cli.command(argv))


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__, "[options]")
    summaries = {name: preset.summary for name, preset in PRESETS.items()}
    preset = PRESETS[cli.add_choice(parser, argv, "--preset", summaries, "ultimate")]
    for config in (ExtractConfig, FeatureTaskConfig, FeatureConfig, TrainConfig):
        cli.add_config(parser, config, defaults=preset.values)
    taken = HeadConfig().recorded(preset.architecture)
    others = [field.name for field in dataclasses.fields(HeadConfig) if field.name not in taken]
    cli.add_config(parser, HeadConfig, defaults=preset.values, skip=others)
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("models_ultimate"),
        help="folder for the model (default: models_ultimate)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a model that was trained with other settings, or whose files are damaged or lost",
    )
    parser.add_argument(
        "--check", action="store_true", help="say what is there and what a run would take; train nothing"
    )
    parser.add_argument(
        "--show-val", action="store_true",
        help="measure the model on val too; the look is noted in combined_all/val_ledger.jsonl. Without it val is not "
        "looked at, and you tune by the selection part",
    )  # fmt: skip
    return cli.parse(parser, argv, log_name="training_ultimate")


def _train(args: argparse.Namespace, train: TrainConfig, command: str) -> int:
    """Extract missing features, train, calibrate and print the summary; return the exit code.

    `command` is recorded in the ledger of looks at val.
    """
    from violence_detection.features import feature_tasks
    from violence_detection.training import devices

    how, features = cli.build(ExtractConfig, args), cli.build(FeatureConfig, args)
    head, task = cli.build(HeadConfig, args), cli.build(FeatureTaskConfig, args)
    if done := feature_tasks.run(task, features, how, args.output, lambda: devices.set_up(train)):
        cli.print_summary(done.summary)
        return cli.exit_code(done.failures)
    from violence_detection.training import run_folder, training_data

    run_folder.require_room_for(args.output, ensemble=False)
    training_data.check(features, how)  # before TensorFlow is imported, which takes seconds
    from violence_detection.evaluation import calibrate, measure, scoring
    from violence_detection.models import model_card
    from violence_detection.system import locks, storage
    from violence_detection.training import trainer

    with locks.only_one(args.output, Path(__file__).name):
        strategy = devices.set_up(train)  # before all else, because TensorFlow cannot change devices later
        architecture = PRESETS[args.preset].architecture
        if not args.overwrite:
            known = trainer.settings_record(architecture, features, how.augment, head, train)
            trainer.check_folder(args.output, {**known, "preset": args.preset})
        data = training_data.prepare(features, how, train.selection_fraction, train.seed)
        record = trainer.run_record(architecture, data, features, how.augment, head, train)
        record["preset"] = args.preset
        trainer.log_settings(record)
        trained = trainer.train(
            record, data, args.output, strategy, args.overwrite, usd_per_hour=how.usd_per_hour
        )
        calibrated = calibrate.calibrate_model(trained.folder, data.selection, train.seed)
        val = None
        if args.show_val:
            val = scoring.score_samples(trained.folder, data.val)
            seen = {"accuracy": val.accuracy, "ci95": val.ci95, "n": len(data.val)}
            combined = how.data_root / "combined_all"
            measure.note_look(combined, "training", command, [trained.folder], len(data.val), seen)
        model_card.write_trained(trained.folder)
        storage.write_failures(args.output / "failures.csv", data.failures)
    cli.print_summary(
        {
            "model": str(trained.model_path),
            "selection_accuracy": trained.selection_accuracy,
            "val_accuracy": val.accuracy if val else None,
            "val_accuracy_ci95": val.ci95 if val else None,
            "val_n": val.n if val else None,
            "val_by_dataset": val.by_dataset if val else None,
            "temperature": calibrated.temperature,
            "epochs_run": trained.epochs_run,
            "samples_per_second": trained.samples_per_second,
            "generated_samples": data.generated,
        }
    )
    return cli.exit_code(data.failures)


if __name__ == "__main__":
    cli.run_main(main)
