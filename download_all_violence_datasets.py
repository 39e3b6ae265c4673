"""Step 1: download the public violence data sets.

Writes <root>/raw/<dataset>/ as published, with a completion record. The roadmap's seven are about 75 GB,
hours on most lines; any interruption costs only what had not arrived. To have real clips in a minute, without
an account:

    python download_all_violence_datasets.py --datasets surveillance_fight
"""

from __future__ import annotations

from collections.abc import Sequence

from violence_detection import cli
from violence_detection.download.config import DownloadConfig
from violence_detection.system import console


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__)
    cli.add_config(parser, DownloadConfig)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--list", action="store_true", help="show the catalogue and end")
    mode.add_argument(
        "--verify", action="store_true", help="check what is there against its completion records"
    )
    args = cli.parse(parser, argv)
    config = cli.build(DownloadConfig, args)
    from violence_detection.datasets import catalogue, dataset_table
    from violence_detection.download import download

    if args.list:
        datasets = catalogue.load(config.catalogue)
        console.tell(dataset_table.table(datasets.values()))
        cli.print_summary({"datasets": {key: dict(d.clips) for key, d in datasets.items()}})
        return cli.EXIT_DONE
    result = download.verify(config) if args.verify else download.run(config)
    cli.print_summary(result.summary())
    return cli.exit_code(result.failures)


if __name__ == "__main__":
    cli.run_main(main)
