#!/usr/bin/env python3
"""Step 6: measure trained models on val, or on your own clips.

    python test_ensemble.py --models ./models_ensemble/ --data <root>/combined_all/val/

On your own clips, a folder with a folder for each class or a CSV file
(docs/guides/own_clips.md):

    python test_ensemble.py --models ./models_ensemble/ --data /my/clips --labels fight=Violence nonfight=normal

Writes reports/<model>-<time>/: index.html (a page that opens from disk),
metrics.json, predictions.csv, plots and model_card.md. Completes README.md,
the card in the model's folder.

Val is for the end. Each look at it is noted in combined_all/val_ledger.jsonl,
and the page says how many there were before. Accuracy comes with n and a
95 % interval that counts clips of one source as related. The report also says
whether training has seen these clips.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from violence_detection import cli
from violence_detection.evaluation.config import EvaluationConfig


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, "[options]")
    cli.add_config(parser, EvaluationConfig)
    args = cli.parse(parser, argv)

    from violence_detection.evaluation import evaluate  # slow imports, hence only here
    from violence_detection.evaluation.report import from_evaluation
    from violence_detection.evaluation.report.report import PAGE_NAME

    config = cli.build(EvaluationConfig, args)
    folder = config.output or evaluate.default_report_folder(config)
    config = dataclasses.replace(config, output=folder)
    measured = evaluate.run(config, cli.command(argv))
    cli.print_summary(from_evaluation.summary(measured, folder / PAGE_NAME))
    return cli.exit_code(measured.failures)


if __name__ == "__main__":
    cli.run_main(main)
