"""Step 1b: say which data sets are on disk, complete or not, before anything is combined.

Looks below <root>/raw, any further folder and the caches of kagglehub and kaggle, recognises each data set by its
published layout in whatever folder it stands, says how many clips untrimmed videos will give, and writes
<root>/inventory.json. With --check every video is decoded and damaged ones are named in
<root>/inventory_failures.csv. Your own clips are taken with --own NAME=FOLDER; of folders that are left out, the
command that takes them is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from violence_detection import cli
from violence_detection.combine.config import CutConfig
from violence_detection.find.config import FindConfig


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, "[options] [ROOT ...]")
    cli.add_config(parser, FindConfig)
    cli.add_config(parser, CutConfig)
    parser.add_argument("more_roots", type=Path, nargs="*", metavar="ROOT", help="the same as --roots")
    args = cli.parse(parser, argv)
    from violence_detection.combine.cut import cutting
    from violence_detection.find import find

    config, cut_config = cli.build(FindConfig, args), cli.build(CutConfig, args)
    result = find.run(
        config,
        args.more_roots,
        lambda found: cutting.forecast(found, cut_config, config.data_root, config.workers),
        [cut_config],
    )
    cli.print_summary(result.summary)
    return cli.exit_code(result.failures)


if __name__ == "__main__":
    cli.run_main(main)
