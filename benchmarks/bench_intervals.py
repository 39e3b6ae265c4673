"""How often the 95 % intervals of figures hold the true value, on drawn data whose clips of one source are alike.

    python benchmarks/bench_intervals.py --draws 2000

For each number of clips and of sources, each accuracy and each intraclass correlation (how alike the outcomes of
clips of one source are), data sets are drawn: sizes of sources from a Dirichlet distribution (concentration 2, so
that they are uneven), the accuracy of each source from a beta distribution. Prints a row a case with the share of
draws whose interval holds the accuracy, and one JSON line: the share of the cases within 93-97 %, the lowest and
highest coverage, and the mean over accuracies and correlations of each number of clips and sources ("200/20").
`--hard` takes sources that are hard on intervals: more alike (correlation 0.5), wholly right or wrong
(1), a tenth of them up to 45 points below the accuracy and the others alike, and a tenth so with sizes that differ more
(concentration 0.5). `--figure` takes another figure; scores are then a source's shift, the class's and noise, and the
truth comes from 400,000 clips, each of a source of its own. `--one-class` takes sources that are all fights or all
peaceful, by turns.
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
WITHIN = (0.93, 0.97)
HARD = (0.5, 1.0, "tenth", "tenth, uneven")
HARD_CASES = [(200, 10), (200, 20), (200, 60), (1000, 10), (1000, 20), (1000, 60), (5000, 60), (5000, 200)]
_MANY = 400_000
_CONCENTRATION, _UNEVEN = 2.0, 0.5


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", choices=("accuracy", *SCORED), default="accuracy")
    parser.add_argument("--hard", action="store_true", help="accuracy alone")
    parser.add_argument("--one-class", action="store_true", help="any figure but the accuracy")
    args = parser.parse_args()
    if args.hard and args.figure != "accuracy":
        parser.error("--hard is for the accuracy")
    if args.one_class and args.figure == "accuracy":
        parser.error("--one-class is for a figure on scores (--figure)")
    columns: tuple[float | str, ...] = HARD if args.hard else CORRELATIONS
    print(f"coverage in % (median width, points); columns: {columns}")
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
    """Mean coverage, 0 to 1, of each number of clips and sources."""
    together: dict[tuple[int, int], list[float]] = {}
    for (n, sources, *_), covered in found.items():
        together.setdefault((int(n), int(sources)), []).append(covered)
    return {pair: round(float(np.mean(each)), 4) for pair, each in together.items()}


def cases(hard: bool = False) -> Iterator[tuple[int, int, float]]:
    """Clips, sources and accuracy of every case."""
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
    """Ends of the interval in every draw, (draws,) each, and the true value.

    `one_class`: each source is of one class, every other source of fights. The true value is of as many fights among
    the clips as there are among the sources, as average precision, precision and F1 depend on that.
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
    """Clips of each source (sources,), at least one, n in all."""
    return 1 + rng.multinomial(n - sources, rng.dirichlet(np.full(sources, concentration)))


def outcomes(
    rng: np.random.Generator, n: int, sources: int, accuracy: float, correlation: float | str
) -> tuple[np.ndarray, np.ndarray]:
    """Which clips are right (n,) bool, and the source of each (n,). `correlation`: a number, or a name of `HARD`."""
    of_source = _accuracies(rng, sources, accuracy, correlation)
    concentration = _UNEVEN if correlation == "tenth, uneven" else _CONCENTRATION
    groups = np.repeat(np.arange(sources), sizes(rng, n, sources, concentration))
    return rng.random(n) < of_source[groups], groups


def _accuracies(
    rng: np.random.Generator, sources: int, accuracy: float, correlation: float | str
) -> np.ndarray:
    if isinstance(correlation, str):
        low = max(accuracy - 0.45, 10 * accuracy - 9 * 0.995)  # or the others would have to be above 1
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
    """Labels (n,) bool and P(fight) (n,), such that a threshold of 0.5 is right about `accuracy` of the time.

    Sources are mixed (both classes, a share of `fights`), and a source shifts the scores of its classes each by itself;
    or else `one_class`.
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

#: Half of them are peaceful, give or take: fewer cannot tell such a share of false alarms.
FEWEST_CLIPS = {"recall_at_1_percent": 1000, "recall_at_5_percent": 200}


if __name__ == "__main__":
    main()
