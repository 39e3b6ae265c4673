"""Features read from disk during training: the same values as from memory; damage is named, never trained on."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from violence_detection.errors import UserError
from violence_detection.features.cache import FeatureStore
from violence_detection.features.stored_features import StoredFeatures
from violence_detection.training import training_data
from violence_detection.training.training_data import Samples

CLIPS, VARIANTS = [f"c{i}" for i in range(9)], ("v0", "v1", "v2")


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    store = FeatureStore(tmp_path)
    rng = np.random.default_rng(0)
    for clip_id in CLIPS:
        store.add(clip_id, {v: rng.normal(size=(4, 5)) for v in VARIANTS}, "test")
    return store


def _samples(store: FeatureStore, in_memory: bool) -> Samples:
    labels = ["fight" if i % 2 else "nonfight" for i in range(len(CLIPS))]
    return training_data.load(
        {"a": store}, pd.DataFrame({"clip_id": CLIPS, "label": labels}), VARIANTS, in_memory
    )


def test_from_disk_and_from_memory_give_the_same_batches(store: FeatureStore) -> None:
    disk, memory = (_samples(store, m) for m in (False, True))
    assert isinstance(disk.inputs["a"], StoredFeatures)
    assert isinstance(memory.inputs["a"], np.ndarray)
    for epoch in range(4):
        for (x, y), (p, q) in zip(disk.batches(4, 7, epoch), memory.batches(4, 7, epoch), strict=True):
            np.testing.assert_array_equal(x["a"], p["a"])
            np.testing.assert_array_equal(y, q)
    np.testing.assert_array_equal(disk.plain()["a"], memory.plain()["a"])
    in_order = np.concatenate([x["a"] for x in disk.plain_batches(4)])
    np.testing.assert_array_equal(in_order, memory.plain()["a"])


@pytest.mark.parametrize("advice", [True, False])
def test_batches_of_more_than_is_asked_for_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, advice: bool
) -> None:
    """150 clips take three rounds, both of requests to the kernel and of reading into memory, each of at most 64."""

    def refuse(*_: int) -> None:
        raise OSError(errno.ENOSYS, "no advice on this file system")

    if not advice:
        monkeypatch.setattr(os, "posix_fadvise", refuse)
    store, rng = FeatureStore(tmp_path), np.random.default_rng(0)
    ids = [f"c{i}" for i in range(150)]
    values = rng.normal(size=(150, 2, 3, 4)).astype(np.float16)
    for clip_id, (first, second) in zip(ids, values, strict=True):
        store.add(clip_id, {"v0": first, "v1": second}, "test")
    rows = pd.DataFrame({"clip_id": ids, "label": ["fight", "nonfight"] * 75})
    disk, memory = (training_data.load({"a": store}, rows, ("v0", "v1"), m) for m in (False, True))
    np.testing.assert_array_equal(memory.inputs["a"], values)
    open_files = Path("/proc/self/fd")
    before = len(list(open_files.iterdir())) if open_files.is_dir() else 0
    for _ in range(2):  # the second time, all positions within the entries are known
        (whole,) = disk.plain_batches(150)
        np.testing.assert_array_equal(whole["a"], values[:, 0])
    if before:
        assert len(list(open_files.iterdir())) == before


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("chosen", [np.array([6, 2, 2, 5]), np.arange(9) % 3 == 0])
def test_take_gives_the_chosen_clips_with_all_that_is_theirs(
    store: FeatureStore, in_memory: bool, chosen: np.ndarray
) -> None:
    whole = _samples(store, True)
    part = _samples(store, in_memory).take(chosen)
    indices = np.arange(9)[chosen]
    assert part.rows.clip_id.tolist() == [CLIPS[i] for i in indices]
    np.testing.assert_array_equal(part.labels, whole.labels[indices])
    np.testing.assert_array_equal(part.plain()["a"], whole.plain()["a"][indices])
    assert part.shapes() == whole.shapes()


def _three_epochs(samples: Samples) -> None:
    """Train for three epochs: as many as there are variants, so that each is read."""
    for epoch in range(3):
        list(samples.batches(3, 0, epoch))


def _damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flip":
        for at in range(150, len(content), 60):
            content[at] ^= 1
    if how == "truncate":
        del content[len(content) // 3 :]
    if how == "zero":
        content = bytearray(len(content))
    path.write_bytes(content)
    if how == "delete":
        path.unlink()


DAMAGES = ("flip", "truncate", "delete", "zero")


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_met_while_training_names_the_entry(store: FeatureStore, how: str) -> None:
    samples = _samples(store, False)
    _three_epochs(samples)  # so that the positions within all entries are known
    _damage(store.path("c4"), how)
    with pytest.raises(UserError, match=r"c4\.npz.*Run the same command again"):
        _three_epochs(samples)


def test_damaged_entries_are_made_again_once_each_while_training(store: FeatureStore) -> None:
    before, entries = _samples(store, True).plain()["a"], {c: store.path(c).read_bytes() for c in CLIPS}
    made: list[str] = []

    def reextract(clip_id: str) -> None:
        made.append(clip_id)
        store.path(clip_id).write_bytes(entries[clip_id])

    samples = _samples(FeatureStore(store.folder, reextract), False)
    _three_epochs(samples)
    for clip_id, how in zip(("c1", "c2", "c5", "c8"), DAMAGES, strict=True):
        _damage(store.path(clip_id), how)
    np.testing.assert_array_equal(samples.plain()["a"], before)
    _three_epochs(samples)
    assert sorted(made) == ["c1", "c2", "c5", "c8"]


def test_an_entry_that_grows_while_it_is_trained_on_gives_the_same_values(store: FeatureStore) -> None:
    samples = _samples(store, False)
    before = samples.plain()["a"]
    stop = threading.Event()

    def add_views() -> None:
        for i in range(200):
            store.add(CLIPS[i % 9], {f"a{i}": np.zeros((4, 5))}, "test")  # sorts before v0: all offsets move
            if stop.is_set():
                return

    writer = threading.Thread(target=add_views)
    writer.start()
    try:
        for _ in range(20):
            np.testing.assert_array_equal(samples.plain()["a"], before)
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_entry_with_a_value_that_is_no_number_is_named_and_not_trained_on(
    store: FeatureStore, in_memory: bool
) -> None:
    values = {v: store.read("c3", [v])[0] for v in VARIANTS}
    values["v2"][1, 1] = np.nan
    with store.path("c3").open("wb") as f:
        np.savez(f, **values)
    with pytest.raises(
        UserError, match=r"c3\.npz contains features that are not finite .* in v2\. Remove the file"
    ):
        _all_variants(_samples(store, in_memory))


def _all_variants(samples: Samples) -> None:
    for epoch in range(len(VARIANTS)):
        for x, _ in samples.batches(len(CLIPS), 7, epoch):
            assert np.isfinite(x["a"]).all()
