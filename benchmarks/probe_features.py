"""Measure in a minute what features are worth on unseen data sets, and on unseen sources of data sets that were seen.

    python benchmarks/probe_features.py --data-root DATA --backbone i3d,i3d_actions --streams rgb,crop,moving

DATA/combined_all is made by combine_all_datasets.py; missing features are extracted. The kernel head (see
training/kernel_fit.py) judges plain clips of train and val together in two ways:
    elsewhere   each data set is judged by a head that was fitted to the others; data sets count equally in the mean
    in set      each of five folds by source is judged by a head that was fitted to the other four; mean over --seeds
                divisions into folds
This is done for all inputs, for every input alone, and for all but one. An input is a backbone with a stream. Clips are
judged by the sign of the head's margin, as if the threshold were 0.5. `without X` is compared with all inputs clip by
clip; the interval of the difference is by source. `at median` is the accuracy if the median of each data set's own
clips were its threshold. Prints one JSON line; --output also writes a table.

--beside FILE averages the head with a network that is not fitted here. FILE contains the network's held-out logits (see
held_out.py); i3d_tuned_held_out.csv has those of `i3d_tuned`, the other member of `accurate`. Two rows are added: the
network alone, and all inputs without it. Figures are then means over the network's fits.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.svm import SVC

from benchmarks import held_out
from benchmarks.held_out import HeldOut, Parts
from violence_detection import cli
from violence_detection.backbones import registry
from violence_detection.combine import manifest, val_ledger
from violence_detection.ensemble import pool as pools
from violence_detection.ensemble.pool import Choice
from violence_detection.evaluation import paired
from violence_detection.features import key
from violence_detection.features.config import ExtractConfig, FeatureConfig
from violence_detection.system import storage
from violence_detection.system.console import log
from violence_detection.training import kernel_fit
from violence_detection.training.config import HeadConfig
from violence_detection.training.likeness import likeness
from violence_detection.training.training_data import Samples

FOLDS = 5
ALL, WITHOUT = "all", "without"
#: Stands for the network of `--beside` where an input's name would be.
NETWORK = "the network"
MEASURES = ("accuracy", "roc_auc", "at_median")


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="divisions into folds by source (default: 3)")
    parser.add_argument("--output", type=Path, help="write the table to this file, .md")
    args, probe, failures = opened(parser)
    rows = [probe.row(name, inputs) for name, inputs in probe.choices()]
    note_look(probe, rows)
    rows = [probe.compared(row, rows) for row in rows]
    if args.output:
        storage.write_text(args.output, table(rows))
    log.info("\n%s", table(rows))
    cli.print_summary(
        {"rows": rows, "n": len(probe.samples), "n_groups": len(set(probe.groups)), "seeds": args.seeds}
    )
    return cli.exit_code(failures)


def opened(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Probe, Sequence[Any]]:
    """Parse the arguments and read the features: return (arguments, probe, clips whose features failed).

    `parser` already has --seeds; this adds --beside and the flags of features and head.
    """
    parser.add_argument("--beside", type=Path, help="held-out logits of a network to average with, .csv")
    cli.add_config(parser, FeatureConfig)
    cli.add_config(parser, ExtractConfig, skip=("augment", "features_only", "preview", "prune"))
    cli.add_config(parser, HeadConfig)
    args = cli.parse(parser)
    features, how = cli.build(FeatureConfig, args), replace(cli.build(ExtractConfig, args), augment=1)
    combined = how.data_root / "combined_all"
    pool = pools.open_pool(features, how, Choice(set(manifest.read(combined).dataset), all_clips=True))
    samples = pool.plain(sorted(pool.frame.clip_id))
    beside = HeldOut(args.beside, list(samples.rows.clip_id)) if args.beside else None
    return args, Probe(combined, samples, cli.build(HeadConfig, args), args.seeds, beside), pool.failures


def note_look(probe: Probe, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record in val's ledger that its clips were judged, together with those of train, before the result is shown."""
    judged = set(probe.samples.rows.clip_id) & set(val_ledger.val_of(probe.combined))
    seen = {"accuracy": max(row["elsewhere"]["accuracy"] for row in rows), "n": len(probe.samples)}
    settings = storage.stable_hash([asdict(probe.head), [row["name"] for row in rows]], 64)
    look = val_ledger.Look(
        " ".join(sys.argv), "probe of features", "fitted anew", settings, len(judged), seen
    )
    val_ledger.note(probe.combined, look)


class Probe:
    """N plain clips, and the parts by which every choice of inputs is fitted and judged.

    `points`: for each input, the clips' mean features, (N, C). `left_out`: a part for each data set, judged after
    fitting to the others. `cuts`: for each of `seeds` divisions, a part for each fold. `beside`: a network to average
    with, if any.
    """

    def __init__(
        self, combined: Path, samples: Samples, head: HeadConfig, seeds: int, beside: HeldOut | None = None
    ):
        self.combined, self.samples, self.head, self.beside = combined, samples, head, beside
        self.labels = samples.labels.astype(int)
        self.groups = samples.rows.source_group.to_numpy(str)
        self.datasets = samples.rows.dataset.to_numpy(str)
        self.points = {name: kernel_fit.compared_points(samples, name, [0])[0] for name in samples.inputs}
        everyone = np.arange(len(samples))
        self.left_out: Parts = [
            (everyone[self.datasets != d], everyone[self.datasets == d]) for d in sorted(set(self.datasets))
        ]
        self.cuts: list[Parts] = [
            list(StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(everyone, self.labels, self.groups))
            for seed in range(seeds)
        ]  # fmt: skip

    def choices(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield (name, inputs) of each row: all inputs, each alone, all but one, and what `beside` adds."""
        names = tuple(self.points)
        yield ALL, names
        if len(names) > 1:
            yield from ((name, (name,)) for name in names)
            yield from ((f"without {name}", tuple(n for n in names if n != name)) for name in names)
        if self.beside:
            yield NETWORK, ()
            yield f"{WITHOUT} {NETWORK}", names

    def row(self, name: str, inputs: Sequence[str]) -> dict[str, Any]:
        """Judge the clips by these inputs, elsewhere and in set.

        Beside the figures, the row has `right_elsewhere` and `right_in_set`, (N,): the share of judgements of each clip
        that are right.
        """
        beside = None if name == f"{WITHOUT} {NETWORK}" else self.beside
        elsewhere = self._judged(inputs, self.left_out, beside.elsewhere if beside else ())
        in_set = np.concatenate(
            [self._judged(inputs, cut, beside.in_set if beside else ()) for cut in self.cuts]
        )
        log.info("%s: judged", name)
        return {
            "name": name,
            "elsewhere": self._elsewhere(elsewhere),
            "in_set": {
                "accuracy": round(float(np.mean((in_set >= 0) == self.labels)), 4),
                "roc_auc": round(float(np.mean([roc_auc_score(self.labels, m) for m in in_set])), 4),
            },
            "right_elsewhere": ((elsewhere >= 0) == self.labels).mean(axis=0),
            "right_in_set": ((in_set >= 0) == self.labels).mean(axis=0),
        }

    def _judged(self, inputs: Sequence[str], parts: Parts, fits: Sequence[np.ndarray]) -> np.ndarray:
        """The margin of each clip with each fit of the network, (fits, N), or (1, N) without a network; threshold 0.

        Without inputs they are the network's logits alone.
        """
        if not inputs:
            return np.array(fits)
        margins = self.margins(inputs, parts)
        return np.array(list(held_out.averaged(margins, fits, parts, self.labels))) if fits else margins[None]

    def margins(self, inputs: Sequence[str], parts: Parts) -> np.ndarray:
        """The margin of each clip, (N,), from the support vector machine of the part that judges it; threshold 0."""
        margins = np.empty(len(self.labels))
        for fitted, judged in parts:
            alike = self.alike(inputs, fitted, np.arange(len(self.labels)), fitted)
            machine = SVC(C=self.head.kernel_c, kernel="precomputed")
            weights = kernel_fit.clip_weights(self.samples.take(fitted))
            machine.fit(alike[fitted], self.labels[fitted], sample_weight=weights)
            margins[judged] = machine.decision_function(alike[judged])
        return margins

    def alike(
        self, inputs: Sequence[str], fitted: np.ndarray, these: np.ndarray, those: np.ndarray
    ) -> np.ndarray:
        """The kernel between clips, (len(these), len(those)), of a head that is fitted to `fitted`; all are indices."""
        mean: Any = 0.0
        for name in inputs:
            points, counts = self.points[name], registry.length_counts(key.backbone_of(name))
            gamma = kernel_fit.sharpness(points[fitted], self.head.kernel_width, counts)
            mean = mean + likeness(points[these], points[those], gamma, counts) / len(inputs)
        return np.asarray(mean)

    def _elsewhere(self, said: np.ndarray) -> dict[str, Any]:
        by_dataset = {}
        for _, judged in self.left_out:
            labels, m = self.labels[judged], said[:, judged]
            by_dataset[self.datasets[judged[0]]] = {
                "accuracy": round(float(np.mean((m >= 0) == labels)), 4),
                "roc_auc": round(float(np.mean([roc_auc_score(labels, one) for one in m])), 4),
                "at_median": round(float(np.mean((m >= np.median(m, axis=1)[:, None]) == labels)), 4),
            }
        means = {k: round(float(np.mean([d[k] for d in by_dataset.values()])), 4) for k in MEASURES}
        return {**means, "by_dataset": by_dataset}

    def compared(self, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Drop a row's figures per clip; add to `without X` what X gains, in points, with its interval by source."""
        if not row["name"].startswith(WITHOUT):
            return shown(row)
        whole = next(r for r in rows if r["name"] == ALL)
        return {**gain(whole, row, self.groups), **shown(row)}


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Drop a row's figures per clip."""
    return {k: v for k, v in row.items() if not k.startswith("right_")}


def gain(row: Mapping[str, Any], less: Mapping[str, Any], groups: np.ndarray) -> dict[str, Any]:
    """Drop a row's figures per clip; add what it gains over the row `less`, in points, with an interval by source."""
    out = shown(row)
    for figure in ("elsewhere", "in_set"):
        more = row[f"right_{figure}"].astype(float) - less[f"right_{figure}"].astype(float)
        interval = paired.interval(more, groups)
        out[f"gain_{figure}"] = {
            "points": round(100 * float(more.mean()), 2),
            "ci95": [round(100 * x, 2) for x in interval] if interval else None,
        }
    return out


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table."""
    names = sorted(rows[0]["elsewhere"]["by_dataset"])
    lines = [
        f"| inputs | elsewhere: accuracy %, AUC | at median | {' | '.join(names)} | in set: accuracy %, AUC | "
        "gain elsewhere | gain in set |",
        "|---" * (len(names) + 6) + "|",
    ]
    for row in rows:
        found = row["elsewhere"]
        each = [
            f"{100 * found['by_dataset'][n]['accuracy']:.1f}, {_auc(found['by_dataset'][n])}" for n in names
        ]
        cells = [
            row["name"],
            f"{100 * found['accuracy']:.1f}, {_auc(found)}",
            f"{100 * found['at_median']:.1f}",
            *each,
            f"{100 * row['in_set']['accuracy']:.1f}, {_auc(row['in_set'])}",
            *(_gain(row.get(f"gain_{figure}")) for figure in ("elsewhere", "in_set")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _auc(found: Mapping[str, Any]) -> str:
    return f"{found['roc_auc']:.3f}".removeprefix("0")


def _gain(gain: Mapping[str, Any] | None) -> str:
    if gain is None:
        return ""
    interval = " ({:+.1f} to {:+.1f})".format(*gain["ci95"]) if gain["ci95"] else ""
    return f"{gain['points']:+.1f}{interval}"


if __name__ == "__main__":
    cli.run_main(main)
