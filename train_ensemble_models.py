#!/usr/bin/env python3
"""Steps 4 and 5: train an ensemble's members on cached features and average them.

Members: deep_lstm (three layers), bilstm, gru, conv_lstm (Conv1D + LSTM) and
attention (a transformer encoder), unless --members names others.

Reads    <root>/combined_all
Writes   <root>/features: what is missing
         ./models_ensemble: <member>/, ensemble.json, and its card, README.md

Val is looked at only with --show-val: tune by the selection figures. It may be
killed at any moment: the same command continues where it stopped.

On a pod:
    python train_ensemble_models.py --data-root /workspace/data --parallel
Folds, into fold_<k>/ and oof_predictions.csv:
    python train_ensemble_models.py --cross-validate 5
Folds of one data set (--add-datasets rest trains on all others as well):
    python train_ensemble_models.py --cross-validate 5 --all-clips --datasets surveillance_fight
More of the clips that are misjudged, into hard/:
    python train_ensemble_models.py --cross-validate 5 --fine-tune-hard
At the end, every labelled clip, into final/, and a model with a name:
    python train_ensemble_models.py --final --ship NAME
To watch:
    tail -f training_ensemble_*.log
    tensorboard --logdir models_ensemble
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from violence_detection import cli
from violence_detection.ensemble.config import EnsembleConfig
from violence_detection.features.config import ExtractConfig, FeatureConfig, FeatureTaskConfig
from violence_detection.system.settings import Limits
from violence_detection.training.config import HeadConfig, TrainConfig


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, "[options]")
    for config in (EnsembleConfig, ExtractConfig, FeatureTaskConfig, FeatureConfig, TrainConfig, HeadConfig):
        cli.add_config(parser, config)
    parser.add_argument(
        "--parallel", nargs="?", const=0, default=1, metavar="N",
        type=cli.number_within("--parallel", int, Limits(most=1000)),
        help="train N models at once, each in a process of its own. Without N: one per GPU; without GPUs one per two "
        "cores, at least two (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("models_ensemble"),
        help="folder for the ensemble (default: models_ensemble)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace members that were trained with other settings, or whose files are damaged or lost",
    )
    args = cli.parse(parser, argv, log_name="training_ensemble")
    asked, how = cli.build(EnsembleConfig, args), cli.build(ExtractConfig, args)
    features = cli.build(FeatureConfig, args)
    head, train = cli.build(HeadConfig, args), cli.build(TrainConfig, args)

    from violence_detection.ensemble import ensemble_run, run_checks  # slow imports, hence only here
    from violence_detection.features import feature_tasks
    from violence_detection.system import locks
    from violence_detection.training import devices, run_folder

    run_checks.check_heads(asked, head, train)
    task, wanted = cli.build(FeatureTaskConfig, args), partial(run_checks.wanted_clips, asked)
    if done := feature_tasks.run(task, features, how, args.output, lambda: devices.set_up(train), wanted):
        cli.print_summary(done.summary)
        return cli.exit_code(done.failures)
    run_folder.require_room_for(args.output, ensemble=True)
    run_checks.check_all(asked, how, features, head, train, args.output)
    with locks.only_one(args.output, Path(__file__).name):
        run = ensemble_run.prepare(
            asked,
            how,
            features,
            head,
            train,
            args.output,
            args.overwrite,
            cli.command(argv),
        )
        summary, failures = run.run(), ensemble_run.finish(run)
    cli.print_summary(summary)
    return cli.exit_code(failures)


if __name__ == "__main__":
    cli.run_main(main)
