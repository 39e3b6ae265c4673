"""Step 1: download the public violence data sets.

Writes each data set to <root>/raw/<dataset>/ as published, with a completion
record. The roadmap's seven, fetched without --datasets, are about 75 GB: hours
on most connections. If it is interrupted, the same command continues and
fetches only what is missing.

Real clips in a minute, without an account:

    python download_all_violence_datasets.py --datasets surveillance_fight
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from violence_detection import cli
from violence_detection.download.config import DownloadConfig
from violence_detection.errors import UserError
from violence_detection.system import console


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, "[options]")
    cli.add_config(parser, DownloadConfig)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--list", action="store_true", help="show the catalogue (with --datasets only those), then end"
    )
    mode.add_argument(
        "--verify",
        action="store_true",
        help="check what is there against its completion records; fetch nothing",
    )
    args = cli.parse(parser, argv)
    config = cli.build(DownloadConfig, args)
    _check_obeyed(config, args)
    from violence_detection.datasets import catalogue, dataset_table
    from violence_detection.download import download

    if args.list:
        listed = download.choose(config) if config.datasets else [*catalogue.load(config.catalogue).values()]
        console.tell(dataset_table.table(listed))
        cli.print_summary({"datasets": {d.key: dict(d.clips) for d in listed}})
        return cli.EXIT_DONE
    result = download.verify(config) if args.verify else download.run(config)
    cli.print_summary(result.summary())
    return cli.exit_code(result.failures)


def _check_obeyed(config: DownloadConfig, args: argparse.Namespace) -> None:
    """Raise UserError for a flag that would have no effect with --list or --verify."""
    mode = "--list" if args.list else "--verify"
    passed_over = ("keep_archives", "dry_run", *["workers"] * args.list) if args.list or args.verify else ()
    for name in passed_over:
        if getattr(config, name) != getattr(DownloadConfig, name):
            raise UserError(
                f"--{name.replace('_', '-')} would do nothing with {mode}, which fetches nothing. Leave it out"
            )


if __name__ == "__main__":
    cli.run_main(main)
