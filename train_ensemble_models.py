#!/usr/bin/env python3
"""Steps 4 and 5: train the members of the ensemble on the cached features and average their probabilities.

Members: deep_lstm (three layers), bilstm, gru, conv_lstm (Conv1D + LSTM), attention (transformer encoder).
Reads  <root>/combined_all and <root>/features, writes ./models_ensemble/<member>/, ensemble.json and README.md, a card.
Val is not looked at, unless with --show-val: the selection figures are what one tunes by.
Killed at any moment, the same command goes on where it was.

On a pod:   python train_ensemble_models.py --data-root /workspace/data --parallel
Folds:      python train_ensemble_models.py --cross-validate 5            -> fold_<k>/, oof_predictions.csv
One set:    python train_ensemble_models.py --cross-validate 5 --all-clips --datasets surveillance_fight
            the same, with the other data sets added to what is trained on: --add-datasets rest
Hard clips: python train_ensemble_models.py --cross-validate 5 --fine-tune-hard      -> hard/
At the end: python train_ensemble_models.py --final --ship NAME       every labelled clip -> final/, and a model by name
Watch:      tail -f training_ensemble_*.log      tensorboard --logdir models_ensemble
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
        help="train N models at once in processes of their own; without N, one a GPU or every two cores, at least two "
        "(default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=Path("models_ensemble"), help="(default: models_ensemble)"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace members trained with other settings, or whose files are damaged or lost",
    )
    args = cli.parse(parser, argv, log_name="training_ensemble")
    asked, how = cli.build(EnsembleConfig, args), cli.build(ExtractConfig, args)
    features = cli.build(FeatureConfig, args)
    head, train = cli.build(HeadConfig, args), cli.build(TrainConfig, args)

    from violence_detection.ensemble import ensemble_run, run_checks  # heavy imports only now
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
