"""Splits keep sources whole, have the wanted share of both classes on each side, and keep official sides.

The order of the clips and the names of the groups do not matter.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from violence_detection.combine import split
from violence_detection.combine.split import Item
from violence_detection.find import inventory

SEEDS = range(20)


def clip_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def items(n_groups: int = 40, official: str = "") -> list[Item]:
    """Make clips of two data sets and both classes, in groups of one to nine."""
    rng = np.random.default_rng(0)
    return [
        Item(clip_id(f"{g}-{i}"), f"group{g}", (f"set{g % 2}", ("fight", "nonfight")[g // 2 % 2]), official)
        for g in range(n_groups)
        for i in range(rng.integers(1, 10))
    ]


def sides_of_groups(clips: list[Item], sides: dict[str, str]) -> dict[str, set[str]]:
    seen = defaultdict(set)
    for clip in clips:
        if clip.clip_id in sides:
            seen[clip.group].add(sides[clip.clip_id])
    return seen


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_stay_whole_and_shares_hold(seed: int) -> None:
    clips = items()
    sides = dict(split.assign(clips, seed).split)
    assert all(len(s) == 1 for s in sides_of_groups(clips, sides).values())
    assert 0.18 <= np.mean([s == "val" for s in sides.values()]) <= 0.22
    for stratum in {c.stratum for c in clips}:
        assert {sides[c.clip_id] for c in clips if c.stratum == stratum} == {"train", "val"}


def test_two_sources_of_a_class_stand_on_either_side_though_neither_is_a_fifth() -> None:
    halves = [Item(clip_id(f"half{i}"), f"half{i % 2}", "two sources") for i in range(10)]
    sides = split.assign([*halves, *items()], 0).split
    assert {sides[c.clip_id] for c in halves} == {"train", "val"}


def test_order_of_clips_and_names_of_groups_do_not_matter() -> None:
    clips = items()
    renamed = [Item(c.clip_id, "x" + c.group[::-1], c.stratum) for c in reversed(clips)]
    assert split.assign(clips, 3).split == split.assign(renamed, 3).split


def test_seeds_give_different_splits_and_a_seed_always_the_same() -> None:
    splits = [dict(split.assign(items(), seed).split) for seed in (1, 2, 1)]
    assert splits[0] == splits[2] != splits[1]


def test_official_sides_stand_and_a_source_on_both_is_taken_out_of_train() -> None:
    official = [
        Item("t1", "a", "s", "train"),
        Item("t2", "b", "s", "train"),
        Item("v1", "b", "s", "val"),
        Item("v2", "c", "s", "val"),
    ]
    followers = [Item("f1", "b", "s"), Item("f2", "a", "s")]
    result = split.assign([*official, *followers, *items()], 0)
    assert {k: result.split.get(k) for k in ("t1", "t2", "v1", "v2", "f1", "f2")} == {
        "t1": "train", "t2": None, "v1": "val", "v2": "val", "f1": "val", "f2": "train",
    }  # fmt: skip
    assert result.dropped == {"t2": "v1"}


def test_an_official_split_is_not_redone_whatever_its_share() -> None:
    clips = [Item(clip_id(str(i)), f"g{i}", "rwf", "val" if i < 50 else "train") for i in range(100)]
    assert sum(s == "val" for s in split.assign(clips, 0).split.values()) == 50


def test_a_clip_given_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="unique"):
        split.assign([Item("a", "g", "s"), Item("a", "h", "s")], 0)


def test_folds_cover_everything_once_with_whole_groups_and_even_strata() -> None:
    clips = items(100)
    groups, strata = [c.group for c in clips], [c.stratum for c in clips]
    folds = split.grouped_folds(groups, strata, 5, seed=0)
    assert folds.shape == (len(clips),)
    assert set(folds) == set(range(5))
    table = pd.crosstab(folds, [str(s) for s in strata])
    assert ((table / table.sum() - 0.2).abs() < 0.06).to_numpy().all()
    assert all(len(set(folds[[g == name for g in groups]])) == 1 for name in set(groups))
    order = np.random.default_rng(1).permutation(len(clips))
    shuffled = split.grouped_folds([groups[i] for i in order], [strata[i] for i in order], 5, seed=0)
    assert (shuffled == folds[order]).all()
    assert (split.grouped_folds(groups, strata, 5, seed=1) != folds).any()


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(ValueError, match=r"k must be 2 to 2, .* Received: 3"):
        split.grouped_folds(["a", "b"], ["s", "s"], 3, seed=0)


def test_selection_is_cut_from_train_by_source() -> None:
    clips = items(80)
    sides = split.assign(clips, 0).split
    manifest = pd.DataFrame(
        {
            "clip_id": [c.clip_id for c in clips],
            "source_group": [c.group for c in clips],
            "dataset": [str(c.stratum).split("'")[1] for c in clips],
            "label": [str(c.stratum).split("'")[3] for c in clips],
            "split": [sides[c.clip_id] for c in clips],
        }
    )
    selected = split.selection_split(manifest, 0.15, seed=0)
    assert selected.dtype == bool
    train = manifest["split"] == "train"
    assert not selected[~train].any()
    assert 0.13 <= selected.sum() / train.sum() <= 0.17
    assert not set(manifest.source_group[selected]) & set(manifest.source_group[train & ~selected])
    assert set(zip(manifest.dataset[selected], manifest.label[selected], strict=True)) == {
        (d, label) for d in ("set0", "set1") for label in ("fight", "nonfight")
    }
    shuffled = manifest.sample(frac=1, random_state=0)
    again = split.selection_split(shuffled, 0.15, seed=0)
    assert set(shuffled.clip_id[again]) == set(manifest.clip_id[selected])


@pytest.mark.real
@pytest.mark.parametrize("seed", SEEDS)
def test_no_known_source_on_both_sides_of_the_real_clips(
    real_items: list[tuple[str, Item]], seed: int
) -> None:
    sides = split.assign([item for _, item in real_items], seed).split
    assert 0.18 <= np.mean([s == "val" for s in sides.values()]) <= 0.22
    strata, known = defaultdict(set), defaultdict(set)
    for source, item in real_items:
        strata[item.stratum].add(sides[item.clip_id])
        known[source].add(sides[item.clip_id])
    assert all(len(s) == 2 for s in strata.values())
    assert [source for source, s in known.items() if len(s) > 1] == []


@pytest.fixture(scope="module")
def real_items(real_clips: Path) -> list[tuple[str, Item]]:
    """Each real clip with its known source from sources.csv. Ids come from paths: hashing all clips would take long."""
    oracle = pd.read_csv(real_clips / "sources.csv").set_index("path")
    found = []
    for clip in inventory.discover([real_clips / "raw"]).clips:
        path = clip.path.relative_to(real_clips).as_posix()
        item = Item(clip_id(path), clip.source_group, (clip.dataset, clip.label), clip.official_split)
        found.append((f"{clip.dataset}:{oracle.source_group[path]}", item))
    return found
