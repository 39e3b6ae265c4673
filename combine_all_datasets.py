"""Step 2: combine the data sets that were found into one train/val set.

Reads    <root>/raw and the caches of kagglehub and kaggle
Writes   <root>/windows: clips cut from untrimmed videos by their annotations
         <root>/combined_all/{train,val}/{fight,nonfight}: all clips
         <root>/combined_all/manifest.csv: a row per clip; beside it
         duplicates.csv, unlabelled.csv and failures.csv: what was left out,
         and why

Exact and altered copies are removed. No source is in both train and val. The
published splits of RWF-2000, SCVD and CCTV-Fights are kept. If it is killed,
or run again with more data, it reads only what is new.

Your own clips, beside published ones or instead of them:

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
