"""Divide clips so that no source is on both sides, with the same proportion of every data set and class.

Whole source groups are placed by a greedy pass and a local search that minimise the deviation from the wanted number of
clips per stratum (data set and class). scikit-learn's StratifiedGroupKFold supports neither official splits nor
fractions other than 1/k, and it is too coarse where a few groups have most of a stratum: on four real data sets it put
33 % of one class of a data set into val and 17 % of the other.

The result depends only on the seed and the ids, which come from the clips' content, not on order, names or folders.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from violence_detection.system import storage

if TYPE_CHECKING:
    import pandas as pd

TRAIN, VAL = "train", "val"
#: Cost of an empty side of a stratum. All other costs are squares of relative deviations, which reach a few hundred
#: per cent.
_EMPTY_SIDE_COST = 100.0
#: Weight of the deviation of the overall share, relative to that of one stratum.
_OVERALL_WEIGHT = 4.0
#: Most steps of the local search.
_MAX_MOVES = 10_000
#: Most starting orders tried.
_STARTS = 5
#: Cost below which no further starting order is tried.
_NEAR_ENOUGH = 0.01


@dataclass(frozen=True)
class Item:
    """A clip as seen by the split. `official_split`: train, val or empty."""

    clip_id: str
    group: str
    stratum: Hashable
    official_split: str = ""


@dataclass(frozen=True)
class Assignment:
    """`split`: clip id -> train or val, of each kept clip. `dropped`: clip id -> an official val clip of its source."""

    split: Mapping[str, str]
    dropped: Mapping[str, str]


def assign(items: Sequence[Item], seed: int, val_fraction: float = 0.2) -> Assignment:
    """Divide clips into train and val: official sides are kept, all other source groups are placed whole.

    The placement brings val as close as possible to `val_fraction` of the clips, overall and in every stratum. A group
    with an official val clip goes to val: members without an official side follow, and official train members are
    dropped, so that neither the source nor the official val set is divided. A group with official train clips but no
    official val clip goes to train. Raises ValueError if a clip id occurs twice.
    """
    if len({item.clip_id for item in items}) != len(items):
        raise ValueError("clip ids must be unique: remove exact duplicates first")
    groups: dict[str, list[Item]] = defaultdict(list)
    for item in sorted(items, key=lambda i: i.clip_id):
        groups[item.group].append(item)
    split: dict[str, str] = {}
    dropped: dict[str, str] = {}
    free: dict[str, list[Item]] = {}
    for name, members in groups.items():
        official = {m.official_split for m in members} - {""}
        if not official:
            free[name] = members
            continue
        side = VAL if VAL in official else TRAIN
        for member in members:
            if member.official_split in ("", side):
                split[member.clip_id] = side
            else:
                dropped[member.clip_id] = next(m.clip_id for m in members if m.official_split == VAL)
    fixed = [(i.stratum, split[i.clip_id] == VAL) for i in items if i.clip_id in split]
    chosen = _choose({n: [m.stratum for m in ms] for n, ms in free.items()},
                     {n: ms[0].clip_id for n, ms in free.items()}, val_fraction, seed, fixed)  # fmt: skip
    for name, members in free.items():
        split.update((m.clip_id, VAL if name in chosen else TRAIN) for m in members)
    return Assignment(split, dropped)


def grouped_folds(
    groups: Sequence[str], strata: Sequence[Hashable], k: int, seed: int, keys: Sequence[str] | None = None
) -> np.ndarray:
    """Divide clips into k folds of whole groups, each with its share of every stratum. Returns (n,) int64 in [0, k).

    With `keys`, such as clip ids, the folds do not depend on the names of the groups; without them they do. Raises
    ValueError if k is below 2 or above the number of groups.
    """
    members: dict[str, list[Hashable]] = defaultdict(list)
    identity: dict[str, str] = {}
    for position, (group, stratum) in enumerate(zip(groups, strata, strict=True)):
        members[group].append(stratum)
        key = keys[position] if keys is not None else group
        identity[group] = min(identity.get(group, key), key)
    if k < 2 or len(members) < k:
        raise ValueError(f"k must be 2 to {len(members)}, the number of source groups. Received: {k}")
    fold_of: dict[str, int] = {}
    for fold in range(k - 1):
        rest = {g: m for g, m in members.items() if g not in fold_of}
        for group in _choose(rest, identity, 1.0 / (k - fold), storage.stable_seed(seed, fold), ()):
            fold_of[group] = fold
    return np.array([fold_of.get(g, k - 1) for g in groups], np.int64)


def selection_split(manifest: pd.DataFrame, fraction: float, seed: int) -> np.ndarray:
    """Cut a selection part from train by source group, for early stopping, thresholds and calibration.

    It is stratified by data set and label. Returns (rows,) bool, True for selection; rows of val are always False.
    """
    train = manifest[manifest["split"] == TRAIN]
    members: dict[str, list[Hashable]] = defaultdict(list)
    identity: dict[str, str] = {}
    for group, dataset, label, clip_id in zip(
        train["source_group"], train["dataset"], train["label"], train["clip_id"], strict=True
    ):
        members[group].append((dataset, label))
        identity[group] = min(identity.get(group, clip_id), clip_id)
    chosen = _choose(members, identity, fraction, seed, ())
    return ((manifest["split"] == TRAIN) & manifest["source_group"].isin(chosen)).to_numpy(bool)


def _choose(
    members: Mapping[str, Sequence[Hashable]],
    identity: Mapping[str, str],
    fraction: float,
    seed: int,
    fixed: Sequence[tuple[Hashable, bool]],
) -> set[str]:
    """Choose the groups to put on the smaller side, so that it has about `fraction` of all clips and of every stratum.

    `members`: group -> the stratum of each of its clips. `identity`: group -> what its place in the starting orders
    depends on, besides the seed. `fixed`: (stratum, whether on that side) of clips that are already placed. The best
    result of several starting orders is taken.
    """
    if not members:
        return set()
    names = sorted(members, key=lambda n: (identity[n], n))
    strata = sorted({s for m in members.values() for s in m} | {s for s, _ in fixed}, key=repr)
    column = {s: i for i, s in enumerate(strata)}
    counts = np.zeros((len(names), len(strata)))  # (groups, strata) clips
    for row, name in enumerate(names):
        for stratum in members[name]:
            counts[row, column[stratum]] += 1
    base = np.zeros(len(strata))
    total = counts.sum(axis=0)
    for stratum, there in fixed:
        total[column[stratum]] += 1
        base[column[stratum]] += there
    cost = _Cost(total, fraction)
    best, lowest = np.zeros(len(names), bool), np.inf
    for start in range(_STARTS):
        keys = [storage.stable_seed(seed, start, identity[n]) for n in names]
        order = np.array(sorted(range(len(names)), key=keys.__getitem__))
        taken = np.zeros(len(names), bool)
        taken[order] = _search(counts[order], base, cost)
        reached = float(cost(base + counts[taken].sum(axis=0)))
        if reached < lowest:
            best, lowest = taken, reached
        if lowest < _NEAR_ENOUGH:
            break
    return {name for name, take in zip(names, best, strict=True) if take}


@dataclass(frozen=True)
class _Cost:
    """The cost of taking `there` clips of each stratum, (..., strata), instead of `fraction` of `total`: (...)."""

    total: np.ndarray
    fraction: float

    def __call__(self, there: np.ndarray) -> np.ndarray:
        deviation = (there / self.total - self.fraction) / self.fraction
        whole = (there.sum(axis=-1) / self.total.sum() - self.fraction) / self.fraction
        empty = (there == 0) | (there == self.total)
        cost = (
            (deviation**2).sum(axis=-1) + _OVERALL_WEIGHT * whole**2 + _EMPTY_SIDE_COST * empty.sum(axis=-1)
        )
        return np.round(cost, 9)  # the last bits differ between machines and must decide nothing


def _search(counts: np.ndarray, base: np.ndarray, cost: _Cost) -> np.ndarray:
    """Choose the rows to take: greedily in the given order, then by the best single move or swap until none helps.

    A swap is tried only if no move helps. counts (groups, strata), base (strata,). Returns (groups,) bool.
    """
    there = base.copy()
    taken = np.zeros(len(counts), bool)
    now = cost(there)
    for row, count in enumerate(counts):
        after = cost(there + count)
        if after < now:
            taken[row], there, now = True, there + count, after
    for _ in range(_MAX_MOVES):
        step = np.where(taken, -1.0, 1.0)[:, None] * counts  # (groups, strata) change by moving one group
        single = cost(there + step)
        best = int(np.argmin(single))
        moves = [best]
        lowest = single[best]
        if lowest >= now:
            moves, lowest = _best_swap(cost, there, step, taken)
        if lowest >= now:
            break
        for row in moves:
            there = there + step[row]
            taken[row] = not taken[row]
        now = lowest
    return taken


def _best_swap(
    cost: _Cost, there: np.ndarray, step: np.ndarray, taken: np.ndarray
) -> tuple[list[int], float]:
    """Find the swap of a taken row for another that costs least: its two rows and the cost after it.

    Rows with equal counts are interchangeable, so only one of each kind is tried: ten thousand groups of one clip are
    of no more kinds than there are strata.
    """
    lowest, moves = np.inf, [0]
    outside = _one_of_each(step, np.flatnonzero(~taken))
    for row in _one_of_each(step, np.flatnonzero(taken)):
        costs = cost(there + step[row] + step[outside])
        if len(costs) and costs.min() < lowest:
            lowest, moves = float(costs.min()), [int(row), int(outside[np.argmin(costs)])]
    return moves, lowest


def _one_of_each(step: np.ndarray, rows: np.ndarray) -> np.ndarray:
    if not len(rows):
        return rows
    return rows[np.sort(np.unique(step[rows], axis=0, return_index=True)[1])]
