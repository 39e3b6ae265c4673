"""Render the default sample set: python -m violence_detection.datasets.generated --output DIR --seed 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from violence_detection import cli
from violence_detection.datasets.generated import samples


def main(argv: Sequence[str] | None = None) -> int:
    """Render the default sample set and print one JSON line."""
    p = cli.parser(samples.__doc__)
    p.add_argument("--output", type=Path, required=True, metavar="PATH", help="folder to write raw/ into")
    p.add_argument(
        "--sources",
        type=int,
        default=samples.DEFAULT_SOURCES,
        metavar="INT",
        help="source videos (default: 20)",
    )
    p.add_argument("--clips-per-source", type=int, default=samples.DEFAULT_CLIPS_PER_SOURCE, metavar="INT",
                   help="clips cut from each (default: 5)")  # fmt: skip
    p.add_argument("--seed", type=int, default=0, metavar="INT", help="seed of everything drawn (default: 0)")
    args = cli.parse(p, argv)
    made = samples.render_samples(
        args.output, sources=args.sources, clips_per_source=args.clips_per_source, seed=args.seed
    )
    cli.print_summary(made.summary())
    return cli.EXIT_DONE


if __name__ == "__main__":
    cli.run_main(main)
