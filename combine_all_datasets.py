"""Step 2: combine the found data sets into one train/val set.

Reads <root>/raw and the caches of kagglehub and kaggle. Untrimmed videos are first cut by their annotations into
clips in <root>/windows. Writes <root>/combined_all/{train,val}/{fight,nonfight}, manifest.csv beside them, and what
was left out and why in duplicates.csv, unlabelled.csv and failures.csv. Exact and near duplicates are removed, no
source stands on both sides, official splits stand. Killed or run again with more data, it reads only what is new.
Your own clips beside or instead of published ones:

    python combine_all_datasets.py --own mine=/my/clips --labels fight=Violence nonfight=normal
"""

from __future__ import annotations

from collections.abc import Sequence

from violence_detection import cli
from violence_detection.combine.config import CombineConfig, CutConfig


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, "[options]")
    cli.add_config(parser, CombineConfig)
    cli.add_config(parser, CutConfig)
    args = cli.parse(parser, argv)
    from violence_detection.combine import combine

    result = combine.run(cli.build(CombineConfig, args), cli.build(CutConfig, args))
    cli.print_summary(result.summary)
    return cli.exit_code(result.failures)


if __name__ == "__main__":
    cli.run_main(main)
