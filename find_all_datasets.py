"""Step 1b: say which data sets are on disk, complete or not, before combining.

Searches <root>/raw, further folders and the caches of kagglehub and kaggle.
A data set is recognised by its published layout, whatever its folder is
called. Says how many clips the untrimmed videos will give, and writes
<root>/inventory.json.

With --check every video is decoded, and <root>/inventory_failures.csv names
the damaged ones. --own NAME=FOLDER takes your own clips. If folders are left
out, the command that takes them is printed.
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
    parser.add_argument(
        "more_roots", type=Path, nargs="*", metavar="ROOT", help="further folders to search, as with --roots"
    )
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
