#!/usr/bin/env python3
"""Step 3: train one model on cached backbone features; by default the ultimate one, a BiLSTM with attention.

Reads  <root>/combined_all, writes <root>/features (what is missing) and ./models_ultimate.
Killed at any moment, the same command goes on where it was.

Before:     python runpod_train_ultimate.py --check          devices, memory, disk, data, hours; trains nothing
On a pod:   python runpod_train_ultimate.py --data-root /workspace/data
On a CPU:   python runpod_train_ultimate.py --backbone efficientnet_lite0 --augment 5 --batch-size 64
Progress:   --preset baseline, then ultra, then ultimate, each with an --output of its own; any flag overrides a preset
Watch:      tail -f training_ultimate_*.log      tensorboard --logdir models_ultimate/tensorboard_logs
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from violence_detection import cli
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.training.config import PRESETS, HeadConfig, TrainConfig


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    summaries = {name: preset.summary for name, preset in PRESETS.items()}
    preset = PRESETS[cli.add_choice(parser, argv, "--preset", summaries, "ultimate")]
    for config in (ExtractConfig, FeatureConfig, TrainConfig, HeadConfig):
        cli.add_config(parser, config, defaults=preset.values)
    parser.add_argument(
        "--output", type=Path, default=Path("models_ultimate"), help="(default: models_ultimate)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a model trained with other settings"
    )
    parser.add_argument(
        "--check", action="store_true", help="say what is there and what it will take; train nothing"
    )
    args = cli.parse(parser, argv, log_name="training_ultimate")

    if args.check:
        from violence_detection.training import pod_check

        return pod_check.run(args)
    from violence_detection.features import feature_tasks

    if (code := feature_tasks.run(args)) is not None:
        return code
    from violence_detection.evaluation import scoring
    from violence_detection.training import session, trainer

    run = session.prepare(args)
    record = {**run.record(preset.architecture), "preset": args.preset}
    session.log_settings(record)
    trained = trainer.train(
        record, run.data, args.output, run.strategy, args.overwrite, usd_per_hour=run.where.usd_per_hour
    )
    val = scoring.score_samples(trained.folder, run.data.val)
    cli.print_summary(
        {
            "model": str(trained.model_path),
            "selection_accuracy": trained.selection_accuracy,
            "val_accuracy": val.accuracy,
            "val_accuracy_ci95": val.ci95,
            "epochs_run": trained.epochs_run,
            "samples_per_second": trained.samples_per_second,
            "generated_samples": run.data.generated,
        }
    )
    return run.finish(args.output)


if __name__ == "__main__":
    cli.run_main(main)
