"""Measure what more sources and more data sets are worth, by fitting the kernel head to growing parts of the clips.

    python benchmarks/learning_curve.py --data-root DATA --backbone i3d_steady,i3d_actions --streams rgb

DATA/combined_all is made by combine_all_datasets.py; missing features are extracted. There are three curves:
    in set      five folds by source: the head judges each after it was fitted to 1/8, 1/4, 1/2 or all of the sources of
                the other four
    elsewhere   the head judges each data set after it was fitted to such a share of the sources of all the others
    data sets   the head judges each data set after it was fitted to one, two, ... of the others

Each figure is the mean over the folds, or over the data sets, and over the draws. Of the first two curves there are
--seeds draws of sources, in set each with its own folds; within a draw, a smaller share is contained in a larger one.
Of the third curve, a draw is a choice of data sets, and every choice is made. Tables show the standard deviation of the
accuracy over draws.

`per_doubling`: the points of accuracy that the last step of a curve gave, twice as many sources or one more data set.
Curves flatten, so the next such step gives at most that. Prints one JSON line; --output also writes tables.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.probe_features import Parts, Probe, note_look, opened
from violence_detection import cli
from violence_detection.system import storage
from violence_detection.system.console import log

SHARES = (0.125, 0.25, 0.5, 1.0)
#: Least number of clips of each class that are fitted to, per data set.
_FEWEST = 2


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--seeds", type=int, default=3, help="draws of sources, and divisions into folds (default: 3)"
    )
    parser.add_argument("--output", type=Path, help="write the tables to this file, .md")
    args, probe, failures = opened(parser)
    curves = Curves(probe)
    found = {
        "in_set": curves.over_sources(probe.cuts),
        "elsewhere": curves.over_sources([probe.left_out] * args.seeds),
        "data_sets": curves.over_datasets(),
    }
    note_look(probe, [{"name": "learning curve", "elsewhere": found["elsewhere"][-1]}])
    if args.output:
        storage.write_text(args.output, table(found))
    log.info("\n%s", table(found))
    summary = {**found, "per_doubling": {k: gain(v) for k, v in found.items()}, "seeds": args.seeds}
    cli.print_summary({**summary, "n": len(probe.samples), "n_groups": len(set(probe.groups))})
    return cli.exit_code(failures)


class Curves:
    """The learning curves of a kernel head on all inputs of a probe."""

    def __init__(self, probe: Probe):
        self.probe = probe
        self.inputs = tuple(probe.points)

    def over_sources(self, cuts: Sequence[Parts]) -> list[dict[str, Any]]:
        """Make a row for each of SHARES: the figures if only that share of the sources is fitted to.

        `cuts`: for each draw, its parts.
        """
        rows = []
        for share in SHARES:
            drawn = [self._thinned(parts, share, draw) for draw, parts in enumerate(cuts)]
            sources = [len(set(self.probe.groups[fitted])) for parts in drawn for fitted, _ in parts]
            clips = [len(fitted) for parts in drawn for fitted, _ in parts]
            rows.append(
                {
                    "share": share,
                    "sources": round(float(np.mean(sources))),
                    "clips": round(float(np.mean(clips))),
                }
                | self._figures(drawn)
            )
            log.info("%g of the sources: judged", share)
        return rows

    def over_datasets(self) -> list[dict[str, Any]]:
        """Make a row for each number of data sets that the head is fitted to before it judges another one."""
        names = sorted(set(self.probe.datasets))
        rows = []
        for count in range(1, len(names)):
            drawn: list[list[tuple[np.ndarray, np.ndarray]]] = []
            for left_out in names:
                judged = np.flatnonzero(self.probe.datasets == left_out)
                others = itertools.combinations([n for n in names if n != left_out], count)
                chosen = [np.flatnonzero(np.isin(self.probe.datasets, among)) for among in others]
                drawn = drawn or [[] for _ in chosen]
                for parts, fitted in zip(drawn, chosen, strict=True):
                    parts.append((fitted, judged))
            rows.append({"data_sets": count} | self._figures(drawn))
        return rows

    def _thinned(self, parts: Parts, share: float, draw: int) -> list[tuple[np.ndarray, np.ndarray]]:
        return [
            (
                self._some_sources(fitted, share, storage.stable_seed(draw, "learning curve", str(part))),
                judged,
            )
            for part, (fitted, judged) in enumerate(parts)
        ]

    def _some_sources(self, clips: np.ndarray, share: float, seed: int) -> np.ndarray:
        """The clips of a share of each data set's sources, or of as many more as give _FEWEST clips of each class.

        With the same seed, a smaller share is contained in a larger one.
        """
        rng = np.random.default_rng(seed)
        kept: list[np.ndarray] = []
        for dataset in sorted(set(self.probe.datasets[clips])):
            here = clips[self.probe.datasets[clips] == dataset]
            sources = rng.permutation(sorted(set(self.probe.groups[here])))
            count = max(1, round(share * len(sources)))
            while not self._enough(here, sources[:count]):
                count += 1
            kept.append(here[np.isin(self.probe.groups[here], sources[:count])])
        return np.sort(np.concatenate(kept))

    def _enough(self, clips: np.ndarray, sources: np.ndarray) -> bool:
        labels = self.probe.labels[clips[np.isin(self.probe.groups[clips], sources)]]
        return bool(np.min(np.bincount(labels, minlength=2)) >= _FEWEST)

    def _figures(self, drawn: Sequence[Parts]) -> dict[str, Any]:
        """Average over each draw's parts, then over draws; with the standard deviation of the accuracy over draws."""
        accuracy, auc = [], []
        for parts in drawn:
            judged = [self._judged(part) for part in parts]
            accuracy.append(np.mean([right for right, _ in judged]))
            auc.append(np.mean([area for _, area in judged]))
        return {
            "accuracy": round(float(np.mean(accuracy)), 4),
            "accuracy_sd": round(float(np.std(accuracy, ddof=1)), 4) if len(drawn) > 1 else None,
            "roc_auc": round(float(np.mean(auc)), 4),
        }

    def _judged(self, part: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
        _, judged = part
        margins = self.probe.margins(self.inputs, [part])[judged]
        labels = self.probe.labels[judged]
        return float(np.mean((margins >= 0) == labels)), float(roc_auc_score(labels, margins))


def gain(rows: Sequence[dict[str, Any]]) -> float:
    """The percentage points of accuracy that the last step of a curve gave."""
    return round(100 * (rows[-1]["accuracy"] - rows[-2]["accuracy"]), 2)


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """The curves as Markdown tables."""
    lines = []
    for name, rows in found.items():
        heads = [k for k in rows[0] if k != "accuracy_sd"]
        lines += [f"{name.replace('_', ' ')}, the last step {gain(rows):+.1f} points", ""]
        lines += [f"| {' | '.join(heads)} |".replace("_", " "), "|---" * len(heads) + "|"]
        lines += [f"| {' | '.join(_cell(row, head) for head in heads)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def _cell(row: dict[str, Any], head: str) -> str:
    if head != "accuracy":
        return f"{row[head]:g}"
    spread = "" if row["accuracy_sd"] is None else f" ± {100 * row['accuracy_sd']:.1f}"
    return f"{100 * row['accuracy']:.1f}{spread}"


if __name__ == "__main__":
    cli.run_main(main)
