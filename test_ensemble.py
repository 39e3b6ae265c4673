#!/usr/bin/env python3
"""Step 6: measure trained models on the val clips that no training step looked at.

    python test_ensemble.py --models ./models_ensemble/ --data <root>/combined_all/val/

Writes reports/<model>-<time>/: metrics.json, predictions.csv, plots, and index.html, a page that opens from disk.
Accuracy comes with n and a 95 % interval that counts clips of one source as related.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from violence_detection import cli
from violence_detection.evaluation.config import EvaluationConfig


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    cli.add_config(parser, EvaluationConfig)
    args = cli.parse(parser, argv)

    from violence_detection.evaluation import scoring
    from violence_detection.system import storage

    config = cli.build(EvaluationConfig, args)
    scored = scoring.run(config)
    folder = config.output or Path("reports") / f"{config.models.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    command = shlex.join(["python", Path(sys.argv[0]).name, *(sys.argv[1:] if argv is None else argv)])
    page = scoring.report(scored, folder, command)
    storage.write_failures(folder / "failures.csv", scored.failures)
    scoring.log_table(scored, page)
    cli.print_summary(scoring.summary(scored, page))
    return cli.exit_code(scored.failures)


if __name__ == "__main__":
    cli.run_main(main)
