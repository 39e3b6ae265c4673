"""Divide clips so that no source stands on both sides, each data set and class in proportion.

Whole source groups are placed by a greedy pass and a local search on the deviation from the wanted number of
clips a stratum (data set and class). scikit-learn's StratifiedGroupKFold knows neither official splits nor fractions
other than 1/k, and where a few groups hold most of a stratum it is too coarse: on four real data sets it gave one
class of one of them 33 % val and the other 17 %.

The result depends on the seed and the content ids alone, not on the order of clips, names or folders.
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
#: What an empty side of a stratum costs, against squared deviations of at most a few hundred per cent.
_EMPTY_SIDE = 100.0
_WHOLE = 4.0  # weight of the overall share against that of one stratum
_MAX_MOVES = 10_000
_STARTS = 5
_NEAR_ENOUGH = 0.01  # cost at which no further starting order is tried


@dataclass(frozen=True)
class Item:
    """What a split needs to know of a clip: `clip_id` (content hash), source group, stratum, official
    split."""

    clip_id: str
    group: str
    stratum: Hashable
    official_split: str = ""


@dataclass(frozen=True)
class Assignment:
    """`split`: train or val of each kept clip. `dropped`: clip id -> the official val clip it shares a source
    with."""

    split: Mapping[str, str]
    dropped: Mapping[str, str]


def assign(items: Sequence[Item], seed: int, val_fraction: float = 0.2) -> Assignment:
    """Divide into train and val: official sides stand, everything else goes by whole groups to near
    `val_fraction`.

    A group with an official val clip is val: members without an official side follow it, members that are
    officially train are dropped, so that neither the source nor the official val set is torn. A group with
    official train clips and no official val clip is train. Raises ValueError if a clip id occurs twice.
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
    """Folds of whole groups, each with its share of every stratum. Returns (n,) int64 in [0, k).

    `keys` (clip ids, say) make the folds independent of how groups are named; without them the names decide.
    Raises ValueError if there are fewer groups than folds.
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
    """A selection part cut from train by source group, for early stopping, thresholds and calibration.

    Stratified by data set and label. Returns (rows,) bool, True for selection; rows of val are always False.
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
    """Groups to put on the smaller side, so that with the `fixed` (stratum, is there) clips it is `fraction`.

    `members`: the stratum of each clip of a group. `identity`: what orders the groups, besides the seed. Of
    several starting orders the one that ends nearest is taken.
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
    """How far a taken number of clips a stratum, (..., strata), is from `fraction` of `total`: (...)."""

    total: np.ndarray
    fraction: float

    def __call__(self, there: np.ndarray) -> np.ndarray:
        deviation = (there / self.total - self.fraction) / self.fraction
        whole = (there.sum(axis=-1) / self.total.sum() - self.fraction) / self.fraction
        empty = (there == 0) | (there == self.total)
        cost = (deviation**2).sum(axis=-1) + _WHOLE * whole**2 + _EMPTY_SIDE * empty.sum(axis=-1)
        return np.round(cost, 9)  # so that the last bits, which differ between machines, decide nothing


def _search(counts: np.ndarray, base: np.ndarray, cost: _Cost) -> np.ndarray:
    """Which rows to take: greedy in the given order, then the best single move or swap until none helps.

    counts (groups, strata), base (strata,). Returns (groups,) bool.
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
    """The exchange of a taken row for another that costs least: its two rows and the cost after it.

    Rows with equal counts are interchangeable, so one of each kind is tried: with ten thousand groups of one
    clip there are as many kinds as strata.
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
