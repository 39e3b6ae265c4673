"""Footage more alike than different sources are: planted sources are found, clean sets raise no alarm."""

from __future__ import annotations

import made_up_footage
import numpy as np
import pandas as pd
import pytest

from violence_detection.evaluation.audits import footage


def compared(rows: pd.DataFrame, values: np.ndarray) -> footage.Lookalikes:
    val = (rows.split == "val").to_numpy()
    return footage.compare(rows[val], values[val], rows[~val], values[~val])


@pytest.mark.parametrize("seed", range(10))
def test_a_clean_set_raises_no_alarm(seed: int) -> None:
    rows, values = made_up_footage.world(seed)
    found = compared(rows, values)
    assert len(found.clips) == (rows.split == "val").sum()
    assert len(found.sources) > 10
    assert not found.clips.beyond.any()
    assert not found.sources.beyond.any()


@pytest.mark.parametrize("seed", range(3))
def test_a_source_under_two_names_is_found_and_no_other(seed: int) -> None:
    rows, values = made_up_footage.world(seed)
    sizes = rows[rows.split == "val"].source_group.value_counts()
    shared = sizes.index[sizes >= 8][:3]
    for name in shared:
        half = rows.index[rows.source_group == name][::2]
        rows.loc[half, ["split", "source_group"]] = "train", f"{name} under another name"
    found = compared(rows, values).sources
    beyond = found[found.beyond].set_index("source_group").like
    assert beyond.to_dict() == {name: f"{name} under another name" for name in shared}


def test_a_copy_is_beyond_the_limit_and_its_original_is_named() -> None:
    rows, values = made_up_footage.world(0)
    val = rows.index[rows.split == "val"][::20]
    noise = np.random.default_rng(1).normal(0, 0.1, (len(val), values.shape[1])).astype(np.float32)
    copies = rows.loc[val].assign(
        split="train",
        source_group=[f"elsewhere{i}" for i in range(len(val))],
        clip_id=rows.clip_id[val] + "copy",
    )
    found = compared(
        pd.concat([rows, copies], ignore_index=True), np.concatenate([values, values[val] + noise])
    )
    beyond = found.clips[found.clips.beyond].set_index("clip_id").neighbour
    originals = rows.clip_id[val].tolist()
    assert beyond[originals].to_dict() == {clip: f"{clip}copy" for clip in originals}
    # other clips beyond the limit are of the same sources, whose places the copies show too
    others = rows.set_index("clip_id").source_group[beyond.index]
    assert set(others) == set(rows.source_group[val])


def test_a_data_set_without_enough_of_its_own_is_held_against_all() -> None:
    rows, values = made_up_footage.world(0)
    rows = rows.assign(dataset=np.where(rows.split == "val", "mine", rows.dataset))
    stick = compared(rows, values).yardsticks["mine"]
    assert stick.of == "all data sets"
    assert stick.measured == (rows.split == "train").sum()


def test_clips_of_the_same_name_of_source_are_not_compared() -> None:
    rows, values = made_up_footage.world(0)
    name = rows.source_group[rows.split == "val"].iloc[0]
    rows.loc[rows.index[rows.source_group == name][:1], "split"] = "train"
    found = compared(rows, values).clips.merge(rows[["clip_id", "source_group"]])
    assert (found.neighbour_source != found.source_group).all()


def test_too_few_training_clips_or_sources_are_said() -> None:
    rows, values = made_up_footage.world(0, sources=12)
    assert "50 from 10 are needed" in footage.enough(rows.head(20))
    assert footage.enough(made_up_footage.world(0)[0]) == ""
    with pytest.raises(ValueError, match="50 from 10 are needed"):
        footage.compare(rows, values, rows.head(5), values[:5])


def test_many_sources_are_sampled_whole() -> None:
    groups = np.repeat([f"s{i}" for i in range(50)], 10)
    drawn = footage._whole_sources(groups, 205)
    names, counts = np.unique(groups[drawn], return_counts=True)
    assert len(names) == 20
    assert set(counts) == {10}


def test_a_source_too_large_for_the_sample_does_not_keep_the_others_out() -> None:
    groups = np.array([f"huge{i}" for i in range(20)] * 150 + [f"s{i}" for i in range(50)] * 4)
    drawn = footage._whole_sources(groups, 100)
    assert len(drawn) == 100
    assert not [g for g in groups[drawn] if g.startswith("huge")]


def test_whitening_is_the_same_whether_clips_or_channels_are_more() -> None:
    rng = np.random.default_rng(0)
    few = (rng.normal(size=(40, 30)) * np.linspace(3, 0.1, 30)).astype(np.float32)
    many = np.concatenate([few, np.zeros((40, 60), np.float32)], axis=1)  # channels that are always 0
    one, other = (y @ y.T for y in (footage.whitened(few), footage.whitened(many)))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_descriptors_as_long_as_pictures_fit_into_memory() -> None:
    made = footage.whitened(np.random.default_rng(0).random((20, 176 * 176 * 3), np.float32))
    assert made.shape == (20, 2)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1, rtol=1e-5)
