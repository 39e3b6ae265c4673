"""Measure whether unlabelled footage of a place improves the detector there, on data sets that were left out.

    python benchmarks/bench_adapt.py --data-root DATA --models models_accurate \\
        --backbone i3d_actions,i3d_movements,dinov2_spread,movenet_poses --streams rgb --kernel-c 1

DATA/combined_all is the output of combine_all_datasets.py. --models is the folder that train_ensemble_models.py
--members kernel,i3d_tuned --leave-one-dataset-out wrote for the same clips; the predictions of its first seed are read.
Name the features that its kernel head was made with.

The sources of each left-out data set are cut into two halves, --halves times, and each half is used in both roles. One
half provides the footage, with the same number of clips at every share of fights that is tried: the largest that all of
them allow. All clips of the other half are judged, at the shipped threshold or at the one that the method finds
(adapting_methods.py, models/adapted_head.py). Pseudo-labelled clips form an additional data set that the kernel head is
fitted to, with the same total weight for both classes; the network's logits do not change. `threshold kept`: the
threshold moves by the median by which one half of the footage moves when the head is fitted to the other half.

All gains are paired: they are measured on the same clips. Whether a method passes is decided by the rule in
docs/decisions.md, "Adapting without labels". `chosen on the other three`: for each data set, the method with the
largest gain on the other three among those that pass there. Prints one JSON line. --output also writes tables: balanced
accuracy in points, ± its standard deviation between halves, and in brackets the gain in accuracy at that share of
fights.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC

from benchmarks import adapting_methods as methods
from benchmarks.adapting_methods import FIGHT, NONE, QUIET, Elsewhere, Footage
from benchmarks.probe_features import Probe, note_look, opened
from violence_detection import cli
from violence_detection.ensemble.cross_validation import LEFT_OUT_PREDICTIONS_NAME
from violence_detection.errors import UserError
from violence_detection.evaluation import held_out_table
from violence_detection.models import adapted_head, averaging
from violence_detection.models.averaging import EarlyExit
from violence_detection.system import storage
from violence_detection.system.console import log
from violence_detection.training import kernel_fit, run_folder

#: Shares of fights in the footage, for methods that know nothing about it and for those that know that it is quiet.
SHARES = (0.02, 0.2, 0.5, 0.8)
QUIET_SHARES = (0.0, 0.02, 0.05)
#: The two members.
KERNEL, NETWORK = "kernel", "i3d_tuned"
KEPT = "; threshold kept"
BUILT = "labels: P below .2, above .8; kernel ridge; threshold kept (--adapt)"
BASE, KNOWN = "as it is", "threshold, had the footage labels"
MEASURES = ("balanced_accuracy", "accuracy", "roc_auc", "accuracy_at_share")
#: Balanced accuracy that a method must gain, and the most that it may lose, to meet the rule.
GAIN = 0.01
LOSS = 0.005


def main() -> int:
    parser = cli.parser(__doc__)
    parser.add_argument(
        "--models", type=Path, required=True, help="output folder of train_ensemble_models.py"
    )
    parser.add_argument(
        "--halves", type=int, default=10, help="how often each data set is cut into halves (default: 10)"
    )
    parser.add_argument("--built-alone", action="store_true", help="try only what --adapt does")
    parser.add_argument("--output", type=Path, help="file for the tables, .md")
    parser.set_defaults(seeds=0)
    args, probe, failures = opened(parser)
    runs = sorted(args.models.glob("seed_*"))
    if not runs:
        raise UserError(
            f"{args.models} contains no seed_* folder. Name the output folder of train_ensemble_models.py "
            "--leave-one-dataset-out"
        )
    places = read_places(probe, runs[0])
    rows = []
    for name, shares, ways in (
        ("told nothing", SHARES, {**methods.THRESHOLDS, **methods.LABELS}),
        ("told that it is quiet", QUIET_SHARES, {**methods.QUIET_THRESHOLDS, **methods.QUIET_LABELS}),
    ):
        for place in places:
            for half in range(2 * args.halves):
                rows += [
                    {"told": name, **row}
                    for row in tried(place, half, shares, {} if args.built_alone else ways)
                ]
            log.info("%s, %s: measured", name, place.name)
    frame = pd.DataFrame(rows)
    found = {str(told): summarised(part) for told, part in frame.groupby("told")}
    whole = {p.name: p.whole() for p in places}
    note_look(
        probe,
        [{"name": "adapting", "elsewhere": {"accuracy": np.mean([w["accuracy"] for w in whole.values()])}}],
    )
    text = "\n".join(f"{told}\n\n{table(part)}" for told, part in found.items())
    if args.output:
        storage.write_text(args.output, text)
    log.info("\n%s", text)
    cli.print_summary({"places": whole, "halves": args.halves, **found})
    return cli.exit_code(failures)


@dataclass(frozen=True)
class Place:
    """A left-out data set: its n clips, their logits by the members, and the t clips that the kernel head is fitted to.

    `network` (n,): the network's logits as they are averaged; `published` (n,): the whole model's logits in the run.
    `temperature`: that of the kernel head. `alike` (t + n, t + n): the kernel between all of these clips, the t
    training clips first. `train_labels` (t,): QUIET or FIGHT; `cells` (t,): data set and class of each training clip,
    by which the clips are weighted.
    """

    name: str
    labels: np.ndarray
    groups: np.ndarray
    network: np.ndarray
    published: np.ndarray
    temperature: float
    alike: np.ndarray
    train_labels: np.ndarray
    cells: np.ndarray
    kernel_c: float
    elsewhere: Sequence[Elsewhere]
    exits: EarlyExit | None

    def whole(self) -> dict[str, Any]:
        """Accuracy on all clips with the kernel head as fitted here and as in the run, and how far the two differ."""
        z = self.mean(self.kernel_as_it_is)
        p, q = (1 / (1 + np.exp(-x)) for x in (z, self.published))
        return {
            "accuracy": round(float(((z >= 0) == self.labels).mean()), 4),
            "accuracy_of_the_run": round(float(((self.published >= 0) == self.labels).mean()), 4),
            "largest_difference_of_p": round(float(np.abs(p - q).max()), 4),
            "n": len(z),
        }

    @cached_property
    def kernel_as_it_is(self) -> np.ndarray:
        """Logits (n,) of all clips from the kernel head when it is fitted to none of them."""
        return self.kernel(np.zeros(0, int), np.zeros(0, int))

    def mean(self, kernel: np.ndarray) -> np.ndarray:
        """The mean of the members' logits (n,); only the network's logit where the early exit lets it judge alone.

        `kernel` (n,): the kernel head's logits before its temperature.
        """
        mean = (kernel / self.temperature + self.network) / 2
        if self.exits is None:
            return mean
        return np.where(self.exits.is_sure(1 / (1 + np.exp(-self.network))), self.network, mean)

    def adapted(self, clips: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Logits (n,) of all clips after the kernel head is adapted as by --adapt.

        `clips`: indices of the footage, in order; `p`: P(fight) of each.
        """
        t, here = len(self.train_labels), np.arange(len(self.labels))
        kernel = self.kernel_as_it_is
        labels, part = adapted_head.pseudo_labels(p), adapted_head.pieces(len(p))

        def fitted(sure: np.ndarray) -> np.ndarray:
            added = clips[sure]
            points = np.concatenate([np.arange(t), t + added])
            alike = self.alike[np.ix_(points, points)]
            shares = adapted_head.correction(alike, kernel[added], labels[sure])
            moved: np.ndarray = self.alike[np.ix_(t + here, points)] @ shares
            return moved

        sure = labels != NONE
        moved = [fitted(np.flatnonzero(sure & (part == k)))[clips[part != k]] for k in (0, 1)]
        return self.mean(kernel + fitted(np.flatnonzero(sure)) - np.median(np.concatenate(moved)))

    def logits(self, added: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The model's logits (n,) of all clips when the kernel head is fitted to the clips `added`, too.

        `added`: indices of clips of the place; `labels`: QUIET or FIGHT for each.
        """
        return self.mean(self.kernel(added, labels))

    def kernel(self, added: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The kernel head's logits (n,) of all clips; arguments as for `logits`."""
        t = len(self.train_labels)
        fitted = np.concatenate([np.arange(t), t + added])
        known = np.concatenate([self.train_labels, labels])
        cells = np.concatenate([self.cells, np.array([f"here/{k}" for k in labels], dtype=object)])
        weights = np.zeros(len(known))
        for k in (QUIET, FIGHT):
            names, inverse, counts = np.unique(
                cells[known == k].astype(str), return_inverse=True, return_counts=True
            )
            weights[known == k] = len(known) / (2 * len(names) * counts[inverse])
        machine = SVC(C=self.kernel_c, kernel="precomputed", cache_size=500)
        machine.fit(self.alike[np.ix_(fitted, fitted)], known, sample_weight=weights)
        margins = machine.decision_function(self.alike[np.ix_(t + np.arange(len(self.labels)), fitted)])
        logits: np.ndarray = kernel_fit.LOGIT_SCALE * margins
        return logits


def read_places(probe: Probe, run: Path) -> list[Place]:
    """Read the left-out data sets of a run from the folder of one of its seeds, with the features of the probe.

    Raises UserError if the kernel heads of the run have other inputs, or another C, than the probe.
    """
    table, figures = run / LEFT_OUT_PREDICTIONS_NAME, run.parent / run_folder.LEFT_OUT_NAME
    if figures.is_file():
        held_out_table.check_left_out(table, run_folder.read_object(figures))
    stored = pd.read_csv(table, encoding_errors=storage.NAME_ERRORS).set_index("clip_id")
    rows = probe.samples.rows
    own = stored.loc[rows.clip_id]
    said = averaging.logit(own.p_violent.to_numpy(float))
    network = averaging.logit(own[f"p_{NETWORK}"].to_numpy(float))
    everywhere = {
        d: Elsewhere(said[probe.datasets == d], probe.labels[probe.datasets == d])
        for d in set(probe.datasets)
    }
    places = []
    for name in sorted(everywhere):
        folder = run / f"without_{name}"
        used = pd.read_csv(folder / KERNEL / "trained_on.csv", encoding_errors=storage.NAME_ERRORS)
        train = np.flatnonzero(rows.clip_id.isin(used.clip_id[used.role == "train"]))
        here = np.flatnonzero(probe.datasets == name)
        made = run_folder.read_object(folder / KERNEL / run_folder.CONFIG_NAME)
        if (set(made["inputs"]), made["head"]["kernel_c"]) != (set(probe.points), probe.head.kernel_c):
            raise UserError(
                f"the kernel head in {folder} was made with the inputs {', '.join(made['inputs'])} and --kernel-c "
                f"{made['head']['kernel_c']:g}. Use the same --backbone, --streams and --kernel-c"
            )
        record = storage.read_json(folder / "ensemble.json")
        members = {m["name"]: m for m in record["members"]}
        exits = record.get(averaging.EARLY_EXIT_KEY)
        both = np.concatenate([train, here])
        alike = probe.alike(list(probe.points), train, both, both)
        cells = (rows.dataset + "/" + rows.label).to_numpy(object)[train]
        places.append(
            Place(
                name, probe.labels[here], probe.groups[here], network[here], said[here],
                members[KERNEL][averaging.TEMPERATURE_KEY], alike, probe.labels[train], cells, probe.head.kernel_c,
                [v for k, v in sorted(everywhere.items()) if k != name],
                EarlyExit(**exits) if exits else None,
            )
        )  # fmt: skip
    return places


def halves(place: Place, half: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the clips of the half that provides footage and of the half that is judged; no source is in both.

    `half` 2k and 2k + 1 are the same cut, with the roles exchanged.
    """
    rng = np.random.default_rng(storage.stable_seed(half // 2, place.name))
    side: dict[str, int] = {}
    mostly = {g: place.labels[place.groups == g].mean() >= 0.5 for g in sorted(set(place.groups))}
    for k in (False, True):
        for i, group in enumerate(rng.permutation([g for g, m in mostly.items() if m == k])):
            side[str(group)] = (i + half + int(k)) % 2
    sides = np.array([side[str(g)] for g in place.groups])
    return np.flatnonzero(sides == 0), np.flatnonzero(sides == 1)


def footage_of(place: Place, half: np.ndarray, share: float, most: float, seed: int) -> np.ndarray:
    """Draw clips of the half with this share of fights, at least one fight unless it is 0; return their indices.

    Their number is the largest at which all shares up to `most` are possible.
    """
    rng = np.random.default_rng(storage.stable_seed(seed, place.name, "footage"))
    fights, quiet = (rng.permutation(half[place.labels[half] == k]) for k in (FIGHT, QUIET))
    n = int(min(len(fights) / most, len(quiet)))
    n_fights = round(share * n) if share * n >= 1 or share == 0 else 1
    return np.concatenate([fights[:n_fights], quiet[: n - n_fights]])


def tried(
    place: Place, half: int, shares: Sequence[float], ways: Mapping[str, Callable[[Footage], Any]]
) -> Iterator[dict[str, Any]]:
    """Yield a row for each share of fights and method: figures on the judged half, and their gains over `as it is`."""
    given, judged = halves(place, half)
    base = place.mean(place.kernel_as_it_is)
    for share in shares:
        clips = footage_of(place, given, share, max(shares), half)
        footage = Footage(base[clips], place.elsewhere)
        logits = {BASE: base}
        if FIGHT in place.labels[clips]:
            logits[KNOWN] = base - best_threshold(base[clips], place.labels[clips])
        for name, way in ways.items():
            found = way(footage)
            if isinstance(found, float):
                logits[name] = base - found
            else:
                known = found != NONE
                logits[name] = place.logits(clips[known], found[known])
                logits[name + KEPT] = logits[name] - moved_by(place, clips, found, base)
        # clips of one source next to each other, as in footage in order of time
        clips = clips[np.argsort(place.groups[clips], kind="stable")]
        p = 1 / (1 + np.exp(-Footage(base[clips], place.elsewhere).log_odds()[0]))
        logits[BUILT] = place.adapted(clips, p)
        before = figures(base[judged], place.labels[judged], share)
        for name, z in logits.items():
            after = figures(z[judged], place.labels[judged], share)
            gains = {f"gain_{k}": after[k] - before[k] for k in MEASURES}
            yield {
                "place": place.name,
                "half": half,
                "share": share,
                "method": name,
                "n": len(clips),
                **after,
                **gains,
            }


def moved_by(place: Place, clips: np.ndarray, labels: np.ndarray, base: np.ndarray) -> float:
    """The median by which logits of one half of the footage move when the kernel head is fitted to the other half."""
    half = np.arange(len(clips)) % 2
    moved = []
    for k in (0, 1):
        fitted = (half == k) & (labels != NONE)
        there = clips[half != k]
        moved.append((place.logits(clips[fitted], labels[fitted]) - base)[there])
    return float(np.median(np.concatenate(moved)))


def figures(z: np.ndarray, labels: np.ndarray, share: float) -> dict[str, float]:
    """Figures of logits (n,) at threshold 0; `accuracy_at_share`: the accuracy if this share of them were of fights."""
    recall, calm = float((z[labels == FIGHT] >= 0).mean()), float((z[labels == QUIET] < 0).mean())
    return {
        "balanced_accuracy": (recall + calm) / 2,
        "accuracy": float(((z >= 0) == labels).mean()),
        "roc_auc": float(roc_auc_score(labels, z)),
        "accuracy_at_share": share * recall + (1 - share) * calm,
    }


def best_threshold(z: np.ndarray, labels: np.ndarray) -> float:
    """The threshold, a logit, with the best balanced accuracy on these clips; the median of equally good ones."""
    at = np.concatenate([[z.min() - 1], (np.sort(z)[1:] + np.sort(z)[:-1]) / 2, [z.max() + 1]])
    score = np.array([(z[labels == 1] >= t).mean() + (z[labels == 0] < t).mean() for t in at])
    return float(np.median(at[score >= score.max() - 1e-9]))


def summarised(frame: pd.DataFrame) -> dict[str, Any]:
    """By method and share of fights: means over equally weighted data sets, gains by set, and who meets the rule."""
    shares = sorted(set(frame.share))
    gains = frame.pivot_table("gain_balanced_accuracy", ["method", "share"], "place")
    out: dict[str, Any] = {"methods": {}}
    for name, part in frame.groupby("method", sort=False):
        cells = {}
        for share, rows in part.groupby("share"):
            by_place = rows.groupby("place")
            mean = rows.groupby("place")[[*MEASURES, *(f"gain_{k}" for k in MEASURES)]].mean().mean()
            over_halves = rows.groupby("half").gain_balanced_accuracy.mean()
            of_sets: dict[str, pd.Series] = {
                "gain_by_place": by_place.gain_balanced_accuracy.mean(),
                "gain_sd_by_place": by_place.gain_balanced_accuracy.std(),
                **{f"{k}_by_place": by_place[k].mean() for k in MEASURES},
            }
            cells[f"{share:g}"] = {
                **{str(k): round(float(v), 4) for k, v in mean.items()},
                "gain_sd_between_halves": round(float(over_halves.std()), 4),
                **{k: {str(n): round(float(v), 4) for n, v in by.items()} for k, by in of_sets.items()},
                "footage_clips": {str(k): int(v) for k, v in by_place["n"].mean().items()},
            }
        passes = name not in (BASE, KNOWN) and meets(by_share(gains, str(name)).mean(axis=1), shares)
        out["methods"][name] = {"by_share": cells, "passes": bool(passes)}
    names = [n for n in dict.fromkeys(gains.index.get_level_values(0)) if n not in (BASE, KNOWN)]
    out["chosen_on_other_three"] = {}
    for place in gains.columns:
        others = {n: by_share(gains.drop(columns=place), n).mean(axis=1) for n in names}
        passing = {n: g[main_share(shares)] for n, g in others.items() if meets(g, shares)}
        chosen = max(passing, key=lambda n: passing[n]) if passing else BASE
        out["chosen_on_other_three"][place] = {
            "method": chosen,
            "gain": {f"{s:g}": round(float(by_share(gains, chosen)[place][s]), 4) for s in shares},
        }
    return out


def by_share(gains: pd.DataFrame, name: str) -> pd.DataFrame:
    """The gains of one method: a row per share of fights, a column per data set."""
    return gains.loc[[name]].droplevel(0)


def main_share(shares: Sequence[float]) -> float:
    """The share of fights at which the rule requires a gain: 0 if the footage is known to be quiet, otherwise 0.5."""
    return 0.0 if 0.0 in shares else 0.5


def meets(gain: pd.Series, shares: Sequence[float]) -> bool:
    """Whether the mean gains by share of fights meet the rule.

    It requires at least GAIN at the main share, and a loss of at most LOSS at the other shares below 0.5.
    """
    asked = main_share(shares)
    return bool(gain[asked] >= GAIN and all(gain[s] >= -LOSS for s in shares if s != asked and s < 0.5))


def table(found: Mapping[str, Any]) -> str:
    """A Markdown table of each method's gains in points of balanced accuracy."""
    shares = list(found["methods"][BASE]["by_share"])
    asked = "0" if "0" in shares else "0.5"
    places = sorted(found["methods"][BASE]["by_share"][asked]["gain_by_place"])
    heads = [f"{100 * float(s):g} % fights" for s in shares]
    beside = [f"{p} at {100 * float(asked):g} %" for p in places]
    lines = [
        f"| method | {' | '.join(heads)} | AUC at {100 * float(asked):g} % | {' | '.join(beside)} | passes |"
    ]
    lines.append("|---" * (len(shares) + len(places) + 3) + "|")
    for name, method in found["methods"].items():
        found_at = method["by_share"]
        if name == BASE:
            cells = [f"{100 * found_at[s]['balanced_accuracy']:.1f}" for s in shares]
            sets = [f"{100 * found_at[asked]['balanced_accuracy_by_place'][p]:.1f}" for p in places]
        else:
            cells = [
                f"{100 * found_at[s]['gain_balanced_accuracy']:+.1f} ±{100 * found_at[s]['gain_sd_between_halves']:.1f}"
                f" ({100 * found_at[s]['gain_accuracy_at_share']:+.1f})" if s in found_at else "" for s in shares
            ]  # fmt: skip
            sets = [
                f"{100 * found_at[asked]['gain_by_place'][p]:+.1f}" if asked in found_at else ""
                for p in places
            ]
        auc = f"{found_at[asked]['roc_auc']:.3f}" if asked in found_at else ""
        lines.append(
            f"| {name} | {' | '.join(cells)} | {auc} | {' | '.join(sets)} | {'yes' if method['passes'] else ''} |"
        )
    chosen = ", ".join(
        f"{p}: {c['method']} {100 * c['gain'][asked]:+.1f}" for p, c in found["chosen_on_other_three"].items()
    )
    return "\n".join(lines) + f"\n\nchosen on the other three: {chosen}\n"


if __name__ == "__main__":
    cli.run_main(main)
