"""Measure how often 95 % intervals contain the true value, on simulated data whose clips of one source are alike.

    python benchmarks/bench_intervals.py --draws 2000

A case is a number of clips and of sources, an accuracy, and an intraclass correlation (how alike the outcomes of clips
of one source are). For each case data sets are drawn: the sizes of sources from a Dirichlet distribution (concentration
2, so that they are uneven), and the accuracy of each source from a beta distribution. Prints a row for each number of
clips and of sources and each accuracy, with the share of draws whose interval contains the accuracy, and one JSON line:
the share of cases with a coverage within 93-97 %, the lowest and the highest coverage, and its mean over accuracies and
correlations for each number of clips and sources ("200/20").

`--hard` draws sources that are difficult for intervals: their clips are more alike (correlation 0.5); sources are
entirely right or entirely wrong (1); a tenth of them are up to 45 points less accurate, and the others equal; the same
with sizes that differ more (concentration 0.5). `--figure` measures another figure. Scores are then the sum of the
class's mean, a shift of the source, and noise; the true value comes from 400,000 clips, each of its own source. With
`--one-class`, every other source consists of fights only and the others of peaceful clips only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from violence_detection.evaluation import influence, intervals
from violence_detection.evaluation.influence import Figure

CLIPS, SOURCES = (50, 200, 1000, 5000), (5, 20, 60, 200)
ACCURACIES, CORRELATIONS = (0.75, 0.9, 0.97), (0.0, 0.05, 0.1, 0.2)
#: Coverage that counts as right.
WITHIN = (0.93, 0.97)
#: What `--hard` uses in place of CORRELATIONS, and its numbers of clips and of sources.
HARD = (0.5, 1.0, "tenth", "tenth, uneven")
HARD_CASES = [(200, 10), (200, 20), (200, 60), (1000, 10), (1000, 20), (1000, 60), (5000, 60), (5000, 200)]
#: Clips from which the true value of a figure on scores is computed.
_MANY = 400_000
#: Concentration of the distribution of the sizes of sources, usually and for "tenth, uneven".
_CONCENTRATION = 2.0
_UNEVEN = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", choices=("accuracy", *SCORED), default="accuracy")
    parser.add_argument("--hard", action="store_true", help="draw difficult sources; only for the accuracy")
    parser.add_argument(
        "--one-class", action="store_true", help="draw sources of one class; for any figure but the accuracy"
    )
    args = parser.parse_args()
    if args.hard and args.figure != "accuracy":
        parser.error("--hard works only with --figure accuracy")
    if args.one_class and args.figure == "accuracy":
        parser.error("--one-class does not work with the accuracy: name another --figure")
    columns: tuple[float | str, ...] = HARD if args.hard else CORRELATIONS
    print(f"coverage in % (median width in points); one column per correlation: {columns}")
    print(f"{'clips':>6} {'sources':>7} {'accuracy':>8} |")
    found: dict[tuple[float | str, ...], float] = {}
    for n, sources, accuracy in cases(args.hard):
        if n < FEWEST_CLIPS.get(args.figure, 0):
            continue
        row = []
        for correlation in columns:
            drawn_by = 10_000 + HARD.index(correlation) if args.hard else int(1000 * float(correlation))
            rng = np.random.default_rng([args.seed, n, sources, int(1000 * accuracy), drawn_by])
            low, high, truth = drawn(
                args.figure, rng, args.draws, n, sources, accuracy, correlation, args.one_class
            )
            found[n, sources, accuracy, correlation] = covered = float(
                ((low <= truth) & (truth <= high)).mean()
            )
            row.append(f"{100 * covered:6.1f} ({100 * np.median(high - low):4.1f})")
        print(f"{n:6} {sources:7} {accuracy:8} | {'  '.join(row)}", flush=True)
    coverage = np.array(list(found.values()))
    means = by_clips_and_sources(found)
    print(
        json.dumps(
            {
                "figure": args.figure,
                "draws": args.draws,
                "cases": len(coverage),
                "share_within_93_97": round(
                    float(((coverage >= WITHIN[0]) & (coverage <= WITHIN[1])).mean()), 3
                ),
                "below_93": int((coverage < WITHIN[0]).sum()),
                "above_97": int((coverage > WITHIN[1]).sum()),
                "lowest": round(float(coverage.min()), 4),
                "highest": round(float(coverage.max()), 4),
                "mean": round(float(coverage.mean()), 4),
                "by_clips_and_sources": {f"{n}/{sources}": mean for (n, sources), mean in means.items()},
            }
        )
    )


def by_clips_and_sources(found: Mapping[tuple[float | str, ...], float]) -> dict[tuple[int, int], float]:
    """Mean coverage, 0 to 1, for each number of clips and of sources."""
    together: dict[tuple[int, int], list[float]] = {}
    for (n, sources, *_), covered in found.items():
        together.setdefault((int(n), int(sources)), []).append(covered)
    return {pair: round(float(np.mean(each)), 4) for pair, each in together.items()}


def cases(hard: bool = False) -> Iterator[tuple[int, int, float]]:
    """Yield the number of clips, the number of sources and the accuracy of each row of cases."""
    for n, sources in HARD_CASES if hard else itertools.product(CLIPS, SOURCES):
        for accuracy in ACCURACIES:
            if sources <= n:
                yield n, sources, accuracy


def drawn(
    figure: str,
    rng: np.random.Generator,
    draws: int,
    n: int,
    sources: int,
    accuracy: float,
    correlation: float | str,
    one_class: bool = False,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Lower and upper end of the interval of each draw, (draws,) each, and the true value.

    `one_class`: every other source consists of fights only, the others of peaceful clips only. The true value is then
    that for the same share of fights among the clips as among the sources, because average precision, precision and F1
    depend on it.
    """
    if figure == "accuracy":
        ends = [
            intervals.accuracy_interval(*outcomes(rng, n, sources, accuracy, correlation))
            for _ in range(draws)
        ]
        return np.array([low for low, _ in ends]), np.array([high for _, high in ends]), accuracy
    compute, correlation = SCORED[figure], float(correlation)
    fights = -(-sources // 2) / sources if one_class else 0.5
    many = compute(*scores(rng, np.arange(_MANY), accuracy, correlation, fights=fights))
    assert many is not None
    found: list[tuple[float, float]] = []
    while len(found) < draws:
        groups = np.repeat(np.arange(sources), sizes(rng, n, sources))
        drawn_figure = compute(*scores(rng, groups, accuracy, correlation, one_class))
        if drawn_figure is not None:
            found.append(intervals.interval(drawn_figure, groups))
    return np.array([low for low, _ in found]), np.array([high for _, high in found]), many.value


def sizes(
    rng: np.random.Generator, n: int, sources: int, concentration: float = _CONCENTRATION
) -> np.ndarray:
    """Draw the number of clips of each source, (sources,): at least one, n in total."""
    return 1 + rng.multinomial(n - sources, rng.dirichlet(np.full(sources, concentration)))


def outcomes(
    rng: np.random.Generator, n: int, sources: int, accuracy: float, correlation: float | str
) -> tuple[np.ndarray, np.ndarray]:
    """Draw whether each clip is judged right, (n,) bool, and its source, (n,).

    `correlation`: a number, or a name in `HARD`.
    """
    of_source = _accuracies(rng, sources, accuracy, correlation)
    concentration = _UNEVEN if correlation == "tenth, uneven" else _CONCENTRATION
    groups = np.repeat(np.arange(sources), sizes(rng, n, sources, concentration))
    return rng.random(n) < of_source[groups], groups


def _accuracies(
    rng: np.random.Generator, sources: int, accuracy: float, correlation: float | str
) -> np.ndarray:
    if isinstance(correlation, str):
        # the second value keeps the accuracy of the others at or below 0.995
        low = max(accuracy - 0.45, 10 * accuracy - 9 * 0.995)
        return np.where(rng.random(sources) < 0.1, low, (accuracy - 0.1 * low) / 0.9)
    if correlation == 0:
        return np.full(sources, accuracy)
    if correlation == 1:
        return (rng.random(sources) < accuracy).astype(float)
    strength = (1 - correlation) / correlation
    return rng.beta(accuracy * strength, (1 - accuracy) * strength, sources)


def scores(
    rng: np.random.Generator,
    groups: np.ndarray,
    accuracy: float,
    correlation: float,
    one_class: bool = False,
    fights: float = 0.5,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels (n,) bool and P(fight) (n,) for which a threshold of 0.5 is right with probability `accuracy`.

    `groups` (n,): the source of each clip. Sources contain both classes, with the share `fights` of fights, and a
    source shifts the scores of each class independently. `one_class`: sources with even numbers consist of fights only,
    the others of peaceful clips only.
    """
    from scipy.special import expit
    from scipy.stats import norm

    count = int(groups.max()) + 1
    is_fight = groups % 2 == 0 if one_class else rng.random(len(groups)) < fights
    noise = rng.normal(0, np.sqrt(1 - correlation), len(groups))
    shift = rng.normal(0, np.sqrt(correlation), (count, 2))[groups, is_fight.astype(int)]
    distance = norm.ppf(accuracy)
    return is_fight, expit(np.where(is_fight, distance, -distance) + noise + shift)


def _recall_at(rate: float) -> Callable[[np.ndarray, np.ndarray], Figure | None]:
    def figure(is_fight: np.ndarray, p_fight: np.ndarray) -> Figure | None:
        found = influence.recall_at(is_fight, p_fight, rate)
        return None if found is None else found[0]

    return figure


SCORED: dict[str, Callable[[np.ndarray, np.ndarray], Figure | None]] = {
    "balanced_accuracy": lambda y, p: influence.balanced_accuracy(y, p >= 0.5),
    "precision": lambda y, p: influence.precision(y, p >= 0.5),
    "recall": lambda y, p: influence.recall(y, p >= 0.5),
    "f1": lambda y, p: influence.f1(y, p >= 0.5),
    "roc_auc": influence.roc_auc,
    "average_precision": influence.average_precision,
    "recall_at_1_percent": _recall_at(0.01),
    "recall_at_5_percent": _recall_at(0.05),
}

#: Fewest clips for which a figure is measured. About half of them are peaceful, and fewer cannot show so low a rate of
#: false alarms.
FEWEST_CLIPS = {"recall_at_1_percent": 1000, "recall_at_5_percent": 200}


if __name__ == "__main__":
    main()
