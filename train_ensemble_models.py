#!/usr/bin/env python3
"""Step 4: train the five members of the ensemble on the cached features and average their probabilities.

Members: deep_lstm (three layers), bilstm, gru, conv_lstm (Conv1D + LSTM), attention (transformer encoder).
Reads  <root>/combined_all and <root>/features, writes ./models_ensemble/<member>/ and ensemble.json.
Killed at any moment, the same command goes on where it was.

On a pod:   python train_ensemble_models.py --data-root /workspace/data
Watch:      tail -f training_ensemble_*.log      tensorboard --logdir models_ensemble
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from violence_detection import cli
from violence_detection.config import ExtractConfig, FeatureConfig, HeadConfig, TrainConfig


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    for config in (ExtractConfig, FeatureConfig, TrainConfig, HeadConfig):
        cli.add_config(parser, config)
    parser.add_argument(
        "--output", type=Path, default=Path("models_ensemble"), help="(default: models_ensemble)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace members trained with other settings"
    )
    args = cli.parse(parser, argv, log_name="training_ensemble")

    from violence_detection import feature_tasks  # heavy imports only now

    if (code := feature_tasks.run(args)) is not None:
        return code
    from violence_detection import ensemble, scoring, session

    run = session.prepare(args)
    trained = ensemble.train_members(
        ensemble.MEMBERS, run.record, run.data, args.output, run.strategy, args.overwrite
    )
    val = scoring.score_samples(args.output, run.data.val)
    members = [
        {
            "name": name,
            "model": str(t.model_path),
            "selection_accuracy": t.selection_accuracy,
            "val_accuracy": val.by_member[name],
        }
        for name, t in zip(ensemble.MEMBERS, trained, strict=True)
    ]
    cli.print_summary(
        {
            "members": members,
            "ensemble_val_accuracy": val.accuracy,
            "ensemble_val_accuracy_ci95": val.ci95,
            "generated_samples": run.data.generated,
        }
    )
    return run.finish(args.output)


if __name__ == "__main__":
    cli.run_main(main)
